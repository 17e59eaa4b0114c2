"""From the name of a repository to the hosts that have it: mirrors in their order, and the registry itself last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Refused
from limpet.registry import certificates
from limpet.registry.certificates import Tls
from limpet.registry.credentials import DOCKER_HUB
from limpet.registry.proxies import is_loopback

if TYPE_CHECKING:
    from limpet.registry.registries import Place, Registries

_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True)
class Endpoint:
    """`domain` is its name for people and logins, `netloc` what is connected to; `schemes` in the order to try.

    `tls` None: what certs.d says.
    """

    domain: str
    netloc: str
    schemes: tuple[str, ...]
    tls: Tls | None = None


@dataclass(frozen=True)
class Target:
    """A host and the repository's name there. `mirror_of` is "" for the registry itself."""

    endpoint: Endpoint
    repository: str
    mirror_of: str = ""


def targets(settings: Registries, domain: str, repository: str, *, mirrors: bool, by_digest: bool) -> list[Target]:
    """Where to ask, in order. Raises Refused for what is blocked."""
    rule = settings.rule(domain, repository)
    if rule is not None and rule.blocked:
        raise Refused(f"{domain}/{repository}".rstrip("/") + " is blocked", f"{rule.source} says so")
    found = []
    if rule is not None and mirrors:
        found = [
            _target(settings, mirror.place, rule.rest(domain, repository), domain)
            for mirror in rule.mirrors
            if mirror.pull == "all" or (mirror.pull == "digest") == by_digest
        ]
    if rule is not None and rule.place is not None:
        found.append(_target(settings, rule.place, rule.rest(domain, repository), ""))
    else:
        found.append(Target(_endpoint(settings, domain, repository, None), repository))
    return found


def _target(settings: Registries, place: Place, rest: str, mirror_of: str) -> Target:
    repository = "/".join(part for part in (place.path, rest) if part)
    return Target(_endpoint(settings, place.domain, repository, place), repository, mirror_of)


def _endpoint(settings: Registries, domain: str, repository: str, place: Place | None) -> Endpoint:
    """What is set at the place itself (a mirror, a location) counts before what is set for the registry there."""
    netloc = _HUB_HOST if domain == DOCKER_HUB else domain
    rule = settings.rule(domain, repository)
    plain_http = place.plain_http if place is not None else None
    insecure = place.insecure if place is not None else None
    tls: Tls | None = None
    if rule is not None:
        plain_http = rule.plain_http if plain_http is None else plain_http
        insecure = rule.insecure if insecure is None else insecure
        if rule.ca or rule.certificate:
            tls = Tls((rule.ca,) if rule.ca else (), rule.certificate, rule.key)
    if plain_http:
        return Endpoint(domain, netloc, ("http",))
    if insecure:
        found = tls or certificates.find(netloc.lower()) or Tls()
        unverified = Tls(found.authorities, found.certificate, found.key, verify=False)
        return Endpoint(domain, netloc, ("https", "http"), unverified)
    if is_loopback(domain) and plain_http is None and tls is None:
        return Endpoint(domain, netloc, ("http", "https"))
    return Endpoint(domain, netloc, ("https",), tls)
