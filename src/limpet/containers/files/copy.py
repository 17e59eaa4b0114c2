"""`cp`: files between the host, containers and tar streams, with what `cp -a` keeps: owners (by number), modes, times,
attributes, links, devices. Docker's rules for paths (reference, `docker container cp`).

Between the two ends flows a tar, made in a thread (`pack`) and taken apart here (`unpack`), so that `-` is nothing
special. Every file is read through a descriptor of itself: whatever links a hostile container makes meanwhile, nothing
of the host is read.
"""

from __future__ import annotations

import os
import posixpath
import stat
import threading
from typing import TYPE_CHECKING

from limpet.containers.files.unpack import LONGEST_NAME, unpack
from limpet.errors import Invalid, LimpetError, NotFound
from limpet.layers import owners
from limpet.layers.rootfs_tar import TarWriter, read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.containers.files.copyroot import Root

_OPEN = 128  # levels of which a descriptor is held; above them the way back is ".."


def copy(source: Root, path: str, target: Root, to: str, *, follow: bool = False) -> int:
    """Copies `path`, a file or a directory, or what it means with `*`, `?` and `[`: the bytes of the files.

    `follow`: a link at the end of `path` is not copied itself. Raises NotFound, Invalid, Refused.
    """
    paths = expand(source, path)
    if len(paths) > 1:
        info = target.look(to, follow=True)
        if info is None or not stat.S_ISDIR(info.st_mode):
            raise _no_directory(target, to)
    return sum(_copy_one(source, each, target, to, follow) for each in paths)


def expand(root: Root, path: str) -> list[str]:
    """The paths that a pattern means, sorted; the path itself if it exists or has no pattern. Raises NotFound."""
    if not any(c in path for c in "*?[") or root.look(path, follow=False) is not None:
        return [path]
    from fnmatch import fnmatchcase

    found = [""]
    for part in path.strip("/").split("/"):
        if not any(c in part for c in "*?["):
            found = [f"{base}/{part}" for base in found]
            continue
        found = [
            f"{base}/{name}"
            for base in found
            for name in _names(root, base or "/")
            if fnmatchcase(name, part) and (not name.startswith(".") or part.startswith("."))
        ]
    found = [name for name in found if root.look(name, follow=False) is not None]
    if not found:
        raise _no_file(root, path)
    return found


