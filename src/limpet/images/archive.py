"""The files of an image archive or of a layout directory, read by name: nothing of it is ever written out by that name.

An archive's members are found by one walk over its headers; links between members (docker save links equal layers) are
followed within the archive. A directory's files are resolved beneath it, so that no link leads out.
"""

from __future__ import annotations

import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid, NotFound
from limpet.kernel import fs
from limpet.layers import compression, limits
from limpet.layers.fields import number, pax_records, verify_checksum
from limpet.store.files import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from limpet.store.store import Store

    class Files(Protocol):
        """Names are relative, with `/`. `close` when done."""

        title: str

        def has(self, name: str) -> bool: ...

        def size(self, name: str) -> int:
            """Bytes of the file. Raises NotFound."""

        def pieces(self, name: str) -> Iterator[bytes]:
            """The file's bytes. Raises NotFound, Corrupt for one that ends early."""

        def close(self) -> None: ...


PIECE = 1 << 20
_BLOCK = 512
_MAX_MEMBERS = 100_000
_MAX_EXTENSION = 1 << 20
_MAX_LINKS = 16


def read(files: Files, name: str, limit: int) -> bytes:
    """A whole small file. Raises NotFound, Invalid if it is larger than `limit` bytes."""
    size = files.size(name)
    if size > limit:
        raise Invalid(f"{files.title}: {name} has {size} bytes", f"the limit is {limit}")
    return b"".join(files.pieces(name))


