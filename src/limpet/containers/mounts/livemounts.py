"""Mounts that come and go while a container is there: at once in one that runs, and kept for its next start.

What users of Docker ask for since 2013 (moby#2045). The kernel's part is done by a child in the container's mount
namespace. The container may be hostile: no path is followed out of its root, and the kernel refuses a mount outside of
that namespace.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from limpet import jsontext
from limpet.containers import state
from limpet.containers.execution import rootfs, runtime
from limpet.containers.mounts import mountplan, mounttrees, volumefill, volumes
from limpet.containers.plan import spec
from limpet.errors import Conflict, NotFound, Refused, reason
from limpet.kernel import fs, mounts, process
from limpet.kernel.userns import Acting
from limpet.store import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.options import Options
    from limpet.containers.state import Container
    from limpet.errors import LimpetError
    from limpet.kernel.userns import Mapped
    from limpet.store.store import Store


def change(store: Store, container: Container, asked: Options, removed: Sequence[str]) -> None:
    """Adds what `asked` has as volumes, mounts and tmpfs, and takes away those mounted on `removed`.

    All or nothing: what the kernel refuses is not kept. Raises Invalid, NotFound, Conflict, Refused.
    """
    added = mountplan.plan(store, asked, [])
    mountplan.make_volumes(store, added)
    path = f"{store.container_path(container.id)}/mounts.json"
    gone: list[Mount] = []
    # A kill between the two leaves something held by a container that doesn't use it, never the other way round.
    with store.db.transaction():
        for mount in added:
            if mount.name:
                volumes.make_directory(store, mount.name)
        mountplan.hold(store, container.id, added, time.time())
    try:
        with store.db.transaction():
            before = mountplan.load(store, container.id)
            there = {mount.target: mount for mount in before}
            gone = [_planned(container, there, target) for target in removed]
            after = [mount for mount in before if mount not in gone]
            taken = {mount.target for mount in after}
            for mount in added:
                if mount.target in taken:
                    raise Conflict(f"container {container.name} has a mount on {mount.target}", "--mount-rm first")
            after += added
            _at_once(store, container, added, gone)
            files.write_file(path, mountplan.save(after).encode())
            mountplan.let_go(store, container.id, after)
    except BaseException:
        with store.db.transaction():
            mountplan.let_go(store, container.id, mountplan.load(store, container.id))
        raise
    for mount in gone:
        if mount.anonymous:
            with suppress(Conflict, NotFound):
                volumes.remove(store, mount.name)


def _planned(container: Container, there: dict[str, Mount], target: str) -> Mount:
    found = there.get(os.path.normpath(target))
    if found is None:
        has = f"it has {', '.join(sorted(there))}" if there else "it has none"
        raise NotFound(f"container {container.name} has no mount on {target}", has, exit_code=1)
    return found


def _at_once(store: Store, container: Container, added: Sequence[Mount], gone: Sequence[Mount]) -> None:
    """In the container, if it runs. What was added is taken away again when a later one fails."""
    status = state.status(store, container)
    if not status.running:
        return
    try:
        pidfd = os.pidfd_open(status.pid)
    except ProcessLookupError:
        return  # it ended just now
    trees: list[int] = []
    try:
        if status.pid_start and process.start_time(status.pid) != status.pid_start:
            return
        if any(mount.driver for mount in added):
            from limpet.containers.mounts import volumemounts

            volumemounts.acquire_all(store, container.id, added)
        _fill(container, added, status.pid)
        trees += _trees(store, container, added, status.pid)
        with open(f"/proc/{status.pid}/uid_map", encoding="ascii") as file:
            root_id = int(file.read().split()[1])
        targets = [mount.target for mount in added]
        _in_namespace(container, pidfd, root_id, trees, targets, [mount.target for mount in gone])
    finally:
        for fd in (pidfd, *trees):
            os.close(fd)


def _fill(container: Container, added: Sequence[Mount], pid: int) -> None:
    for mount in added:
        if mount.kind == "volume" and mount.copy:
            root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                volumefill.fill(root, mount.target, mount.source)
            except OSError as e:
                raise _failure(container, f"mounting on {mount.target}: {reason(e)}") from e
            finally:
                os.close(root)


def _trees(store: Store, container: Container, added: Sequence[Mount], pid: int) -> list[int]:
    """Detached mounts with their attributes; owners are mapped for a user namespace."""
    with open(f"{store.container_path(container.id)}/config.json", "rb") as file:
        config = jsontext.loads(file.read())
    mapped = runtime.mapped(config)
    user = config["process"]["user"]
    trees = []
    try:
        made = mounttrees.open_all(store, container.id, added, (user["uid"], user["gid"]), mapped)
        for mount in added:
            planned = spec.mount_of(mount)
            if mount.kind == "tmpfs":
                flags, _, data = rootfs.parse_options(planned["options"])
                pairs = (word.partition("=") for word in data.split(",") if word)
                trees.append(mounts.tmpfs(rootfs.attributes(flags), **{key: value for key, _, value in pairs}))
            else:
                trees.append(rootfs.open_sources({"mounts": [planned]}, made)[0])
            if mapped is not None and mount.target not in made:
                _map(container, mount, trees[-1], mapped)
    except BaseException:
        for fd in trees:
            os.close(fd)
        raise
    finally:
        if mapped is not None:
            mapped.close()
    return trees


def _map(container: Container, mount: Mount, tree: int, mapped: Mapped) -> None:
    try:
        mounts.set_attributes(tree, mounts.MOUNT_ATTR_IDMAP, recursive=True, userns=mapped.fd)
    except OSError as e:
        what = f"{mount.source or mount.target}: its file system can't map ids for a user namespace"
        raise _failure(container, what) from e


def _in_namespace(
    container: Container, pidfd: int, root_id: int, trees: Sequence[int], targets: Sequence[str], gone: Sequence[str]
) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _child(pidfd, root_id, trees, targets, gone, write)
    os.close(write)
    with open(read, "rb") as answer:
        message = answer.read().decode(errors="replace")
    os.waitpid(child, 0)
    if message != "done":
        raise _failure(container, message or "its mounts could not be changed")


def _failure(container: Container, what: str) -> LimpetError:
    return Refused(f"container {container.name}: {what}", exit_code=1)


def _child(
    pidfd: int, root_id: int, trees: Sequence[int], targets: Sequence[str], gone: Sequence[str], tell: int
) -> NoReturn:
    made: list[str] = []
    try:
        Acting(root_id).__enter__()  # who makes a mount point is somebody that a user namespace knows
        process.setns(pidfd, process.CLONE_NEWNS)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for target in gone:
            _unmount(target)
        for tree, target in zip(trees, targets, strict=True):
            place = _place(root, target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
            mounts.attach(tree, "", dirfd=place)
            made.append(target)
        os.write(tell, b"done")
    except OSError as e:
        for target in made:
            _unmount(target)
        what = e.filename or (targets[len(made)] if len(made) < len(targets) else "")
        os.write(tell, f"mounting on {what}: {os.strerror(e.errno or 0)}".encode())
    finally:
        os._exit(0)


def _unmount(target: str) -> None:
    try:
        mounts.umount(target, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOENT):  # the container did it itself
            raise


def _place(root: int, target: str, *, directory: bool) -> int:
    """The mount point, made if need be."""
    fd = os.dup(root)
    parts = target.strip("/").split("/")
    for number, part in enumerate(parts):
        path = "/".join(parts[: number + 1])
        last = number == len(parts) - 1
        try:
            below = fs.openat2(path, os.O_PATH | os.O_CLOEXEC, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
        except FileNotFoundError:
            if last and not directory:
                os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=fd))
            else:
                os.mkdir(part, 0o755, dir_fd=fd)
            below = fs.openat2(path, os.O_PATH | os.O_CLOEXEC, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
        os.close(fd)
        fd = below
    if stat.S_ISDIR(os.fstat(fd).st_mode) != directory:
        wrong = errno.ENOTDIR if directory else errno.EISDIR
        raise OSError(wrong, os.strerror(wrong), target)
    return fd
