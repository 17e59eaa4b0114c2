"""Network interfaces: the loopback of a new network namespace is down; and addresses come and go with containers."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from limpet.kernel.sys import Buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket

_SIOCGIFCONF, _SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8912, 0x8913, 0x8914, 1
_REQUEST_SIZE = 40  # struct ifreq, where pointers have 8 bytes


def bring_up(name: str) -> None:
    """In the calling process's network namespace (netdevice(7))."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        request = struct.pack("16sH22x", name.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(channel.fileno(), _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(channel.fileno(), _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))
    finally:
        channel.close()


def add_address(name: str, address: str) -> bool:
    """Gives an interface an IPv6 address of its own (/128), at once and without a route. False if it had it.

    Raises OSError; EACCES or EOPNOTSUPP where IPv6 is switched off.
    """
    try:
        _request(_NEW_ADDRESS, _CREATE | _EXCLUSIVE, name, address)
    except FileExistsError:
        return False
    return True


def remove_address(name: str, address: str) -> bool:
    """Whether it was there."""
    try:
        _request(_DEL_ADDRESS, 0, name, address)
    except OSError as e:
        if e.errno == errno.EADDRNOTAVAIL:
            return False
        raise
    return True


def addresses4() -> list[str]:
    """The IPv4 addresses of this network namespace's interfaces that are up (netdevice(7), SIOCGIFCONF)."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        size = _REQUEST_SIZE * 64
        while True:
            found = Buffer(size)
            (used, _) = struct.unpack("iP", fcntl.ioctl(channel, _SIOCGIFCONF, struct.pack("iP", size, found.address)))
            if used < size:
                break
            size *= 4
    finally:
        channel.close()
    data = bytes(found)
    return [socket.inet_ntoa(data[at + 20 : at + 24]) for at in range(0, used, _REQUEST_SIZE)]


def addresses6() -> list[tuple[str, bytes]]:
    """(interface, 16 bytes) of each IPv6 address in this network namespace (/proc/net/if_inet6)."""
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except FileNotFoundError:
        return []
    return [(fields[5], bytes.fromhex(fields[0])) for fields in lines]


def addresses() -> list[str]:
    """Every address of this network namespace: IPv4's of /proc/net/fib_trie, and IPv6's, in text."""
    found = []
    last = ""
    with open("/proc/net/fib_trie", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[0] == "|--":
                last = words[1]
            elif words == ["/32", "host", "LOCAL"] and last not in found:
                found.append(last)
    return found + [socket.inet_ntop(socket.AF_INET6, packed) for _, packed in addresses6()]


_NEW_ADDRESS, _DEL_ADDRESS = 20, 21  # RTM_NEWADDR, RTM_DELADDR (rtnetlink(7))
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 1, 4, 0x200, 0x400
_NO_DUPLICATE_DETECTION, _NO_ROUTE = 0x02, 0x200  # IFA_F_NODAD, IFA_F_NOPREFIXROUTE
_LOCAL, _ADDRESS, _FLAGS = 2, 1, 8  # IFA_LOCAL, IFA_ADDRESS, IFA_FLAGS


def _request(kind: int, flags: int, name: str, address: str) -> None:
    """One message to the kernel (RFC 3549 section 2.3.3.1), and its answer."""
    raw = socket.inet_pton(socket.AF_INET6, address)
    body = struct.pack("<BBBBI", socket.AF_INET6, 128, _NO_DUPLICATE_DETECTION, 0, socket.if_nametoindex(name))
    body += struct.pack("<HH16sHH16s", 20, _LOCAL, raw, 20, _ADDRESS, raw)
    body += struct.pack("<HHI", 8, _FLAGS, _NO_DUPLICATE_DETECTION | _NO_ROUTE)
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        channel.send(struct.pack("<IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
        (error,) = struct.unpack_from("<i", channel.recv(4096), 16)
    finally:
        channel.close()
    if error:
        raise OSError(-error, os.strerror(-error), f"{name} {address}")
