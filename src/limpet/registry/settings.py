"""Which files say what about registries, and all of it put together.

1. `LIMPET_REGISTRIES` (`--registries-conf`): that file only.
2. `$XDG_CONFIG_HOME/limpet/registries.toml` (a user's) over `/etc/limpet/registries.toml`: a user's table for a
   registry takes the place of the system's, aliases are put together, a user's `search` counts; policies of both hold.
3. Where neither exists, Podman's: `$CONTAINERS_REGISTRIES_CONF`, or `$XDG_CONFIG_HOME/containers/registries.conf`, or
   `/etc/containers/registries.conf`; then what is in `registries.conf.d` of both directories, later over earlier.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.registry import ownconf, podmanconf, tomltable
from limpet.registry.registries import Registries

if TYPE_CHECKING:
    from collections.abc import Iterable

SYSTEM = "/etc/limpet/registries.toml"
PODMAN = "/etc/containers"


def load() -> Registries:
    """What is set for this user. Raises Invalid, with file, line and key."""
    chosen = os.environ.get("LIMPET_REGISTRIES")
    if chosen:
        only = _parsed(chosen)
        if only is None:
            raise Invalid(f"{chosen}: No such file", "LIMPET_REGISTRIES or --registries-conf names it")
        return only
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = [_parsed(SYSTEM), _parsed(f"{config}/limpet/registries.toml")]
    if any(own):
        return _together(own)
    return _podmans(f"{config}/containers")


def _parsed(file: str) -> Registries | None:
    top = tomltable.read(file)
    if top is None:
        return None
    return podmanconf.parse(top) if podmanconf.is_podmans(top) else ownconf.parse(top)


def _podmans(user: str) -> Registries:
    chosen = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    mains = [chosen] if chosen else [f"{user}/registries.conf", f"{PODMAN}/registries.conf"]
    read = [next((found for found in map(_podmans_one, mains) if found is not None), None)]
    for directory in (f"{PODMAN}/registries.conf.d", f"{user}/registries.conf.d"):
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        read += [_podmans_one(f"{directory}/{name}") for name in names if name.endswith(".conf")]
    return _together(read)


def _podmans_one(file: str) -> Registries | None:
    top = tomltable.read(file)
    return podmanconf.parse(top) if top is not None else None


def _together(read: Iterable[Registries | None]) -> Registries:
    """Later files over earlier ones."""
    whole = Registries()
    for one in read:
        if one is None:
            continue
        names = {(rule.domain, rule.path) for rule in one.rules}
        kept = tuple(rule for rule in whole.rules if (rule.domain, rule.path) not in names)
        whole = Registries(
            kept + one.rules,
            {**(whole.aliases or {}), **(one.aliases or {})},
            one.search if one.search_source else whole.search,
            one.search_source or whole.search_source,
            whole.requirements + one.requirements,
            whole.files + one.files,
        )
    return whole
