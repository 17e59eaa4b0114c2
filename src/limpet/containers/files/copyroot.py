"""The trees that `cp` copies from and to: a container's root, or the host's. Paths are resolved in them by the kernel.

A running container's root is that of its own mount namespace. Of one that does not run, the layers are mounted for the
purpose, under its lock, with its volumes and bind mounts where they will be, in a mount namespace that nobody else
sees; it goes with the last descriptor, so that no crash leaves a mount.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING, NoReturn

from limpet.containers import state
from limpet.containers.mounts import mountplan, volumefill
from limpet.errors import Conflict, LimpetError
from limpet.kernel import fs, mounts, process
from limpet.layers.driver import driver

if TYPE_CHECKING:
    from types import TracebackType

    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.state import Container
    from limpet.store.store import Store

PATIENCE = 10.0
"""Seconds to wait for another command that has the container's lock."""

_PATH_MAX = 4096  # limits.h
_ENGINE_MOUNTS = ("proc", "sys", "dev", "dev/pts", "dev/shm", "dev/mqueue", "sys/fs/cgroup")


class Root:
    """`fd` is where paths begin. With `prefix` they are meant beneath that path of it.

    `resolve`: openat2's rules. RESOLVE_IN_ROOT, the default, keeps every link inside; RESOLVE_NO_SYMLINKS follows none.
    `where` is for messages. `kept`: descriptors that have to stay open as long.
    """

    def __init__(
        self, fd: int, where: str, prefix: str = "", resolve: int = fs.RESOLVE_IN_ROOT, kept: tuple[int, ...] = ()
    ) -> None:
        self.fd = fd
        self.where = where
        self.first_id = 0  # of the host, for the root of the container's user namespace
        self.foreign: frozenset[int] = frozenset()  # devices of what the engine mounts: /proc and the like
        self._prefix = prefix
        self._resolve = resolve
        self._kept = kept

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in (self.fd, *self._kept):
            os.close(fd)

    @property
    def is_host(self) -> bool:
        return not self.where

    def open(self, path: str, flags: int) -> int:
        """Raises OSError; FileNotFoundError also where a link would lead outside (/proc/1/root) or in a circle.

        The last part is a link that is followed, except with O_NOFOLLOW.
        """
        whole = f"{self._prefix}/{path}"
        try:
            if len(whole) * 4 < _PATH_MAX or len(os.fsencode(whole)) < _PATH_MAX:
                return fs.openat2(whole, flags, dirfd=self.fd, resolve=self._resolve)
            return self._open_long(whole, flags)
        except OSError as e:
            if e.errno in (errno.EXDEV, errno.ELOOP):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
            raise

    def _open_long(self, path: str, flags: int) -> int:
        """In several steps. Behind the first one no link is followed: it would not know where the root is."""
        fd = -1
        resolve, parts = self._resolve, [part for part in path.split("/") if part]
        while parts:
            step, size = [], 0
            while parts and (size := size + len(os.fsencode(parts[0])) + 1) < _PATH_MAX:
                step.append(parts.pop(0))
            if not step:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            before = fd
            try:
                wanted = os.O_PATH | os.O_DIRECTORY if parts else flags
                fd = fs.openat2("/".join(step), wanted, dirfd=self.fd if before < 0 else before, resolve=resolve)
            finally:
                if before >= 0:
                    os.close(before)
            resolve = fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS
        return fd

    def look(self, path: str, *, follow: bool) -> os.stat_result | None:
        """What is there; None for nothing."""
        try:
            fd = self.open(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def beneath(self, place: str) -> Root:
        """The directory `place` as a root of its own, to unpack in.

        In a container, links lead on to where they lead in it. On the host no link below `place` is followed: it would
        be the container that says where we write.
        """
        if self.is_host:
            fd = self.open(place, os.O_PATH | os.O_DIRECTORY)
            return Root(fd, "", resolve=fs.RESOLVE_IN_ROOT | fs.RESOLVE_NO_SYMLINKS)
        os.close(self.open(place, os.O_PATH | os.O_DIRECTORY))
        return Root(os.dup(self.fd), self.where, prefix=place)


def host_root() -> Root:
    return Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "")


def directory_root(path: str, where: str) -> Root:
    """A directory as the root of what is below it: a volume's. `where`: what it is."""
    return Root(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), where)


