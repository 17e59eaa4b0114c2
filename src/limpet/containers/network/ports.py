"""Ports that a container says it serves (`EXPOSE`, `--expose`), as `NUMBER/PROTOCOL`."""

from __future__ import annotations

from limpet.errors import Invalid
from limpet.kernel import idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PROTOCOLS = ("tcp", "udp", "sctp")


def parse(text: str) -> list[str]:
    """`80`, `80/udp`, `8000-8010/tcp` → each port of it (docker/cli `opts/port.go`). Raises Invalid."""
    range_, slash, protocol = text.partition("/")
    first, dash, last = range_.partition("-")
    protocol = protocol.lower() if slash else "tcp"
    numbers = [first, last if dash else first]
    if protocol not in _PROTOCOLS or not all(
        one.isascii() and one.isdecimal() and int(one) <= 65535 for one in numbers
    ):
        raise Invalid(f"invalid port '{text}'", "write PORT[-PORT][/tcp|udp|sctp]")
    if int(numbers[0]) > int(numbers[1]):
        raise Invalid(f"invalid port '{text}': the range ends before it begins")
    return [f"{number}/{protocol}" for number in range(int(numbers[0]), int(numbers[1]) + 1)]


def parse_all(texts: Iterable[str]) -> list[str]:
    """Each port once, by number, then by protocol."""
    return ordered({port for text in texts for port in parse(text)})


def ordered(ports: Iterable[str]) -> list[str]:
    """`80/tcp` …, by number, then by protocol."""

    def order(text: str) -> tuple[int, str]:
        number = text.partition("/")[0]
        return (int(number) if number.isdecimal() else 0), text

    return sorted(ports, key=order)


def out_of_reach(ports: Iterable[str]) -> tuple[str, str] | None:
    """What is to be said, and what to do, of ports on the host's network that a user without root can't bind."""
    if not idmap.nested():
        return None
    first = 1024
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            first = int(file.read())
    except (OSError, ValueError):
        pass  # before Linux 4.11
    low = [int(port.partition("/")[0]) for port in ports if port.partition("/")[0].isdecimal()]
    low = sorted(number for number in low if 0 < number < first)
    if not low:
        return None
    return (
        f"port {low[0]}: only root may listen below port {first} on the host's network",
        f"serve a higher one; or an administrator runs `sysctl net.ipv4.ip_unprivileged_port_start={low[0]}`",
    )
