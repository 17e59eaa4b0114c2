"""inotify(7): waiting for a file to be written or a directory to change without looking again and again."""

from __future__ import annotations

import os
import struct

from limpet.kernel.sys import by_machine, syscall

IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF = 2, 0x40, 0x80, 0x100, 0x200, 0x400
IN_ATTRIB, IN_CLOSE_WRITE, IN_Q_OVERFLOW, IN_IGNORED, IN_ISDIR = 4, 8, 0x4000, 0x8000, 0x4000_0000
IN_ONLYDIR, IN_DONT_FOLLOW = 0x0100_0000, 0x0200_0000

_INOTIFY_INIT1, _INOTIFY_ADD_WATCH, _INOTIFY_RM_WATCH = by_machine(294, 26), by_machine(254, 27), by_machine(255, 28)


def watch(path: str, events: int) -> int:
    """A descriptor that becomes readable (poll(2)) when one of the events happens to `path` or in it."""
    fd = syscall(_INOTIFY_INIT1, os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        syscall(_INOTIFY_ADD_WATCH, fd, os.fsencode(path), events)
    except OSError as e:
        os.close(fd)
        raise OSError(e.errno, e.strerror, path) from None
    return fd


class Watches:
    """Several directories or files by one descriptor, `fd`, and what happens in them by name."""

    def __init__(self) -> None:
        self.fd = syscall(_INOTIFY_INIT1, os.O_CLOEXEC | os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self.fd)

    def add(self, path: str, events: int) -> int:
        """The watch's number, which events name; the same again for the same file. Raises OSError with the path."""
        try:
            return syscall(_INOTIFY_ADD_WATCH, self.fd, os.fsencode(path), events)
        except OSError as e:
            raise OSError(e.errno, e.strerror, path) from None

    def remove(self, watch: int) -> None:
        try:
            syscall(_INOTIFY_RM_WATCH, self.fd, watch)
        except OSError:
            pass  # it went with its file

    def read(self) -> list[tuple[int, int, str]]:
        """(watch, events, name in it) of what has happened by now; the watch is -1 of IN_Q_OVERFLOW."""
        found: list[tuple[int, int, str]] = []
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                watch, events, _, length = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + length].rstrip(b"\0")
                found.append((watch, events, os.fsdecode(name)))
                at += 16 + length


def drain(fd: int) -> None:
    """Forgets what has happened: what comes later makes the descriptor readable again."""
    try:
        while os.read(fd, 1 << 14):
            pass
    except BlockingIOError:
        pass
