"""`cp`: files between the host, containers and tar streams, with what `cp -a` keeps: owners (by number), modes, times,
attributes, links, devices.

Every path in a container is resolved within the container's root (`openat2`, RESOLVE_IN_ROOT), by the kernel, at the
moment of use: whatever links a hostile container makes meanwhile, nothing of the host is read or written. A running
container's root is its own mount namespace's, volumes included; a stopped one's layers are mounted for the purpose,
under its lock.

Between the two ends flows a tar, made in a thread and taken apart here, so that `-` is nothing special.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import stat
import tarfile
import threading
from typing import TYPE_CHECKING, BinaryIO

from limpet.containers import state
from limpet.errors import Conflict, Invalid, NotFound
from limpet.kernel import fs
from limpet.layers.driver import driver
from limpet.layers.rootfs_tar import TarWriter, read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from limpet.containers.state import Container
    from limpet.store.store import Store

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Root:
    """A tree that paths are resolved in: a container's root, or the host's."""

    def __init__(self, fd: int, name: str, lock: int = -1) -> None:
        self.fd = fd
        self.name = name
        self._lock = lock

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
        if self._lock >= 0:
            os.close(self._lock)

    def open(self, path: str, flags: int) -> int:
        """Raises OSError. Links are followed within the root; the last part only without O_NOFOLLOW."""
        return fs.openat2(path or "/", flags, dirfd=self.fd, resolve=fs.RESOLVE_IN_ROOT)

    def look(self, path: str, *, follow: bool) -> os.stat_result | None:
        try:
            fd = self.open(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)


def host_root() -> Root:
    return Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "the host")


def container_root(store: Store, container: Container) -> Root:
    """Raises Conflict when the container is just being started or stopped."""
    status = state.status(store, container)
    if status.running:
        try:
            fd = os.open(f"/proc/{status.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            raise Conflict(f"container {container.name} ended just now", "try again") from None
        return Root(fd, container.name)
    os.makedirs(store.run_path(container.id), 0o700, exist_ok=True)
    lock = os.open(f"{store.run_path(container.id)}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory = store.container_path(container.id)
        fd = driver(store).mount(container.layers, f"{directory}/upper", f"{directory}/work")
    except BlockingIOError:
        os.close(lock)
        raise Conflict(f"container {container.name} is being started or stopped", "try again") from None
    except BaseException:
        os.close(lock)
        raise
    return Root(fd, container.name, lock)


def copy(source: Root, path: str, target: Root, to: str, *, follow: bool = False) -> None:
    """Docker's rules for names (reference, `docker container cp`). Raises NotFound, Invalid."""
    name = _target_name(source, path, target, to, follow)
    place, base = name
    read, write = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def produce() -> None:
        try:
            with os.fdopen(write, "wb") as out:
                pack(source, path, base, out.write, follow=follow)
        except BaseException as e:
            failure.append(e)

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    try:
        with os.fdopen(read, "rb") as stream:
            unpack(stream, target, place)
    except (tarfile.ReadError, BrokenPipeError):
        if not failure:
            raise
    finally:
        producer.join()
    if failure and not isinstance(failure[0], BrokenPipeError):
        raise failure[0]


def pack(root: Root, path: str, name: str, out: Callable[[bytes], object], *, follow: bool = False) -> None:
    """Writes a tar of `path` in which it is called `name` ("." for the contents of a directory)."""

    def write(data: bytes) -> None:
        out(data)

    tar = TarWriter(write)
    try:
        fd = root.open(path, os.O_PATH | (0 if follow or path.endswith("/") else os.O_NOFOLLOW))
    except OSError as e:
        raise NotFound(f"could not find the file {path} in {root.name}", e.strerror or "", exit_code=1) from e
    try:
        _pack(tar, fd, os.fsencode(name), {})
    finally:
        os.close(fd)
    tar.finish()


