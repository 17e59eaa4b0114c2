"""Reads what `local` wrote, with the methods of the reader of text logs (`containers.logs`)."""

from __future__ import annotations

import os

from limpet.containers.logging.logdrivers import compressing, local
from limpet.containers.logging.logfile import timestamp
from limpet.containers.logging.logs import Entry
from limpet.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = {number: name for name, number in local.STREAMS.items()}


class LocalReader:
    """Reads whatever is there and stops at the end; called again it goes on where it was."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._number = 0  # of the file that is read
        self._fd = -1
        self._at = 0
        self._skip = 0  # lines at the beginning of the first record

    def entries(self) -> Iterator[Entry]:
        while True:
            if self._fd >= 0:
                yield from self._read()
            following = [(number, path) for number, path in local.numbers(self.directory) if number > self._number]
            if not following:
                return
            if self._fd >= 0:
                yield from self._read()  # what was written before the next one began; since then it does not grow
            self._open(*following[0])

    def go_to_tail(self, count: int) -> None:
        """Begins at the last `count` lines, found from the end."""
        left = count
        for number, path in reversed(local.numbers(self.directory)):
            self._open(number, path)
            if self._fd < 0:
                continue
            end = self._at = local.good_end(self._fd)
            if count <= 0:
                return
            while (found := local.before(self._fd, end)) is not None:
                start, data = found
                part = bool(data[2] & local.PART)
                if left <= 0 and not part:
                    return
                if part and left == count:
                    left -= 1  # a line that has not ended yet
                lines = 0 if part else data[local.HEADER : -4].count(b"\n")
                if lines > left:
                    self._at, self._skip = start, lines - left
                    return
                left -= lines
                self._at = end = start

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, number: int, path: str) -> None:
        self.close()
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # rotated away, or compressed, meanwhile
            try:
                fd, path = os.open(f"{path}.gz", os.O_RDONLY | os.O_CLOEXEC), f"{path}.gz"
            except FileNotFoundError:
                self._number = number
                return
        self._fd = compressing.plain(fd) if path.endswith(".gz") else fd
        self._number = number
        self._at = len(local.HEAD)
        head = os.pread(self._fd, len(local.HEAD), 0)
        if len(head) == len(local.HEAD) and head != local.HEAD:
            raise Refused(f"log {path} has a format that this limpet does not know", "a newer one wrote it")

    def _read(self) -> Iterator[Entry]:
        data, place = b"", 0
        while more := os.pread(self._fd, local.BLOCK, self._at + len(data)):
            data += more
            while (step := local.whole(data, place)) != 0:
                if step < 0:  # damaged: the next record is behind the next marker
                    further = data.find(local.MARKER, place + 1)
                    if further < 0:
                        break
                    place = further
                    continue
                yield from self._entries(data[place : place + step])
                place += step
            self._at += place
            data, place = data[place:], 0

    def _entries(self, data: bytes) -> Iterator[Entry]:
        stream = _NAMES.get(data[2] & ~local.PART, "stdout")
        moment = timestamp(int.from_bytes(data[8:16], "little"))
        text = data[local.HEADER : -4].decode("utf-8", "replace")
        lines = [text] if data[2] & local.PART else [line + "\n" for line in text.split("\n")[:-1]]
        skip, self._skip = self._skip, 0
        for line in lines[skip:]:
            yield Entry(stream, line, moment)
