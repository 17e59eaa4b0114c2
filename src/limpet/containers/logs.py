"""What a container wrote, read back from its json-file logs, rotated ones first; and followed while it writes on.

A follower holds the open file, so that a rotation loses nothing: it reads its file to the end, sees that the name means
another file now, and goes on with the oldest one that it has not read. Files are known by inode.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from limpet import jsontext
from limpet.containers import state
from limpet.kernel import inotify
from limpet.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.containers.state import Container
    from limpet.store.store import Store

_PIECE = 1 << 16
_LOOK = 50  # ms between looks at what nobody tells us about
_LONGEST = 3_600_000


class Entry:
    """A line, or a part of one longer than 16 KiB (then without a newline). `time` is RFC 3339 as it was written."""

    __slots__ = ("stream", "text", "time")

    def __init__(self, stream: str, text: str, time: str) -> None:
        self.stream = stream
        self.text = text
        self.time = time


def path(store: Store, container: Container) -> str:
    """The current log; `.1`, `.2` … are older."""
    return f"{store.container_path(container.id)}/{container.id}-json.log"


def read(
    store: Store,
    container: Container,
    *,
    tail: int | None = None,
    since: float = 0.0,
    until: float = 0.0,
    follow: bool = False,
) -> Iterator[Entry]:
    """The entries in order. `tail`: the last n lines only. `since`, `until`: Unix seconds, 0 for no limit.

    With `follow` it goes on until the container has ended and all is read, or `until` has passed.
    """
    reader = _Reader(path(store, container))
    wait = _Waiter(store, container) if follow else None  # before the first look: nothing is missed in between
    try:
        if tail is not None:
            reader.go_to_tail(tail)
        alive = True
        while True:
            for entry in reader.entries():
                moment = seconds_of(entry.time) if since or until else 0.0
                if until and moment > until:
                    return
                if moment >= since:
                    yield entry
            if wait is None or not alive:
                return
            alive = wait(until)
            if alive and until and time.time() > until:
                alive = False  # once more: what was written until then
    finally:
        reader.close()
        if wait is not None:
            wait.close()


def parse(line: bytes) -> Entry | None:
    """One line of the file; None for what is damaged (a crash can leave half a line)."""
    try:
        values = jsontext.loads(line)
        return Entry(values["stream"], values["log"], values["time"])
    except (ValueError, KeyError, TypeError):
        return None


class _Reader:
    """Reads whatever is there and stops at the end; called again it goes on where it was."""

    def __init__(self, path: str) -> None:
        self._directory, self._name = os.path.split(path)
        self._open: list[int] = []  # the file that is read, and those that follow it: rotation can't take them away
        self._rest = b""

    def entries(self) -> Iterator[Entry]:
        self._discover()
        while self._open:
            yield from self._read()
            self._discover()
            if len(self._open) == 1:
                return
            yield from self._read()  # what was written before the rotation; since then it does not grow
            os.close(self._open.pop(0))
            self._rest = b""

    def go_to_tail(self, count: int) -> None:
        """Begins at the last `count` lines: reads backwards, so that it does not matter how long the log is."""
        self._discover()
        if self._open:
            number, offset = _find_tail(self._open, count)
            for _ in range(number):
                os.close(self._open.pop(0))
            os.lseek(self._open[0], offset, os.SEEK_SET)

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def _read(self) -> Iterator[Entry]:
        fd = self._open[0]
        if os.lseek(fd, 0, os.SEEK_CUR) > os.fstat(fd).st_size:
            os.lseek(fd, 0, os.SEEK_SET)  # somebody truncated it: what comes now is new
            self._rest = b""
        while piece := os.read(fd, _PIECE):
            self._discover()
            lines = (self._rest + piece).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                entry = parse(line)
                if entry is not None:
                    yield entry

    def _discover(self) -> None:
        """Opens what is newer than all that is open; again if a rotation happens under our eyes."""
        while True:
            names = self._names()
            inodes = [inode for inode, _ in names]
            last = os.fstat(self._open[-1]).st_ino if self._open else 0
            newer = names[inodes.index(last) + 1 :] if last in inodes else names
            for inode, name in newer:
                try:
                    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    break
                if os.fstat(fd).st_ino != inode:
                    os.close(fd)
                    break
                self._open.append(fd)
            else:
                return

    def _names(self) -> list[tuple[int, str]]:
        """(inode, path) of each file, the oldest first: seen twice alike, since names move while they are listed."""
        before: list[tuple[int, str]] | None = None
        while True:
            found: list[tuple[int, int, str]] = []
            try:
                names = os.listdir(self._directory)
            except FileNotFoundError:
                return []
            for name in names:
                base, dot, number = name.rpartition(".")
                if name != self._name and (base != self._name or not dot or not number.isdecimal()):
                    continue
                path = f"{self._directory}/{name}"
                try:
                    found.append((0 if name == self._name else -int(number), os.stat(path).st_ino, path))
                except FileNotFoundError:
                    pass
            now = [(inode, path) for _, inode, path in sorted(found)]
            if now == before:
                return now
            before = now


def _find_tail(files: list[int], count: int) -> tuple[int, int]:
    """(which file, offset in it) where the last `count` lines begin."""
    whole = 0  # lines of which the end was seen
    place = len(files) - 1, os.fstat(files[-1]).st_size
    if count <= 0:
        return place
    for number in range(len(files) - 1, -1, -1):
        for offset, line in _backwards(files[number]):
            entry = parse(line)
            if entry is None:
                continue
            if entry.text.endswith("\n") or not whole:
                whole += 1
                if whole > count:
                    return place
            place = number, offset
    return 0, 0


def _backwards(fd: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of each whole line, the last first."""
    at = os.fstat(fd).st_size
    rest = b""  # what follows `at`, up to the end of the line that it is in
    first = True
    while at > 0:
        size = min(_PIECE, at)
        at -= size
        lines = (os.pread(fd, size, at) + rest).split(b"\n")
        if first:
            lines.pop()  # behind the last newline: nothing, or a line that is being written
            first = False
        rest = lines.pop(0) if lines else b""
        offset = at + len(rest) + 1 + sum(len(line) + 1 for line in lines)
        for line in reversed(lines):
            offset -= len(line) + 1
            yield offset, line
    if rest:
        yield 0, rest


