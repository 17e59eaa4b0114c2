"""The container's log in Docker's json-file format (moby `logger/jsonfilelog`, `logger/copier.go`), with rotation.

One JSON object a line: `{"log":"text\\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}`. A line longer than 16 KiB
comes in parts without the newline, each with the first part's time. `<id>-json.log.1` is the previous file, and so on.
"""

from __future__ import annotations

import os
import time

from limpet.containers.options import LOG_MAX_FILE, LOG_MAX_SIZE, parse_size
from limpet.errors import Invalid
from limpet.store.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from json.encoder import py_encode_basestring as _quote
    from typing import Any
else:
    try:
        from _json import encode_basestring as _quote
    except ImportError:
        from json.encoder import py_encode_basestring as _quote

PART = 16 << 10


def limits(options: dict[str, str]) -> tuple[int, int]:
    """`--log-opt` max-size and max-file → bytes (-1 for no limit) and number of files. Raises Invalid."""
    for key in options:
        if key not in ("max-size", "max-file"):
            raise Invalid(f"unknown log opt '{key}'", "max-size and max-file are known")
    size_text = options.get("max-size", "")
    size = LOG_MAX_SIZE
    if size_text:
        size = -1 if size_text == "-1" else parse_size(size_text, "max-size", decimal=True)
        if size == 0:
            raise Invalid("log opt max-size must be positive", "-1 means no limit")
    files = options.get("max-file", str(LOG_MAX_FILE))
    if not files.isdecimal() or int(files) < 1:
        raise Invalid(f"log opt max-file '{files}' must be a number of at least 1")
    return size, int(files)


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC, trailing zeros of the fraction cut, as Go's RFC3339Nano."""
    second, nanosecond = divmod(nanoseconds, 1_000_000_000)
    fraction = f"{nanosecond:09d}".rstrip("0")
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


class LogFile:
    """Opened by the first line, so that a silent container has no log. Not durable: a sync a line costs too much."""

    def __init__(self, path: str, max_size: int, max_file: int) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._fd = -1
        self._size = 0
        self._pending: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._part_time: dict[str, str] = {}  # streams in the middle of a long line

    def write(self, stream: str, data: bytes) -> None:
        """Logs the lines that `data` completes; the rest waits for its newline, for 16 KiB, or for `flush`."""
        pending = self._pending[stream]
        pending += data
        lines: list[bytes] = []
        now = timestamp(time.time_ns())  # what came in one read came at one time
        start = 0
        while True:
            end = pending.find(b"\n", start, start + PART)
            if end >= 0:
                lines.append(self._line(stream, pending[start : end + 1], now, last=True))
                start = end + 1
            elif len(pending) - start >= PART:
                lines.append(self._line(stream, pending[start : start + PART], now, last=False))
                start += PART
            else:
                break
        del pending[:start]
        if lines:
            self._put(lines)

    def saved(self) -> list[Any]:
        """Lines that have begun and not ended, for `restore` in another process; the file is closed."""
        self._close()
        return [{name: data.decode("latin-1") for name, data in self._pending.items()}, self._part_time]

    def restore(self, saved: list[Any]) -> None:
        pending, self._part_time = saved
        self._pending = {name: bytearray(text, "latin-1") for name, text in pending.items()}

    def flush(self) -> None:
        """At the end of the streams: what has no newline is logged with one, as Docker does."""
        for stream, pending in self._pending.items():
            if pending:
                now = timestamp(time.time_ns())
                self._put([self._line(stream, pending + b"\n", now, last=True)])
                pending.clear()

    def close(self) -> None:
        self.flush()
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _line(self, stream: str, data: bytearray, now: str, *, last: bool) -> bytes:
        moment = self._part_time.pop(stream, now) if self._part_time else now
        if not last:
            self._part_time[stream] = moment
        text = _quote(data.decode("utf-8", "replace"))
        for plain, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):  # as Go's encoder
            if plain in text:
                text = text.replace(plain, escaped)
        return f'{{"log":{text},"stream":"{stream}","time":"{moment}"}}\n'.encode()

    def _put(self, lines: list[bytes]) -> None:
        """One write for as many lines as fit the file: a write a line would be most of the cost."""
        batch: list[bytes] = []
        size = 0
        for line in lines:
            if self._size + size >= self._max_size > 0:
                self._write(b"".join(batch))
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        self._write(b"".join(batch))

    def _write(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._fd < 0 or self._size >= self._max_size > 0:
                self._open()
            write_all(self._fd, data)
        except OSError:  # a full disk must not stop the container: the lines are lost
            return
        self._size += len(data)

    def _open(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._rotate()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        if self._size >= self._max_size > 0:  # from an earlier run
            os.close(self._fd)
            self._rotate()
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._size = 0

    def _rotate(self) -> None:
        """A follower keeps the renamed file open and sees its end (notes, 3.2), so nothing is truncated while read."""
        if self._max_file == 1:
            os.unlink(self._path)
            return
        for number in range(self._max_file - 1, 0, -1):
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            try:
                os.rename(newer, f"{self._path}.{number}")
            except FileNotFoundError:
                pass
