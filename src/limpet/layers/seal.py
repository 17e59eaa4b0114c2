"""What of a layer depends on the layers below it, done once when its stack is known.

Three things in a tar can't be decided from it alone: attributes of directories that it does not list, whiteouts that
hide nothing (overlayfs would list them), and hard links to files of a layer below. A layer that has any of them says so
in `pending`; for each stack that needs it an index of its own is written beside the first one, `index-<chain>`, with
`extra-<chain>` for the contents of files that were linked from below (containerd and Docker copy those up as well).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Corrupt
from limpet.kernel import fs
from limpet.layers.driver import chain
from limpet.layers.ingest import copy_range, expand, rescan
from limpet.layers.tree import Node, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.layers.driver import Driver
    from limpet.store.store import Store

_BLOCK = 512


def seal(
    store: Store,
    driver: Driver,
    diff_ids: Sequence[str],
    write: Callable[[str, str, Tree, list[int]], None],
) -> None:
    """`write(place, suffix, tree, device sizes)` makes the driver's form. Raises Corrupt for dangling links."""
    for position in range(len(diff_ids)):
        place = store.layer_path(diff_ids[position])
        if not os.path.exists(f"{place}/pending"):
            continue
        suffix = f"-{chain(diff_ids[:position])}"
        if not any(os.path.exists(f"{place}/{form}{suffix}") for form in ("index", "tree")):
            _seal_layer(driver, diff_ids[:position], place, suffix, write)


def _seal_layer(
    driver: Driver,
    below: Sequence[str],
    place: str,
    suffix: str,
    write: Callable[[str, str, Tree, list[int]], None],
) -> None:
    root = driver.mount(below) if below else -1
    try:
        tree = Tree(lambda path: _look(root, path))
        sparse = rescan(f"{place}/data", tree)
        if tree.links:
            name, target = tree.links[0]
            raise Corrupt(f"hard link {name[:200]!r} to {target[:200]!r}, which is in no layer", "the image is broken")
        for path in tree.whiteouts:
            if _look(root, path) is None:
                tree.drop_whiteout(path)
        sizes = [os.path.getsize(f"{place}/data")]
        extra = f"{place}/extra{suffix}"
        temporary = f"{extra}.new-{os.getpid()}"
        data = os.open(f"{place}/data", os.O_RDONLY | os.O_CLOEXEC)
        try:
            end = expand(data, sparse, temporary)
            end = _adopt(root, tree, temporary, end)
        finally:
            os.close(data)
        if end:
            os.rename(temporary, extra)
            sizes.append(end)
        else:
            os.unlink(temporary)
        write(place, suffix, tree, sizes)
    finally:
        if root >= 0:
            os.close(root)


def _adopt(root: int, tree: Tree, path: str, end: int) -> int:
    """Contents of files linked from below; one copy for all names of an inode. The new end of the file."""
    target = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for below, node in tree.adopted:
            if not stat.S_ISREG(node.mode) or not node.size:
                continue
            source = fs.openat2(below, os.O_RDONLY, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
            try:
                copy_range(source, 0, target, end, node.size)
            finally:
                os.close(source)
            node.device, node.offset = 2, end
            end += node.size + -node.size % _BLOCK
        os.ftruncate(target, end)
    finally:
        os.close(target)
    return end


def _look(root: int, path: bytes) -> Node | None:
    """What the layers below have at a path; the last part is not followed, links before it are, within the root."""
    if root < 0:
        return None
    try:
        fd = fs.openat2(path or b".", os.O_PATH | os.O_NOFOLLOW, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return None
    try:
        info = os.fstat(fd)
        node = Node(info.st_mode, info.st_uid, info.st_gid, *divmod(info.st_mtime_ns, 10**9))
        node.size, node.rdev = info.st_size, info.st_rdev
        if stat.S_ISLNK(info.st_mode):
            node.link = os.fsencode(os.readlink("", dir_fd=fd))
        else:
            place = f"/proc/self/fd/{fd}"
            node.xattrs = [
                (os.fsencode(name), os.getxattr(place, name))
                for name in os.listxattr(place)
                if not name.startswith("trusted.overlay.")
            ]
        return node
    finally:
        os.close(fd)