class _Waiter:
    """Waits until there may be more to read: True while the container has a monitor."""

    def __init__(self, store: Store, container: Container) -> None:
        self._monitored: Callable[[], bool] = lambda: state.monitored(store, container.id)
        self._poll = select.poll()
        self._pidfd = self._watch = -1
        try:
            self._watch = inotify.watch(
                store.container_path(container.id), inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
            )
            self._poll.register(self._watch, select.POLLIN)
        except OSError:  # no more watches for this user, or the container is gone: look from time to time
            pass
        monitor = state.status(store, container).monitor
        if monitor and self._monitored():
            try:
                self._pidfd = os.pidfd_open(monitor)
                self._poll.register(self._pidfd, select.POLLIN)
            except OSError:
                pass

    def __call__(self, until: float) -> bool:
        if not self._monitored():
            return False
        # Without both descriptors nobody would wake us.
        limit: float = _LONGEST if self._watch >= 0 and self._pidfd >= 0 else _LOOK
        if until:
            limit = min(max(until - time.time(), 0) * 1000 + 1, limit)
        for fd, _ in self._poll.poll(limit):
            if fd == self._watch:
                inotify.drain(fd)
            elif fd == self._pidfd:  # it let go of its lock, or is just about to
                self._poll.unregister(fd)
                os.close(fd)
                self._pidfd = -1
        return True

    def close(self) -> None:
        for fd in (self._pidfd, self._watch):
            if fd >= 0:
                os.close(fd)
