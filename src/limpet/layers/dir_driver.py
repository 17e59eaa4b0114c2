"""The `dir` driver: plain unpacking, for kernels and file systems that can't mount an EROFS index.

A layer is `tree/`, a directory in overlayfs's own form (whiteouts as devices 0/0, opaque directories by an attribute),
beside `data`, the exact tar. It costs the time and the room of unpacking; what an image contains is the same.

Nothing in a tar leads out of `tree/`: each directory was made by us in the one above and is entered by descriptor, with
O_NOFOLLOW, and each name is one component (`tree.clean`).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Corrupt
from limpet.layers import stored
from limpet.layers.driver import chain, overlay
from limpet.layers.tree import OPAQUE
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from limpet.layers.ingest import Ingest
    from limpet.layers.limits import Limits
    from limpet.layers.tree import Node, Tree
    from limpet.store.store import Store

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirDriver:
    name = "dir"

    def __init__(self, store: Store) -> None:
        self._store = store

    def ingest(self, limits: Limits | None = None) -> Ingest:
        from limpet.layers.ingest import Ingest

        return Ingest(self._store, self.name, limits, unpack)

    def seal(self, diff_ids: Sequence[str]) -> None:
        from limpet.layers.seal import seal

        seal(self._store, self, diff_ids, lambda place, suffix, tree, _: unpack(place, tree, suffix))

    def mount(
        self,
        diff_ids: Sequence[str],
        upper: str | None = None,
        work: str | None = None,
        *,
        volatile: bool = False,
    ) -> int:
        """As `ErofsDriver.mount`."""
        lowers: list[int] = []
        try:
            for position in range(len(diff_ids)):
                fd = self._open_layer(diff_ids, position)
                lowers.append(fd)  # one by one: an error must find those that are open
            return overlay(lowers, upper, work, volatile=volatile)
        finally:
            for fd in lowers:
                os.close(fd)

    def _open_layer(self, diff_ids: Sequence[str], position: int) -> int:
        place = self._store.layer_path(diff_ids[position])
        for name in (f"tree-{chain(diff_ids[:position])}", "tree"):
            try:
                return os.open(f"{place}/{name}", _DIRECTORY)
            except FileNotFoundError:
                continue
        raise Corrupt(f"layer {diff_ids[position]} is not in the store", "`limpet system check` finds what is missing")

    def open_tar(self, diff_id: str) -> BinaryIO:
        return stored.open_tar(self._store, diff_id)

    def remove(self, diff_id: str) -> None:
        stored.remove(self._store, diff_id)

    def usage(self, diff_id: str) -> int:
        return stored.usage(self._store, diff_id)

    def check(self, diff_id: str) -> str | None:
        return stored.check(self._store, diff_id)


def unpack(place: str, tree: Tree, suffix: str = "") -> None:
    """Makes `tree<suffix>` in a layer's directory, whole or not at all."""
    temporary = f"{place}/tree{suffix}.new-{os.getpid()}"
    os.mkdir(temporary, 0o755)
    sources = {1: os.open(f"{place}/data", os.O_RDONLY | os.O_CLOEXEC)}
    if os.path.exists(f"{place}/extra{suffix}"):
        sources[2] = os.open(f"{place}/extra{suffix}", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open(temporary, _DIRECTORY)
    try:
        _fill(root, tree.root, sources, {}, root, b"")
        _attributes(root, tree.root)
    finally:
        os.close(root)
        for fd in sources.values():
            os.close(fd)
    try:
        os.rename(temporary, f"{place}/tree{suffix}")
    except OSError:
        if not os.path.isdir(f"{place}/tree{suffix}"):
            raise
        remove_tree(temporary)  # another process made the same one meanwhile


def _fill(directory: int, node: Node, sources: dict[int, int], made: dict[int, bytes], root: int, path: bytes) -> None:
    """`made`: id of each inode that has several names → its first path from the root, for the hard links."""
    for name, kid in (node.kids or {}).items():
        if node.opaque and kid.is_whiteout:
            continue
        place = path + b"/" + name if path else name
        if kid.kids is not None:
            os.mkdir(name, 0o700, dir_fd=directory)
            below = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                _fill(below, kid, sources, made, root, place)
                _attributes(below, kid)
            finally:
                os.close(below)
        elif id(kid) in made:
            os.link(made[id(kid)], name, src_dir_fd=root, dst_dir_fd=directory, follow_symlinks=False)
        else:
            _make(directory, name, kid, sources)
            if kid.nlink > 1:
                made[id(kid)] = place


def _make(directory: int, name: bytes, node: Node, sources: dict[int, int]) -> None:
    if stat.S_ISREG(node.mode):
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            _copy(sources[node.device], node, fd)
            _attributes(fd, node)
        finally:
            os.close(fd)
        return
    if stat.S_ISLNK(node.mode):
        os.symlink(node.link, name, dir_fd=directory)
    else:
        os.mknod(name, node.mode, node.rdev, dir_fd=directory)
    os.chown(name, node.uid, node.gid, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(node.mode):
        os.chmod(name, stat.S_IMODE(node.mode), dir_fd=directory)
    for key, value in node.xattrs:
        os.setxattr(f"/proc/self/fd/{directory}/".encode() + name, key, value, follow_symlinks=False)
    os.utime(name, ns=(_time(node), _time(node)), dir_fd=directory, follow_symlinks=False)


def _copy(source: int, node: Node, target: int) -> None:
    """Holes stay holes: of the `extra` file only what is there is copied."""
    from limpet.layers.ingest import copy_range

    os.ftruncate(target, node.size)
    at, end = node.offset, node.offset + node.size
    while at < end:
        try:
            begin = max(os.lseek(source, at, os.SEEK_DATA), at)
        except OSError:
            return  # only a hole is left
        if begin >= end:
            return
        stop = min(os.lseek(source, begin, os.SEEK_HOLE), end)
        copy_range(source, begin, target, begin - node.offset, stop - begin)
        at = stop


def _attributes(fd: int, node: Node) -> None:
    """chown before chmod and attributes: it takes setuid bits and file capabilities away."""
    os.fchown(fd, node.uid, node.gid)
    os.fchmod(fd, stat.S_IMODE(node.mode))
    for name, value in [*node.xattrs, *([OPAQUE] if node.opaque else [])]:
        os.setxattr(fd, name, value)
    os.utime(fd, ns=(_time(node), _time(node)))


def _time(node: Node) -> int:
    return node.mtime * 10**9 + node.nsec
