"""The driver `local`: a compact log of our own, in numbered files below `containers/<id>/log/`.

A file begins with `limpetL` and the format's version, a byte. Then come records, little-endian:

    u16 marker (0x4cfe), u8 stream (1 stdout, 2 stderr; 0x80 added: a part of a line), u8 0,
    u32 length of the text, u64 nanoseconds since 1970, u32 CRC-32 of the 16 bytes before and of the text,
    the text: whole lines of one stream that came at one time, or a part without newline; u32 the length again

so that a read of the container costs one header and no encoding, and the last lines are found from the end. Nothing is
renamed: a rotation begins the next number, `compress` makes `<n>.gz` of the one before, and the oldest goes. A record
that a kill left torn is cut off by the next writer, and no reader shows it. What write(2) took survives the end of the
monitor, not that of the machine: a sync a line costs too much.
"""

from __future__ import annotations

import os
import time
from zlib import crc32

from limpet.containers.logging.logdrivers import compressing
from limpet.containers.logging.logfile import Lines
from limpet.store.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEAD = b"limpetL\x01"
HEADER = 20  # bytes before the text
OVERHEAD = HEADER + 4
MARKER = b"\xfe\x4c"
PART = 0x80
STREAMS = {"stdout": 1, "stderr": 2}
LONGEST = 1 << 20  # of a text; more can only be damage
BLOCK = 1 << 17


def record(stream: str, text: bytes, moment: int, *, part: bool) -> bytes:
    """A record of at most LONGEST bytes."""
    size = len(text).to_bytes(4, "little")
    head = MARKER + bytes((STREAMS[stream] | (PART if part else 0), 0)) + size + moment.to_bytes(8, "little")
    return b"".join((head, crc32(text, crc32(head)).to_bytes(4, "little"), text, size))


def whole(data: bytes | memoryview, at: int) -> int:
    """Of bytes of a file, with a record at `at`: its length; 0 if it isn't all there (yet), -1 if it is none."""
    left = len(data) - at
    if left < OVERHEAD:
        return 0
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    if data[at : at + 2] != MARKER or size > LONGEST:
        return -1
    if left < size + OVERHEAD:
        return 0
    end = at + HEADER + size
    check = crc32(data[at + HEADER : end], crc32(data[at : at + 16]))
    good = check == int.from_bytes(data[at + 16 : at + 20], "little") and data[at + 4 : at + 8] == data[end : end + 4]
    return size + OVERHEAD if good else -1


def numbers(directory: str) -> list[tuple[int, str]]:
    """(number, path) of each file, the oldest first."""
    found: dict[int, str] = {}
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    for name in sorted(names, reverse=True):  # a plain file is preferred to what is being made of it
        base = name.removesuffix(".gz")
        if base.isdecimal():
            found[int(base)] = f"{directory}/{name}"
    return sorted(found.items())


