"""A tree of files on the host to another place, as it is: owners, modes, times, xattrs, links, devices, whiteouts.

Both are given by descriptors, and nothing is followed out of them. File systems that share blocks do (FICLONE).
"""

from __future__ import annotations

import fcntl
import os
import stat

BLOCK = 1 << 20
_FICLONE = 0x40049409  # linux/fs.h


def copy(source: int, place: int) -> None:
    """What is in the directory `source` into the empty one `place`, and then its own metadata. Raises OSError.

    Hard links within the tree stay links. Sockets are left out: their servers do not come along.
    """
    _copy_directory(source, place, {})


def copy_path(source: str, target: str, *, made: bool = False) -> None:
    """`target` is made, unless it is there and empty already."""
    if not made:
        os.mkdir(target, 0o700)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    inner, outer = os.open(source, flags), os.open(target, flags)
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


def _copy_directory(source: int, place: int, links: dict[tuple[int, int], str]) -> None:
    """Both are descriptors of directories; `links` maps (device, inode) to a path of /proc/self/fd kept open by us."""
    for name in os.listdir(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=place)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner, outer = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=place)
            try:
                _copy_directory(inner, outer, links)
            finally:
                os.close(inner)
                os.close(outer)
            continue
        identity = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and identity in links:
            os.link(links[identity], name, dst_dir_fd=place, follow_symlinks=False)
            continue
        _copy_entry(source, place, name, found)
        if found.st_nlink > 1:
            links[identity] = f"{os.readlink(f'/proc/self/fd/{place}')}/{name}"
    _copy_metadata(source, place, os.fstat(source))


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
