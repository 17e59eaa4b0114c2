"""Podman's `registries.conf`, version 2 (containers-registries.conf(5)), as limpet's own settings.

Keys that are not known here are Podman's own business and are passed over. `short-name-mode` is: the names are tried in
their order, and the full name is always shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from limpet.registry import ownconf
from limpet.registry.registries import Mirror, Place, Registries, Rule

if TYPE_CHECKING:
    from limpet.registry.tomltable import Table

SEARCH = "unqualified-search-registries"
_PULLS = {"all": "all", "digest-only": "digest", "tag-only": "tag"}
_VERSION_1 = ("search", "insecure", "block")


def is_podmans(top: Table) -> bool:
    """Whether a file is of Podman's form rather than of limpet's."""
    return SEARCH in top or top.is_array("registry") or "registries" in top


def parse(top: Table) -> Registries:
    """Raises Invalid, with file, line and key."""
    if "registries" in top and any(name in top.table("registries") for name in _VERSION_1):
        raise top.wrong("registries", "the form of version 1 is not read", "write [[registry]], or a registries.toml")
    aliases = top.table("aliases")
    return Registries(
        tuple(_rule(table) for table in top.tables("registry")),
        # An empty value takes an alias of an earlier file away.
        {name: ("", "") for name in aliases if aliases.string(name) == ""}
        | ownconf.aliases(aliases.only([name for name in aliases if aliases.string(name)])),
        tuple(ownconf.searched(top, SEARCH, name) for name in top.strings(SEARCH)),
        top.at(SEARCH) if SEARCH in top else "",
        (),
        (top.file,),
    )


def _rule(table: Table) -> Rule:
    location, prefix = table.string("location"), table.string("prefix")
    if not location and not prefix:
        raise table.wrong("location", "neither a location nor a prefix")
    name = prefix or location
    pattern = re.fullmatch(r"\*\.[A-Za-z0-9.-]+", name) is not None
    where = Place(name) if pattern else ownconf.place_of(table, "prefix" if prefix else "location", name)
    digest_only = bool(table.flag("mirror-by-digest-only"))
    mirrors = []
    for mirror in table.tables("mirror"):
        place = ownconf.place_of(mirror, "location", mirror.string("location"))
        pull = _PULLS[mirror.choice("pull-from-mirror", tuple(_PULLS))]
        insecure = mirror.flag("insecure")
        mirrors.append(Mirror(Place(place.domain, place.path, None, insecure), "digest" if digest_only else pull))
    insecure = table.flag("insecure")
    elsewhere: Place | None = None
    if location and location != name and not pattern:
        target = ownconf.place_of(table, "location", location)
        elsewhere = Place(target.domain, target.path, None, insecure)
    return Rule(
        domain=where.domain,
        path=where.path,
        source=table.at(),
        place=elsewhere,
        mirrors=tuple(mirrors),
        blocked=bool(table.flag("blocked")),
        insecure=insecure,
    )
