"""Sparse members of a tar: which pieces of the file have data (GNU tar manual, "Storing Sparse Files").

Four forms: the map in the header and in extension headers after it (old GNU, type S); in pax records (0.0, 0.1); in
blocks before the data (1.0). The last and the first are read block by block while they stream in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid, quoted
from limpet.layers.fields import decimal, number
from limpet.layers.limits import MAX_EXTENSION

if TYPE_CHECKING:
    from limpet.layers.tree import Node

BLOCK = 512
_MAX_PIECES = MAX_EXTENSION // 16


class SparseFile:
    """`node.offset` is where the packed data begins in the tar, once the map has been read.

    `pieces`: (offset in the file, length), in order. `packed`: bytes that the member has for them.
    """

    __slots__ = ("_lines", "_text", "node", "packed", "path", "pieces")

    def __init__(self, path: bytes, node: Node, packed: int) -> None:
        self.path = path
        self.node = node
        self.packed = packed
        self.pieces: list[tuple[int, int]] = []
        self._text: list[bytes] = []
        self._lines = 0

    def add_header(self, header: bytes) -> bool:
        """The type S header itself. Whether extension headers follow."""
        self.node.size = number(header[483:495], self.path)
        self._add_entries(header[386:482], 4)
        return header[482] != 0

    def add_extension(self, block: bytes) -> bool:
        """Whether another one follows."""
        self.node.offset += BLOCK
        self._add_entries(block, 21)
        return block[504] != 0

    def add_records(self, records: list[tuple[bytes, bytes]]) -> None:
        """`map` (0.1), or pairs of `offset` and `numbytes` (0.0)."""
        numbers: list[int] = []
        for key, value in records:
            if key == b"map":
                numbers = [decimal(text, b"GNU.sparse.map", self.path) for text in value.split(b",")]
                break
            if key in (b"offset", b"numbytes"):
                numbers.append(decimal(value, key, self.path))
        self._set_pieces(numbers)

    def add_map(self, block: bytes) -> bool:
        """Version 1.0: a count, then offset and length in lines of decimal digits. Whether another block follows."""
        self.node.offset += BLOCK
        self.packed -= BLOCK
        self._text.append(block)
        self._lines += block.count(b"\n")
        if self.packed < 0 or len(self._text) * BLOCK > MAX_EXTENSION:
            raise Corrupt(f"the map of the sparse file {quoted(self.path[:200])} has no end")
        if not self._lines:
            return True
        count = decimal(self._text[0].partition(b"\n")[0], b"GNU.sparse.map", self.path)
        if self._lines < 1 + 2 * count:
            return True
        lines = b"".join(self._text).split(b"\n", 1 + 2 * count)
        self._text = []
        self._set_pieces([decimal(line, b"GNU.sparse.map", self.path) for line in lines[1 : 1 + 2 * count]])
        return False

    def verify(self) -> None:
        """Raises Corrupt for a map that the file or the member's data can't have."""
        end = total = 0
        for offset, length in self.pieces:
            if offset < end or length < 0 or offset + length > self.node.size:
                raise Corrupt(f"the map of the sparse file {quoted(self.path[:200])} is out of order or of its size")
            end = offset + length
            total += length
        if total > self.packed:
            raise Corrupt(f"the sparse file {quoted(self.path[:200])} has less data than its map says")

    def _add_entries(self, field: bytes, count: int) -> None:
        for i in range(count):
            entry = field[24 * i : 24 * i + 24]
            if entry[:1] == b"\0":
                return
            self.pieces.append((number(entry[:12], self.path), number(entry[12:24], self.path)))
        self._limit(len(self.pieces))

    def _set_pieces(self, numbers: list[int]) -> None:
        if len(numbers) % 2:
            raise Corrupt(f"the map of the sparse file {quoted(self.path[:200])} has an offset without a length")
        self._limit(len(numbers) // 2)
        self.pieces = list(zip(numbers[::2], numbers[1::2], strict=True))

    def _limit(self, pieces: int) -> None:
        if pieces > _MAX_PIECES:
            raise Invalid(f"the sparse file {quoted(self.path[:200])} has more than {_MAX_PIECES} pieces")
