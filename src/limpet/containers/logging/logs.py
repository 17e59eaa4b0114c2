"""What a container wrote, read back from its logs, rotated ones first; and followed while it writes on.

Text logs (json-file, k8s-file) are read here; `logdrivers` has the readers of the local format and of the journal.
A follower holds the open file, so that a rotation loses nothing: it reads its file to the end, sees that the name means
another file now, and goes on with the oldest one that it has not read. Files are known by inode.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Protocol

from limpet import jsontext
from limpet.containers import state
from limpet.containers.logging.logdrivers import choice, opening
from limpet.errors import Refused
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
    """A line, or a part of one longer than 16 KiB (then without a newline). `time` is RFC 3339 as it was written.

    `attributes`: the tag, labels and variables that `--log-opt` picked.
    """

    __slots__ = ("attributes", "stream", "text", "time")

    def __init__(self, stream: str, text: str, time: str, attributes: dict[str, str] | None = None) -> None:
        self.stream = stream
        self.text = text
        self.time = time
        self.attributes = attributes


class Reader(Protocol):
    """Of one kind of log. `entries` gives what is there and stops; called again it goes on where it was."""

    def entries(self) -> Iterator[Entry]: ...
    def go_to_tail(self, count: int) -> None: ...
    def close(self) -> None: ...


def path(store: Store, container: Container) -> str:
    """The log's file, of which `.1`, `.2` … are older, or the directory of the local format; "" if there is none."""
    directory, options = store.container_path(container.id), container.options
    if options.log_driver in ("json-file", "k8s-file"):
        return f"{directory}/{opening.text_name(container)}"
    if options.log_driver == "local" or (options.log_driver == "syslog" and choice.cache(options.log_opts) is not None):
        return f"{directory}/{opening.LOCAL}"
    return ""


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
    if container.options.log_driver == "journald":
        from limpet.containers.logging.logdrivers import journal

        yield from journal.read(store, container, tail=tail, since=since, until=until, follow=follow)
        return
    reader = _reader(store, container)
    wait = Waiter(store, container, path(store, container)) if follow else None  # first: nothing is missed in between
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


def _reader(store: Store, container: Container) -> Reader:
    where, driver = path(store, container), container.options.log_driver
    if not where:
        why = f"{container.name} has --log-driver {driver}{' and cache-disabled' if driver == 'syslog' else ''}"
        raise Refused("configured logging driver does not support reading", why, exit_code=1)
    if driver in ("local", "syslog"):
        from limpet.containers.logging.logdrivers.localreader import LocalReader

        return LocalReader(where)
    return TextReader(where, parse_cri if driver == "k8s-file" else parse)


