"""A layer's form, made again from its tar, with what depends on the layers below it.

Three things in a tar can't be decided from it alone: attributes of directories that it does not list, whiteouts that
hide nothing (overlayfs would list them), and hard links to files of a layer below. A layer that has any of them says
so (`stored.py`), and for each stack that needs it a form of its own is made, with `extra-<chain>` for the contents of
files that were linked from below (link(2) in an overlay copies those up too: so containerd and umoci).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, quoted
from limpet.kernel import fs
from limpet.layers import attributes, durable, owners, stored
from limpet.layers.contents import copy_range, expand, rescan
from limpet.layers.index import patch, write_index
from limpet.layers.tree import Below, Node, Tree
from limpet.store import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.store.store import Store

    WriteForm = Callable[[str, str, Tree, list[int], int, bool], None]
    """(layer's directory, suffix, tree, device sizes, descriptor of the tar, durable)."""

    MountBelow = Callable[[Sequence[str]], int]

_BLOCK = 512


def make(store: Store, mount: MountBelow, diff_ids: Sequence[str], position: int, write: WriteForm) -> None:
    """Makes the form of one layer of a stack. Raises Corrupt for hard links to what is in no layer.

    `mount` gives a descriptor of the layers below.
    """
    place = store.layer_path(diff_ids[position])
    below = stored.below(diff_ids, position)
    suffix = stored.suffix(place, below)
    try:
        data = os.open(f"{place}/data", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise stored.missing(diff_ids[position]) from None
    root = -1
    try:
        root = mount(below) if below and suffix else -1
        seen = Mounted(root) if root >= 0 else None
        if seen is not None and write is write_index and patch(place, suffix, seen):
            durable.unsettle(store, diff_ids[position])
            return
        tree = Tree(seen)
        sparse = rescan(data, tree)
        for name, target in tree.unresolved() if suffix else ():
            raise Corrupt(
                f"hard link {quoted(name[:200])} to {quoted(target[:200])}, which is in no layer", "the image is broken"
            )
        if suffix:
            tree.drop_stray_whiteouts()
        extra = f"{place}/extra{suffix}"
        temporary = stored.temporary(extra)
        try:
            end = _adopt(root, tree, temporary, expand(data, sparse, temporary))
            sizes = [os.fstat(data).st_size]
            if end:
                os.rename(temporary, extra)
                faults.reach("extra-renamed")
                sizes.append(end)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        durable.unsettle(store, diff_ids[position])
        write(place, suffix, tree, sizes, data, False)
        faults.reach("form-renamed")
    finally:
        os.close(data)
        if root >= 0:
            os.close(root)


class Mounted(Below):
    """The layers below, mounted. A file gives the same node each time, whatever name it was asked for by."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._files: dict[tuple[int, int], Node] = {}

    def entry(self, path: bytes) -> Node | None:
        return self._look(path, fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS)

    def link_target(self, path: bytes) -> Node | None:
        return self._look(path, fs.RESOLVE_IN_ROOT)

    def _look(self, path: bytes, resolve: int) -> Node | None:
        try:
            fd = fs.openat2(path or b".", os.O_PATH | os.O_NOFOLLOW, dirfd=self._root, resolve=resolve)
        except OSError:
            return None
        try:
            info = owners.seen(fd, os.fstat(fd))
            key = (info.st_dev, info.st_ino)
            if key in self._files:
                return self._files[key]
            node = Node(info.st_mode, info.st_uid, info.st_gid, *divmod(info.st_mtime_ns, 10**9))
            node.path = os.readlink(f"/proc/self/fd/{fd}".encode()).strip(b"/")  # a detached mount has its own root
            node.xattrs = _xattrs(fd, info.st_mode, path)
            if stat.S_ISDIR(info.st_mode):
                return node
            node.size = info.st_size
            if stat.S_ISLNK(info.st_mode):
                node.link = os.fsencode(os.readlink("", dir_fd=fd))
            elif not stat.S_ISREG(info.st_mode):
                node.rdev = _encoded(info.st_rdev)
            self._files[key] = node
            return node
        finally:
            os.close(fd)


def _xattrs(fd: int, mode: int, path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    place = f"/proc/self/fd/{fd}"  # leads to the file itself, even if that is a link
    return attributes.kept(mode, {os.fsencode(name): os.getxattr(place, name) for name in os.listxattr(place)}, path)


def _encoded(device: int) -> int:
    minor = os.minor(device)
    return (minor & 0xFF) | (os.major(device) << 8) | ((minor & ~0xFF) << 12)


def _adopt(root: int, tree: Tree, path: str, end: int) -> int:
    """Contents of files linked from below; one copy for all names of an inode. The new end of the file."""
    target = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for node in tree.adopted:
            if not stat.S_ISREG(node.mode) or not node.size:
                continue
            source = fs.openat2(node.path, os.O_RDONLY, dirfd=root, resolve=fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS)
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
