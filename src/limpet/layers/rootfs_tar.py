"""A tar that is the same wherever and whenever it is made from the same files.

ustar headers, with a pax header only where something does not fit (long names, large ids, attributes, fractions of a
second); owners as numbers only; entries in the order in which they are added.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.kernel import fs, idmap
from limpet.layers import owners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PIECE = 1 << 20
_MAX_OCTAL = {8: 0o7777777, 12: 0o77777777777}

_NOBODY = 65534


class TarWriter:
    """`out` gets the bytes. `mtime`, if given, is the time (seconds) of all that is added without one.

    Names are relative to the root, str or bytes; all methods raise OSError of what they read.
    """

    def __init__(
        self, out: Callable[[bytes], None], *, mtime: int | None = None, first_id: int = 0, strangers: bool = True
    ) -> None:
        """`first_id`: the host's id that is 0 in the tar, in which those below it are nobody.

        Without `strangers` whom a user namespace shows as nobody, since it lacks his id, is root.
        """
        self._no_strangers = not strangers and idmap.nested()
        self._out = out
        self._first_id = first_id
        self._mtime = 0 if mtime is None else mtime

    def directory(
        self,
        name: str | bytes,
        mode: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int | None = None,
        xattrs: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self._header(_bytes(name).rstrip(b"/") + b"/", b"5", mode, uid, gid, mtime_ns, xattrs=xattrs)

    def symlink(
        self,
        name: str | bytes,
        target: str | bytes,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int | None = None,
        xattrs: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self._header(_bytes(name), b"2", 0o777, uid, gid, mtime_ns, link=_bytes(target), xattrs=xattrs)

    def hard_link(
        self,
        name: str | bytes,
        target: str | bytes,
        like: os.stat_result | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        mode, uid, gid = (like.st_mode, like.st_uid, like.st_gid) if like else (0o644, 0, 0)
        if like and mtime_ns is None:
            mtime_ns = like.st_mtime_ns
        self._header(_bytes(name), b"1", mode, uid, gid, mtime_ns, link=_bytes(target))

    def file(
        self,
        name: str | bytes,
        data: bytes,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int | None = None,
        xattrs: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self._header(_bytes(name), b"0", mode, uid, gid, mtime_ns, size=len(data), xattrs=xattrs)
        self._out(data + bytes(-len(data) % 512))

    def stream(
        self,
        name: str | bytes,
        size: int,
        pieces: Iterable[bytes],
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int | None = None,
        xattrs: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """A regular file whose content comes in pieces, `size` bytes in all."""
        self._header(_bytes(name), b"0", mode, uid, gid, mtime_ns, size=size, xattrs=xattrs)
        for piece in pieces:
            self._out(piece)
        self._out(bytes(-size % 512))

    def copy(
        self,
        name: str | bytes,
        source: str | bytes | int,
        mode: int | None = None,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int | None = None,
        xattrs: Iterable[tuple[bytes, bytes]] = (),
    ) -> int:
        """The contents of a regular file, given by path or by descriptor; its mode if none is given. Bytes copied."""
        fd = source if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            mode = stat.S_IMODE(info.st_mode) if mode is None else mode
            size = info.st_size
            if not size and (data := _pseudo(fd)):
                self._header(_bytes(name), b"0", mode, uid, gid, mtime_ns, size=len(data), xattrs=xattrs)
                self._out(data + bytes(-len(data) % 512))
                return len(data)
            self._header(_bytes(name), b"0", mode, uid, gid, mtime_ns, size=size, xattrs=xattrs)
            at = 0
            while at < size:
                piece = os.pread(fd, min(_PIECE, size - at), at)
                if not piece:
                    raise Invalid(f"{os.fsdecode(_bytes(name))} became shorter while it was read")
                self._out(piece)
                at += len(piece)
            self._out(bytes(-size % 512))
            return size
        finally:
            if not isinstance(source, int):
                os.close(fd)

    def device(
        self,
        name: str | bytes,
        info: os.stat_result,
        mtime_ns: int | None = None,
        xattrs: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """A device or a FIFO with the mode, owner and numbers of `info`."""
        self.special(name, info.st_mode, info.st_rdev, info.st_uid, info.st_gid, mtime_ns, xattrs)

    def special(
        self,
        name: str | bytes,
        mode: int,
        rdev: int,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int | None = None,
        xattrs: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """A device or a FIFO; `mode` with its type."""
        kind = b"6" if stat.S_ISFIFO(mode) else b"3" if stat.S_ISCHR(mode) else b"4"
        device = (0, 0) if kind == b"6" else (os.major(rdev), os.minor(rdev))
        self._header(_bytes(name), kind, mode, uid, gid, mtime_ns, device=device, xattrs=xattrs)

    def whiteout(self, directory: bytes, name: bytes) -> None:
        """`.wh.<name>`: hides what the layers below have there (OCI image spec, layer.md#whiteouts)."""
        self._header((directory + b"/" if directory else b"") + b".wh." + name, b"0", 0o644, 0, 0, 0)

    def opaque(self, directory: bytes) -> None:
        """`.wh..wh..opq`: hides all that the layers below have in the directory."""
        self.whiteout(directory, b".wh..opq")

    def finish(self) -> None:
        """Two blocks of zeros end a tar."""
        self._out(bytes(1024))

    def _header(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        mtime_ns: int | None,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        if self._first_id:
            uid, gid = (each - self._first_id if each >= self._first_id else _NOBODY for each in (uid, gid))
        if self._no_strangers:
            uid, gid = (0 if each == _NOBODY else each for each in (uid, gid))
        records: list[tuple[bytes, bytes]] = []
        seconds, rest = divmod(self._mtime * 10**9 if mtime_ns is None else mtime_ns, 10**9)
        if rest or not 0 <= seconds <= _MAX_OCTAL[12]:
            records.append((b"mtime", _decimal_time(seconds, rest)))
            seconds = min(max(seconds, 0), _MAX_OCTAL[12])
        for key, value, width in ((b"uid", uid, 8), (b"gid", gid, 8), (b"size", size, 12)):
            if value > _MAX_OCTAL[width]:
                records.append((key, b"%d" % value))
        if len(name) > 100:
            records.append((b"path", name))
        if len(link) > 100:
            records.append((b"linkpath", link))
        records += [(b"SCHILY.xattr." + key, value) for key, value in sorted(xattrs)]
        if records:
            body = b"".join(pax_record(key, value) for key, value in sorted(records))
            self._block(b"PaxHeaders/" + name[-80:].strip(b"/"), b"x", 0o644, 0, 0, 0, len(body), b"", (0, 0))
            self._out(body + bytes(-len(body) % 512))
        self._block(name, kind, mode & 0o7777, uid, gid, seconds, size, link, device)

    def _block(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        seconds: int,
        size: int,
        link: bytes,
        device: tuple[int, int],
    ) -> None:
        def octal(value: int, width: int) -> bytes:
            return b"%0*o\0" % (width - 1, min(value, _MAX_OCTAL[width]))

        fields = [
            name[:100].ljust(100, b"\0"),
            octal(mode, 8),
            octal(uid, 8),
            octal(gid, 8),
            octal(size, 12),
            octal(seconds, 12),
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            octal(device[0], 8),
            octal(device[1], 8),
        ]
        block = bytearray(b"".join(fields).ljust(512, b"\0"))
        block[148:156] = b"%06o\0 " % sum(block)
        self._out(bytes(block))


def write_tree(root: str, out: Callable[[bytes], None]) -> None:
    """All of a directory of this host, owners, times and attributes kept, in one order; stays on its file system.

    Sockets are left out: no tar can hold them.
    """
    tar = TarWriter(out)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        add_open(tar, top, b".", os.fstat(top), {})
        add_tree(tar, top)
    finally:
        os.close(top)
    tar.finish()


def add_tree(tar: TarWriter, top: int, prefix: bytes = b"") -> None:
    """What is in a directory, given by a descriptor; in the tar each name begins with `prefix`."""
    links: dict[tuple[int, int], bytes] = {}
    device = os.fstat(top).st_dev
    names = list_open(top)[::-1]
    while names:
        name = names.pop()
        fd = open_beneath(top, name)
        try:
            info = os.fstat(fd)
            add_open(tar, fd, prefix + name, info, links)
            if stat.S_ISDIR(info.st_mode) and info.st_dev == device:
                names += [name + b"/" + base for base in reversed(list_open(fd))]
        finally:
            os.close(fd)


def open_beneath(root: int, name: bytes) -> int:
    """A handle (O_PATH) of a file beneath a directory; no link is followed, neither on the way nor at the end."""
    return fs.openat2(
        name or b".", os.O_PATH | os.O_NOFOLLOW, dirfd=root, resolve=fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS
    )


def list_open(fd: int) -> list[bytes]:
    """The names in a directory given by a handle, sorted bytewise."""
    return sorted(os.listdir(b"/proc/self/fd/%d" % fd))


def add_open(
    tar: TarWriter,
    fd: int,
    name: bytes,
    info: os.stat_result,
    links: dict[tuple[int, int], bytes],
    mtime_ns: int | None = None,
) -> bool:
    """One file of the host, given by a handle, as it is. False for a socket, which no tar can hold.

    `links` (inode → first name) finds hard links. `mtime_ns` replaces the file's own time.
    """
    info = owners.seen(fd, info)
    mtime_ns = info.st_mtime_ns if mtime_ns is None else mtime_ns
    mode, uid, gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
    if stat.S_ISSOCK(info.st_mode):
        return False
    if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1:
        first = links.setdefault((info.st_dev, info.st_ino), name)
        if first != name:
            tar.hard_link(name, first, info, mtime_ns)
            return True
    place = b"/proc/self/fd/%d" % fd  # leads to the file itself, even if that is a link
    xattrs = read_xattrs(place, follow=True)
    if stat.S_ISDIR(info.st_mode):
        tar.directory(name, mode, uid, gid, mtime_ns, xattrs)
    elif stat.S_ISLNK(info.st_mode):
        tar.symlink(name, os.fsencode(os.readlink("", dir_fd=fd)), uid, gid, mtime_ns, xattrs)
    elif stat.S_ISREG(info.st_mode):
        content = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            tar.copy(name, content, mode, uid, gid, mtime_ns, xattrs)
        finally:
            os.close(content)
    else:
        tar.device(name, info, mtime_ns, xattrs)
    return True


def read_xattrs(path: str | bytes, *, follow: bool = False) -> list[tuple[bytes, bytes]]:
    """The attributes of a file itself, without overlayfs's own and SELinux's label of this host."""
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError:
        return []
    return [
        (os.fsencode(name), os.getxattr(path, name, follow_symlinks=follow))
        for name in names
        if not name.startswith(("trusted.overlay.", "user.overlay."))
        and name not in ("security.selinux", owners.ATTRIBUTE)
    ]


def pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if length != rest + len(str(length)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _decimal_time(seconds: int, nanoseconds: int) -> bytes:
    """Negative times count their fraction backwards (POSIX pax: a decimal number)."""
    if seconds < 0 and nanoseconds:
        return b"-%d.%09d" % (-seconds - 1, 10**9 - nanoseconds)
    return b"%d.%09d" % (seconds, nanoseconds) if nanoseconds else b"%d" % seconds


def _bytes(text: str | bytes) -> bytes:
    return os.fsencode(text)


def _pseudo(fd: int) -> bytes:
    """The contents of a file that says that it is empty: those of /proc and /sys are made as they are read."""
    data = b""
    while len(data) < _PIECE and (piece := os.read(fd, _PIECE)):
        data += piece
    return data
