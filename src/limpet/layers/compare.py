"""The `dir` driver's unpacked tree held against the tar that it was made of: `system check`.

Compared are the names, and of each inode the kind, mode, owner, time, attributes, link or device, and every byte of a
regular file. Of a form that depends on the layers below, what the tar does not decide is left out: directories that it
implies (with what is in them, where a link below led elsewhere), whiteouts that were dropped, files linked from below.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.kernel import fs, idmap
from limpet.layers import owners
from limpet.layers.contents import rescan
from limpet.layers.tree import Tree

if TYPE_CHECKING:
    from limpet.layers.sparse import SparseFile
    from limpet.layers.tree import Node

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS
_PIECE = 1 << 20


def difference(place: str, form: str) -> str:
    """What the first thing is in `<place>/<form>` that is not as the tar `<place>/data` says; "" if all is.

    Raises OSError, and Invalid for a tar that can't be read (whose digest is another then).
    """
    data = os.open(f"{place}/data", os.O_RDONLY | os.O_CLOEXEC)
    try:
        tree = Tree()
        sparse = {file.node: file for file in rescan(data, tree)}
        root = os.open(f"{place}/{form}", _DIRECTORY)
        try:
            return _Comparison(root, data, sparse, alone=form == "tree").run(tree.root)
        finally:
            os.close(root)
    finally:
        os.close(data)


class _Comparison:
    def __init__(self, root: int, data: int, sparse: dict[Node, SparseFile], *, alone: bool) -> None:
        """`alone`: the form depends on no layer below."""
        self._root = root
        self._data = data
        self._sparse = sparse
        self._alone = alone
        self._seen: set[Node] = set()  # files with several names are read once

    def run(self, top: Node) -> str:
        directories = [top]
        for directory in directories:  # grows while it is gone through
            assert directory.kids is not None
            shown = os.fsdecode(b"/" + directory.path)
            try:
                fd = fs.openat2(directory.path or b".", _DIRECTORY, dirfd=self._root, resolve=_BENEATH)
            except OSError as e:
                return f"{shown}: {e.strerror}"
            try:
                problem = self._attributes(fd, directory)
                if problem:
                    return f"{shown}: {problem}"
                present = {os.fsencode(name) for name in os.listdir(fd)}
                for name, node in directory.kids.items():
                    if name in present:
                        present.remove(name)
                        problem = self._entry(fd, name, node)
                    elif node.is_whiteout and (directory.opaque or not self._alone):
                        continue  # it hides nothing
                    elif node.implied and not self._alone:
                        continue  # a link of a layer below led elsewhere
                    else:
                        problem = "is missing"
                    if problem:
                        return f"{shown.rstrip('/')}/{os.fsdecode(name)}: {problem}"
                    if node.kids is not None:
                        directories.append(node)
                if present and self._alone:
                    return f"{shown.rstrip('/')}/{os.fsdecode(min(present))}: is not in the tar"
            finally:
                os.close(fd)
        return ""

    def _entry(self, directory: int, name: bytes, node: Node) -> str:
        if node.kids is not None or node in self._seen:
            return ""  # a directory's turn comes
        self._seen.add(node)
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode):
            info = owners.seen(b"/proc/self/fd/%d/%s" % (directory, name), info)
        if stat.S_IFMT(info.st_mode) != stat.S_IFMT(node.mode):
            return "is of another kind"
        if stat.S_ISLNK(node.mode):
            if os.fsencode(os.readlink(name, dir_fd=directory)) != node.link:
                return "leads elsewhere"
            return _inode(info, node)
        if not stat.S_ISREG(node.mode):
            return "is another device" if info.st_rdev != _decoded(node.rdev) else _inode(info, node)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            return self._attributes(fd, node) or self._content(fd, node, info.st_size)
        finally:
            os.close(fd)

    def _attributes(self, fd: int, node: Node) -> str:
        if node.implied:
            return ""  # the layers below have a say
        problem = _inode(owners.seen(fd, os.fstat(fd)), node)
        if problem:
            return problem
        wanted = {name: value for name, value in node.xattrs if owners.settable(name)}
        if node.opaque:
            wanted[os.fsencode(f"{owners.space()}overlay.opaque")] = b"y"
        left_out = ("security.selinux", owners.ATTRIBUTE)
        found = {os.fsencode(name): os.getxattr(fd, name) for name in os.listxattr(fd) if name not in left_out}
        return "" if wanted == found else "has other extended attributes"

    def _content(self, fd: int, node: Node, size: int) -> str:
        if size != node.size:
            return f"has {size} bytes instead of {node.size}"
        file = self._sparse.get(node)
        at = node.offset
        end = 0
        for offset, length in file.pieces if file is not None else [(0, node.size)]:
            if not (_all_zeros(fd, end, offset) and _same(self._data, at, fd, offset, length)):
                return "has another content"
            at, end = at + length, offset + length
        return "" if _all_zeros(fd, end, node.size) else "has another content"


def _inode(info: os.stat_result, node: Node) -> str:
    known = idmap.has(node.uid) and idmap.has(node.gid, "gid")
    ours = known or stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)  # else no attribute says whose it is
    if ours and (info.st_uid, info.st_gid) != (node.uid, node.gid):
        return f"belongs to {info.st_uid}:{info.st_gid} instead of {node.uid}:{node.gid}"
    if not stat.S_ISLNK(node.mode) and stat.S_IMODE(info.st_mode) != stat.S_IMODE(node.mode):
        return f"has the mode {stat.S_IMODE(info.st_mode):o} instead of {stat.S_IMODE(node.mode):o}"
    return "" if info.st_mtime_ns == node.mtime * 10**9 + node.nsec else "has another time"


def _decoded(device: int) -> int:
    return os.makedev(device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00)


def _same(one: int, at: int, other: int, to: int, length: int) -> bool:
    while length:
        piece = os.pread(one, min(length, _PIECE), at)
        if not piece or piece != os.pread(other, len(piece), to):
            return False
        at, to, length = at + len(piece), to + len(piece), length - len(piece)
    return True


def _all_zeros(fd: int, start: int, end: int) -> bool:
    """Holes are not read."""
    while start < end:
        try:
            start = max(os.lseek(fd, start, os.SEEK_DATA), start)
        except OSError:
            return True  # only a hole is left
        piece = os.pread(fd, min(end - start, _PIECE), start) if start < end else b""
        if piece.count(0) != len(piece):
            return False
        start += len(piece) or end
    return True
