"""The erofs driver's form as files: `index`, and `implied`, by which one for another stack is made without the tar.

Most layers that depend on those below do so for nothing but the attributes of directories that they imply. Their inodes
are found by position in a copy of the index and filled in: that is a matter of microseconds, reading a large tar again
is not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.layers import erofs, stored

if TYPE_CHECKING:
    from limpet.layers.tree import Below, Tree


def write_index(place: str, suffix: str, tree: Tree, sizes: list[int], data: int, durable: bool) -> None:
    """`seal.WriteForm` of the erofs driver."""
    pieces = erofs.build(tree.root, sizes, data)
    implied = tree.implied_directories() if len(sizes) == 1 and not suffix else []
    if implied:
        lines = b"".join(b"%d %s\0" % (node.position, node.path) for node in implied)
        _write(f"{place}/implied", [lines], durable)
    _write(f"{place}/index{suffix}", pieces, durable)


def patch(place: str, suffix: str, below: Below) -> bool:
    """Makes `index<suffix>` of the plain one. False if that can't be, or only by reading the tar again."""
    try:
        with open(f"{place}/implied", "rb") as file:
            implied = file.read().split(b"\0")[:-1]
        with open(f"{place}/index", "rb") as file:
            image = bytearray(file.read())
    except FileNotFoundError:
        return False
    if os.path.exists(f"{place}/depends") or not implied:
        return False
    for line in implied:
        position, _, path = line.partition(b" ")
        found = below.entry(path)
        if found is None:
            continue
        if found.link or found.xattrs:
            return False  # members go elsewhere, or the inode is another length
        if found.kids is not None:
            erofs.set_attributes(image, int(position), found)
    erofs.sign(image)
    _write(f"{place}/index{suffix}", [image], durable=False)
    return True


def _write(path: str, pieces: list[bytes] | list[bytes | bytearray] | list[bytearray], durable: bool) -> None:
    temporary = stored.temporary(path)
    with open(temporary, "wb") as file:
        file.writelines(pieces)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.rename(temporary, path)
