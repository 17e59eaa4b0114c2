"""What `--egress` and `--ingress` say, and the entries of the kernel's table that it comes to.

    none                            nothing but the container's own address
    host                            what runs on this machine: loopback, other containers, its interfaces' addresses
    dns                             port 53 of the name servers in the host's resolv.conf
    10.0.0.0/8  192.0.2.7:443       addresses; [2001:db8::/32]:443 of IPv6; :8000-8100 a range; /tcp or /udp at the end
    NAME  NAME:PORT                 a container
    project:NAME  network:NAME      the containers of a project or of a network

Several are separated by commas. With --egress the port is that of the other side, with --ingress the container's own.
"""

from __future__ import annotations

from typing import NamedTuple

from limpet.errors import Invalid
from limpet.network import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MOST_RANGES = 8
"""Ranges of ports at one prefix; the program looks at so many."""

TCP, UDP = 6, 17
_MAPPED = bytes(10) + b"\xff\xff"
_PROTOCOLS = {"": 0, "tcp": TCP, "udp": UDP}
LOCAL = ("127.0.0.0/8", "::1/128", "fd6c:696d:7065:7400::/64")


class Ports(NamedTuple):
    """`first` to `last`, both included; `protocol` 0 is any."""

    first: int
    last: int
    protocol: int


class Rule(NamedTuple):
    """`where` is a prefix as `_text` writes it, `container:NAME`, `project:NAME`, `network:NAME`, host or dns."""

    where: str
    ports: Ports


ANY = Ports(0, 65535, 0)


class Prefix(NamedTuple):
    """Of an IPv6 address, or of a mapped IPv4 address (::ffff:a.b.c.d): 16 bytes, and how many bits of them count."""

    address: bytes
    bits: int

    @property
    def six(self) -> bool:
        return self.bits < 96 or self.address[:12] != _MAPPED


def parse(option: str, text: str) -> list[Rule]:
    """Raises Invalid."""
    words = [word.strip() for word in text.split(",")]
    if words == ["none"]:
        return []
    return [_rule(option, word) for word in words]


def _rule(option: str, word: str) -> Rule:
    hint = "write none, host, dns, NAME, project:NAME, network:NAME or an address like 10.0.0.0/8, each with :PORT"
    if not word or word == "none":
        raise Invalid(f"invalid --{option} '{word}'", hint)
    rest, protocol = word, ""
    for name in ("tcp", "udp"):
        if rest.endswith(f"/{name}"):
            rest, protocol = rest[: -len(name) - 1], name
    kind = ""
    for name in ("project:", "network:"):
        if rest.startswith(name):
            kind, rest = name, rest.removeprefix(name)
    place, ports = rest, ""
    if rest.startswith("["):
        place, closed, ports = rest[1:].partition("]")
        if not closed or (ports and not ports.startswith(":")):
            raise Invalid(f"invalid --{option} '{word}'", hint)
        ports = ports[1:]
    elif rest.count(":") == 1:
        place, _, ports = rest.partition(":")
    found = Ports(*_ports(option, word, ports), _PROTOCOLS[protocol])
    if not kind and place in ("host", "dns"):
        return Rule(place, found if place == "host" else Ports(53, 53, found.protocol))
    if not kind and (prefix := _prefix(place)) is not None:
        return Rule(_text(prefix), found)
    if not place or "/" in place or ":" in place:
        raise Invalid(f"invalid --{option} '{word}'", hint)
    return Rule(f"{kind or 'container:'}{place}", found)


def _ports(option: str, word: str, text: str) -> tuple[int, int]:
    if not text:
        return ANY.first, ANY.last
    first, dash, last = text.partition("-")
    numbers = [int(part) if part.isascii() and part.isdecimal() else -1 for part in (first, last if dash else first)]
    if not 0 < numbers[0] <= numbers[1] < 65536:
        raise Invalid(f"invalid --{option} '{word}': {text} is neither a port nor a range of ports")
    return numbers[0], numbers[1]


def _prefix(text: str) -> Prefix | None:
    address, slash, length = text.partition("/")
    six = ":" in address
    packed = addresses.packed6(address) if six else addresses.packed4(address)
    most = 128 if six else 32
    if packed is None or (slash and not (length.isascii() and length.isdecimal() and int(length) <= most)):
        return None
    bits = int(length) if slash else most
    number = int.from_bytes(packed) >> (most - bits) << (most - bits)
    whole = number.to_bytes(16 if six else 4)
    return Prefix(whole, bits) if six else mapped(whole, bits)


def mapped(packed: bytes, bits: int = 32) -> Prefix:
    """An IPv4 address as the table has it."""
    return Prefix(_MAPPED + packed, 96 + bits)


def _text(prefix: Prefix) -> str:
    return f"{prefix.address.hex()}/{prefix.bits}"


def _of_text(text: str) -> Prefix:
    address, _, bits = text.partition("/")
    return Prefix(bytes.fromhex(address), int(bits))


def compile(
    rules: Sequence[Rule], own: Iterable[str], members: Callable[[str], Iterable[str]], local: Iterable[str] = LOCAL
) -> dict[Prefix, list[Ports]]:
    """The table: the longest prefix that an address has decides, by its ranges.

    `own`: addresses that are always allowed; `members`: the addresses of a container, project or network, by the rule's
    `where`; `local`: what `host` is. Raises Invalid for more than MOST_RANGES ranges at one prefix.
    """
    said: dict[Prefix, list[Ports]] = {}

    def add(prefix: Prefix | None, ports: Ports) -> None:
        if prefix is not None and ports not in (found := said.setdefault(prefix, [])):
            found.append(ports)

    for address in own:
        add(_prefix(address), ANY)
    for where, ports in rules:
        if where == "host":
            for address in local:
                add(_prefix(address), ports)
        elif where == "dns":
            for address in name_servers():
                add(_prefix(address), ports)
        elif where.startswith(("container:", "project:", "network:")):
            for address in members(where):
                add(_prefix(address), ports)
        else:
            add(_of_text(where), ports)
    # A longer prefix hides the shorter ones that it lies in: what those allow is said again at it.
    table = {
        prefix: list(dict.fromkeys(p for other, ports in said.items() if _within(prefix, other) for p in ports))
        for prefix in said
    }
    for prefix, ranges in table.items():
        if ANY in ranges:
            table[prefix] = [ANY]
        elif len(ranges) > MOST_RANGES:
            raise Invalid(f"more than {MOST_RANGES} ranges of ports for one address", "join some of them")
    return table


def _within(inner: Prefix, outer: Prefix) -> bool:
    if outer.bits > inner.bits or outer.six != inner.six:
        return False
    shift = 128 - outer.bits
    return int.from_bytes(inner.address) >> shift == int.from_bytes(outer.address) >> shift


def name_servers(path: str = "/etc/resolv.conf") -> list[str]:
    """Of the host, which are a container's too unless it has --dns."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    return [words[1].partition("%")[0] for words in lines if len(words) > 1 and words[0] == "nameserver"]
