"""The container's log as a text file, with rotation: Docker's json-file, or the lines of the CRI (Podman's k8s-file).

json-file (moby `logger/jsonfilelog`, `logger/copier.go`): one JSON object a line,
`{"log":"text\\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}`. A line longer than 16 KiB comes in parts without
the newline, each with the first part's time. `<id>-json.log.1` is the previous file, and so on; `.1.gz` if compressed.
k8s-file: `2026-01-02T03:04:05.6Z stdout F text`, with `P` for such a part (Kubernetes CRI, design of container logs).

What other drivers there are, and what they share, is in `logdrivers`; this one is on the path of `run`.
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


def limits(options: dict[str, str], size: int = LOG_MAX_SIZE, count: int = LOG_MAX_FILE) -> tuple[int, int]:
    """`--log-opt` max-size and max-file → bytes (-1 for no limit) and number of files. Raises Invalid."""
    size_text = options.get("max-size", "")
    if size_text:
        size = -1 if size_text == "-1" else parse_size(size_text, "max-size", decimal=True)
        if size == 0:
            raise Invalid("log opt max-size must be positive", "-1 means no limit")
    files = options.get("max-file", str(count))
    if not files.isdecimal() or int(files) < 1:
        raise Invalid(f"log opt max-file '{files}' must be a number of at least 1")
    return size, int(files)


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC, trailing zeros of the fraction cut, as Go's RFC3339Nano."""
    second, nanosecond = divmod(nanoseconds, 1_000_000_000)
    fraction = f"{nanosecond:09d}".rstrip("0")
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


class Lines:
    """Cuts what a container writes at its newlines, and a line longer than 16 KiB into parts; keeps what has begun."""

    def __init__(self) -> None:
        self._pending: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def cut(self, stream: str, data: bytes) -> list[tuple[bytes, bool]]:
        """Runs of at most 16 KiB: (whole lines, True), or (a part of a long line, False). The rest waits."""
        pending = self._pending[stream]
        pending += data
        found: list[tuple[bytes, bool]] = []
        start, size = 0, len(pending)
        while True:
            end = pending.rfind(b"\n", start, start + PART) + 1
            if not end and size - start < PART:
                break
            found.append((bytes(pending[start : end or start + PART]), bool(end)))
            start = end or start + PART
        del pending[:start]
        return found

    def rest(self) -> list[tuple[str, bytes]]:
        """(stream, line) of what has no newline; at the end of the streams it gets one, as in Docker."""
        found = [(stream, bytes(pending) + b"\n") for stream, pending in self._pending.items() if pending]
        for pending in self._pending.values():
            pending.clear()
        return found

    def saved(self) -> dict[str, str]:
        return {name: data.decode("latin-1") for name, data in self._pending.items()}

    def restore(self, saved: dict[str, str]) -> None:
        self._pending = {name: bytearray(text, "latin-1") for name, text in saved.items()}


