"""A tree of files on the host to another place, as it is: owners, modes, times, xattrs, links, devices, whiteouts.

Both are given by descriptors, and nothing is followed out of them. File systems that share blocks do (FICLONE).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

BLOCK = 1 << 20
_FICLONE = 0x40049409  # linux/fs.h
_PATH_MAX = 4096


def copy(source: int, place: int) -> None:
    """What is in the directory `source` into the empty one `place`, and then its own metadata. Raises OSError.

    Hard links within the tree stay links. Sockets are left out: their servers do not come along.
    """
    _copy_directory(source, place, {})


def copy_path(source: str, target: str, *, made: bool = False) -> None:
    """`target` is made, unless it is there and empty already."""
    if not made:
        os.mkdir(target, 0o700)
    inner, outer = os.open(source, _FLAGS), os.open(target, _FLAGS)
    try:
        copy(inner, outer)
    finally:
        os.close(inner)
        os.close(outer)


def _copy_content(inner: int, outer: int) -> None:
    try:
        fcntl.ioctl(outer, _FICLONE, inner)
        return
    except OSError:
        pass  # another file system, or one that can't
    size, place = os.fstat(inner).st_size, 0
    while place < size:  # a sparse file stays one
        try:
            place = os.lseek(inner, place, os.SEEK_DATA)
        except OSError:
            break  # the rest is a hole
        end = os.lseek(inner, place, os.SEEK_HOLE)
        os.lseek(outer, place, os.SEEK_SET)
        while place < end and (count := os.sendfile(outer, inner, place, min(BLOCK, end - place))):
            place += count
    os.ftruncate(outer, size)


_OPEN = 64
"""Levels whose directories stay open: a container can nest deeper than there are descriptors, and paths."""


class _Level:
    """A directory that is being copied: both descriptors, or -1 while it is far above, and what is left to do in it."""

    __slots__ = ("identity", "left", "place", "source", "stat")

    def __init__(self, source: int, place: int) -> None:
        self.source = source
        self.place = place
        self.left = os.listdir(source)
        self.stat = os.fstat(source)
        self.identity = (_identity(self.stat), _identity(os.fstat(place)))

    def close(self) -> None:
        for fd in (self.source, self.place):
            if fd >= 0:
                os.close(fd)
        self.source = self.place = -1

    def open_again(self, below: _Level) -> None:
        self.source = os.open("..", _FLAGS, dir_fd=below.source)
        self.place = os.open("..", _FLAGS, dir_fd=below.place)
        if self.identity != (_identity(os.fstat(self.source)), _identity(os.fstat(self.place))):
            raise OSError(errno.ESTALE, "a directory was moved while it was copied")


_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _copy_directory(source: int, place: int, links: dict[tuple[int, int], str]) -> None:
    """Both are descriptors of directories; `links` maps (device, inode) to a path of the copy."""
    levels = [_Level(os.dup(source), os.dup(place))]
    try:
        while levels:
            here = levels[-1]
            if here.left:
                below = _copy_one(here, here.left.pop(), links)
                if below is not None:
                    levels.append(below)
                    if len(levels) > _OPEN:
                        levels[-_OPEN - 1].close()
                continue
            _copy_metadata(here.source, here.place, here.stat)
            if len(levels) > 1 and levels[-2].source < 0:
                levels[-2].open_again(here)
            levels.pop().close()
    finally:
        for level in levels:
            level.close()


def _copy_one(here: _Level, name: str, links: dict[tuple[int, int], str]) -> _Level | None:
    """A directory is made, and to be gone on with."""
    source, place = here.source, here.place
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        os.mkdir(name, 0o700, dir_fd=place)
        inner = os.open(name, _FLAGS, dir_fd=source)
        try:
            return _Level(inner, os.open(name, _FLAGS, dir_fd=place))
        except OSError:
            os.close(inner)
            raise
    identity = _identity(found)
    if found.st_nlink > 1 and identity in links:
        os.link(links[identity], name, dst_dir_fd=place, follow_symlinks=False)
        return None
    _copy_entry(source, place, name, found)
    if found.st_nlink > 1 and not stat.S_ISSOCK(found.st_mode):
        try:
            path = f"{os.readlink(f'/proc/self/fd/{place}')}/{name}"
        except OSError:  # deeper than paths reach: each name gets a copy
            return None
        if len(os.fsencode(path)) < _PATH_MAX:
            links[identity] = path
    return None


def _copy_entry(source: int, place: int, name: str, found: os.stat_result) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=place)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=place, follow_symlinks=False)
        return
    if kind == stat.S_IFREG:
        inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        outer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
        try:
            try:
                _copy_content(inner, outer)
            except OSError as e:
                raise OSError(e.errno, e.strerror, os.readlink(f"/proc/self/fd/{outer}")) from None
            _copy_metadata(inner, outer, found)
        finally:
            os.close(inner)
            os.close(outer)
        return
    if kind == stat.S_IFSOCK:  # of a server that no longer runs
        return
    os.mknod(name, kind | stat.S_IMODE(found.st_mode), found.st_rdev, dir_fd=place)
    os.chown(name, found.st_uid, found.st_gid, dir_fd=place, follow_symlinks=False)
    os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=place)


def _copy_metadata(inner: int, outer: int, found: os.stat_result) -> None:
    os.fchown(outer, found.st_uid, found.st_gid)
    os.fchmod(outer, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(inner):
        try:
            os.setxattr(outer, name, os.getxattr(inner, name))
        except OSError:
            continue  # one that the volume's file system does not have
    os.utime(outer, ns=(found.st_atime_ns, found.st_mtime_ns))
