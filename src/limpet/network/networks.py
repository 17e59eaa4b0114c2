"""The networks that there are. A row is the truth; what a network needs in the kernel is made when it is first used.

`host`, `none` and `private` are always there and have no row; `bridge` gets one when somebody first asks for it.
A row's settings: subnets [{subnet, gateway, range}], internal, ipv6, labels, options (what -o said), aux
({name: address}).
"""

from __future__ import annotations

import os
import time

from limpet import jsontext
from limpet.errors import Conflict, Invalid, NotFound
from limpet.store import eventlog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.store.store import Store

BUILT_IN = {"host": "host", "none": "null", "private": "pasta"}
"""Their names, and what Docker would call the driver."""

DEFAULT = "bridge"
"""The network of this name is made when somebody first uses it: Docker has one from the start."""

DRIVERS = ("bridge", "macvlan", "ipvlan", "host", "none")
WITH_ADDRESSES = ("bridge", "macvlan", "ipvlan")

_COLUMNS = "id, name, driver, created, settings"
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")
_HEX = frozenset("0123456789abcdef")

# Option: what may be its value; None for any word. (moby `libnetwork/netlabel`, `drivers/bridge/labels.go`.)
_BRIDGE = "com.docker.network.bridge."
_BOOLEAN = ("true", "false")
OPTIONS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "bridge": {
        "mtu": None,
        f"{_BRIDGE}name": None,
        f"{_BRIDGE}enable_icc": _BOOLEAN,
        f"{_BRIDGE}enable_ip_masquerade": _BOOLEAN,
        f"{_BRIDGE}host_binding_ipv4": None,
        f"{_BRIDGE}gateway_mode_ipv4": ("nat", "routed"),
        f"{_BRIDGE}gateway_mode_ipv6": ("nat", "routed"),
        "com.docker.network.container_iface_prefix": None,
    },
    "macvlan": {"mtu": None, "parent": None, "macvlan_mode": ("bridge", "private", "vepa", "passthru")},
    "ipvlan": {"mtu": None, "parent": None, "ipvlan_mode": ("l2", "l3", "l3s")},
    "host": {},
    "none": {},
}
_OTHER_NAMES = {"com.docker.network.driver.mtu": "mtu", "mode": "macvlan_mode"}


class Network:
    """A row. `created`: Unix seconds. `subnets`: IPv4 and IPv6 ones, {subnet, gateway, range}, "" for none."""

    __slots__ = ("aux", "created", "driver", "id", "internal", "ipv6", "labels", "name", "options", "subnets")

    def __init__(self, id: str, name: str, driver: str, created: float, settings: dict[str, Any]) -> None:
        self.id = id
        self.name = name
        self.driver = driver
        self.created = created
        self.subnets: list[dict[str, str]] = settings.get("subnets", [])
        self.internal: bool = settings.get("internal", False)
        self.ipv6: bool = settings.get("ipv6", False)
        self.labels: dict[str, str] = settings.get("labels", {})
        self.options: dict[str, str] = settings.get("options", {})
        self.aux: dict[str, str] = settings.get("aux", {})

    @property
    def bridge(self) -> str:
        """The interface on the host."""
        return self.options.get(f"{_BRIDGE}name") or f"lp-{self.id[:12]}"

    @property
    def mtu(self) -> int:
        """0: the kernel's default."""
        return int(self.options.get("mtu") or 0)

    def subnet(self, version: int) -> dict[str, str] | None:
        """Its first of that IP version."""
        return next((each for each in self.subnets if (":" in each["subnet"]) == (version == 6)), None)

    def masquerade(self, version: int) -> bool:
        """Whether what leaves the host gets the host's address."""
        return (
            not self.internal
            and self.options.get(f"{_BRIDGE}enable_ip_masquerade") != "false"
            and not self.routed(version)
        )

    def routed(self, version: int) -> bool:
        """Whether others reach its containers by their own addresses."""
        return self.options.get(f"{_BRIDGE}gateway_mode_ipv{version}") == "routed"

    @property
    def talk(self) -> bool:
        """Whether its containers reach each other."""
        return self.options.get(f"{_BRIDGE}enable_icc") != "false"


def create(
    store: Store,
    name: str,
    *,
    driver: str = "bridge",
    subnets: list[dict[str, str]] | None = None,
    internal: bool = False,
    ipv6: bool = False,
    labels: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    aux: dict[str, str] | None = None,
) -> Network:
    """Makes the row. Subnets that nobody chose are chosen so that they collide with nothing of this host's.

    `subnets`: {subnet, gateway, range}, the last two perhaps "". Raises Invalid, and Conflict for what is in use.
    """
    check_name(name)
    if driver not in DRIVERS:
        raise Invalid(f"network driver '{driver}' is not supported", f"{', '.join(DRIVERS)} are", exit_code=1)
    settings: dict[str, Any] = {
        "subnets": [],
        "internal": internal,
        "ipv6": ipv6,
        "labels": labels or {},
        "options": _options(driver, options or {}),
        "aux": aux or {},
    }
    if driver not in WITH_ADDRESSES and (subnets or internal or ipv6):
        raise Invalid(f"a network with the driver {driver} has no addresses of its own", "leave them out", exit_code=1)
    network = Network(os.urandom(32).hex(), name, driver, time.time(), settings)
    from limpet.network import pools

    used = pools.of_host() if driver == "bridge" else []
    with store.db.transaction():
        if store.db.row("SELECT 1 FROM network WHERE name = ?", name):
            raise Conflict(f"network with name {name} already exists", exit_code=1)
        others = all_networks(store)
        if driver in WITH_ADDRESSES:
            _check_bridge(network, others)
            network.subnets = settings["subnets"] = pools.choose(network, subnets or [], others, used)
        store.db.run(
            f"INSERT INTO network ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
            network.id,
            name,
            driver,
            network.created,
            jsontext.dumps(settings),
        )
    eventlog.write(store, "network", "create", network.id, {"name": name, "type": driver})
    return network