def parse(line: bytes) -> Entry | None:
    """One line of a json-file; None for what is damaged (a crash can leave half a line)."""
    try:
        values = jsontext.loads(line)
        return Entry(values["stream"], values["log"], values["time"], values.get("attrs"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parse_cri(line: bytes) -> Entry | None:
    """One line of a k8s-file, as `parse`."""
    moment, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    kind, blank, text = rest.partition(b" ")
    if stream not in (b"stdout", b"stderr") or not blank or kind[:1] not in (b"F", b"P"):
        return None
    end = "\n" if kind[:1] == b"F" else ""
    return Entry(stream.decode(), text.decode("utf-8", "replace") + end, moment.decode("ascii", "replace"))


class TextReader:
    """Reads files of a line an entry, as a `Reader`."""

    def __init__(self, path: str, parse: Callable[[bytes], Entry | None] = parse) -> None:
        self._parse = parse
        self._directory, self._name = os.path.split(path)
        self._last = 0  # inode of the newest that is open: of a compressed one that of the plain one
        self._open: list[int] = []  # the file that is read, and those that follow it: rotation can't take them away
        self._rest = b""

    def entries(self) -> Iterator[Entry]:
        """What was there when it was called: who writes faster than we read would keep us for ever."""
        self._discover()
        last = self._open[-1] if self._open else -1
        end = os.fstat(last).st_size if self._open else 0
        while self._open:
            if self._open[0] == last:
                yield from self._read(end)
                return
            yield from self._read()  # its name is another's by now: it does not grow
            os.close(self._open.pop(0))
            self._rest = b""

    def go_to_tail(self, count: int) -> None:
        """Begins at the last `count` lines: reads backwards, so that it does not matter how long the log is."""
        self._discover()
        if self._open:
            number, offset = _find_tail(self._open, count, self._parse)
            for _ in range(number):
                os.close(self._open.pop(0))
            os.lseek(self._open[0], offset, os.SEEK_SET)

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def _read(self, end: int | None = None) -> Iterator[Entry]:
        """The rest of the first file, or what is left of it up to `end`."""
        fd = self._open[0]
        at = os.lseek(fd, 0, os.SEEK_CUR)
        if at > os.fstat(fd).st_size:
            at = os.lseek(fd, 0, os.SEEK_SET)  # somebody truncated it: what comes now is new
            self._rest = b""
        while piece := os.read(fd, _PIECE if end is None else min(_PIECE, max(end - at, 0))):
            at += len(piece)
            self._discover()
            lines = (self._rest + piece).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                entry = self._parse(line)
                if entry is not None:
                    yield entry

    def _discover(self) -> None:
        """Opens what is newer than all that is open; again if a rotation happens under our eyes."""
        while True:
            names = self._names()
            inodes = [inode for inode, _ in names]
            # From the end: a compressed file's number may be that of a newer one by now.
            newer = names[len(names) - inodes[::-1].index(self._last) :] if self._last in inodes else names
            for inode, name in newer:
                try:
                    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    break
                if name.endswith(".gz"):
                    fd = _inflated(fd)
                elif os.fstat(fd).st_ino != inode:
                    os.close(fd)
                    break
                self._open.append(fd)
                self._last = inode
            else:
                return

    def _names(self) -> list[tuple[int, str]]:
        """(inode, path) of each file, the oldest first: seen twice alike, since names move while they are listed."""
        before: list[tuple[int, str]] | None = None
        while True:
            found: dict[int, tuple[int, str]] = {}  # by number, 0 the newest
            try:
                names = os.listdir(self._directory)
            except FileNotFoundError:
                return []
            for name in sorted(names, reverse=True):  # a plain file after what is being made of it
                base, dot, number = name.removesuffix(".gz").rpartition(".")
                if name != self._name and (base != self._name or not dot or not number.isdecimal()):
                    continue
                path = f"{self._directory}/{name}"
                try:
                    inode = _original_inode(path) if name.endswith(".gz") else os.stat(path).st_ino
                    found[0 if name == self._name else int(number)] = inode, path
                except FileNotFoundError:
                    pass
            now = [found[number] for number in sorted(found, reverse=True)]
            if now == before:
                return now
            before = now


def _inflated(fd: int) -> int:
    from limpet.containers.logging.logdrivers import compressing

    return compressing.plain(fd)


def _original_inode(path: str) -> int:
    from limpet.containers.logging.logdrivers import compressing

    return compressing.original_inode(path)


def _find_tail(files: list[int], count: int, parse: Callable[[bytes], Entry | None]) -> tuple[int, int]:
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


class Waiter:
    """Waits until there may be more to read: True while the container has a monitor.

    `where`: the log's file or directory. `poll` may be given more descriptors to wait for.
    """

    def __init__(self, store: Store, container: Container, where: str = "") -> None:
        self._monitored: Callable[[], bool] = lambda: state.monitored(store, container.id)
        self.poll = select.poll()
        self._pidfd = self._watch = -1
        try:
            directory = store.container_path(container.id)
            if where.endswith(f"/{opening.LOCAL}"):
                try:
                    os.mkdir(where, 0o700)
                except FileExistsError:
                    pass
                directory = where
            self._watch = inotify.watch(directory, inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO)
            self.poll.register(self._watch, select.POLLIN)
        except OSError:  # no more watches for this user, or the container is gone: look from time to time
            pass
        monitor = state.status(store, container).monitor
        if monitor and self._monitored():
            try:
                self._pidfd = os.pidfd_open(monitor)
                self.poll.register(self._pidfd, select.POLLIN)
            except OSError:
                pass

    def __call__(self, until: float) -> bool:
        if not self._monitored():
            return False
        # Without both descriptors nobody would wake us.
        limit: float = _LONGEST if self._watch >= 0 and self._pidfd >= 0 else _LOOK
        if until:
            limit = min(max(until - time.time(), 0) * 1000 + 1, limit)
        for fd, _ in self.poll.poll(limit):
            if fd == self._watch:
                inotify.drain(fd)
            elif fd == self._pidfd:  # it let go of its lock, or is just about to
                self.poll.unregister(fd)
                os.close(fd)
                self._pidfd = -1
        return True

    def close(self) -> None:
        for fd in (self._pidfd, self._watch):
            if fd >= 0:
                os.close(fd)
