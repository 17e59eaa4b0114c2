"""What the rules of containers have refused, with names: `network denials`."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from limpet import jsontext
from limpet.kernel import cgroup, idmap
from limpet.network import meters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.containers.state import Container
    from limpet.store.store import Store


class Denied(NamedTuple):
    """What the rules of a container refused. `peer`: a container's name, or an address; `when`: Unix seconds."""

    container: str
    egress: bool
    peer: str
    address: str
    port: int
    protocol: str
    times: int
    when: float


def denials(store: Store, containers: Sequence[Container]) -> list[Denied]:
    """Of those that run, the last one first. The kernel keeps the four thousand that were refused last."""
    names: dict[str, str] = {}
    for name, text in store.db.rows("SELECT name, options FROM container"):
        names.update(dict.fromkeys(jsontext.loads(text).get("own_address", []), name))
    for address, address6, name in store.db.rows(
        "SELECT address, address6, name FROM endpoint JOIN container c ON container_id = c.id"
    ):
        names.update(dict.fromkeys((address, address6), name))
    found = []
    booted = time.time() - time.monotonic()
    for container in containers:
        group = cgroup.path(container.group)
        for each in meters.denials(group) if group and not idmap.nested() else ():
            mapped = each.address[:12] == bytes(10) + b"\xff\xff"
            family, packed = (socket.AF_INET, each.address[12:]) if mapped else (socket.AF_INET6, each.address)
            address = socket.inet_ntop(family, packed)
            protocol = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp6"}.get(each.protocol, str(each.protocol))
            peer = names.get(address, address)
            when = booted + each.when
            found.append(Denied(container.name, each.egress, peer, address, each.port, protocol, each.times, when))
    return sorted(found, key=lambda each: -each.when)
