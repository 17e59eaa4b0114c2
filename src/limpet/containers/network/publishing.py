"""`-p` and `-P`: which ports of a container are reached at which ports of the host.

    [ADDRESS:][PORT[-PORT]:]PORT[-PORT][/tcp]      an address of IPv6 in brackets

Without an address a port is published on loopback only, in both families; LIMPET_PUBLISH_DEFAULT is another one.
Without a port of the host any that is free is taken, at each start.
"""

from __future__ import annotations

import os

from limpet.containers.network import ports
from limpet.containers.plan import sharing
from limpet.errors import Invalid, Refused
from limpet.kernel import idmap
from limpet.network import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.options import Options
    from limpet.network.publication import Port

VARIABLE = "LIMPET_PUBLISH_DEFAULT"
LOOPBACK = ("127.0.0.1", "::1")


def parse(text: str, *, datagrams: bool = False) -> list[Port]:
    """(address of the host, its port or 0, the container's port, protocol) of each; IPv4 first. Raises Invalid.

    `datagrams`: UDP can be had, too.
    """
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    address = ""
    if rest.startswith("["):
        address, bracket, rest = rest[1:].partition("]:")
        if not bracket or addresses.packed6(address) is None:
            raise _invalid(text, f"[{address}] is not an address of IPv6")
    parts = rest.split(":")
    if len(parts) == 3 and not address:
        address = parts.pop(0)
        if address and addresses.packed4(address) is None:
            raise _invalid(text, f"'{address}' is not an IP address")
    if len(parts) > 2:
        raise _invalid(text)
    if protocol == "udp" and not datagrams:
        raise Invalid(f"invalid published port '{text}': datagrams can't be published yet", "only tcp is")
    inside = [int(port.partition("/")[0]) for port in ports.parse(f"{parts[-1]}/{protocol}")]
    outside = [0] * len(inside)
    if len(parts) == 2 and parts[0]:
        outside = [int(port.partition("/")[0]) for port in ports.parse(f"{parts[0]}/{protocol}")]
        if len(inside) == 1 and len(outside) > 1:
            inside *= len(outside)
    if len(inside) != len(outside):
        raise _invalid(text, "the two ranges have different lengths")
    if 0 in inside or protocol not in ("tcp", "udp"):
        raise _invalid(text)
    return [
        (where, out, into, protocol) for out, into in zip(outside, inside, strict=True) for where in _where(address)
    ]


def _where(address: str) -> tuple[str, ...]:
    address = address or os.environ.get(VARIABLE, "")
    if not address:
        return LOOPBACK
    if address in addresses.HOST:
        return addresses.HOST if address == "0.0.0.0" else (address,)
    bare = address.removeprefix("[").removesuffix("]")
    if (addresses.packed6 if ":" in bare else addresses.packed4)(bare) is None:
        raise Invalid(f"{VARIABLE} '{address}' is not an IP address", "127.0.0.1 and [::1] are without it")
    return (bare,)


def _invalid(text: str, why: str = "") -> Invalid:
    return Invalid(
        f"invalid published port '{text}'{f': {why}' if why else ''}", "write [ADDRESS:][PORT:]PORT, like 8080:80"
    )


def check(options: Options) -> None:
    """Raises Invalid."""
    if not options.publish and not options.publish_all:
        return
    apart = sharing.connected(options)
    for text in options.publish:
        parse(text, datagrams=apart)
    word = options.publish[0] if options.publish else ""
    option = f"-p {word}" if word else "-P"
    if idmap.nested():
        raise Refused(f"{option}: publishing needs root", "leave it out: yours have the host's addresses")
    if options.network != "host" and not apart:
        raise Invalid(f"{option}: ports of --network {options.network} can't be published", "leave out one of the two")
    if addresses.parse(options.address) == addresses.HOST:
        raise Invalid(
            f"{option}: with --address 0.0.0.0 the container's ports are the host's already", "leave out one of the two"
        )


def wanted(options: Options, exposed: list[str]) -> list[Port]:
    """All that is to be published. `exposed`: `80/tcp` …, for `-P`."""
    apart = sharing.connected(options)
    found = [port for text in options.publish for port in parse(text, datagrams=apart)]
    if options.publish_all:
        there = {inner for _, _, inner, _ in found}
        texts = [
            text
            for text in exposed
            if text.endswith(("/tcp", "/udp") if apart else "/tcp") and int(text.partition("/")[0]) not in there
        ]
        found += [port for text in texts for port in parse(text, datagrams=apart)]
    return found


def shown(published: list[Port]) -> list[str]:
    """`127.0.0.1:8080->80/tcp`, as `ps` shows them (docker/cli `formatter.DisplayablePorts`)."""
    found = []
    for address, port, inner, protocol in published:
        where = f"[{address}]" if ":" in address else address
        found.append(f"{where}:{port}->{inner}/{protocol}")
    return found


def bindings(published: list[Port]) -> dict[str, list[dict[str, str]]]:
    """As in `inspect` (NetworkSettings.Ports)."""
    found: dict[str, list[dict[str, str]]] = {}
    for address, port, inner, protocol in published:
        found.setdefault(f"{inner}/{protocol}", []).append({"HostIp": address, "HostPort": str(port)})
    return found


def from_status(values: list[Any]) -> list[Port]:
    """What the monitor wrote into the status."""
    return [(address, port, inner, protocol) for address, port, inner, protocol in values]
