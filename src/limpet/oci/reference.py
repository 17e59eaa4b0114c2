"""References: what people write to name an image, and what is meant (distribution/reference, `reference.go`).

    reference  = name [":" tag] ["@" digest]
    name       = [domain "/"] path
    domain     = host [":" port]           host names, IPv4, [IPv6]
    path       = component *("/" component)
    component  = alphanumeric *(separator alphanumeric)     separator = "_" | "." | "__" | 1*"-"
    tag        = [\\w][\\w.-]{0,127}

The first part is a domain only if it has a dot, a colon or an upper-case letter, or is `localhost`; else the domain is
docker.io, where a single component means `library/`. A name has at most 255 characters without its domain. Written
without `re`, which costs 6 ms on the path of `limpet run`.
"""

from __future__ import annotations

from limpet.errors import Invalid
from limpet.oci import digest as digests

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_PATH, MAX_TAG = 255, 128

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_ALNUM = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = _ALNUM | {"_"}
_HEX = frozenset("0123456789abcdefABCDEF")


class Reference:
    """A normalised reference: `domain` and `path` always, `tag` and `digest` as written ("" if not)."""

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str, digest: str) -> None:
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def repository(self) -> str:
        """docker.io/library/debian"""
        return f"{self.domain}/{self.path}"

    @property
    def canonical(self) -> str:
        """docker.io/library/debian:12; with the digest only where there is no tag."""
        if self.tag:
            return f"{self.repository}:{self.tag}"
        return f"{self.repository}@{self.digest}"

    @property
    def familiar_name(self) -> str:
        """debian for docker.io/library/debian."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        name = self.path.removeprefix("library/")
        return name if "/" not in name else self.path

    @property
    def familiar(self) -> str:
        """debian:12, as people see it."""
        return self.familiar_name + self.canonical[len(self.repository) :]

    def with_tag(self, tag: str) -> Reference:
        return Reference(self.domain, self.path, _tag(tag, tag), "")

    def with_digest(self, digest: str) -> Reference:
        return Reference(self.domain, self.path, "", digests.check(digest))

    def __str__(self) -> str:
        return self.canonical

    def __repr__(self) -> str:
        return f"Reference({self.canonical!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return (self.repository, self.tag, self.digest) == (other.repository, other.tag, other.digest)

    def __hash__(self) -> int:
        return hash((self.repository, self.tag, self.digest))


def parse(text: str) -> Reference:
    """`debian` → docker.io/library/debian:latest. Raises Invalid in Docker's words."""
    if not text:
        raise _invalid(text, "a reference is not empty")
    if len(text) == 64 and frozenset("0123456789abcdef").issuperset(text):
        raise Invalid(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    name, at, digest = text.partition("@")
    if at:
        try:
            digests.check(digest)
        except Invalid:
            raise _invalid(text, "the digest is sha256: and 64 hex digits") from None
    tag = ""
    colon = name.rfind(":")
    if colon > name.rfind("/") and not name.endswith("]"):
        name, tag = name[:colon], _tag(name[colon + 1 :], text)
    domain, path = _split(name)
    if not _is_domain(domain):
        raise _invalid(text, f"{domain!r} is not a registry's host name")
    if len(path) > MAX_PATH:
        raise Invalid(f"invalid reference format: repository name must not be more than {MAX_PATH} characters")
    if path != path.lower() and all(_is_component(part.lower()) for part in path.split("/")):
        raise Invalid(f"invalid reference format: repository name ({path}) must be lowercase")
    for part in path.split("/"):
        if not _is_component(part):
            raise _invalid(text, f"{part!r} is not part of a repository's name" if part else "a part of it is empty")
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(domain, path, tag, digest)


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (any(c in first for c in ".:") or first == "localhost" or first.lower() != first):
        domain, path = first, rest
    else:
        domain, path = DEFAULT_DOMAIN, name
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _tag(tag: str, text: str) -> str:
    if not tag or len(tag) > MAX_TAG or tag[0] not in _WORD or not (_WORD | {".", "-"}).issuperset(tag):
        raise _invalid(text, f"{tag[:140]!r} is not a tag")
    return tag


def _is_domain(domain: str) -> bool:
    host, colon, port = domain.rpartition(":")
    if domain.startswith("["):
        address, bracket, rest = domain[1:].partition("]")
        if not bracket or not address or not (_HEX | {":"}).issuperset(address):
            return False
        return not rest or (rest[0] == ":" and rest[1:].isascii() and rest[1:].isdigit())
    if not colon:
        host = domain
    elif not (port.isascii() and port.isdigit()):
        return False
    return all(
        part and part[0] in _ALNUM and part[-1] in _ALNUM and (_ALNUM | {"-"}).issuperset(part)
        for part in host.split(".")
    )


def _is_component(part: str) -> bool:
    if not part or part[0] not in _LOWER or part[-1] not in _LOWER:
        return False
    separator = ""
    for char in part:
        if char in _LOWER:
            separator = ""
            continue
        separator += char
        if separator not in (".", "_", "__") and separator.strip("-"):
            return False
    return True


def _invalid(text: str, hint: str) -> Invalid:
    return Invalid(f"invalid reference format: {text[:300]!r}", hint)
