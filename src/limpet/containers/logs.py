"""What a container wrote, read back from its json-file logs, rotated ones first; and followed while it writes on.

A follower holds the open file, so that a rotation loses nothing: it reads its file to the end, sees that the name means
another file now, and goes on with the oldest one that it has not read. Files are known by inode.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from limpet import jsontext
from limpet.containers import state
from limpet.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.containers.state import Container
    from limpet.store.store import Store

_PIECE = 1 << 16
_POLL = 50  # ms between looks at a file that does not grow


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
    """The entries in order. `tail`: the last n only. `since`, `until`: Unix seconds, 0 for no limit.

    With `follow` it goes on until the container has ended and all is read, or `until` has passed.
    """
    reader = _Reader(path(store, container))
    entries = reader.entries() if tail is None else iter(_last(list(reader.entries()), tail))
    yield from _between(entries, since, until)
    if not follow:
        return
    wait = _Waiter(store, container)
    try:
        while True:
            alive = wait()
            yield from _between(reader.entries(), since, until)
            if not alive:
                return
    finally:
        wait.close()
        reader.close()


def parse(line: bytes) -> Entry | None:
    """One line of the file; None for what is damaged (a crash can leave half a line)."""
    try:
        values = jsontext.loads(line)
        return Entry(values["stream"], values["log"], values["time"])
    except (ValueError, KeyError, TypeError):
        return None


def _last(entries: list[Entry], count: int) -> list[Entry]:
    """The last `count` lines; parts of one line belong together."""
    if count <= 0:
        return []
    seen = 0
    for i in range(len(entries) - 1, -1, -1):
        begins = i == 0 or entries[i - 1].text.endswith("\n") or entries[i - 1].stream != entries[i].stream
        if begins:
            seen += 1
            if seen == count:
                return entries[i:]
    return entries


def _between(entries: Iterator[Entry], since: float, until: float) -> Iterator[Entry]:
    for entry in entries:
        if since or until:
            moment = seconds_of(entry.time)
            if moment < since:
                continue
            if until and moment > until:
                return
        yield entry


class _Reader:
    """Reads whatever is there and stops at the end; called again it goes on where it was."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""
        self._started = False

    def entries(self) -> Iterator[Entry]:
        while self._fd >= 0 or self._open():
            yield from self._read()
            newer = self._newer()
            if newer is None:
                return
            yield from self._read()  # what was written before the rotation; since then it does not grow
            try:
                fd = os.open(newer, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # rotated again under our eyes
            os.close(self._fd)
            self._fd, self._rest = fd, b""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _files(self) -> list[str]:
        """The oldest first."""
        older = 1
        while os.path.exists(f"{self._path}.{older}"):
            older += 1
        return [*(f"{self._path}.{i}" for i in range(older - 1, 0, -1)), self._path]

    def _open(self) -> bool:
        for name in self._files() if not self._started else [self._path]:
            try:
                self._fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            self._started = True
            return True
        return False

    def _read(self) -> Iterator[Entry]:
        if os.lseek(self._fd, 0, os.SEEK_CUR) > os.fstat(self._fd).st_size:
            os.lseek(self._fd, 0, os.SEEK_SET)  # somebody truncated it: what comes now is new
            self._rest = b""
        while piece := os.read(self._fd, _PIECE):
            lines = (self._rest + piece).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                entry = parse(line)
                if entry is not None:
                    yield entry

    def _newer(self) -> str | None:
        """The file that follows the one at hand; None if that is the current one."""
        mine = os.fstat(self._fd)
        names = self._files()
        for i, name in enumerate(names):
            try:
                info = os.stat(name)
            except FileNotFoundError:
                return self._newer()  # a rotation under our eyes
            if (info.st_dev, info.st_ino) == (mine.st_dev, mine.st_ino):
                return None if name == self._path else names[i + 1]
        return names[0]  # ours was rotated out of existence: the oldest that is left follows it


class _Waiter:
    """Waits until there may be more to read: True while the container has a monitor."""

    def __init__(self, store: Store, container: Container) -> None:
        self._monitored: Callable[[], bool] = lambda: state.monitored(store, container.id)
        self._poll = select.poll()
        self._pidfd = -1
        monitor = state.status(store, container).monitor
        if monitor and self._monitored():
            try:
                self._pidfd = os.pidfd_open(monitor)
                self._poll.register(self._pidfd, select.POLLIN)
            except OSError:
                pass

    def __call__(self) -> bool:
        if not self._monitored():
            return False
        self._poll.poll(_POLL)
        return True

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
