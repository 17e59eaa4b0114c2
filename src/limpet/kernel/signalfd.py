"""signalfd(2): signals as an event that poll(2) waits for like any other, and that outlives an exec."""

from __future__ import annotations

import os

from limpet.kernel import signals
from limpet.kernel.sys import Buffer, by_machine, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SIGNALFD4 = by_machine(289, 74)
_SIZE = 128  # bytes of a record


def create(numbers: Iterable[int]) -> int:
    """A descriptor that becomes readable when one of the signals comes. They are blocked from here on."""
    numbers = tuple(numbers)
    signals.block(signals.SIG_BLOCK, numbers)
    mask = sum(1 << (number - 1) for number in numbers)
    return syscall(_SIGNALFD4, -1, Buffer(mask.to_bytes(8, "little")), 8, os.O_CLOEXEC | os.O_NONBLOCK)


def read(fd: int) -> int:
    """The number of a signal that came; 0 if there is none."""
    try:
        return int.from_bytes(os.read(fd, _SIZE)[:4], "little")
    except BlockingIOError:
        return 0
