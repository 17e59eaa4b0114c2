"""A tree of inodes as an EROFS image without data: the index of a layer (Linux, Documentation/filesystems/erofs.rst).

Data stays where it is: the image has a device table, slot 1 is the layer's tar, slot 2 an `extra` file if there is one,
and every regular file is a chunk-based inode with one chunk that points at the block where its bytes begin. Blocks are
512 bytes, the kernel's minimum, so that each offset of a tar is a block address; 32-bit addresses reach 2 TiB.

    0     .. 1023   ours, EROFS leaves it free: a digest of the rest and a known byte (`known.py`)
    1024  .. 1151   superblock (magic 0xE0F5E1E2, crc32c over its block)
    1152  ..        device slots, 128 bytes each
    then            inodes in slots of 32 bytes, nid = offset / 32: 64-byte extended inode, extended attributes,
                    8-byte chunk index or the target of a symbolic link
    then            directories and long link targets, in blocks
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.layers import known
from limpet.layers.tree import OPAQUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.layers.tree import Node

BLOCK = 512
_SLOT = 32
_DEVICES_AT = 1152
_MAGIC = 0xE0F5E1E2
_COMPAT_CHECKSUM, _COMPAT_MTIME = 1, 2
_INCOMPAT_CHUNKED, _INCOMPAT_DEVICE_TABLE = 4, 8
# i_format: bit 0 = extended inode, then the data layout (FLAT_PLAIN 0, FLAT_INLINE 2, CHUNK_BASED 4).
_PLAIN, _INLINE, _CHUNKED = 1, 1 | 2 << 1, 1 | 4 << 1
_CHUNK_INDEXES = 0x20  # 8-byte chunk entries, which carry the device's number
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_CHUNK = struct.Struct("<HHI")  # advise, device, block
_DIRENT = struct.Struct("<QHBB")  # nid, offset of the name, type, reserved
_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
_FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
_MAX_DEVICE = 1 << 41


def build(root: Node, device_sizes: Sequence[int], data: int = -1) -> list[bytes | bytearray]:
    """The image, in pieces. `device_sizes`: bytes of the tar, and of the `extra` file if there is one.

    `data`: a descriptor of the tar, from which a known byte is taken for `known.read_right`.
    """
    if any(size > _MAX_DEVICE for size in device_sizes):
        raise Invalid("a layer of more than 2 TiB", "EROFS has 32-bit block addresses")
    inodes_at = -(-(_DEVICES_AT + 128 * len(device_sizes)) // _SLOT) * _SLOT
    order, directories, xattrs, data_at = _place(root, inodes_at)
    blocks = _directory_blocks(root, directories, data_at)
    image = bytearray(data_at * BLOCK)
    for number, node in enumerate(order, 1):
        _write_inode(image, node, number, xattrs.get(node.nid, b""), blocks, data_at)
    for slot, size in enumerate(device_sizes):
        struct.pack_into("<64sII", image, _DEVICES_AT + 128 * slot, b"", -(-size // BLOCK), 0)
    struct.pack_into(
        "<III BB H QQII II 16s16s I HHH BB I Q",
        image,
        1024,
        *(_MAGIC, 0, _COMPAT_CHECKSUM | _COMPAT_MTIME, 9, 0, root.nid, len(order), 0, 0),
        *(data_at + len(blocks), 0, 0, b"", b"", _INCOMPAT_CHUNKED | _INCOMPAT_DEVICE_TABLE),
        *(0, len(device_sizes), _DEVICES_AT // 128, 0, 0, 0, 0),
    )
    sign(image)
    known.write(image, blocks, known.choose(directories, data) if data >= 0 else None)
    return [image, *blocks]


def set_attributes(image: bytearray, position: int, of: Node) -> None:
    """Mode, owner and time of the inode at a byte position, which stays as it is for the rest. Then `sign`."""
    layout, count, _, reserved, size, union, number, _, _, _, _, links = _INODE.unpack_from(image, position)
    _INODE.pack_into(
        image,
        position,
        *(layout, count, of.mode, reserved, size, union, number),
        *(of.uid, of.gid, of.mtime & 0xFFFFFFFFFFFFFFFF, of.nsec, links),
    )


def sign(image: bytearray) -> None:
    """The superblock's checksum, and our digest of the whole image if it has one already."""
    struct.pack_into("<I", image, 1028, 0)
    struct.pack_into("<I", image, 1028, _crc32c(image[1024:1536]))
    known.renew(image)


