"""What happened in the store, one line each: there is no daemon that could tell, so whoever does a thing writes it.

`<root>/events/log` is appended to with one write(2) of a whole line, which the kernel does not mix with another's, and
is not synced: what a crash takes are the last events, never the state. At LIMIT bytes it becomes `log.1`, in place of
the one before. A line is a JSON list: nanoseconds since 1970, type, action, id, attributes; readers skip other lines.
"""

from __future__ import annotations

import fcntl
import os
import time

from limpet import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store

LIMIT = 4 << 20
LONGEST = 16 << 10
"""Bytes of a line: attributes that would make it longer are left out."""


def directory(store: Store) -> str:
    return f"{store.root}/events"


def write(store: Store, kind: str, action: str, id: str, attributes: dict[str, str]) -> None:
    """Never fails: an event that can't be written (the disk is full) is lost, and what it tells of has happened."""
    data = jsontext.dumps([time.time_ns(), kind, action, id, attributes]).encode() + b"\n"
    if len(data) > LONGEST:
        kept = {name: value for name, value in attributes.items() if name in ("image", "name", "exitCode")}
        data = jsontext.dumps([time.time_ns(), kind, action[:1024], id, kept]).encode() + b"\n"
    path = f"{store.root}/events/log"
    try:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            _make(directory(store))
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            if os.lseek(fd, 0, os.SEEK_CUR) >= LIMIT:
                _rotate(fd, path)
        finally:
            os.close(fd)
    except OSError:
        pass


def _make(path: str) -> None:
    """Not what is above it: the store may have been taken away by now."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # somebody else was faster


def _rotate(fd: int, path: str) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX)  # two that come here at once: the second finds that it is done
    if os.fstat(fd).st_ino == os.stat(path).st_ino:
        os.rename(path, f"{path}.1")