def unpack(stream: BinaryIO, root: Root, place: str) -> None:
    """Unpacks a tar into the directory `place` of `root`. Raises NotFound if it isn't one, Invalid for a bad tar."""
    info = root.look(place, follow=True)
    if info is None or not stat.S_ISDIR(info.st_mode):
        raise NotFound(f"no such directory in {root.name}: {place}", exit_code=1)
    later: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|*", errorlevel=2) as tar:
            for member in tar:
                target = _inside(place, member.name)
                _unpack(root, tar, member, target, place)
                if member.isdir():
                    later.append((target, member))
    except tarfile.TarError as e:
        raise Invalid(f"not a tar, or a damaged one: {e}", exit_code=1) from e
    for target, member in reversed(later):  # what was put into a directory changed its time
        parent, base = posixpath.split(target.rstrip("/"))
        if base and posixpath.normpath(target) != posixpath.normpath(place):
            directory = root.open(parent, os.O_PATH | os.O_DIRECTORY)
            try:
                _set_time(directory, base, member)
            finally:
                os.close(directory)


def _target_name(source: Root, path: str, target: Root, to: str, follow: bool) -> tuple[str, str]:
    """(directory to unpack in, name of the tar's top) by what is there."""
    info = source.look(path, follow=follow or path.endswith("/"))
    if info is None:
        raise NotFound(f"could not find the file {path} in {source.name}", exit_code=1)
    there = target.look(to, follow=True)
    base = posixpath.basename(path.rstrip("/")) or "."
    contents = path.endswith("/.") or path == "." or base == ".."
    if stat.S_ISDIR(info.st_mode):
        if there is not None and not stat.S_ISDIR(there.st_mode):
            raise Invalid(f"cannot copy a directory to the file {to}", exit_code=1)
        if there is not None:
            return to, "." if contents else base
        return _parent(target, to), posixpath.basename(to.rstrip("/"))
    if there is not None and stat.S_ISDIR(there.st_mode):
        return to, base
    if to.endswith("/"):
        raise NotFound(f"no such directory in {target.name}: {to}", "the destination must exist", exit_code=1)
    return _parent(target, to), posixpath.basename(to)


def _parent(root: Root, path: str) -> str:
    parent = posixpath.dirname(path.rstrip("/")) or "/"
    info = root.look(parent, follow=True)
    if info is None or not stat.S_ISDIR(info.st_mode):
        raise NotFound(f"no such directory in {root.name}: {parent}", exit_code=1)
    return parent


def _pack(tar: TarWriter, fd: int, name: bytes, links: dict[tuple[int, int], bytes]) -> None:
    """`fd` is an O_PATH descriptor of the file itself."""
    info = os.fstat(fd)
    place = f"/proc/self/fd/{fd}"
    owner = (info.st_uid, info.st_gid, info.st_mtime_ns)
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        tar.symlink(name, os.readlink(b"", dir_fd=fd), *owner)
        return
    xattrs = read_xattrs(place, follow=True)  # the link in /proc has none of its own
    if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1:
        first = links.setdefault((info.st_dev, info.st_ino), name)
        if first != name:
            tar.hard_link(name, first, info)
            return
    if stat.S_ISREG(info.st_mode):
        data = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            tar.copy(name, data, mode, *owner, xattrs)
        finally:
            os.close(data)
    elif stat.S_ISDIR(info.st_mode):
        tar.directory(name, mode, *owner, xattrs)
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for base in sorted(os.fsencode(entry) for entry in os.listdir(directory)):
                try:
                    below = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                except FileNotFoundError:
                    continue  # gone since the directory was read
                try:
                    _pack(tar, below, base if name == b"." else name + b"/" + base, links)
                finally:
                    os.close(below)
        finally:
            os.close(directory)
    elif not stat.S_ISSOCK(info.st_mode):
        tar.device(name, info, info.st_mtime_ns, xattrs)