def pack(
    root: Root, path: str, name: str, out: Callable[[bytes], object], *, follow: bool = False, one_device: bool = False
) -> None:
    """Writes a tar of `path` in which it is called `name` ("." for the contents of a directory).

    `one_device`: directories that are mounted there stay empty.
    """

    def write(data: bytes) -> None:
        out(data)

    tar = TarWriter(write, first_id=root.first_id, strangers=not root.is_host)
    try:
        fd = root.open(path, os.O_PATH | (0 if follow or path.endswith("/") else os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        raise _no_file(root, path) from None
    try:
        device = os.fstat(fd).st_dev
        skipped = root.foreign - {device}
        _pack(tar, fd, os.fsencode(name), lambda other: other != device if one_device else other in skipped)
        tar.finish()
    except BrokenPipeError:
        raise  # nobody wants the rest
    except OSError as e:
        raise LimpetError(f"{root.where or 'the host'}: reading {path}: {e.strerror or e}", exit_code=1) from e
    finally:
        os.close(fd)


def _copy_one(source: Root, path: str, target: Root, to: str, follow: bool) -> int:
    place, base = _target_name(source, path, target, to, follow)
    _check_apart(source, path, target, place, follow)
    read, write = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def produce() -> None:
        try:
            with os.fdopen(write, "wb", buffering=1 << 16) as out:
                pack(source, path, base, out.write, follow=follow)
        except BaseException as e:
            failure.append(e)

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    try:
        with os.fdopen(read, "rb") as stream:
            size = unpack(stream, target, place)
            while stream.read(1 << 16):
                pass  # the end of the tar: its writer must not find the pipe closed
    except Invalid:
        producer.join()
        if failure and not isinstance(failure[0], BrokenPipeError):
            raise failure[0] from None  # the tar was cut short by it
        raise
    finally:
        producer.join()
    if failure:
        raise failure[0]
    return size


def _target_name(source: Root, path: str, target: Root, to: str, follow: bool) -> tuple[str, str]:
    """(directory to unpack in, name of the tar's top) by what is there."""
    info = source.look(path, follow=follow or path.endswith("/"))
    if info is None:
        raise _no_file(source, path)
    there = target.look(to, follow=True)
    base = posixpath.basename(path.rstrip("/")) or "."
    if stat.S_ISDIR(info.st_mode):
        if there is not None and not stat.S_ISDIR(there.st_mode):
            raise Invalid(f"cannot copy a directory to the file {to}", exit_code=1)
        if there is not None:
            return to, "." if base in (".", "..") else base
        to = to.removesuffix("/.").rstrip("/")
        return _parent(target, to), posixpath.basename(to)
    if path.endswith("/"):
        raise Invalid(f"{path} is not a directory", exit_code=1)
    if there is not None and stat.S_ISDIR(there.st_mode):
        return to, base
    if to.endswith(("/", "/.")):
        raise _no_directory(target, to)
    to = _behind_links(target, to)
    return _parent(target, to), posixpath.basename(to)


def _check_apart(source: Root, path: str, target: Root, place: str, follow: bool) -> None:
    """A directory can't be copied into itself: it would have no end. Raises Invalid."""
    info = source.look(path, follow=follow or path.endswith("/"))
    if info is None or not stat.S_ISDIR(info.st_mode):
        return
    fd = target.open(place, os.O_PATH | os.O_DIRECTORY)
    before = None
    try:
        while True:
            here = os.fstat(fd)
            identity = (here.st_dev, here.st_ino)
            if identity == (info.st_dev, info.st_ino):
                raise Invalid(f"cannot copy the directory {path} into itself", exit_code=1)
            if identity == before:
                return
            before = identity
            above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = above
    finally:
        os.close(fd)


def _behind_links(root: Root, path: str) -> str:
    """Where a file is written that is copied to a link: what the link means, as `cp` does."""
    for _ in range(40):
        try:
            fd = root.open(path, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return path
        try:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                return path
            path = posixpath.join(posixpath.dirname(path), os.readlink("", dir_fd=fd))
        finally:
            os.close(fd)
    raise Invalid(f"{path}: too many links", exit_code=1)


def _parent(root: Root, path: str) -> str:
    parent = posixpath.dirname(path) or "/"
    info = root.look(parent, follow=True)
    if info is None or not stat.S_ISDIR(info.st_mode):
        raise _no_directory(root, parent)
    return parent


class _Level:
    """A directory that is being read: what of it is still to come, the last first. `fd` is -1 while it is closed."""

    __slots__ = ("fd", "identity", "name", "names")

    def __init__(self, fd: int, name: bytes, skipped: Callable[[int], bool]) -> None:
        info = os.fstat(fd)
        self.fd = fd
        self.name = name
        self.identity = (info.st_dev, info.st_ino)
        self.names = [] if skipped(info.st_dev) else sorted(os.listdir(f"/proc/self/fd/{fd}".encode()), reverse=True)


def _pack(tar: TarWriter, top: int, name: bytes, skipped: Callable[[int], bool]) -> None:
    """`top` is an O_PATH descriptor of the file itself; `skipped`: devices whose directories stay empty.

    A container can nest thousands of directories, so there is no recursion, and only so many descriptors. A way back
    by ".." must lead where we came from: the container may move a directory while we are in it.
    """
    links: dict[tuple[int, int], bytes] = {}
    if not _pack_one(tar, top, name, links):
        return
    levels = [_Level(os.dup(top), name, skipped)]
    try:
        while levels:
            level = levels[-1]
            if not level.names:
                above = levels[-2] if len(levels) > 1 else None
                if above is not None and above.fd < 0:
                    above.fd = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=level.fd)
                    info = os.fstat(above.fd)
                    if (info.st_dev, info.st_ino) != above.identity:
                        raise Invalid(f"{_shown(level.name)}: it was moved while it was copied", exit_code=1)
                os.close(levels.pop().fd)
                continue
            base = level.names.pop()
            inner = base if level.name == b"." else level.name + b"/" + base
            if len(inner) > LONGEST_NAME:
                raise Invalid(f"{_shown(inner)}: a path of more than {LONGEST_NAME} characters", exit_code=1)
            try:
                fd = os.open(f"/proc/self/fd/{level.fd}/".encode() + base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # gone since the directory was read
            try:
                if _pack_one(tar, fd, inner, links):
                    levels.append(_Level(fd, inner, skipped))
                    fd = -1
                    far = levels[-1 - _OPEN] if len(levels) > _OPEN else None
                    if far is not None and far.fd >= 0:
                        os.close(far.fd)
                        far.fd = -1
            finally:
                if fd >= 0:
                    os.close(fd)
    finally:
        for level in levels:
            if level.fd >= 0:
                os.close(level.fd)


def _pack_one(tar: TarWriter, fd: int, name: bytes, links: dict[tuple[int, int], bytes]) -> bool:
    """One member; whether it is a directory."""
    info = owners.seen(fd, os.fstat(fd))
    place = f"/proc/self/fd/{fd}"
    owner = (info.st_uid, info.st_gid, info.st_mtime_ns)
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        tar.symlink(name, os.readlink(b"", dir_fd=fd), *owner)
        return False
    if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1:
        first = links.setdefault((info.st_dev, info.st_ino), name)
        if first != name:
            tar.hard_link(name, first, info)
            return False
    xattrs = read_xattrs(place, follow=True)  # the link in /proc has none of its own
    if stat.S_ISREG(info.st_mode):
        data = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            tar.copy(name, data, mode, *owner, xattrs)
        finally:
            os.close(data)
    elif stat.S_ISDIR(info.st_mode):
        tar.directory(name, mode, *owner, xattrs)
    elif not stat.S_ISSOCK(info.st_mode):
        tar.device(name, info, info.st_mtime_ns, xattrs)
    return stat.S_ISDIR(info.st_mode)


def _shown(name: bytes) -> str:
    return f"…{os.fsdecode(name[-100:])}" if len(name) > 100 else os.fsdecode(name)


def _names(root: Root, path: str) -> list[str]:
    try:
        fd = root.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def _no_file(root: Root, path: str) -> NotFound:
    """Docker's words."""
    if root.is_host:
        return NotFound(f"lstat {path}: no such file or directory", exit_code=1)
    return NotFound(f"Could not find the file {path} in {root.where}", exit_code=1)


def _no_directory(root: Root, path: str) -> NotFound:
    if root.is_host:
        return NotFound(f'invalid output path: directory "{path}" does not exist', exit_code=1)
    return NotFound(f"Could not find the directory {path} in {root.where}", "the destination must exist", exit_code=1)
