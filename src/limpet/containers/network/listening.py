"""Where a container's programs listen, as the kernel has it: on the host's network nothing else says so.

The descriptors of its processes name sockets by inode number, and /proc/PID/net/{tcp,tcp6,udp,udp6} have the address
of each (proc(5); `net/ipv4/tcp_ipv4.c`, get_tcp4_sock).
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

from limpet.containers.observe import top

if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.store.store import Store

_LISTEN, _UNCONNECTED = "0A", "07"  # include/net/tcp_states.h: TCP_LISTEN, TCP_CLOSE


def sockets(store: Store, container: Container) -> list[tuple[str, int, str]]:
    """(protocol, port, address), in order. Raises Conflict if the container does not run."""
    pids = top.pids(store, container)
    inodes = {inode for pid in pids for inode in _inodes(pid)}
    found: set[tuple[int, str, str]] = set()
    for protocol, state in (("tcp", _LISTEN), ("udp", _UNCONNECTED)):
        for family in ("", "6"):
            for line in _lines(pids, f"{protocol}{family}"):
                fields = line.split()
                if fields[3] == state and fields[9] in inodes:
                    address, _, port = fields[1].partition(":")
                    found.add((int(port, 16), protocol, _address(address)))
    return [(protocol, port, address) for port, protocol, address in sorted(found)]


def shown(address: str, port: int) -> str:
    """`127.0.0.1:80`, `[::1]:80`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _inodes(pid: int) -> list[str]:
    """Of the sockets that a process has open."""
    found = []
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                found.append(target[8:-1])
    except OSError:
        pass  # it has ended
    return found


def _lines(pids: list[int], table: str) -> list[str]:
    """As the first process that still lives has them: all are in one network namespace."""
    for pid in pids:
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                return file.read().splitlines()[1:]
        except OSError:
            continue
    return []


def _address(text: str) -> str:
    """Words of 32 bits in the processor's order, as hexadecimal digits."""
    data = b"".join(int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET6 if len(data) == 16 else socket.AF_INET, data)