def _unpack(root: Root, tar: tarfile.TarFile, member: tarfile.TarInfo, target: str, place: str) -> None:
    parent, base = posixpath.split(target.rstrip("/"))
    there = root.look(target, follow=True) if member.isdir() else None
    if there is not None and not stat.S_ISDIR(there.st_mode):
        raise Invalid(f"cannot replace the file {target} by a directory", exit_code=1)
    if member.isdir() and posixpath.normpath(target) == posixpath.normpath(place):
        return
    directory = _open_parent(root, parent, place)
    try:
        if there is None:
            _make(root, tar, member, directory, base, target, place)
        if not member.islnk():
            _attributes(directory, base, member)
    finally:
        os.close(directory)


def _make(
    root: Root, tar: tarfile.TarFile, member: tarfile.TarInfo, directory: int, base: str, target: str, place: str
) -> None:
    old = _look_at(directory, base)
    if old is not None:
        if stat.S_ISDIR(old.st_mode):
            raise Invalid(f"cannot replace the directory {target} by a file", exit_code=1)
        os.unlink(base, dir_fd=directory)
    if member.isdir():
        os.mkdir(base, 0o700, dir_fd=directory)
    elif member.issym():
        os.symlink(member.linkname, base, dir_fd=directory)
    elif member.islnk():
        _link(root, _inside(place, member.linkname), directory, base)
    elif member.isreg():
        _write(tar, member, directory, base)
    elif member.isfifo() or member.isdev():
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(base, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=directory)
    else:
        raise Invalid(f"the type {member.type!r} of {member.name} in the tar is not known", exit_code=1)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: int, base: str) -> None:
    source = tar.extractfile(member)
    assert source is not None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(base, flags, 0o600, dir_fd=directory), "wb") as file:
        while piece := source.read(1 << 20):
            file.write(piece)


def _link(root: Root, source: str, directory: int, base: str) -> None:
    parent, name = posixpath.split(source)
    found = root.open(parent, os.O_PATH | os.O_DIRECTORY)
    try:
        os.link(name, base, src_dir_fd=found, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(found)


def _attributes(directory: int, base: str, member: tarfile.TarInfo) -> None:
    """Owner before mode: chown(2) takes setuid bits away. A link that is a directory elsewhere is left as it is."""
    fd = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISLNK(kind) and not member.issym():
            return
        os.chown(base, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
        if not member.issym():
            place = f"/proc/self/fd/{fd}"
            os.chmod(place, member.mode & 0o7777)
            for key, value in member.pax_headers.items():
                if key.startswith("SCHILY.xattr."):
                    os.setxattr(place, key[13:], value.encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)
    _set_time(directory, base, member)


def _set_time(directory: int, base: str, member: tarfile.TarInfo) -> None:
    moment = round(member.mtime * 10**9) if isinstance(member.mtime, float) else int(member.mtime) * 10**9
    os.utime(base, ns=(moment, moment), dir_fd=directory, follow_symlinks=False)


def _open_parent(root: Root, parent: str, place: str) -> int:
    """The directory, made if the tar does not list it but lies below `place`."""
    try:
        return root.open(parent or "/", _DIRECTORY & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        up, base = posixpath.split(parent.rstrip("/"))
        if not base or not parent.startswith(place.rstrip("/")):
            raise
    above = _open_parent(root, up, place)
    try:
        os.mkdir(base, 0o755, dir_fd=above)
    finally:
        os.close(above)
    return root.open(parent, _DIRECTORY & ~os.O_NOFOLLOW)


def _look_at(directory: int, base: str) -> os.stat_result | None:
    try:
        return os.stat(base, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _inside(place: str, name: str) -> str:
    """A member's place. Raises Invalid for one that climbs."""
    if ".." in name.split("/"):
        raise Invalid(f"'..' in the tar's member {name[:200]}", exit_code=1)
    return posixpath.join(place, name.lstrip("/")) if name.strip("/") not in ("", ".") else place
