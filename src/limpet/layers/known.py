"""What an index knows of itself, in the 1024 bytes that EROFS leaves free: its digest, and one byte of one file.

EROFS reads zeros, without an error, from a device that is not the right one (spikes/README.md). So after each mount one
byte that is not zero is looked at. The digest tells a damaged index, which nothing else would.

    0     8 bytes   magic
    8    32 bytes   BLAKE2b of all that follows byte 1023
    40    8 bytes   offset of the known byte in its file
    48    1 byte    the byte; 0 if there is none to know
    49    2 bytes   length of the path, then the path
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from hashlib import blake2b

    from limpet.layers.tree import Node
else:
    from _blake2 import blake2b

AREA = 1024
_MAGIC = b"limpet\x001"
_FORM = struct.Struct("<8s32sQBH")
_MAX_PATH = AREA - _FORM.size
_TRIED = 64  # files looked at for a byte that is not zero

Known = tuple[bytes, int, int]
"""(path from the root, offset in the file, the byte there)."""


def choose(directories: Iterable[Node], data: int) -> Known | None:
    """Looks for a byte that is not zero in the first files of the tar `data` is a descriptor of."""
    tried = 0
    for directory in directories:
        for name, node in (directory.kids or {}).items():
            if node.mode & 0o170000 != 0o100000 or not node.size or node.device != 1:
                continue
            path = directory.path + b"/" + name if directory.path else name
            if len(path) > _MAX_PATH:
                continue
            head = os.pread(data, min(node.size, 512), node.offset)
            for offset, byte in enumerate(head):
                if byte:
                    return path, offset, byte
            tried += 1
            if tried == _TRIED:
                return None
    return None


def write(image: bytearray, rest: Iterable[bytes], what: Known | None) -> None:
    """Fills the area of an image that is otherwise complete; `rest` are the pieces that follow it."""
    path, offset, byte = what or (b"", 0, 0)
    digest = blake2b(memoryview(image)[AREA:], digest_size=32)
    for piece in rest:
        digest.update(piece)
    _FORM.pack_into(image, 0, _MAGIC, digest.digest(), offset, byte, len(path))
    image[_FORM.size : _FORM.size + len(path)] = path


def renew(image: bytearray) -> None:
    """The digest again, after a change to a whole image; nothing for one that has none yet."""
    if image[:8] == _MAGIC:
        image[8:40] = blake2b(memoryview(image)[AREA:], digest_size=32).digest()


def reads_right(index: str, root: int) -> bool:
    """Whether the mount `root` of an index gives the known byte. [hot]"""
    fd = os.open(index, os.O_RDONLY | os.O_CLOEXEC)
    try:
        area = os.pread(fd, AREA, 0)
    finally:
        os.close(fd)
    if len(area) < AREA:
        return False
    magic, _, offset, byte, length = _FORM.unpack_from(area)
    if magic != _MAGIC:
        return False
    if not byte:
        return True
    try:
        fd = os.open(area[_FORM.size : _FORM.size + length], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except OSError:
        return False
    try:
        return os.pread(fd, 1, offset) == bytes((byte,))
    finally:
        os.close(fd)


def is_whole(index: str) -> bool:
    """Whether an index has its digest."""
    with open(index, "rb") as file:
        area = file.read(AREA)
        if len(area) < AREA or area[:8] != _MAGIC:
            return False
        digest = blake2b(digest_size=32)
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.digest() == area[8:40]
