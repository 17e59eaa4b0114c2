"""Sends lines to systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

A datagram is an entry: lines `FIELD=value`, or `FIELD`, a newline, the length as u64 little-endian, the value, for one
that has a newline or is binary. What is too large for a datagram goes as a sealed memory file (`memfd_create`).
The fields are Docker's (moby `logger/journald`), so that what reads those reads these.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time

from limpet.containers.logging.logfile import Lines, timestamp
from limpet.store.files import write_all

SOCKET = "/run/systemd/journal/socket"
LONGEST_DELAY = 5.0
_BUFFER = 8 << 20  # bytes, as sd-journal asks for
_PRIORITIES = {"stdout": b"6", "stderr": b"3"}
_TOO_LARGE = (90, 105)  # EMSGSIZE, ENOBUFS


class Journald:
    """A `logdrivers.opening.Driver`. `values`: `attributes.values`; `picked`: more fields, by label or variable."""

    def __init__(self, values: dict[str, str], tag: str, picked: dict[str, str], path: str = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        fields = {
            **{field_name(name): value for name, value in picked.items()},
            "CONTAINER_ID": values["ID"],
            "CONTAINER_ID_FULL": values["FullID"],
            "CONTAINER_NAME": values["Name"],
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": values["ImageName"],
            "SYSLOG_IDENTIFIER": tag,
        }
        self._fields = b"".join(field(name, value.encode()) for name, value in fields.items() if name)
        self._lines = Lines()
        self._parts: dict[str, tuple[bytes, int]] = {}  # stream: id and number of parts of a long line
        self.dropped = 0

    def connect(self) -> None:
        """Raises OSError, with the path."""
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            found.connect(self._path)
        except OSError as e:
            found.close()
            raise OSError(e.errno, e.strerror, self._path) from None
        self._socket = found

    def write(self, stream: str, data: bytes, moment: int = 0) -> None:
        now = timestamp(moment or time.time_ns()).encode()
        for run, whole in self._lines.cut(stream, data):
            for line in run.split(b"\n")[:-1] if whole else [run]:
                self._send(self._entry(stream, line, now, part=not whole))

    def flush(self) -> None:
        for stream, line in self._lines.rest():
            self.write(stream, line)

    def close(self) -> None:
        self.flush()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _entry(self, stream: str, text: bytes, now: bytes, *, part: bool) -> bytes:
        fields = [field("MESSAGE", text), b"PRIORITY=", _PRIORITIES[stream], b"\nSYSLOG_TIMESTAMP=", now, b"\n"]
        if part or stream in self._parts:
            name, number = self._parts.pop(stream, (os.urandom(16).hex().encode(), 0))
            fields.append(b"CONTAINER_PARTIAL_ID=%s\nCONTAINER_PARTIAL_ORDINAL=%d\n" % (name, number + 1))
            fields.append(b"CONTAINER_PARTIAL_LAST=%s\n" % (b"false" if part else b"true"))
            if part:
                fields.append(b"CONTAINER_PARTIAL_MESSAGE=true\n")
                self._parts[stream] = name, number + 1
        fields.append(self._fields)
        return b"".join(fields)

    def _send(self, entry: bytes) -> None:
        """Returns when the journal has it; while it is not there (a restart of journald) it is waited for."""
        delay = 0.1
        while True:
            try:
                if self._socket is None:
                    self.connect()
                assert self._socket is not None
                try:
                    self._socket.send(entry)
                except OSError as e:
                    if e.errno not in _TOO_LARGE:
                        raise
                    self._send_file(entry)
                return
            except OSError:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
                time.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY)

    def _send_file(self, entry: bytes) -> None:
        assert self._socket is not None
        memory = os.memfd_create("limpet-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            write_all(memory, entry)
            os.lseek(memory, 0, os.SEEK_SET)
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            self._socket.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, memory.to_bytes(4, "little"))])
        finally:
            os.close(memory)


def field(name: str, value: bytes) -> bytes:
    """One field of the protocol, its newline included."""
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)


def field_name(text: str) -> str:
    """What the journal takes as one: upper case, digits and underscores, not first (systemd.journal-fields(7))."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in text).upper()
    return name.lstrip("_0123456789")[:64]
