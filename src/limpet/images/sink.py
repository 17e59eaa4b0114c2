"""Where `save` writes: a tar whose bytes depend on nothing but its contents, or a directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, LimpetError
from limpet.store.files import write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Protocol

    class Sink(Protocol):
        """Files by name; a name that comes again is left out: it is the same content, by its digest."""

        def put(self, name: str, data: bytes) -> None: ...

        def stream(self, name: str, size: int, pieces: Iterator[bytes]) -> None: ...


_BLOCK = 512
_RECORD = 20 * _BLOCK
"""POSIX tar pads to records of 20 blocks; GNU tar warns about less."""


class TarSink:
    """Writes ustar headers: mode 0644, owner 0, time 0. `finish` writes the end."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._names: set[str] = set()
        self._written = 0

    def put(self, name: str, data: bytes) -> None:
        self.stream(name, len(data), iter([data]))

    def stream(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        if name in self._names:
            return
        parent = os.path.dirname(name)
        if parent and parent not in self._names:
            self._directories(parent)
        self._names.add(name)
        self._write(_header(name, size, b"0", 0o644))
        total = 0
        for piece in pieces:
            total += len(piece)
            if total > size:
                break
            self._write(piece)
        if total != size:
            raise Corrupt(f"{name}: the store's file has not the {size} bytes that it should have")
        self._write(bytes(-size % _BLOCK))

    def finish(self) -> None:
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._written % _RECORD))
        self._out.flush()

    def _directories(self, path: str) -> None:
        parent = os.path.dirname(path)
        if parent and parent not in self._names:
            self._directories(parent)
        self._names.add(path)
        self._write(_header(f"{path}/", 0, b"5", 0o755))

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)


class DirectorySink:
    """Writes below a directory, which is made if need be."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: set[str] = set()
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as e:
            raise LimpetError(f"{path}: {e.strerror}", exit_code=1) from e

    def put(self, name: str, data: bytes) -> None:
        os.makedirs(os.path.dirname(f"{self._path}/{name}"), exist_ok=True)
        write_file(f"{self._path}/{name}", data, 0o644)

    def stream(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        target = f"{self._path}/{name}"
        if name in self._names or (os.path.isfile(target) and os.path.getsize(target) == size):
            return
        self._names.add(name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.new-{os.getpid()}"
        try:
            with open(temporary, "wb", buffering=0) as file:
                for piece in pieces:
                    file.write(piece)
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    """ustar; a size of 8 GiB and more in base 256, as GNU and every reader since."""
    field = b"%011o\0" % size if size < 1 << 33 else (size | 1 << 95).to_bytes(12, "big")
    # fmt: off
    head = b"".join([
        name.encode().ljust(100, b"\0"), b"%07o\0" % mode, b"%07o\0" % 0, b"%07o\0" % 0, field, b"%011o\0" % 0,
        b" " * 8, kind, bytes(100), b"ustar\x0000", bytes(32), bytes(32), b"%07o\0" % 0, b"%07o\0" % 0, bytes(167),
    ])
    # fmt: on
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]
