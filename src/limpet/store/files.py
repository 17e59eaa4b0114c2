"""Durable files: temporary name, fsync, rename, fsync of the directory. Nothing else in limpet renames into place."""

from __future__ import annotations

import _thread
import errno
import fcntl
import os

from limpet.kernel import fs
from limpet.store import faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """All of it, in as many calls as it takes (write(2) may take less)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_file(path: str, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replaces `path` with `data` atomically. With `durable` it is on disk when this returns.

    The temporary name is `path` + `.new-<thread id>`: a crash leaves it beside the old file, `system check` takes it.
    """
    temporary = f"{path}.new-{_thread.get_native_id()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(fd, data)
        if durable:
            os.fsync(fd)
    except BaseException as e:
        os.unlink(temporary)
        if isinstance(e, OSError):
            raise OSError(e.errno, e.strerror, path) from None
        raise
    finally:
        os.close(fd)
    faults.reach("file-written")
    os.rename(temporary, path)
    if durable:
        sync_directory(os.path.dirname(path) or ".")
    faults.reach("file-renamed")


class NewFile:
    """A file that gets its name when it is whole: `place` replaces what had the name. Not durable.

    `with NewFile(directory, "name", 0o644) as file: write_all(file.fd, …); file.place()`. `directory` is a descriptor.
    Until then it has no name at all where the file system can do that, so that a kill leaves nothing; elsewhere it is
    `.<random>.new-<pid>`. Raises OSError with the name.
    """

    def __init__(self, directory: int, name: str, mode: int = 0o600) -> None:
        self._directory = directory
        self._name = name
        self._temporary = ""
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            self.fd = os.open(".", flags | os.O_TMPFILE, mode, dir_fd=directory)
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise OSError(e.errno, e.strerror, name) from None
            self._temporary = self._near()
            self.fd = os.open(self._temporary, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=directory)

    def place(self) -> None:
        if not self._temporary:
            source = f"/proc/self/fd/{self.fd}"
            try:
                os.link(source, self._name, dst_dir_fd=self._directory, follow_symlinks=True)
                return
            except FileExistsError:
                temporary = self._near()
                os.link(source, temporary, dst_dir_fd=self._directory, follow_symlinks=True)
                self._temporary = temporary
        try:
            os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError as e:
            raise OSError(e.errno, e.strerror, self._name) from None
        self._temporary = ""

    def _near(self) -> str:
        """A name for the moment, unlike any that is there: the name itself may be as long as names can be."""
        return f".{os.urandom(6).hex()}.new-{os.getpid()}"

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
        if self._temporary:
            os.unlink(self._temporary, dir_fd=self._directory)


def put(path: str, data: bytes, mode: int = 0o600) -> None:
    """Writes a file that is made anew before each use: neither atomic nor durable. Raises OSError with the path."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(fd, data)
    except OSError as e:
        raise OSError(e.errno, e.strerror, path) from None
    finally:
        os.close(fd)


def in_use(path: str) -> bool:
    """Whether somebody holds the file's lock (flock(2)) for himself. A file that is not there is nobody's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def overwrite(path: str, data: bytes) -> None:
    """Replaces a small file in place, where the disk is too full for a new one: its blocks are there already.

    Not atomic for a crash. A shorter text is filled up with blanks. Raises OSError if it is missing or too small.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data.ljust(os.fstat(fd).st_size), 0)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable (fsync of the directory itself)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_DEEP = 64
"""Levels entered at a time: each holds a descriptor and a frame, and a container can make thousands of levels."""


def remove_tree(path: str) -> None:
    """Deletes a file or a whole tree without following symbolic links; what is missing is fine.

    `shutil.rmtree` is 10 ms of imports. Directories are entered by descriptor, so a link swapped in by a
    hostile container cannot lead out of the tree. What is mounted in it is not ours: OSError, EXDEV. Two may remove the
    same tree at once.
    """
    parent, name = os.path.split(path)
    try:
        fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if _unlinked(fd, name):
            return
        top = _enter(fd, name)
        try:
            while entries := os.listdir(top):
                for entry in entries:
                    _remove_at(top, entry, top, 1)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=fd)
    except FileNotFoundError:
        pass  # somebody else was faster
    finally:
        os.close(fd)


def _remove_at(parent: int, name: str, top: int, depth: int) -> None:
    if _unlinked(parent, name):
        return
    if depth == _DEEP:
        os.rename(name, f".deep-{os.urandom(8).hex()}", src_dir_fd=parent, dst_dir_fd=top)  # its turn comes again
        return
    try:
        fd = _enter(parent, name)
        try:
            for entry in os.listdir(fd):
                _remove_at(fd, entry, top, depth + 1)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass


def _enter(parent: int, name: str) -> int:
    return fs.openat2(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dirfd=parent, resolve=fs.RESOLVE_NO_XDEV)


def _unlinked(parent: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        return False
    return True
