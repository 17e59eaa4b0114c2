"""Addresses of this host's interfaces: which there are, and those of containers on `lo`, which come and go."""

from __future__ import annotations

import errno
import os

from limpet.errors import Invalid
from limpet.kernel import interfaces
from limpet.network import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket

LOOPBACK = "lo"


def check(own: list[str]) -> None:
    """Whether this host has each of them ("" is left out). Raises Invalid."""
    for address in filter(None, own):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            channel = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                channel.bind((address, 0))
            finally:
                channel.close()
        except OSError as e:
            hint = "`ip address` lists what it has; 0.0.0.0 is the plain host"
            raise Invalid(
                f"--address {address}: no interface of this host has it ({os.strerror(e.errno or 0)})", hint
            ) from e


def add(own6: str) -> str:
    """Gives `lo` the address; it, or "" on a host without IPv6. One that is there was left by a dead container."""
    try:
        interfaces.add_address(LOOPBACK, own6)
    except OSError as e:
        if e.errno in (errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EINVAL):
            return ""
        raise
    return own6


def remove(own6: str) -> None:
    interfaces.remove_address(LOOPBACK, own6)


def ours() -> list[str]:
    """The containers' addresses that `lo` has."""
    return [
        socket.inet_ntop(socket.AF_INET6, packed)
        for name, packed in interfaces.addresses6()
        if name == LOOPBACK and packed.startswith(addresses.PREFIX6)
    ]


def remove_all(own6: list[str]) -> list[str]:
    """Those that were there."""
    return [address for address in own6 if interfaces.remove_address(LOOPBACK, address)]
