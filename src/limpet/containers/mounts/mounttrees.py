"""Mounts that a path alone does not say: images, what is below a volume, file systems with other owners.

Made by whoever starts the container (its monitor, or `cp`), as detached mounts, each time anew: nothing of them is ever
in the host's mount table. A subpath is resolved by the kernel beneath what it is of, and what was found is what is
mounted, so that a link made by another container, before or meanwhile, leads nowhere else (CVE-2021-30465,
CVE-2023-0778).
"""

from __future__ import annotations

import errno
import os

from limpet.containers.execution.outcome import StartFailed
from limpet.containers.mounts import mountgrammar, quota
from limpet.kernel import fs, mounts, userns
from limpet.layers import driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.containers.mounts.mountplan import Mount
    from limpet.kernel.userns import Mapped
    from limpet.store.store import Store

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_IDS = 0xFFFFFFFF
_PLACE = "/sys"
"""A directory that is there wherever containers can run, and in which no store is."""


def open_all(
    store: Store, container_id: str, planned: Sequence[Mount], user: tuple[int, int], mapped: Mapped | None = None
) -> dict[str, int]:
    """Destination → detached mount, of those that `Mount.is_made`. Raises StartFailed with what is wrong.

    `user`: the container's user and group, as it sees them; `mapped`: its user namespace, if it has one.
    """
    opened: dict[str, int] = {}
    try:
        for mount in planned:
            if mount.is_made:
                opened[mount.target] = _open(store, container_id, mount, user, mapped)
    except BaseException:
        for fd in opened.values():
            os.close(fd)
        raise
    return opened


def image_home(store: Store, container_id: str, mount: Mount) -> str:
    """Where what a container writes into an image that it mounts with `rw` is kept: `upper` and `work` in it."""
    return f"{store.container_path(container_id)}/image-mounts/{mount.target.strip('/').replace('/', '%2f')}"


def _open(store: Store, container_id: str, mount: Mount, user: tuple[int, int], mapped: Mapped | None) -> int:
    if mount.kind == "image":
        return _image(store, container_id, mount, mapped)
    if mount.subpath:
        whole = _opened(mount.source.removesuffix(f"/{mount.subpath}"), mount)
        try:
            tree = _beneath(whole, mount)
        finally:
            os.close(whole)
    else:
        tree = _tree(mount.source, mount)
    try:
        if mount.idmap or mapped is not None:
            _map(tree, mount, user, mapped)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _image(store: Store, container_id: str, mount: Mount, mapped: Mapped | None) -> int:
    upper = work = None
    if not mount.read_only or mapped is not None:  # only a stack with a writable top can be mapped
        home = image_home(store, container_id, mount)
        upper, work = f"{home}/upper", f"{home}/work"
        for path in (upper, work):
            os.makedirs(path, 0o755, exist_ok=True)
            quota.adopt(path, f"{store.container_path(container_id)}/upper")  # it counts for --storage-opt
    try:
        whole = driver.driver(store).mount(mount.layers, upper, work, mapped=mapped)
    except OSError as e:
        raise StartFailed(
            f"image {mount.source} on {mount.target}: mounting its layers: {e.strerror}",
            "`limpet system check` looks at them",
            125,
        ) from e
    if not mount.subpath:
        return whole
    try:
        return _beneath(whole, mount)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        return beneath_attached(whole, mount)
    finally:
        os.close(whole)


def beneath_attached(whole: int, mount: Mount) -> int:
    """Before Linux 6.15 a part of a detached mount can't be one: it is attached for a moment, where nobody sees it."""
    with mounts.Private():
        mounts.attach(whole, _PLACE)
        return _beneath(whole, mount)


def _beneath(whole: int, mount: Mount) -> int:
    """The mount of `mount.subpath` in the directory `whole`. No link leads out, none of the kernel's is followed."""
    what = f"image {mount.source}" if mount.kind == "image" else f"volume {mount.name}"
    try:
        found = fs.openat2(
            mount.subpath, os.O_PATH | os.O_CLOEXEC, dirfd=whole, resolve=fs.RESOLVE_BENEATH | fs.RESOLVE_NO_MAGICLINKS
        )
    except OSError as e:
        outside = e.errno in (errno.EXDEV, errno.ELOOP)
        why = "a link in it leads outside" if outside else (e.strerror or "").lower()
        raise StartFailed(f"subpath {mount.subpath} of {what} on {mount.target}: {why}", "", 125) from e
    try:
        return mounts.open_tree("", dirfd=found, recursive=True)
    finally:
        os.close(found)


def _opened(path: str, mount: Mount) -> int:
    try:
        return os.open(path, _DIRECTORY)
    except OSError as e:
        raise StartFailed(f"{path} on {mount.target}: {(e.strerror or '').lower()}", "", 125) from e


def _tree(path: str, mount: Mount) -> int:
    try:
        return mounts.open_tree(path, recursive="rbind" in mount.options)
    except OSError as e:
        raise StartFailed(f"{path} on {mount.target}: {os.strerror(e.errno or 0).lower()}", "", 125) from e


def _map(tree: int, mount: Mount, user: tuple[int, int], mapped: Mapped | None) -> None:
    if mount.idmap == mountgrammar.OWNER:
        owner = os.fstat(tree)
        uids, gids = _swapped(owner.st_uid, user[0]), _swapped(owner.st_gid, user[1])
    elif mount.idmap:
        said = mountgrammar.ranges(mount.idmap, mount.target)
        uids, gids = said["uids"], said["gids"]
    else:
        uids = gids = [(0, 0, _IDS)]
    if mapped is None and uids == gids == [(0, 0, _IDS)]:
        return  # a user without root, whose files are root's in the container anyway
    if mapped is not None:
        uids, gids = _within(uids, mapped), _within(gids, mapped)
    fd = -1
    try:
        fd = userns.namespace(_lines(uids), _lines(gids))
        mounts.set_attributes(tree, mounts.MOUNT_ATTR_IDMAP, recursive=True, userns=fd)
    except OSError as e:
        if e.errno == errno.EPERM:
            what = f"idmap of {mount.source} on {mount.target}: only root can map other ids than the user's own"
            raise StartFailed(what, "leave it out: what is yours is the container's root's without it", 125) from e
        if e.errno != errno.EINVAL:
            raise
        raise StartFailed(
            f"idmap of {mount.source} on {mount.target}: its file system can't map ids, or ranges overlap",
            "leave out idmap, and give the files to the user who needs them (chown)",
            125,
        ) from e
    finally:
        if fd >= 0:
            os.close(fd)


def _swapped(disk: int, inside: int) -> list[tuple[int, int, int]]:
    """Every id is itself but for these two, which change places."""
    low, high = sorted((disk, inside))
    if low == high:
        return [(0, 0, _IDS)]
    parts = [
        (0, 0, low),
        (low, high, 1),
        (low + 1, low + 1, high - low - 1),
        (high, low, 1),
        (high + 1, high + 1, _IDS - high - 1),
    ]
    return [part for part in parts if part[2] > 0]


def _within(parts: list[tuple[int, int, int]], mapped: Mapped) -> list[tuple[int, int, int]]:
    """What of it is in the container's user namespace, as the host's ids."""
    cut = [(disk, inside, min(count, mapped.size - inside)) for disk, inside, count in parts if inside < mapped.size]
    return [(disk, mapped.base + inside, count) for disk, inside, count in cut]


def _lines(parts: list[tuple[int, int, int]]) -> str:
    return "".join(f"{disk} {inside} {count}\n" for disk, inside, count in parts)
