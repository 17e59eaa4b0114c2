"""Files: openat2 and the other calls that `os` lacks."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from limpet.kernel.sys import Buffer, by_machine, syscall, text

AT_FDCWD = -100
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4

_OPENAT2 = 437
FALLOC_FL_KEEP_SIZE = 1
_FITRIM = 0xC0185879

_SYNCFS, _RENAMEAT2, _FALLOCATE = by_machine(306, 267), by_machine(316, 276), by_machine(285, 47)


def openat2(path: str | bytes, flags: int, mode: int = 0, *, dirfd: int = AT_FDCWD, resolve: int = 0) -> int:
    """openat2(2): a path that is resolved beneath `dirfd`, whoever wrote its links.

    Always close-on-exec. EAGAIN (a rename raced with `..`) and EINTR are tried again. Raises OSError with the path.
    """
    how = struct.pack("<3Q", flags | os.O_CLOEXEC, mode, resolve)
    name = text(path)
    for _ in range(64):
        try:
            return syscall(_OPENAT2, dirfd, name, Buffer(how), len(how))
        except (BlockingIOError, InterruptedError):
            continue
        except OSError as e:
            raise OSError(e.errno, e.strerror, path) from None
    raise OSError(errno.EAGAIN, "renamed too often while it was opened", path)


def syncfs(fd: int) -> None:
    """Everything of the file system that `fd` is on is on disk when this returns."""
    syscall(_SYNCFS, fd)


def trim(fd: int) -> None:
    """The free space of the file system that `fd` is on is given back to what is below it (FITRIM). Raises OSError."""
    fcntl.ioctl(fd, _FITRIM, struct.pack("<3Q", 0, (1 << 64) - 1, 0))


def reserve(fd: int, size: int) -> None:
    """Blocks for the first `size` bytes, so that writing them can't fail for want of space; the file stays as long as
    it is (fallocate(2), KEEP_SIZE). Raises OSError where the file system can't, or is full."""
    syscall(_FALLOCATE, fd, FALLOC_FL_KEEP_SIZE, 0, size)


def renameat2(old: str, new: str, flags: int = 0, *, old_dirfd: int = AT_FDCWD, new_dirfd: int = AT_FDCWD) -> None:
    """renameat2(2)."""
    try:
        syscall(_RENAMEAT2, old_dirfd, text(old), new_dirfd, text(new), flags)
    except OSError as e:
        raise OSError(e.errno, e.strerror, old, None, new) from None