def check_name(name: str) -> None:
    """Raises Invalid, Conflict for one that is built in."""
    if name in BUILT_IN or name == "default":
        raise Conflict(f"network with name {name} already exists: it is built in", "choose another name", exit_code=1)
    if not name or len(name) > 253 or name[0] not in _FIRST or not _REST.issuperset(name):
        raise Invalid(
            f"invalid network name '{name}'",
            "it needs a-z A-Z 0-9 _ . - and begins with a letter or digit",
            exit_code=1,
        )


def _options(driver: str, said: dict[str, str]) -> dict[str, str]:
    known = OPTIONS[driver]
    found: dict[str, str] = {}
    for key, value in said.items():
        name = _OTHER_NAMES.get(key, key)
        if name not in known:
            from limpet.nearest import nearest

            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"the driver has {', '.join(known) or 'none'}"
            raise Invalid(f"-o {key}: the driver {driver} has no such option", hint, exit_code=1)
        words = known[name]
        if words is not None and value not in words:
            raise Invalid(f"-o {key}={value}: it is one of {', '.join(words)}", exit_code=1)
        if name == "mtu" and not (value.isascii() and value.isdecimal() and 68 <= int(value) <= 65535):
            raise Invalid(f"-o {key}={value}: an MTU is a number of bytes from 68 to 65535", exit_code=1)
        if name in (f"{_BRIDGE}name", "parent") and not _is_interface(value):
            raise Invalid(f"-o {key}={value}: that can't be the name of an interface", exit_code=1)
        if name == "com.docker.network.container_iface_prefix" and not (_is_interface(value) and len(value) <= 12):
            raise Invalid(f"-o {key}={value}: that can't be the beginning of an interface's name", exit_code=1)
        found[name] = value
    return found


def _is_interface(text: str) -> bool:
    return 0 < len(text) < 16 and text not in (".", "..") and not any(c in "/:% \t\n" or ord(c) < 33 for c in text)


def _check_bridge(network: Network, others: list[Network]) -> None:
    name = network.bridge
    for other in others:
        if other.driver == network.driver == "bridge" and other.bridge == name:
            raise Conflict(f"interface {name} is network {other.name}'s", "choose another name", exit_code=1)
    if network.driver == "bridge" and f"{_BRIDGE}name" in network.options and _is_there(name):
        raise Conflict(f"interface {name} is there already", "choose another name for the network's", exit_code=1)


def _is_there(interface: str) -> bool:
    import socket

    try:
        return socket.if_nametoindex(interface) > 0
    except OSError:
        return False


def built_in_id(name: str) -> str:
    """One that is always the same: clients want ids, and there is nothing to have one."""
    import hashlib

    return hashlib.sha256(f"limpet network {name}".encode()).hexdigest()


def lookup(store: Store, name: str) -> Network | None:
    """By its whole name or id."""
    row = store.db.row(f"SELECT {_COLUMNS} FROM network WHERE id = ?1 OR name = ?1 ORDER BY name != ?1 LIMIT 1", name)
    return None if row is None else _network(row)


def find(store: Store, text: str) -> Network:
    """By name, id or the beginning of an id. Raises NotFound, Conflict."""
    found = lookup(store, text)
    if found is None and text and _HEX.issuperset(text):
        rows = store.db.rows(f"SELECT {_COLUMNS} FROM network WHERE id >= ? AND id < ? LIMIT 2", text, f"{text}g")
        if len(rows) > 1:
            raise Conflict(f"'{text}' is the beginning of several network ids", "give more digits", exit_code=1)
        found = _network(rows[0]) if rows else None
    if found is None:
        from limpet.nearest import nearest

        near = nearest(text, [network.name for network in all_networks(store)])
        hint = f"did you mean {near}?" if near else f"limpet network create {text}"
        raise NotFound(f"network {text} not found", hint, exit_code=1)
    return found


def use(store: Store, text: str) -> Network:
    """As `find`; the network `bridge` is made if it is not there yet."""
    if text == DEFAULT and lookup(store, DEFAULT) is None:
        try:
            return create(store, DEFAULT)
        except Conflict:  # somebody else did, just now
            pass
    return find(store, text)


def all_networks(store: Store) -> list[Network]:
    """By name, without the built-in ones."""
    return [_network(row) for row in store.db.rows(f"SELECT {_COLUMNS} FROM network ORDER BY name")]


def remove(store: Store, network: Network) -> None:
    """Takes the row away; `upkeep` has to take the rest. Raises Conflict while containers are on it, NotFound."""
    with store.db.transaction():
        users = store.db.rows(
            "SELECT c.name FROM endpoint JOIN container c ON c.id = container_id WHERE network_id = ? ORDER BY 1",
            network.id,
        )
        if users:
            names = ", ".join(name for (name,) in users[:5]) + (", …" if len(users) > 5 else "")
            raise Conflict(
                f"network {network.name} is in use by {names}",
                f"limpet network disconnect {network.name} {users[0][0]}, or remove the containers",
                exit_code=1,
            )
        if not store.db.run("DELETE FROM network WHERE id = ?", network.id):
            raise NotFound(f"network {network.name} not found", exit_code=1)
    eventlog.write(store, "network", "destroy", network.id, {"name": network.name, "type": network.driver})


def _network(row: Any) -> Network:
    id, name, driver, created, settings = row
    return Network(id, name, driver, created, jsontext.loads(settings))
