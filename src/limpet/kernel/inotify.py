"""inotify(7): waiting for a file to be written or a directory to change without looking again and again."""

from __future__ import annotations

import os

from limpet.kernel.sys import by_machine, syscall

IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF = 2, 0x40, 0x80, 0x100, 0x200, 0x400

_INOTIFY_INIT1, _INOTIFY_ADD_WATCH = by_machine(294, 26), by_machine(254, 27)


def watch(path: str, events: int) -> int:
    """A descriptor that becomes readable (poll(2)) when one of the events happens to `path` or in it."""
    fd = syscall(_INOTIFY_INIT1, os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        syscall(_INOTIFY_ADD_WATCH, fd, os.fsencode(path), events)
    except OSError as e:
        os.close(fd)
        raise OSError(e.errno, e.strerror, path) from None
    return fd


def drain(fd: int) -> None:
    """Forgets what has happened: what comes later makes the descriptor readable again."""
    try:
        while os.read(fd, 1 << 14):
            pass
    except BlockingIOError:
        pass
