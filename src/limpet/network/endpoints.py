"""Containers' places on networks: rows, and the addresses that they have for as long as the container is there.

An address is chosen when the container is made or connected, within the same transaction: two never get the same one,
and a container keeps its own over restarts. A row's settings: mac, aliases, ports, mode options of the endpoint.
"""

from __future__ import annotations

import ipaddress
import os

from limpet import jsontext
from limpet.errors import Conflict, Invalid, LimpetError
from limpet.network import networks, pools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.network.networks import Network
    from limpet.store.store import Store

_COLUMNS = "id, network_id, container_id, position, address, address6, settings"


class Wish:
    """What the user says of one network: `NAME[:ip=…,ip6=…,mac=…,alias=…]`. "" and [] for what he leaves open."""

    __slots__ = ("aliases", "ip", "ip6", "mac", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ip = ""
        self.ip6 = ""
        self.mac = ""
        self.aliases: list[str] = []


class Endpoint:
    """A row. `address` and `address6`: "" without one; `position`: 0 is eth0."""

    __slots__ = (
        "address",
        "address6",
        "aliases",
        "container_id",
        "id",
        "mac",
        "network_id",
        "own",
        "ports",
        "position",
    )

    def __init__(
        self,
        id: str,
        network_id: str,
        container_id: str,
        position: int,
        address: str | None,
        address6: str | None,
        settings: dict[str, Any],
    ) -> None:
        self.id = id
        self.network_id = network_id
        self.container_id = container_id
        self.position = position
        self.address = address or ""
        self.address6 = address6 or ""
        self.mac: str = settings.get("mac", "")
        self.aliases: list[str] = settings.get("aliases", [])
        self.own: list[str] = settings.get("own", [])  # its host name, and that with its domain
        self.ports: list[list[Any]] = settings.get("ports", [])  # [host address, host port, port, protocol]

    @property
    def interface(self) -> str:
        """On the host: the other end of the container's."""
        return f"lv-{self.id[:12]}"


def parse(text: str) -> Wish:
    """Podman's form, and Docker's (`name=NET,ip=…,alias=…`). Raises Invalid."""
    if text.startswith("name="):
        name, _, rest = text.removeprefix("name=").partition(",")
    else:
        name, _, rest = text.partition(":")
    wish = Wish(name)
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise Invalid(f"--network '{text}': '{part}' is not KEY=VALUE")
        if key in ("ip", "ip6", "mac", "mac-address"):
            field = key.removesuffix("-address")
            if key == "ip" and ":" in value:
                field = "ip6"
            if getattr(wish, field):
                raise Invalid(f"--network '{text}': {key} is there twice")
            setattr(wish, field, value)
        elif key == "alias":
            wish.aliases.append(value)
        else:
            raise Invalid(f"--network '{text}': no such key '{key}'", "ip, ip6, mac and alias are")
    return check(wish)


def check(wish: Wish) -> Wish:
    """Whether each part has its form. Raises Invalid."""
    for version, address in ((4, wish.ip), (6, wish.ip6)):
        try:
            good = not address or ipaddress.ip_address(address).version == version
        except ValueError:
            good = False
        if not good:
            raise Invalid(f"network {wish.name}: '{address}' is not an IPv{version} address")
    if wish.mac:
        parts = wish.mac.replace("-", ":").lower().split(":")
        if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
            raise Invalid(f"network {wish.name}: '{wish.mac}' is not a MAC address", "write it like 02:42:ac:11:00:02")
        if int(parts[0], 16) & 1:
            raise Invalid(f"network {wish.name}: {wish.mac} is a MAC address of a group, not of one interface")
        wish.mac = ":".join(parts)
    for alias in wish.aliases:
        if len(alias) > 253 or not alias or any(c in "#/:" or c.isspace() or not c.isprintable() for c in alias):
            raise Invalid(f"network {wish.name}: alias '{alias}' can't be a host name")
    return wish


def add(
    store: Store,
    container_id: str,
    wish: Wish,
    position: int,
    *,
    own: list[str] | None = None,
    ports: list[list[Any]] | None = None,
) -> Endpoint:
    """Puts a container on a network, within the caller's transaction. Raises NotFound, Invalid, Conflict."""
    network = networks.find(store, wish.name)
    address = address6 = None
    if network.driver in networks.WITH_ADDRESSES:
        address = _address(store, network, 4, wish.ip)
        address6 = _address(store, network, 6, wish.ip6)
    elif wish.ip or wish.ip6 or wish.mac:
        raise Invalid(f"network {network.name} has the driver {network.driver}: it has no addresses to give")
    if store.db.row("SELECT 1 FROM endpoint WHERE network_id = ? AND container_id = ?", network.id, container_id):
        raise Conflict(f"the container is on network {network.name} already", exit_code=1)
    settings = {"mac": wish.mac or _mac(), "aliases": wish.aliases, "own": own or [], "ports": ports or []}
    id = os.urandom(32).hex()
    row = [id, network.id, container_id, position, address, address6]
    store.db.run(f"INSERT INTO endpoint ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", *row, jsontext.dumps(settings))
    return Endpoint(id, network.id, container_id, position, address, address6, settings)


def publish(store: Store, endpoint: Endpoint, ports: list[list[Any]]) -> None:
    """Puts down what is published of a container that starts."""
    endpoint.ports = ports
    (text,) = store.db.row("SELECT settings FROM endpoint WHERE id = ?", endpoint.id)
    settings = {**jsontext.loads(text), "ports": ports}
    with store.db.transaction(durable=False):
        store.db.run("UPDATE endpoint SET settings = ? WHERE id = ?", jsontext.dumps(settings), endpoint.id)


def remove(store: Store, endpoint: Endpoint) -> None:
    store.db.run("DELETE FROM endpoint WHERE id = ?", endpoint.id)


def of_container(store: Store, container_id: str) -> list[Endpoint]:
    """In the order of its interfaces."""
    rows = store.db.rows(f"SELECT {_COLUMNS} FROM endpoint WHERE container_id = ? ORDER BY position", container_id)
    return [_endpoint(row) for row in rows]


def of_network(store: Store, network_id: str) -> list[Endpoint]:
    rows = store.db.rows(f"SELECT {_COLUMNS} FROM endpoint WHERE network_id = ? ORDER BY address", network_id)
    return [_endpoint(row) for row in rows]


def everything(store: Store) -> list[Endpoint]:
    return [_endpoint(row) for row in store.db.rows(f"SELECT {_COLUMNS} FROM endpoint ORDER BY container_id, position")]


def _address(store: Store, network: Network, version: int, wanted: str) -> str | None:
    """The one that is wanted, or the lowest that is free. Raises Invalid, Conflict, LimpetError if all are taken."""
    said = network.subnet(version)
    if said is None:
        if wanted:
            hint = "create it with --ipv6" if version == 6 else ""
            raise Invalid(f"network {network.name} has no IPv{version} addresses, so not {wanted}", hint)
        return None
    subnet = ipaddress.ip_network(said["subnet"])
    column = "address" if version == 4 else "address6"
    rows = store.db.rows(
        f"SELECT {column}, c.name FROM endpoint JOIN container c ON c.id = container_id WHERE network_id = ?",
        network.id,
    )
    taken = {address: f"container {name}" for address, name in rows if address}
    taken[said["gateway"]] = "the network itself"
    taken.update((address, f"aux-address {name}") for name, address in network.aux.items())
    if wanted:
        address = pools.within(wanted, subnet, "address")
        if address in taken:
            raise Conflict(f"address {address} on network {network.name} is {taken[address]}'s", "choose another one")
        return address
    part = ipaddress.ip_network(said["range"]) if said["range"] else subnet
    last = subnet.network_address + (subnet.num_addresses - 1)
    for candidate in part:
        if candidate == subnet.network_address or (version == 4 and candidate == last):
            continue
        if str(candidate) not in taken:
            return str(candidate)
    raise LimpetError(
        f"network {network.name} has no free address in {part}: {len(taken)} are taken",
        "remove stopped containers , or make a network with a larger --subnet",
    )


def _mac() -> str:
    """Locally administered, of one interface (IEEE 802)."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *os.urandom(5)))


def _endpoint(row: Any) -> Endpoint:
    id, network, container, position, address, address6, settings = row
    return Endpoint(id, network, container, position, address, address6, jsontext.loads(settings))
