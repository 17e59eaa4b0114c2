"""A tar, read while it streams by: headers are understood, data is only counted.

`Scanner.feed` takes the bytes in pieces of any size and enters members into a `Tree` with the offset of their data, so
that a layer's index is complete when its last byte was written. Formats: ustar, old and new GNU (long names, sparse
0.0, 0.1, 1.0 and the old header form), pax with global headers, v7. Everything from outside is checked: checksums,
sizes, lengths, numbers; the first thing that is wrong raises Invalid or Corrupt and names the member.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid
from limpet.layers.limits import MAX_EXTENSION, MAX_PATH
from limpet.layers.tree import Node, clean, kept_xattrs

if TYPE_CHECKING:
    from limpet.layers.limits import Limits
    from limpet.layers.tree import Tree

BLOCK = 512
MAX_ID = (1 << 32) - 2  # 2^32 - 1 means "no change" to chown(2)
_TIMES = (-(1 << 62), 1 << 62)

_TYPES = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"5": stat.S_IFDIR,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"6": stat.S_IFIFO,
}
_HAS_DATA = frozenset(b"0\x007S")
_IGNORED = frozenset(b"VMNA")  # volume label, continuation, old long names, Solaris ACL: no member of their own

Sparse = list[tuple[int, int]]
"""(offset in the file, length) of each piece that has data."""


class SparseFile:
    """A sparse member: `node.offset` is where its packed data begins in the tar, once past a 1.0 map."""

    __slots__ = ("node", "packed", "pieces")

    def __init__(self, node: Node, pieces: Sparse, packed: int) -> None:
        self.node = node
        self.pieces = pieces
        self.packed = packed


class Scanner:
    """`feed` until the bytes end, then `finish`. `sparse` lists what must be expanded into the `extra` file."""

    def __init__(self, tree: Tree, limits: Limits) -> None:
        self.tree = tree
        self.limits = limits
        self.entries = 0
        self.sparse: list[SparseFile] = []
        self._position = 0  # of the first byte not yet fed
        self._next = 0  # where the next header, or the body that is being collected, begins
        self._carry = b""  # the beginning of it, when it lay at the end of a piece
        self._body = 0  # bytes of the body wanted, 0 while a header is wanted
        self._body_type = b""
        self._global: dict[bytes, bytes] = {}
        self._pax: list[tuple[bytes, bytes]] = []
        self._long_name = self._long_link = b""
        self._sparse_header: _Pending | None = None
        self._ended = False

    def feed(self, piece: bytes | memoryview) -> None:
        begin, self._position = self._position, self._position + len(piece)
        end = self._position
        if end > self.limits.max_size:
            raise Invalid(
                f"the layer is larger than {self.limits.max_size >> 20} MiB", "LIMPET_MAX_LAYER_SIZE sets the limit"
            )
        view = memoryview(piece)
        while not self._ended:
            want = self._body or BLOCK
            have = len(self._carry)
            if self._next + want > end:
                if self._next + have < end:
                    self._carry += bytes(view[max(self._next + have - begin, 0) :])
                return
            if have:
                block = self._carry + bytes(view[: want - have])
                self._carry = b""
            else:
                start = self._next - begin
                block = bytes(view[start : start + want])
            if self._body:
                self._take_body(block)
            else:
                self._header(block)

    def finish(self) -> None:
        """Raises Corrupt when the stream ended inside a member, or before one that an extension header announced."""
        if not self._ended and (self._next > self._position or self._carry):
            raise Corrupt("the tar is truncated: it ends inside a member")
        if self._pax or self._long_name or self._long_link:
            raise Corrupt("the tar is truncated: an extension header without its member")
        self.tree.finish()

    def _header(self, h: bytes) -> None:
        if not h[0] and h.count(0) == BLOCK:
            self._ended = True  # what follows is padding; its bytes count for the digest only
            return
        _check_sum(h)
        name = h[:100].split(b"\0", 1)[0]
        kind = h[156:157]
        if h[257:263] == b"ustar\0" and h[345]:
            name = h[345:500].split(b"\0", 1)[0] + b"/" + name
        size = _number(h[124:136], name)
        if size < 0:
            raise Corrupt(f"negative size of {name[:200]!r}")
        data = self._next + BLOCK
        if kind in b"xgLK" and kind:
            if size > MAX_EXTENSION:
                raise Invalid(f"an extension header of {size} bytes before {name[:200]!r}: more than 1 MiB")
            self._body, self._body_type = size + -size % BLOCK, kind
            self._next = data
            if not size:
                self._body = 0
            else:
                self._body_size = size
            return
        self.entries += 1
        if self.entries > self.limits.max_entries:
            raise Invalid(
                f"the layer has more than {self.limits.max_entries} entries", "LIMPET_MAX_LAYER_ENTRIES sets the limit"
            )
        if kind in _IGNORED_BYTES:
            self._forget()
            self._next = data + size + -size % BLOCK
            return
        self._member(h, name, kind, size, data)

    def _take_body(self, body: bytes) -> None:
        self._next += self._body
        self._body = 0
        body = body[: self._body_size]
        if self._body_type == b"x":
            self._pax += parse_pax(body)
        elif self._body_type == b"g":
            self._global.update(parse_pax(body))
        elif self._body_type == b"L":
            self._long_name = body.split(b"\0", 1)[0]
        elif self._body_type == b"K":
            self._long_link = body.split(b"\0", 1)[0]
        else:
            assert self._sparse_header is not None
            self._sparse_body(self._sparse_header, body)

    def _forget(self) -> None:
        self._pax = []
        self._long_name = self._long_link = b""

    def _member(self, h: bytes, name: bytes, kind: bytes, size: int, data: int) -> None:
        mode = _TYPES.get(kind)
        if kind == b"1":
            mode = 0
        elif mode is None:
            raise Invalid(f"the type {kind!r} of {name[:200]!r} is not known")
        link = h[157:257].split(b"\0", 1)[0]
        uid, gid = _number(h[108:116], name), _number(h[116:124], name)
        mtime, nsec = _number(h[136:148], name), 0
        xattrs: list[tuple[bytes, bytes]] = []
        name, link = self._long_name or name, self._long_link or link
        gnu: list[tuple[bytes, bytes]] = []
        if self._pax or self._global:
            for key, value in [*self._global.items(), *self._pax]:
                if key == b"path":
                    name = value
                elif key == b"linkpath":
                    link = value
                elif key == b"size":
                    size = _decimal(value, key, name)
                elif key == b"uid":
                    uid = _decimal(value, key, name)
                elif key == b"gid":
                    gid = _decimal(value, key, name)
                elif key == b"mtime":
                    mtime, nsec = _time(value, name)
                elif key[:13] == b"SCHILY.xattr.":
                    xattrs.append((key[13:], value))
                elif key[:11] == b"GNU.sparse.":
                    gnu.append((key[11:], value))
        self._forget()
        if not (0 <= uid <= MAX_ID and 0 <= gid <= MAX_ID):
            raise Invalid(f"owner {uid}:{gid} of {name[:200]!r} is out of range")
        if not _TIMES[0] < mtime < _TIMES[1]:
            raise Invalid(f"the time of {name[:200]!r} is out of range")
        self._next = data + size + -size % BLOCK if kind[0] in _HAS_DATA else data
        old_style = kind == b"\0" and name.endswith(b"/")  # v7: a directory is a file with a slash
        if old_style:
            mode = stat.S_IFDIR
        path = clean(name)
        if len(path) > MAX_PATH or b"\0" in path:
            raise Invalid(f"the name {path[:80]!r}… is too long" if len(path) > MAX_PATH else f"bad name {path!r}")
        up, _, base = path.rpartition(b"/")
        if len(base) > 255:
            raise Invalid(f"the name {base[:80]!r}… is longer than 255 bytes")
        if base[:4] == b".wh.":
            if base == b".wh..wh..opq":
                self.tree.opaque(up)
            elif base[:8] != b".wh..wh.":
                self.tree.whiteout(up, base[4:], mtime)
            return
        if kind == b"1":
            self.tree.hard_link(path, clean(link))
            return
        assert mode is not None
        node = Node(mode | _number(h[100:108], name) & 0o7777, uid, gid, mtime, nsec)
        if xattrs:
            node.xattrs = kept_xattrs(list(dict(xattrs).items()), path)
        if mode == stat.S_IFREG:
            node.size, node.offset = size, data
            if kind == b"S" or gnu:
                self._sparse(path, node, h if kind == b"S" else b"", dict(gnu), gnu, size)
                return
        elif mode == stat.S_IFLNK:
            if not link or len(link) > MAX_PATH:
                raise Invalid(f"the symbolic link {path[:200]!r} has a bad target")
            node.link, node.size = link, len(link)
            node.mode = stat.S_IFLNK | 0o777
        elif mode in (stat.S_IFCHR, stat.S_IFBLK):
            node.rdev = _device(_number(h[329:337], name), _number(h[337:345], name), path)
            if node.is_whiteout:
                raise Invalid(f"the device 0/0 at {path[:200]!r} would be a whiteout")
        self.tree.add(path, node)

    def _sparse(
        self,
        path: bytes,
        node: Node,
        old: bytes,
        keys: dict[bytes, bytes],
        ordered: list[tuple[bytes, bytes]],
        packed: int,
    ) -> None:
        """GNU tar manual, "Storing Sparse Files": where the map is, by version."""
        if old:
            node.size = _number(old[483:495], path)
            pending = _Pending(path, node, packed, [])
            pending.add_old(old[386:482], 4)
            if old[482]:
                self._collect(pending, b"s", node.offset)
                self._next = node.offset  # extension headers follow the member's header, its data follows them
                self._body, self._body_size = BLOCK, BLOCK
                return
            self._finish_sparse(pending)
            return
        if b"name" in keys:
            path = clean(keys[b"name"])
        node.size = _decimal(keys.get(b"realsize") or keys.get(b"size") or b"", b"GNU.sparse.size", path)
        pending = _Pending(path, node, packed, [])
        if keys.get(b"major") == b"1":
            self._collect(pending, b"m", node.offset)
            return
        if b"map" in keys:
            numbers = [_decimal(text, b"GNU.sparse.map", path) for text in keys[b"map"].split(b",")]
        else:
            numbers = [_decimal(v, k, path) for k, v in ordered if k in (b"offset", b"numbytes")]
        pending.pieces = list(zip(numbers[::2], numbers[1::2], strict=False))
        self._finish_sparse(pending)

    def _collect(self, pending: _Pending, kind: bytes, at: int) -> None:
        self._sparse_header, self._body_type = pending, kind
        pending.after = self._next
        self._next, self._body, self._body_size = at, BLOCK, BLOCK

    def _sparse_body(self, pending: _Pending, block: bytes) -> None:
        again = False
        if self._body_type == b"s":
            pending.add_old(block[:504], 21)
            pending.node.offset += BLOCK
            pending.after += BLOCK
            again = block[504] != 0
        else:
            pending.text += block
            again = not pending.parse_text()
            if not again:
                pending.node.offset += len(pending.text)
                pending.packed -= len(pending.text)
        if len(pending.pieces) > MAX_EXTENSION // 16 or len(pending.text) > MAX_EXTENSION:
            raise Invalid(f"the sparse file {pending.path[:200]!r} has too many pieces")
        if again:
            self._body, self._body_size = BLOCK, BLOCK
            return
        self._next = pending.after
        self._sparse_header = None
        self._finish_sparse(pending)

    def _finish_sparse(self, pending: _Pending) -> None:
        end = total = 0
        for offset, length in pending.pieces:
            if offset < end or length < 0 or offset + length > pending.node.size:
                raise Corrupt(f"the map of the sparse file {pending.path[:200]!r} is out of order or of its size")
            end = offset + length
            total += length
        if total > pending.packed:
            raise Corrupt(f"the sparse file {pending.path[:200]!r} has less data than its map says")
        if pending.node.size > self.limits.max_size:
            raise Invalid(f"the sparse file {pending.path[:200]!r} is larger than the limit of a layer")
        self.sparse.append(SparseFile(pending.node, pending.pieces, total))
        self.tree.add(pending.path, pending.node)


class _Pending:
    """A sparse member whose map is still being read."""

    __slots__ = ("after", "node", "packed", "path", "pieces", "text")

    def __init__(self, path: bytes, node: Node, packed: int, pieces: Sparse) -> None:
        self.path = path
        self.node = node
        self.packed = packed
        self.pieces = pieces
        self.text = b""
        self.after = 0

    def add_old(self, field: bytes, count: int) -> None:
        for i in range(count):
            entry = field[24 * i : 24 * i + 24]
            if entry[:1] == b"\0":
                return
            self.pieces.append((_number(entry[:12], self.path), _number(entry[12:24], self.path)))

    def parse_text(self) -> bool:
        """Version 1.0: a count, then offset and length in lines of decimal digits. False while it is not whole."""
        lines = self.text.split(b"\n")
        if len(lines) < 2:
            return False
        count = _decimal(lines[0], b"GNU.sparse.map", self.path)
        if len(lines) - 1 < 1 + 2 * count:
            return False
        numbers = [_decimal(line, b"GNU.sparse.map", self.path) for line in lines[1 : 1 + 2 * count]]
        self.pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
        return True


_IGNORED_BYTES = tuple(bytes([code]) for code in _IGNORED)


def parse_pax(body: bytes) -> list[tuple[bytes, bytes]]:
    """Records `LENGTH KEY=VALUE\\n` (POSIX pax, "pax Extended Header")."""
    records = []
    position = 0
    while position < len(body) and body[position]:
        space = body.find(b" ", position, position + 20)
        digits = body[position:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = body[space + 1 : position + length]
        if not length or record[-1:] != b"\n" or position + length > len(body):
            raise Corrupt("a pax header is malformed")
        key, equals, value = record[:-1].partition(b"=")
        if not equals:
            raise Corrupt("a pax header is malformed")
        records.append((key, value))
        position += length
    return records


def _check_sum(h: bytes) -> None:
    """Sum of the header's bytes with the field itself as blanks; old programs summed signed bytes."""
    text = h[148:156].split(b"\0", 1)[0].strip()
    try:
        stated = int(text, 8)
    except ValueError:
        raise Corrupt("not a tar, or a damaged one: a header without a checksum") from None
    rest = h[:148] + h[156:]
    if sum(rest) + 256 != stated and sum(b - 256 if b > 127 else b for b in rest) + 256 != stated:
        raise Corrupt(f"the checksum of the header of {h[:100].rstrip(bytes(1))[:100]!r} is wrong")


