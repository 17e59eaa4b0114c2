"""A slow link between two network namespaces: a rate and a delay, made of two TUN devices and a relay in Python.

For kernels without `netem`. TCP is the kernel's own on both sides. A process in the first namespace serves, one in the
second fetches. Nothing outside of them is touched.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import select
import socket
import struct
import subprocess
import time
from dataclasses import dataclass

_TUNSETIFF = 0x400454CA
_TUN_NO_PI = 0x1001
_CLONE_NEWNET = 0x40000000
NEAR, FAR = "10.213.57.1", "10.213.57.2"


@dataclass
class Link:
    """`near` and `far`: what to put before a command to run it in that namespace."""

    near: list[str]
    far: list[str]
    _names: tuple[str, str]
    _relay: int

    def close(self) -> None:
        os.kill(self._relay, 9)
        os.waitpid(self._relay, 0)
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def make(bits_per_second: float, delay: float, queue: int = 1 << 20) -> Link:
    """`delay` in seconds, one way; `queue` in bytes, before packets are dropped."""
    names = (f"limpet-bench-{os.getpid()}-a", f"limpet-bench-{os.getpid()}-b")
    tunnels = []
    for name, address, peer in ((names[0], NEAR, FAR), (names[1], FAR, NEAR)):
        subprocess.run(["ip", "netns", "add", name], check=True)
        tunnels.append(_tunnel(name))
        inside = ["ip", "-n", name]
        subprocess.run([*inside, "address", "add", address, "peer", peer, "dev", "tun0"], check=True)
        subprocess.run([*inside, "link", "set", "tun0", "up"], check=True)
        subprocess.run([*inside, "link", "set", "lo", "up"], check=True)
    relay = os.fork()
    if relay == 0:
        try:
            _relay(tunnels[0], tunnels[1], bits_per_second / 8, delay, queue)
        finally:
            os._exit(1)
    for fd in tunnels:
        os.close(fd)
    return Link(["ip", "netns", "exec", names[0]], ["ip", "netns", "exec", names[1]], names, relay)


def _tunnel(namespace: str) -> int:
    """A TUN device belongs to the namespace of whoever opens it: a child enters that, and sends the descriptor here."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            place = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            if ctypes.CDLL(None).setns(place, _CLONE_NEWNET) == 0:
                fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _TUN_NO_PI))
                socket.send_fds(theirs, [b"."], [fd])
        finally:
            os._exit(0)
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    os.waitpid(child, 0)
    if not descriptors:
        raise RuntimeError(f"no TUN device in {namespace}")
    return descriptors[0]


def _relay(near: int, far: int, rate: float, delay: float, queue: int) -> None:
    """`rate` in bytes a second."""
    free = {near: 0.0, far: 0.0}  # when the last byte of what waits will have been sent
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    poll = select.poll()
    poll.register(near, select.POLLIN)
    poll.register(far, select.POLLIN)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(waiting)
            try:
                os.write(target, packet)
            except BlockingIOError:
                pass
        timeout = max(0.0, (waiting[0][0] - now) * 1000) if waiting else None
        for fd, _ in poll.poll(timeout if timeout is None or timeout > 1 else 0):
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                now = time.monotonic()
                if (free[fd] - now) * rate > queue:
                    continue
                free[fd] = max(free[fd], now) + len(packet) / rate
                number += 1
                heapq.heappush(waiting, (free[fd] + delay, number, far if fd == near else near, packet))
