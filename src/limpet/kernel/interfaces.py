"""Network interfaces: the loopback of a new network namespace is down, and somebody has to bring it up."""

from __future__ import annotations

import fcntl
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def bring_up(name: str) -> None:
    """In the calling process's network namespace (netdevice(7))."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        request = struct.pack("16sH22x", name.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(channel.fileno(), _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(channel.fileno(), _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))
    finally:
        channel.close()
