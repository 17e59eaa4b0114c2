"""The file system of a result outside of an image: as a tar, or as files of the caller's own.

What is written is what the caller may do with it: files belong to the caller, without setuid bits and devices, which
would be somebody else's; the tar, which only names them, has all. In a directory that has files already, those of other
names stay; each file is replaced whole. No link in it is followed.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Invalid, LimpetError
from limpet.kernel import fs
from limpet.layers.contents import copy_range
from limpet.layers.driver import driver
from limpet.layers.rootfs_tar import TarWriter, add_tree, list_open, open_beneath
from limpet.store.files import NewFile, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from limpet.store.store import Store

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BENEATH = fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS


def write_tar(
    store: Store, trees: Mapping[str, Sequence[str]], out: BinaryIO, extra: Mapping[str, bytes] | None = None
) -> None:
    """`trees`: layers by the directory in which they are in the tar, "" for none. The same layers give the same bytes.
    `extra`: files beside them, by path.

    The directories of platforms and the root have no entries of their own.
    """

    def write(data: bytes) -> None:
        out.write(data)

    tar = TarWriter(write)
    for name, layers in trees.items():
        root = _open_root(store, layers)
        try:
            if name:
                tar.directory(name)
            add_tree(tar, root, os.fsencode(f"{name}/") if name else b"")
        finally:
            os.close(root)
    for path, data in (extra or {}).items():
        tar.file(path, data)
    tar.finish()
    out.flush()


def write_directory(
    store: Store, trees: Mapping[str, Sequence[str]], path: str, extra: Mapping[str, bytes] | None = None
) -> list[str]:
    """Writes into the directory `path`, which is made if it is missing. Gives what was left out, by its path.

    Raises Invalid for what stands in the way, LimpetError for what can't be written.
    """
    left: list[str] = []
    try:
        for name, layers in trees.items():
            place = os.path.join(path, name) if name else path
            os.makedirs(place, exist_ok=True)
            root, target = _open_root(store, layers), os.open(place, _DIRECTORY)
            try:
                left += _Copy(root, target, place).run()
            finally:
                os.close(root)
                os.close(target)
        for name, data in (extra or {}).items():
            write_file(os.path.join(path, name), data, 0o644, durable=False)
    except OSError as e:
        where = os.fsdecode(e.filename) if e.filename else path
        raise LimpetError(f"{where}: {e.strerror}", exit_code=1) from e
    return left


def _open_root(store: Store, layers: Sequence[str]) -> int:
    mounted = driver(store).mount(layers)
    try:
        return os.open(".", _DIRECTORY, dir_fd=mounted)
    finally:
        os.close(mounted)


class _Copy:
    """Directories come before what is in them, and get their modes and times at the end, from the deepest up."""

    def __init__(self, root: int, target: int, shown: str) -> None:
        self._root = root
        self._target = target
        self._shown = shown
        self._links: dict[tuple[int, int], bytes] = {}
        self._made: list[tuple[bytes, os.stat_result]] = []
        self._left: list[str] = []

    def run(self) -> list[str]:
        todo = [b""]
        while todo:
            todo += self._directory(todo.pop())
        for name, info in reversed(self._made):
            fd = self._open(name)
            try:
                os.fchmod(fd, stat.S_IMODE(info.st_mode) & 0o1777)
                os.utime(fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
            finally:
                os.close(fd)
        return self._left

    def _directory(self, name: bytes) -> list[bytes]:
        """Writes what is in one; gives the directories among it."""
        source, target = open_beneath(self._root, name), self._open(name)
        below: list[bytes] = []
        try:
            for base in list_open(source):
                whole = name + b"/" + base if name else base
                fd = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
                try:
                    info = os.fstat(fd)
                    try:
                        self._entry(fd, info, target, base, whole)
                    except OSError as e:
                        raise OSError(e.errno, e.strerror, self._path(whole)) from None
                finally:
                    os.close(fd)
                if stat.S_ISDIR(info.st_mode):
                    below.append(whole)
        finally:
            os.close(source)
            os.close(target)
        return below[::-1]

    def _open(self, name: bytes) -> int:
        return fs.openat2(name or b".", _DIRECTORY, dirfd=self._target, resolve=_BENEATH)

    def _path(self, name: bytes) -> str:
        return os.path.join(self._shown, os.fsdecode(name))

    def _entry(self, fd: int, info: os.stat_result, target: int, base: bytes, whole: bytes) -> None:
        there = _look(target, base)
        if there is not None and stat.S_ISDIR(there.st_mode) != stat.S_ISDIR(info.st_mode):
            kinds = ("a directory", "something else")
            old, new = kinds if stat.S_ISDIR(there.st_mode) else kinds[::-1]
            message = f"{self._path(whole)}: the result has {new} where {old} is"
            raise Invalid(message, "remove it, or choose a new dest")
        if stat.S_ISDIR(info.st_mode):
            if there is None:
                os.mkdir(base, 0o700, dir_fd=target)
                self._made.append((whole, info))
        elif stat.S_ISREG(info.st_mode):
            self._file(fd, info, target, base, whole)
        elif stat.S_ISLNK(info.st_mode):
            link = os.readlink(b"", dir_fd=fd)
            self._replace(target, base, lambda name: os.symlink(link, name, dir_fd=target))
            os.utime(base, ns=(info.st_mtime_ns,) * 2, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISFIFO(info.st_mode):
            self._replace(target, base, lambda name: os.mkfifo(name, stat.S_IMODE(info.st_mode), dir_fd=target))
            os.utime(base, ns=(info.st_mtime_ns,) * 2, dir_fd=target, follow_symlinks=False)
        else:
            self._left.append(self._path(whole))

    def _file(self, fd: int, info: os.stat_result, target: int, base: bytes, whole: bytes) -> None:
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), whole)
            if first != whole:
                parent, name = os.path.split(first)
                source = self._open(parent)
                try:
                    self._replace(target, base, lambda new: os.link(name, new, src_dir_fd=source, dst_dir_fd=target))
                finally:
                    os.close(source)
                return
        content = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with NewFile(target, os.fsdecode(base)) as new:
                copy_range(content, 0, new.fd, 0, info.st_size)
                os.fchmod(new.fd, stat.S_IMODE(info.st_mode) & 0o777)
                os.utime(new.fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
                new.place()
        finally:
            os.close(content)

    def _replace(self, target: int, base: bytes, make: Callable[[bytes], None]) -> None:
        try:
            make(base)
        except FileExistsError:
            temporary = f".{os.urandom(6).hex()}.new-{os.getpid()}".encode()
            make(temporary)
            try:
                os.rename(temporary, base, src_dir_fd=target, dst_dir_fd=target)
            finally:
                if _look(target, temporary) is not None:  # both are names of one file: rename(2) does nothing then
                    os.unlink(temporary, dir_fd=target)


def _look(directory: int, base: bytes) -> os.stat_result | None:
    try:
        return os.stat(base, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
