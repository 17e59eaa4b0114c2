"""A tree of inodes as real files in overlayfs's own form: whiteouts as devices 0/0, opaque directories by an attribute.

Nothing in a tar leads out of the directory: each one in it was made here and is opened from the root beneath it, links
refused (openat2), and each name is one component (`attributes.clean`).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.kernel import fs
from limpet.layers import owners, stored
from limpet.layers.contents import copy_range
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from limpet.layers.tree import Node, Tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS


def unpack(place: str, suffix: str, tree: Tree, sizes: list[int], data: int, durable: bool) -> None:
    """The dir driver's form: `tree<suffix>` in a layer's directory, whole or not at all."""
    temporary = stored.temporary(f"{place}/tree{suffix}")
    os.mkdir(temporary, 0o755)
    try:
        root = os.open(temporary, _DIRECTORY)
        sources = {1: data}
        try:
            if len(sizes) > 1:
                sources[2] = os.open(f"{place}/extra{suffix}", os.O_RDONLY | os.O_CLOEXEC)
            _fill(root, tree.root, sources)
            if durable:
                fs.syncfs(root)
        finally:
            os.close(root)
            if 2 in sources:
                os.close(sources[2])
        try:
            os.rename(temporary, f"{place}/tree{suffix}")
        except OSError:
            if not os.path.isdir(f"{place}/tree{suffix}"):
                raise  # else another process made the same one meanwhile
    finally:
        remove_tree(temporary)


def _fill(root: int, top: Node, sources: dict[int, int]) -> None:
    """Breadth first, then the directories' own attributes from the deepest up: filling them changes their times."""
    made: dict[Node, bytes] = {}  # files with several names: the first
    directories = [top]
    for directory in directories:  # grows while it is gone through
        assert directory.kids is not None
        fd = _open(root, directory)
        try:
            for name, node in directory.kids.items():
                if directory.opaque and node.is_whiteout:
                    continue  # hides nothing, and overlayfs lists it
                if node.kids is not None:
                    os.mkdir(name, 0o700, dir_fd=fd)
                    directories.append(node)
                elif node in made:
                    os.link(made[node], name, src_dir_fd=root, dst_dir_fd=fd, follow_symlinks=False)
                else:
                    _make(fd, name, node, sources)
                    if node.nlink > 1:
                        made[node] = directory.path + b"/" + name if directory.path else name
        finally:
            os.close(fd)
    for directory in reversed(directories):
        fd = _open(root, directory)
        try:
            _set_attributes(fd, directory)
        finally:
            os.close(fd)


def _open(root: int, directory: Node) -> int:
    return fs.openat2(directory.path or b".", _DIRECTORY, dirfd=root, resolve=_BENEATH)


def _make(directory: int, name: bytes, node: Node, sources: dict[int, int]) -> None:
    if stat.S_ISREG(node.mode):
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            _copy(sources[node.device], node, fd)
            _set_attributes(fd, node)
        finally:
            os.close(fd)
        return
    if stat.S_ISLNK(node.mode):
        os.symlink(node.link, name, dir_fd=directory)
    elif owners.can_be(node.mode, node.rdev):
        os.mknod(name, node.mode, node.rdev, dir_fd=directory)
    else:
        os.mknod(name, stat.S_IFREG | 0o600, dir_fd=directory)
    place = b"/proc/self/fd/%d/%s" % (directory, name)
    owners.give(place, node.uid, node.gid, node.mode, node.rdev, link=True)
    if not stat.S_ISLNK(node.mode):
        os.chmod(name, stat.S_IMODE(node.mode), dir_fd=directory)
    for key, value in node.xattrs:
        _set_xattr(place, key, value)
    os.utime(name, ns=(_time(node), _time(node)), dir_fd=directory, follow_symlinks=False)


def _copy(source: int, node: Node, target: int) -> None:
    """Holes stay holes: of the `extra` file only what is there is copied."""
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


def _set_attributes(fd: int, node: Node) -> None:
    """chown before chmod and attributes: it takes setuid bits and file capabilities away."""
    owners.give(fd, node.uid, node.gid, node.mode)
    os.fchmod(fd, stat.S_IMODE(node.mode))
    for name, value in node.xattrs:
        _set_xattr(fd, name, value)
    if node.opaque:
        _set_xattr(fd, os.fsencode(f"{owners.space()}overlay.opaque"), b"y")
    os.utime(fd, ns=(_time(node), _time(node)))


def _set_xattr(file: int | bytes, name: bytes, value: bytes) -> None:
    if not owners.settable(name):
        return  # the layer's tar has it
    try:
        os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
    except OSError as e:
        what = os.fsdecode(name)
        raise Invalid(f"the attribute {what} of a file in the layer cannot be set here: {e.strerror}") from e


def _time(node: Node) -> int:
    return node.mtime * 10**9 + node.nsec