def _number(field: bytes, name: bytes) -> int:
    """Octal text, or base-256 when the top bit is set (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value & ((1 << (bits - 1)) - 1)
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    try:
        return int(text, 8)
    except ValueError:
        raise Corrupt(f"{text!r} in the header of {name[:200]!r} is not a number") from None


def _decimal(value: bytes, key: bytes, name: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise Corrupt(f"{key.decode(errors='replace')}={value[:40]!r} of {name[:200]!r} is not a number")
    return int(value)


def _time(value: bytes, name: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds; the fraction of a negative time counts backwards, so it is turned round."""
    whole, _, fraction = value.partition(b".")
    if not whole.lstrip(b"-").isdigit() or not (fraction.isdigit() or not fraction) or len(value) > 64:
        raise Corrupt(f"mtime={value[:40]!r} of {name[:200]!r} is not a time")
    seconds, nanoseconds = int(whole), int((fraction + b"000000000")[:9])
    if whole[:1] == b"-" and nanoseconds:
        return seconds - 1, 10**9 - nanoseconds
    return seconds, nanoseconds


def _device(major: int, minor: int, path: bytes) -> int:
    """The kernel's 32-bit encoding (new_encode_dev)."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise Invalid(f"the device {major}:{minor} at {path[:200]!r} is out of range")
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