def container_root(store: Store, container: Container) -> Root:
    """Raises Conflict when another command has the container for longer than `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while True:
        fd = _running(state.status(store, container))
        if fd >= 0:
            root = Root(fd, f"container {container.name}")
            root.foreign = _foreign(root)
            if container.options.userns == "auto":
                from limpet.containers.plan import idrange

                root.first_id = idrange.claim(store, container.id)
            return root
        lock = state.try_lock(store, container)
        if lock >= 0:
            break
        if time.monotonic() > end:
            raise Conflict(f"container {container.name} is being started, stopped or copied", "try again")
        time.sleep(0.01)
    try:
        return _stopped(store, container, lock)
    except BaseException:
        os.close(lock)
        raise


def _running(status: state.Status) -> int:
    """The root of PID 1; -1 if there is none."""
    if not status.running:
        return -1
    try:
        fd = os.open(f"/proc/{status.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    if status.pid_start and process.start_time(status.pid) != status.pid_start:
        os.close(fd)  # it ended, and the number is another's
        return -1
    return fd


def _foreign(root: Root) -> frozenset[int]:
    own = os.fstat(root.fd).st_dev
    found = (root.look(path, follow=True) for path in _ENGINE_MOUNTS)
    return frozenset(info.st_dev for info in found if info is not None and info.st_dev != own)


def _stopped(store: Store, container: Container, lock: int) -> Root:
    directory = store.container_path(container.id)
    where = f"container {container.name}"
    fd = driver(store).mount(container.layers, f"{directory}/upper", f"{directory}/work")
    try:
        if container.options.read_only:
            mounts.set_attributes(fd, mounts.MOUNT_ATTR_RDONLY)
        planned = [mount for mount in mountplan.load(store, container.id) if mount.kind != "tmpfs"]
        if not planned:
            return Root(fd, where, kept=(lock,))
        if any(mount.driver for mount in planned):
            from limpet.containers.mounts import volumemounts

            volumemounts.acquire_all(store, container.id, planned)  # until its mounts have a copy of it
        for mount in planned:
            if mount.kind == "volume" and mount.copy:  # as a start would: later it is no longer empty
                volumefill.fill(fd, mount.target, mount.source)
        made: dict[str, int] = {}
        try:
            if any(mount.is_made for mount in planned):
                from limpet.containers.mounts import mounttrees
                from limpet.containers.observe import listing
                from limpet.containers.plan import spec, users

                user = users.resolve(fd, spec.user_text(container.options, listing.image_config(store, container)))
                made = mounttrees.open_all(store, container.id, planned, (user.uid, user.gid))
            root, namespace = _with_mounts(fd, planned, made, f"{directory}/rootfs", where)
        finally:
            for tree in made.values():
                os.close(tree)
            if any(mount.driver for mount in planned):
                volumemounts.release_all(store, container.id)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return Root(root, where, kept=(lock, namespace))


def _with_mounts(fd: int, planned: list[Mount], made: dict[str, int], target: str, where: str) -> tuple[int, int]:
    """(the root with all mounts, the mount namespace that holds them): made in a child, which ends at once."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    wait, done = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _mount_all(fd, planned, made, target, tell, wait, done)
    os.close(tell)
    os.close(wait)
    try:
        message = b""
        while not message.endswith(b"\n") and (piece := os.read(told, 4096)):
            message += piece
        if message != b"\n":
            reason = message.decode(errors="replace").strip()
            raise LimpetError(f"{where}: {reason or 'its mounts could not be made'}", exit_code=1)
        root = os.open(f"/proc/{child}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return root, os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(told)
        os.close(done)
        os.waitpid(child, 0)


def _mount_all(
    fd: int, planned: list[Mount], made: dict[str, int], target: str, tell: int, wait: int, done: int
) -> NoReturn:
    try:
        os.close(done)
        process.unshare(process.CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
        trees = []
        for mount in planned:
            tree = made.get(mount.target, -1)
            if tree < 0:
                tree = mounts.open_tree(mount.source, recursive="rbind" in mount.options)
            if mount.read_only:
                mounts.set_attributes(tree, mounts.MOUNT_ATTR_RDONLY, recursive=True)
            trees.append(tree)
        mounts.attach(fd, target)
        os.chroot(target)  # from here on, links lead where they lead in the container
        os.chdir("/")
        for mount, tree in zip(planned, trees, strict=True):
            _make_target(mount.target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
            mounts.attach(tree, mount.target)
        os.write(tell, b"\n")
        os.read(wait, 1)
    except BaseException as e:
        os.write(tell, f"{e}\n".encode())
    finally:
        os._exit(0)


def _make_target(path: str, *, directory: bool) -> None:
    if os.path.exists(path):
        return
    os.makedirs(path if directory else os.path.dirname(path), 0o755, exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
