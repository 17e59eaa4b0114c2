"""limpet's own `registries.toml`. docs/registries.md has all of its keys; `podmanconf` reads Podman's file.

search = ["docker.io", "registry.example"]
[aliases]
web = "registry.example/team/web"
[registry."docker.io"]
mirrors = ["mirror.example/hub", {location = "localhost:5000", pull = "digest"}]
[registry."registry.example/old"]
blocked = true
[[policy]]
match = "registry.example/prod"
require = "digest"
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.oci import reference
from limpet.registry.credentials import DOCKER_HUB
from limpet.registry.registries import Mirror, Place, Registries, Requirement, Rule

if TYPE_CHECKING:
    from limpet.registry.tomltable import Table

TOP = ("search", "aliases", "registry", "policy")
REGISTRY = ("location", "mirrors", "blocked", "plain-http", "insecure", "ca", "cert", "key")
MIRROR = ("location", "pull", "plain-http", "insecure")
POLICY = ("match", "require")
PULLS = ("all", "digest", "tag")
REQUIREMENTS = ("digest", "signature", "nothing")

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
_NAME = re.compile(rf"(\*\.)?({_HOST})((?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)")


def parse(top: Table) -> Registries:
    """Raises Invalid, with file, line and key."""
    top.check(TOP)
    registries = top.table("registry")
    policies = top.tables("policy")
    return Registries(
        tuple(_rule(registries, name) for name in registries),
        aliases(top.table("aliases")),
        tuple(searched(top, "search", name) for name in top.strings("search")),
        top.at("search") if "search" in top else "",
        tuple(_requirement(policy) for policy in policies),
        (top.file,),
    )


def aliases(table: Table) -> dict[str, tuple[str, str]]:
    """Short name → (full name, FILE:LINE)."""
    found = {}
    for short in table:
        full = table.string(short)
        place_of(table, short, full)
        if _NAME.fullmatch(f"x.example/{short}") is None or "." in short.partition("/")[0]:
            raise table.wrong(short, "a short name has no registry, no tag and no digest in it")
        parsed = reference.parse(full)
        if not full.startswith((f"{parsed.domain}/", "index.docker.io/")):
            raise table.wrong(short, f"{full[:200]!r} is not the full name of a repository", "write HOST/PATH")
        found[short] = (parsed.repository, table.at(short))
    return found


def searched(table: Table, key: str, name: str) -> str:
    """A registry to look for short names in."""
    place = place_of(table, key, name)
    return f"{place.domain}/{place.path}".rstrip("/")


def place_of(table: Table, key: str, text: str) -> Place:
    """A registry or a part of one: `host[:port][/path]`."""
    match = _NAME.fullmatch(text)
    if match is None or match[1]:
        raise table.wrong(
            key, f"{text[:200]!r} is not a registry", "write HOST, HOST:PORT or HOST/PATH, without https://"
        )
    domain = DOCKER_HUB if match[2] == "index.docker.io" and not match[3] else match[2]
    return Place(domain, match[3].strip("/"))


def _rule(registries: Table, name: str) -> Rule:
    table = registries.table(name)
    match = _NAME.fullmatch(name)
    if match is None or (match[1] and match[3]):
        raise registries.wrong(name, "not a registry", "write HOST, HOST:PORT, HOST/PATH or *.DOMAIN, without https://")
    _check_quotes(table, name)
    table.check(REGISTRY)
    location = table.string("location")
    certificate, key = table.string("cert"), table.string("key")
    if key and not certificate:
        raise table.wrong("key", "a key without its cert")
    plain_http, insecure = table.flag("plain-http"), table.flag("insecure")
    for path in ("ca", "cert", "key"):
        if plain_http and table.string(path):
            raise table.wrong(path, "there is no TLS with plain-http")
    if location and match[1]:
        raise table.wrong("location", "not for a pattern: it would be one place for many registries")
    mirrors = []
    for mirror in table.tables("mirrors"):
        mirror.check(MIRROR)
        where = place_of(mirror, "location", mirror.string("location"))
        place = Place(where.domain, where.path, mirror.flag("plain-http"), mirror.flag("insecure"))
        mirrors.append(Mirror(place, mirror.choice("pull", PULLS)))
    return Rule(
        domain=(match[1] or "") + match[2],
        path=match[3].strip("/"),
        source=registries.at(name),
        place=place_of(table, "location", location) if location else None,
        mirrors=tuple(mirrors),
        blocked=bool(table.flag("blocked")),
        plain_http=plain_http,
        insecure=insecure,
        ca=_path(table, "ca"),
        certificate=_path(table, "cert"),
        key=_path(table, "key"),
    )


def _check_quotes(table: Table, name: str) -> None:
    """`[registry.x.example]` is a table `example` in a table `x`: TOML takes a name with dots for several."""
    inner = next((key for key in table if key not in REGISTRY and table.is_table(key)), "")
    if not inner:
        return
    at, parts = table.at(inner), [name]
    while inner:
        parts.append(inner)
        table = table.table(inner)
        inner = next((key for key in table if key not in REGISTRY and table.is_table(key)), "")
    whole = ".".join(parts)
    raise Invalid(f"{at}: registry.{whole}: a name with dots is written in quotes", f'write [registry."{whole}"]')


def _requirement(table: Table) -> Requirement:
    table.check(POLICY)
    match = table.string("match")
    if match != "*" and _NAME.fullmatch(match) is None:
        raise table.wrong(
            "match", f"{match[:200]!r} is not a registry", "write HOST, HOST/PATH, *.DOMAIN, or * for all"
        )
    if "require" not in table:
        raise Invalid(f"{table.at()}: policy.require is missing", f"there are: {', '.join(REQUIREMENTS)}")
    return Requirement(match, table.choice("require", REQUIREMENTS), table.at(), table.file)


def _path(table: Table, key: str) -> str:
    """Relative to the file's own directory."""
    path = table.string(key)
    return os.path.join(os.path.dirname(os.path.abspath(table.file)), path) if path else ""
