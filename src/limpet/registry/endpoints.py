"""From the name of a repository to the hosts that have it: mirrors in their order, and the registry itself last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Refused
from limpet.registry import certificates
from limpet.registry.certificates import Tls
from limpet.registry.credentials import DOCKER_HUB
from limpet.registry.proxies import is_loopback
from limpet.registry.registries import Rule

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
        found.append(_target(settings, rule.place, rule.rest(domain, repository), "", rule))
    else:
        found.append(Target(_endpoint(settings, domain, repository, [rule]), repository))
    return found


def _target(settings: Registries, place: Place, rest: str, mirror_of: str, rule: Rule | None = None) -> Target:
    repository = "/".join(part for part in (place.path, rest) if part)
    return Target(_endpoint(settings, place.domain, repository, [place, rule]), repository, mirror_of)


def _endpoint(settings: Registries, domain: str, repository: str, said: list[Place | Rule | None]) -> Endpoint:
    """What is set at the place itself (a mirror, a location) counts before what is set for the registry there."""
    netloc = _HUB_HOST if domain == DOCKER_HUB else domain
    ways = [one for one in [*said, settings.rule(domain, repository)] if one is not None]
    plain_http = next((one.plain_http for one in ways if one.plain_http is not None), None)
    insecure = next((one.insecure for one in ways if one.insecure is not None), None)
    tls: Tls | None = None
    for rule in ways:
        if isinstance(rule, Rule) and (rule.ca or rule.certificate):
            tls = Tls((rule.ca,) if rule.ca else (), rule.certificate, rule.key)
            break
    if plain_http:
        return Endpoint(domain, netloc, ("http",))
    if insecure:
        found = tls or certificates.find(netloc.lower()) or Tls()
        unverified = Tls(found.authorities, found.certificate, found.key, verify=False)
        return Endpoint(domain, netloc, ("https", "http"), unverified)
    if is_loopback(domain) and plain_http is None and tls is None:
        return Endpoint(domain, netloc, ("http", "https"))
    return Endpoint(domain, netloc, ("https",), tls)