class LogFile:
    """Opened by the first line, so that a silent container has no log. Not durable: a sync a line costs too much.

    `attributes`: JSON text of an object that each line carries (`attrs`), or "". `compress`: rotated files, by gzip.
    """

    blocked = False  # as `logdrivers.writer`: a file takes what it gets
    descriptor = -1

    def __init__(
        self,
        path: str,
        max_size: int,
        max_file: int,
        *,
        cri: bool = False,
        attributes: str = "",
        compress: bool = False,
    ) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._encode = _cri if cri else _json
        self._attributes = f',"attrs":{attributes}' if attributes else ""
        self._compress = compress
        self._compressor = 0
        self._fd = -1
        self._size = 0
        self._lines = Lines()
        self._part_time: dict[str, str] = {}  # streams in the middle of a long line
        self.dropped = 0  # lines that a full disk did not take

    def write(self, stream: str, data: bytes, moment: int = 0) -> None:
        """Logs the lines that `data` completes; the rest waits for its newline, for 16 KiB, or for `flush`.

        `moment`: when they came, in nanoseconds since 1970; 0 for now.
        """
        self._log(stream, self._lines.cut(stream, data), moment)

    def retry(self, seconds: float = 0.0) -> None:
        """Nothing ever waits here."""

    def saved(self) -> list[Any] | None:
        """Lines that have begun and not ended, for `restore` in another process; the file is closed. None: not now."""
        if self._compressor and not self._compressed(os.WNOHANG):
            return None
        self._close()
        return [self._lines.saved(), self._part_time, self.dropped]

    def restore(self, saved: list[Any]) -> None:
        lines, self._part_time, self.dropped = (*saved, 0)[:3]  # older than 0.4: two values
        self._lines.restore(lines)

    def flush(self) -> None:
        """At the end of the streams: what has no newline is logged with one, as Docker does."""
        for stream, line in self._lines.rest():
            self._log(stream, [(line, True)], 0)

    def close(self) -> None:
        self.flush()
        self._close()
        if self._compressor:
            from limpet.containers.logging.logdrivers import compressing

            compressing.abandon(self._compressor, f"{self._path}.1")
            self._compressor = 0

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _log(self, stream: str, runs: list[tuple[bytes, bool]], moment: int) -> None:
        if not runs:
            return
        now = timestamp(moment or time.time_ns())  # what came in one read came at one time
        texts = []
        for data, whole in runs:
            began = self._part_time.get(stream, "") if self._part_time else ""
            if not whole:
                self._part_time[stream] = began or now
            elif began:  # the end of a long line, and perhaps others after it
                del self._part_time[stream]
                end = data.index(b"\n") + 1
                texts.append(self._encode(data[:end], stream, began, self._attributes, True))
                data = data[end:]
                if not data:
                    continue
                began = ""
            texts.append(self._encode(data, stream, began or now, self._attributes, whole))
        self._put(b"".join(texts))

    def _put(self, data: bytes) -> None:
        """One write for as many lines as fit the file: a write a line would be most of the cost."""
        if self._max_size > 0 and self._size + len(data) >= self._max_size:
            batch = bytearray()
            for line in data.splitlines(keepends=True):
                if self._size + len(batch) >= self._max_size:
                    self._write(batch)
                    batch = bytearray()
                batch += line
            data = bytes(batch)
        self._write(data)

    def _write(self, data: bytes | bytearray) -> None:
        if not data:
            return
        try:
            if self._fd < 0 or self._size >= self._max_size > 0:
                self._open()
            write_all(self._fd, data)
        except OSError:  # a full disk must not stop the container: the lines are lost, and counted
            self.dropped += data.count(b"\n")
            if self._fd >= 0:
                os.ftruncate(self._fd, self._size)  # what would spoil the next line
            return
        self._size += len(data)

    def _open(self) -> None:
        if self._fd >= 0:
            self._close()
            self._rotate()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        if self._size >= self._max_size > 0:  # from an earlier run
            self._close()
            self._rotate()
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._size = 0

    def _rotate(self) -> None:
        """A follower keeps the renamed file open and sees its end (notes, 3.2), so nothing is truncated while read."""
        if self._max_file == 1:
            os.unlink(self._path)
            return
        if self._compressor:  # it works on a file that is to be renamed: whoever writes faster than it has to wait
            self._compressed(0)
        for number in range(self._max_file - 1, 0, -1):
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            for suffix in ("", ".gz") if self._compress else ("",):
                try:
                    os.rename(f"{newer}{suffix}", f"{self._path}.{number}{suffix}")
                    if self._compress:
                        os.unlink(f"{self._path}.{number}{'' if suffix else '.gz'}")  # the other form of an older one
                except FileNotFoundError:
                    pass
        if self._compress:
            from limpet.containers.logging.logdrivers import compressing

            self._compressor = compressing.begin(f"{self._path}.1")

    def _compressed(self, how: int) -> bool:
        """Whether the compressor has ended; `how` 0 waits for it."""
        try:
            ended = os.waitpid(self._compressor, how)[0] != 0
        except ChildProcessError:  # reaped with others
            ended = True
        if ended:
            self._compressor = 0
        return ended


_ESCAPED = bytes(byte for byte in range(32) if byte != 10) + b'"\\<>&\x7f'


def _json(data: bytes, stream: str, moment: str, attributes: str, whole: bool) -> bytes:
    """Whole lines in one go: a call a line would be most of the cost of a log."""
    if whole and data.isascii() and len(data.translate(None, _ESCAPED)) == len(data):
        end = f'\\n","stream":"{stream}"{attributes},"time":"{moment}"}}\n'.encode()
        return b'{"log":"' + data[:-1].replace(b"\n", end + b'{"log":"') + end
    text = _quote(data.decode("utf-8", "replace"))
    for plain, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):  # as Go's encoder
        if plain in text:
            text = text.replace(plain, escaped)
    tail = f'","stream":"{stream}"{attributes},"time":"{moment}"}}\n'
    if not whole or len(data) == 1 or data.find(b"\n") == len(data) - 1:
        return f'{{"log":{text[:-1]}{tail}'.encode()
    escapes = "\\\\" in text
    if escapes:  # so that a backslash before an n is none of a newline; JSON text has no control characters
        text = text.replace("\\\\", "\0")
    text = text[1:-3].replace("\\n", f'\\n{tail}{{"log":"')
    if escapes:
        text = text.replace("\0", "\\\\")
    return f'{{"log":"{text}\\n{tail}'.encode()


def _cri(data: bytes, stream: str, moment: str, attributes: str, whole: bool) -> bytes:
    if not whole:
        return f"{moment} {stream} P ".encode() + data + b"\n"
    head = f"{moment} {stream} F ".encode()
    return head + data[:-1].replace(b"\n", b"\n" + head) + b"\n"
