"""What is set about registries: short names, mirrors, blocks, TLS, what a pull must have. From files by `load`.

Without any file, what Docker does: names without a registry are Docker Hub's, TLS for all but this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Place:
    """A registry, or a part of one. None: not set here."""

    domain: str
    path: str = ""
    plain_http: bool | None = None
    insecure: bool | None = None


@dataclass(frozen=True)
class Mirror:
    """`pull`: "all", or only references by "digest" or by "tag"."""

    place: Place
    pull: str = "all"


@dataclass(frozen=True)
class Rule:
    """For a registry (`registry.example:5000`, `*.example`) or a part of one (`registry.example/team`).

    `place`: where it really is, None for itself. `source`: FILE:LINE. `plain_http`: no TLS; `insecure`: any
    certificate, or no TLS.
    """

    domain: str
    path: str = ""
    source: str = ""
    place: Place | None = None
    mirrors: tuple[Mirror, ...] = ()
    blocked: bool = False
    plain_http: bool | None = None
    insecure: bool | None = None
    ca: str = ""
    certificate: str = ""
    key: str = ""

    def fits(self, domain: str, repository: str) -> int:
        """How exactly it names the repository; -1 if it does not."""
        if self.domain.startswith("*."):
            if not domain.endswith(self.domain[1:]) or len(domain) == len(self.domain) - 1:
                return -1
            return len(self.domain)
        if domain != self.domain or (self.path and not f"{repository}/".startswith(f"{self.path}/")):
            return -1
        return 1000 + len(self.path)  # a name before any pattern

    def rest(self, domain: str, repository: str) -> str:
        """The repository's path below the part that this rule names."""
        return repository[len(self.path) :].lstrip("/")


@dataclass(frozen=True)
class Requirement:
    """What a pull of matching references must have: `require` is digest, signature or nothing.

    `match`: as a Rule's key, or `*` for all. `source`: FILE:LINE. `group`: the file; the best match of each must hold.
    """

    match: str
    require: str
    source: str
    group: str


@dataclass(frozen=True)
class Registries:
    """`search`: registries for names without one, in order, empty for Docker Hub. `aliases`: short name → (full name,
    FILE:LINE). `files`: what all this was read from."""

    rules: tuple[Rule, ...] = ()
    aliases: Mapping[str, tuple[str, str]] | None = None
    search: tuple[str, ...] = ()
    search_source: str = ""
    requirements: tuple[Requirement, ...] = ()
    files: tuple[str, ...] = ()

    def rule(self, domain: str, repository: str) -> Rule | None:
        """The one that names the repository most exactly."""
        best = max(self.rules, key=lambda rule: rule.fits(domain, repository), default=None)
        return best if best is not None and best.fits(domain, repository) >= 0 else None