class DirectoryFiles:
    """A directory of the user's."""

    def __init__(self, path: str) -> None:
        self.title = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def has(self, name: str) -> bool:
        try:
            os.close(self._open(name))
        except NotFound:
            return False
        return True

    def size(self, name: str) -> int:
        fd = self._open(name)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def pieces(self, name: str) -> Iterator[bytes]:
        fd = self._open(name)
        try:
            while piece := os.read(fd, PIECE):
                yield piece
        finally:
            os.close(fd)

    def close(self) -> None:
        os.close(self._fd)

    def _open(self, name: str) -> int:
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK  # a fifo would wait for a writer
            fd = fs.openat2(name, flags, dirfd=self._fd, resolve=fs.RESOLVE_BENEATH | fs.RESOLVE_NO_MAGICLINKS)
        except OSError as e:
            raise NotFound(f"{self.title}: {name}: {e.strerror}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotFound(f"{self.title}: {name} is not a file")
        return fd


@dataclass(frozen=True)
class _Member:
    """`link`: the name in the archive that has the bytes, or ''."""

    offset: int
    size: int
    link: str = ""


class TarFiles:
    """A plain tar, open for reading at any place. Owns `fd`."""

    def __init__(self, fd: int, title: str) -> None:
        self.title = title
        self._fd = fd
        self._members = dict(_walk(fd, title))

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def size(self, name: str) -> int:
        return self._member(name).size

    def pieces(self, name: str) -> Iterator[bytes]:
        member = self._member(name)
        position, end = member.offset, member.offset + member.size
        while position < end:
            piece = os.pread(self._fd, min(PIECE, end - position), position)
            if not piece:
                raise Corrupt(f"{self.title} is cut off inside {name}")
            position += len(piece)
            yield piece

    def close(self) -> None:
        os.close(self._fd)

    def _find(self, name: str) -> _Member | None:
        for _ in range(_MAX_LINKS):
            found = self._members.get(posixpath.normpath(name))
            if found is None or not found.link:
                return found
            name = found.link
        return None

    def _member(self, name: str) -> _Member:
        found = self._find(name)
        if found is None:
            raise NotFound(f"{self.title}: there is no file {name[:200]!r} in the archive")
        return found


def open_tar(store: Store, fd: int, title: str) -> TarFiles:
    """An archive, plain or compressed, a file or a pipe. What can't be read at any place goes through a nameless file
    in the store's tmp/. Takes over `fd`. Raises Invalid, Corrupt."""
    try:
        plain = stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0
        head = os.pread(fd, _BLOCK, 0) if plain else _read_fully(fd, _BLOCK)
        if not head:
            raise Invalid(f"{title} is empty", "an archive that `docker save` or `limpet save` wrote is wanted")
        kind = compression.detect(head)
        if plain and kind == "tar":
            return TarFiles(fd, title)
        spooled = _spool(store, fd, b"" if plain else head, kind)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    try:
        return TarFiles(spooled, title)
    except BaseException:
        os.close(spooled)
        raise


def _spool(store: Store, fd: int, head: bytes, kind: str) -> int:
    """A file without a name, gone with its descriptor whatever happens."""
    target = os.open(f"{store.root}/tmp", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    pending = [head] if head else []
    bounds = limits.from_environment()

    def more(count: int) -> bytes:
        return pending.pop() if pending else os.read(fd, min(count, PIECE))

    size = 0
    try:
        for piece in compression.decompress(more, kind, max_ratio=bounds.max_ratio):
            size += len(piece)
            if size > bounds.max_size:
                raise Invalid(f"the archive is larger than {bounds.max_size} bytes", "LIMPET_MAX_LAYER_SIZE sets it")
            write_all(target, piece)
    except BaseException:
        os.close(target)
        raise
    return target


def _read_fully(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := os.read(fd, count - len(data))):
        data += piece
    return data


def _walk(fd: int, title: str) -> Iterator[tuple[str, _Member]]:
    """Every file and link of a tar. A name that comes again stands for the later one, as in any tar."""
    position, count, found = 0, 0, False
    extended: dict[bytes, bytes] = {}
    while True:
        header = os.pread(fd, _BLOCK, position)
        if len(header) < _BLOCK or not header.strip(b"\0"):
            if not found:
                raise Invalid(f"{title} is not an archive of images", "`limpet import` takes other tars")
            return
        count += 1
        if count > _MAX_MEMBERS:
            raise Invalid(f"{title} has more than {_MAX_MEMBERS} members: not an archive of images")
        kind, size = header[156:157], _size(header, title)
        data = position + _BLOCK
        position = data + size + -size % _BLOCK
        if kind in b"xgLK" and kind != b"\0":
            if size > _MAX_EXTENSION:
                raise Invalid(f"{title}: an extension header of {size} bytes")
            body = os.pread(fd, size, data)
            if kind == b"x":
                extended.update(pax_records(body))
            elif kind != b"g":
                extended[b"path" if kind == b"L" else b"linkpath"] = body.split(b"\0", 1)[0]
            continue
        found = True
        name = header[:100].split(b"\0", 1)[0]
        if header[257:263] == b"ustar\0" and header[345]:
            name = header[345:500].split(b"\0", 1)[0] + b"/" + name
        name = extended.get(b"path", name)
        link = extended.get(b"linkpath", header[157:257].split(b"\0", 1)[0])
        text = extended.get(b"size", b"")
        if text.isdigit() and len(text) < 20:
            size = int(text)
            position = data + size + -size % _BLOCK
        extended = {}
        path = posixpath.normpath(name.decode(errors="surrogateescape"))
        if position > os.fstat(fd).st_size:
            raise Corrupt(f"{title} is cut off: it ends inside {path[:200]}", "get it again")
        if kind in b"0\x007":
            yield path, _Member(data, size)
        elif kind in b"12":
            target = link.decode(errors="surrogateescape")
            if kind == b"2":
                target = posixpath.join(posixpath.dirname(path), target)
            yield path, _Member(data, 0, posixpath.normpath(target))


def _size(header: bytes, title: str) -> int:
    """The size field of a header whose checksum is right."""
    try:
        verify_checksum(header)
        size = number(header[124:136], header[:100])
    except Corrupt:
        size = -1
    if not 0 <= size < 1 << 62:
        raise Invalid(f"{title} is not a tar, or a damaged one", "an archive that `docker save` wrote is wanted")
    return size
