"""Which address a container has on the host's network, and what `--address` and the range of addresses may say.

Every container of the `host` network owns an IPv4 address of a loopback range, chosen when it is created and kept as
long as it is there, and the IPv6 address that belongs to it: the IPv4 address below PREFIX6.
Of 127.0.0.0/8 the host keeps 127.0.0.0/16; the rest is the containers', whatever the range of one store is.
"""

from __future__ import annotations

import os

from limpet.errors import Invalid, LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
else:
    import _socket as socket

RANGE = "127.64.0.0/10"
VARIABLE = "LIMPET_ADDRESS_RANGE"
PREFIX6 = bytes.fromhex("fd6c 696d 7065 7400")
"""fd6c:696d:7065:7400::/64, a unique local range (RFC 4193) of which no packet leaves the machine: "limpet"."""

HOST = ("0.0.0.0", "::")
"""What `--address` says for no address of its own."""


def range_(text: str = "") -> tuple[int, int]:
    """(first address as a number, how many there are) of LIMPET_ADDRESS_RANGE. Raises Invalid."""
    text = text or os.environ.get(VARIABLE, "") or RANGE
    address, _, length = text.partition("/")
    packed = packed4(address)
    bits = int(length) if length.isascii() and length.isdecimal() else -1
    first = int.from_bytes(packed or b"")
    size = 1 << 32 - bits if 9 <= bits <= 28 else 0
    if packed is None or not size or first % size or packed[0] != 127 or packed[1] == 0:
        raise Invalid(
            f"{VARIABLE} '{text}' can't be the containers' range",
            f"a part of 127.0.0.0/8 without 127.0.0.0/16, of 16 addresses or more, like {RANGE}",
        )
    return first, size


def choose(container_id: str, taken: Callable[[str], bool]) -> str:
    """A free address for a new container: one that follows of its id, or the next. Raises LimpetError if none is left.

    Two stores rarely choose the same one, though they know nothing of each other.
    """
    first, size = range_()
    begin = int(container_id[:8], 16)
    for step in range(size):
        number = first + (begin + step) % size
        if number & 0xFF not in (0, 255):  # allowed, and yet programs take them for a network and a broadcast
            text = socket.inet_ntoa(number.to_bytes(4))
            if not taken(text):
                return text
    raise LimpetError("there is no free address left for a container", f"remove some, or set a larger {VARIABLE}")


def parse(texts: list[str]) -> tuple[str, str]:
    """What `--address` says, as (IPv4, IPv6), each "" if it was not said; HOST's for the plain host. Raises Invalid."""
    found = {socket.AF_INET: "", socket.AF_INET6: ""}
    for text in texts:
        bare = text.removeprefix("[").removesuffix("]")
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        packed = packed6(bare) if ":" in bare else packed4(bare)
        if packed is None:
            raise Invalid(f"--address '{text}' is not an IP address", "an address of this host, or 0.0.0.0")
        if found[family]:
            raise Invalid(f"--address {text}: there is one of this family already", "one of IPv4 and one of IPv6 are")
        found[family] = socket.inet_ntop(family, packed)
    own4, own6 = found[socket.AF_INET], found[socket.AF_INET6]
    if HOST[0] == own4 or HOST[1] == own6:
        if (own4 or HOST[0]) != HOST[0] or (own6 or HOST[1]) != HOST[1]:
            raise Invalid("--address 0.0.0.0 is the plain host, without an address of its own", "leave out the other")
        return HOST
    if own6 and not own4:
        raise Invalid(f"--address {own6}: an IPv4 address belongs to it", "give that too")
    return own4, own6


def ipv6_of(own4: str) -> str:
    """The IPv6 address that belongs to an IPv4 address of the containers' range."""
    return socket.inet_ntop(socket.AF_INET6, PREFIX6 + bytes(4) + socket.inet_aton(own4))


def is_loopback(own4: str) -> bool:
    """Of the containers' part of 127.0.0.0/8."""
    return own4.startswith("127.") and not own4.startswith("127.0.")


def packed4(text: str) -> bytes | None:
    """None for what is not an address in the usual four parts."""
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def packed6(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return None
