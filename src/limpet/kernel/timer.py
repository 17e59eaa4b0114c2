"""timerfd_create(2): a moment that poll(2) waits for like any other event, and that outlives an exec."""

from __future__ import annotations

import os
import struct

from limpet.kernel.sys import Buffer, by_machine, syscall

_TIMERFD_CREATE, _TIMERFD_SETTIME = by_machine(283, 85), by_machine(286, 86)
_CLOCK_MONOTONIC = 1


def create() -> int:
    """A descriptor that becomes readable when the time is up that `arm` sets."""
    return syscall(_TIMERFD_CREATE, _CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK)


def arm(fd: int, seconds: float) -> None:
    """Once, from now; a time that was set before is forgotten. It can't be 0, which would disarm."""
    whole, rest = divmod(max(int(seconds * 10**9), 1), 10**9)
    syscall(_TIMERFD_SETTIME, fd, 0, Buffer(struct.pack("<4q", 0, 0, whole, rest)), None)


def is_up(fd: int) -> bool:
    """Whether the time is up; only once for each `arm`."""
    try:
        return len(os.read(fd, 8)) == 8
    except BlockingIOError:
        return False