class LocalLog:
    """Has the methods of `logfile.LogFile`. Opened by the first line."""

    blocked = False
    descriptor = -1

    def __init__(self, directory: str, max_size: int, max_file: int, *, compress: bool) -> None:
        self._directory = directory
        self._max_size = max_size
        self._max_file = max_file
        self._compress = compress
        self._compressor = 0
        self._compressing = ""
        self._number = 0
        self._fd = -1
        self._size = 0
        self._lines = Lines()
        self.dropped = 0

    def write(self, stream: str, data: bytes, moment: int = 0) -> None:
        runs = self._lines.cut(stream, data)
        if not runs:
            return
        now = moment or time.time_ns()
        texts: list[bytes] = []  # whole lines beside each other are one record
        records: list[bytes] = []
        for text, ended in runs:
            if ended:
                texts.append(text)
                continue
            if texts:
                records.append(record(stream, b"".join(texts), now, part=False))
                texts = []
            records.append(record(stream, text, now, part=True))
        if texts:
            records.append(record(stream, b"".join(texts), now, part=False))
        self._write(records)

    def retry(self, seconds: float = 0.0) -> None:
        """Nothing ever waits here."""

    def saved(self) -> list[Any] | None:
        if self._compressor and not self._compressed(os.WNOHANG):
            return None
        self._close()
        return [self._lines.saved(), self.dropped]

    def restore(self, saved: list[Any]) -> None:
        lines, self.dropped = saved
        self._lines.restore(lines)

    def flush(self) -> None:
        for stream, line in self._lines.rest():
            self._write([record(stream, line, time.time_ns(), part=False)])

    def close(self) -> None:
        self.flush()
        self._close()
        if self._compressor:
            compressing.abandon(self._compressor, self._compressing)
            self._compressor = 0

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, records: list[bytes]) -> None:
        for data in records:
            try:
                if self._fd < 0:
                    self._open()
                if self._size + len(data) > self._max_size > 0 and self._size > len(HEAD):
                    self._next()
                write_all(self._fd, data)
            except OSError:  # as `LogFile`
                self.dropped += max(data[HEADER:].count(b"\n"), 1)
                if self._fd >= 0:
                    os.ftruncate(self._fd, self._size)
                continue
            self._size += len(data)

    def _open(self) -> None:
        """Goes on with the newest file, without what a kill left torn at its end."""
        try:
            os.mkdir(self._directory, 0o700)
        except FileExistsError:
            pass
        there = numbers(self._directory)
        if there and not there[-1][1].endswith(".gz"):
            self._number, path = there[-1]
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            head = os.pread(self._fd, len(HEAD), 0)
            if head == HEAD:
                self._size = good_end(self._fd)
                if os.fstat(self._fd).st_size != self._size:
                    os.ftruncate(self._fd, self._size)
                return
            if HEAD.startswith(head):  # its maker was killed
                os.ftruncate(self._fd, 0)
                self._begin()
                return
            self._close()  # of another version: not ours to go on with
        self._number = there[-1][0] if there else 0
        self._next()

    def _next(self) -> None:
        previous = f"{self._directory}/{self._number:08d}" if self._fd >= 0 else ""
        self._close()
        self._number += 1
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(f"{self._directory}/{self._number:08d}", flags, 0o640)
        self._begin()
        if self._compressor:  # one at a time: whoever writes faster has to wait
            self._compressed(0)
        for number, path in numbers(self._directory):
            if number <= self._number - self._max_file:
                os.unlink(path)
        if previous and self._compress and self._max_file > 1:
            self._compressing = previous
            self._compressor = compressing.begin(previous)

    def _begin(self) -> None:
        self._size = 0
        write_all(self._fd, HEAD)
        self._size = len(HEAD)

    def _compressed(self, how: int) -> bool:
        try:
            ended = os.waitpid(self._compressor, how)[0] != 0
        except ChildProcessError:  # reaped with others
            ended = True
        if ended:
            self._compressor = 0
        return ended


def good_end(fd: int) -> int:
    """Where the last whole record ends. Its last record decides, if that is whole."""
    size = os.fstat(fd).st_size
    if size <= len(HEAD) or before(fd, size) is not None:
        return size
    at, end, data = len(HEAD), len(HEAD), b""
    while more := os.pread(fd, BLOCK, at + len(data)):  # from the beginning: a kill in the middle of a write is rare
        data += more
        place = 0
        while (step := whole(data, place)) != 0:
            if step > 0:
                end = at + place + step
            place += max(step, 1)
        at, data = at + place, data[place:]
    return end


def before(fd: int, end: int) -> tuple[int, bytes] | None:
    """(offset, record) of the one that ends at `end`; None if none does."""
    if end < len(HEAD) + OVERHEAD:
        return None
    size = int.from_bytes(os.pread(fd, 4, end - 4), "little")
    at = end - size - OVERHEAD
    if size > LONGEST or at < len(HEAD):
        return None
    data = os.pread(fd, size + OVERHEAD, at)
    return (at, data) if whole(data, 0) == len(data) else None