def _place(root: Node, position: int) -> tuple[list[Node], list[Node], dict[int, bytes], int]:
    """Gives each inode its place, breadth first. (inodes, directories, attributes by nid, first block after them)."""
    order: list[Node] = []
    directories: list[Node] = []
    attributes: dict[int, bytes] = {}
    queue = [root]
    for node in queue:  # grows while it is gone through
        if node.nid >= 0:
            continue  # another name of a hard link
        body = _xattr_body(node) if node.xattrs or node.opaque else b""
        size = 64 + len(body)
        if node.kids is not None:
            queue += node.kids.values()
            directories.append(node)
        elif stat.S_ISREG(node.mode):
            if node.size:
                size = (size + 7 & ~7) + 8
        elif node.link:
            size += len(node.link)
            if position % BLOCK + size > BLOCK and size <= BLOCK:
                position = -(-position // BLOCK) * BLOCK  # an inline target must not cross a block
        node.position, node.nid = position, position // _SLOT
        if body:
            attributes[node.nid] = body
        order.append(node)
        position += -(-size // _SLOT) * _SLOT
    return order, directories, attributes, -(-position // BLOCK)


def _directory_blocks(root: Node, directories: list[Node], at: int) -> list[bytes]:
    """The contents of all directories. Sets `offset` (first block), `size` and `nlink` of each."""
    parents = {root.nid: root.nid}
    blocks: list[bytes] = []
    for directory in directories:
        entries = [(b".", directory.nid, 2), (b"..", parents[directory.nid], 2)]
        links = 2
        for name, kid in (directory.kids or {}).items():
            if directory.opaque and kid.is_whiteout:
                continue  # hides nothing, and overlayfs lists it: an unmerged directory is read unfiltered
            kind = _FILE_TYPES[stat.S_IFMT(kid.mode)]
            if kind == 2:
                links += 1
                parents[kid.nid] = directory.nid
            entries.append((name, kid.nid, kind))
        entries.sort()
        directory.nlink, directory.offset = links, at + len(blocks)
        first, used = 0, 0
        while first < len(entries):
            room, last = BLOCK, first
            while last < len(entries) and room >= 12 + len(entries[last][0]):
                room -= 12 + len(entries[last][0])
                last += 1
            offset = 12 * (last - first)
            heads, names = [], []
            for name, nid, kind in entries[first:last]:
                heads.append(_DIRENT.pack(nid, offset, kind, 0))
                names.append(name)
                offset += len(name)
            block = b"".join(heads) + b"".join(names)
            used = len(block)
            blocks.append(block + bytes(BLOCK - used))
            first = last
        directory.size = (at + len(blocks) - directory.offset - 1) * BLOCK + used
    return blocks


def _write_inode(
    image: bytearray, node: Node, number: int, attributes: bytes, blocks: list[bytes], data_at: int
) -> None:
    layout, union, position = _PLAIN, 0, node.position
    tail = position + 64
    if attributes:
        image[tail : tail + len(attributes)] = attributes
        tail += len(attributes)
    if node.kids is not None:
        union = node.offset
    elif stat.S_ISREG(node.mode):
        if node.size:
            # The smallest chunk that covers the file, so that there is exactly one.
            bits = max(max(node.size - 1, 1).bit_length() - 9, 0)
            if bits > 31:
                raise Invalid("a file of more than 1 TiB")
            layout, union = _CHUNKED, _CHUNK_INDEXES | bits
            _CHUNK.pack_into(image, tail + 7 & ~7, 0, node.device, node.offset // BLOCK)
    elif node.link:
        if position % BLOCK + (tail - position) + len(node.link) <= BLOCK:
            layout = _INLINE
            image[tail : tail + len(node.link)] = node.link
        else:
            union = data_at + len(blocks)
            padded = node.link + bytes(-len(node.link) % BLOCK)
            blocks += [padded[i : i + BLOCK] for i in range(0, len(padded), BLOCK)]
    else:
        union = node.rdev
    count = (len(attributes) - 12) // 4 + 1 if attributes else 0
    _INODE.pack_into(
        image,
        position,
        *(layout, count, node.mode, 0, node.size, union, number & 0xFFFFFFFF),
        *(node.uid, node.gid, node.mtime & 0xFFFFFFFFFFFFFFFF, node.nsec, node.nlink),
    )


def _xattr_body(node: Node) -> bytes:
    """Inline attributes: a header of 12 bytes, then entries padded to 4 (no shared ones, no name filter)."""
    out = bytearray(12)
    for name, value in [*node.xattrs, *([OPAQUE] if node.opaque else [])]:
        for prefix, index in _PREFIXES:
            if name.startswith(prefix):
                rest = name[len(prefix) :]
                out += struct.pack("<BBH", len(rest), index, len(value)) + rest + value
                out += bytes(-len(out) % 4)
                break
    return bytes(out) if len(out) > 12 else b""


def _crc32c(data: bytes | bytearray) -> int:
    """CRC-32C (Castagnoli), not inverted at the end, as EROFS has it; one block, so a table per call will do."""
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc
