"""A layer's bytes moved about: sparse members into a file with holes, ranges between files, a stored tar read again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.errors import Corrupt
from limpet.layers.limits import Limits
from limpet.layers.tar import Scanner

if TYPE_CHECKING:
    from limpet.layers.sparse import SparseFile
    from limpet.layers.tree import Tree

_BLOCK = 512
_PIECE = 1 << 20
_ANYTHING = Limits(max_size=1 << 62, max_entries=1 << 62)


def expand(data: int, files: list[SparseFile], path: str) -> int:
    """Writes sparse files with their holes into one sparse file, and points their inodes there. Its size in bytes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    end = 0
    try:
        for file in files:
            if not file.node.nlink:
                continue  # a later entry took its name
            source = file.node.offset
            file.node.device, file.node.offset = 2, end
            for offset, length in file.pieces:
                copy_range(data, source, fd, end + offset, length)
                source += length
            end += file.node.size + -file.node.size % _BLOCK
        os.ftruncate(fd, end)
    finally:
        os.close(fd)
    return end


def copy_range(source: int, at: int, target: int, to: int, length: int) -> None:
    """Copies within the kernel where the file system can. Raises Corrupt when the source ends early."""
    in_kernel = True
    while length:
        if in_kernel:
            try:
                done = os.copy_file_range(source, target, min(length, 1 << 30), at, to)
            except OSError:
                in_kernel = False  # between file systems, or an old kernel
                continue
        else:
            piece = os.pread(source, min(length, _PIECE), at)
            done = os.pwrite(target, piece, to) if piece else 0
        if not done:
            raise Corrupt("a file of the layer ends early", "`limpet system check` looks for damage")
        at, to, length = at + done, to + done, length - done


def rescan(data: int, tree: Tree) -> list[SparseFile]:
    """Enters a stored layer's tar, a descriptor, into `tree` again; its sparse members. Data is skipped, not read."""
    scanner = Scanner(tree, _ANYTHING)
    at = 0
    while piece := os.pread(data, _PIECE >> 4, at):
        scanner.feed(piece)
        at = scanner.skip()
    if at > os.fstat(data).st_size:
        raise Corrupt("the tar of the layer ends early", "`limpet system check` looks for damage")
    scanner.finish(data)
    return scanner.sparse
