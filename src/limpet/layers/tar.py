"""A tar, read while it streams by: headers are understood, data is only counted.

`Scanner.feed` takes the bytes in pieces of any size and enters members into a `Tree` with the offset of their data, so
that a layer's index is complete when its last byte was written. Formats: ustar, old and new GNU (long names, sparse
0.0, 0.1, 1.0 and the old header form), pax with global headers, v7. Everything from outside is checked: checksums,
sizes, lengths, numbers; the first thing that is wrong raises Invalid or Corrupt and names the member.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid, quoted
from limpet.layers import acl
from limpet.layers.acl import ACCESS, DEFAULT
from limpet.layers.attributes import clean, kept
from limpet.layers.fields import decimal, device, number, pax_records, time, verify_checksum
from limpet.layers.limits import MAX_EXTENSION, MAX_NAME, MAX_PATH
from limpet.layers.sparse import SparseFile
from limpet.layers.tree import Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.layers.limits import Limits
    from limpet.layers.tree import Tree

BLOCK = 512
_NO_ID = (1 << 32) - 1  # to chown(2) it means "no change": what is unpacked stays root's
_TIME_LIMIT = 1 << 62

_TYPES = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"5": stat.S_IFDIR,
    b"D": stat.S_IFDIR,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"6": stat.S_IFIFO,
    b"1": 0,
}
_HAS_DATA = (b"0", b"\0", b"7", b"S", b"D")
_EXTENSIONS = (b"x", b"X", b"g", b"L", b"K")
_NO_MEMBERS = (b"V", b"A")  # a volume's label, Solaris's ACL
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_NO_DATA = bytes(BLOCK)

Records = list[tuple[bytes, bytes]]


class Scanner:
    """`feed` until the bytes end, then `finish`. `sparse` lists what must be expanded into the `extra` file."""

    def __init__(self, tree: Tree, limits: Limits) -> None:
        self.tree = tree
        self.limits = limits
        self.entries = 0
        self.sparse: list[SparseFile] = []
        self._position = 0  # of the first byte not yet fed
        self._next = 0  # where the block that is wanted next begins
        self._want = BLOCK  # its length: a header's, or that of the body of an extension
        self._take: Callable[[bytes], None] = self._header
        self._carry = b""  # the beginning of it, when it lay at the end of a piece
        self._length = 0  # of the extension's body, without padding
        self._kind = b""
        self._global: dict[bytes, bytes] = {}
        self._pax: Records = []
        self._long_name = self._long_link = b""
        self._sparse_size = 0
        self._ended = False
        self._has_acls = False

    def feed(self, piece: bytes | memoryview) -> None:
        begin, self._position = self._position, self._position + len(piece)
        end = self._position
        if end > self.limits.max_size:
            raise Invalid(
                f"the layer is larger than {self.limits.max_size >> 20} MiB", "LIMPET_MAX_LAYER_SIZE sets the limit"
            )
        view = memoryview(piece)
        while not self._ended:
            have = len(self._carry)
            if self._next + self._want > end:
                if self._next + have < end:
                    self._carry += bytes(view[max(self._next + have - begin, 0) :])
                return
            if have:
                block = self._carry + bytes(view[: self._want - have])
                self._carry = b""
            else:
                start = self._next - begin
                block = bytes(view[start : start + self._want])
            self._take(block)
        rest = view[max(self._next - begin, 0) :]
        if rest and bytes(rest).count(0) != len(rest):
            raise Corrupt("bytes that are not zero follow the end of the tar")

    def skip(self) -> int:
        """Passes over data that nobody looks at: the position of the byte to feed next."""
        if not self._ended and not self._carry and self._next > self._position:
            self._position = self._next
        return self._position

    def finish(self, data: int = -1) -> None:
        """Raises Corrupt when the stream ended inside a member, or before one that an extension header announced.

        `data`: a descriptor of the tar, for names in ACLs (see `acl`).
        """
        if not self._ended and (self._next > self._position or self._carry or self._take != self._header):
            raise Corrupt("the tar is truncated: it ends inside a member")
        if self._pax or self._long_name or self._long_link:
            raise Corrupt("the tar is truncated: an extension header without its member")
        self.tree.finish()
        if self._has_acls:
            acl.resolve(self.tree, data)

    def _header(self, h: bytes) -> None:
        if h == _NO_DATA:
            self._ended = True  # what follows is padding
            return
        verify_checksum(h)
        name = h[:100].split(b"\0", 1)[0]
        kind = h[156:157]
        if h[345] and h[257:263] == b"ustar\0":
            name = h[345:500].split(b"\0", 1)[0] + b"/" + name
        size = number(h[124:136], name)
        if size < 0:
            raise Corrupt(f"negative size of {quoted(name[:200])}")
        self._next += BLOCK
        if kind in _EXTENSIONS:
            if size > MAX_EXTENSION:
                raise Invalid(f"an extension header of {size} bytes before {quoted(name[:200])}: more than 1 MiB")
            if size:
                self._expect(self._extension, size + -size % BLOCK)
                self._kind, self._length = kind, size
            return
        self.entries += 1
        if kind in _NO_MEMBERS:
            self._next += size + -size % BLOCK
        else:
            self._member(h, name, kind, size)
            self._limit_entries()
        self._pax = []
        self._long_name = self._long_link = b""

    def _limit_entries(self) -> None:
        if self.entries + self.tree.implied > self.limits.max_entries:
            raise Invalid(
                f"the layer has more than {self.limits.max_entries} entries", "LIMPET_MAX_LAYER_ENTRIES sets the limit"
            )

    def _expect(self, take: Callable[[bytes], None], length: int) -> None:
        self._take, self._want = take, length

    def _extension(self, body: bytes) -> None:
        self._next += self._want
        self._expect(self._header, BLOCK)
        body = body[: self._length]
        if self._kind == b"g":
            self._global.update(pax_records(body))
            if sum(len(key) + len(value) for key, value in self._global.items()) > MAX_EXTENSION:
                raise Invalid("global extension headers of more than 1 MiB")
        elif self._kind == b"L":
            self._long_name = body.split(b"\0", 1)[0]
        elif self._kind == b"K":
            self._long_link = body.split(b"\0", 1)[0]
        else:
            self._pax = pax_records(body)

    def _member(self, h: bytes, name: bytes, kind: bytes, size: int) -> None:
        mode = _TYPES.get(kind)
        if mode is None:
            raise Invalid(f"the type {quoted(kind)} of {quoted(name[:200])} is not known")
        link = h[157:257].split(b"\0", 1)[0]
        uid, gid = number(h[108:116], name), number(h[116:124], name)
        mtime, nsec = number(h[136:148], name), 0
        xattrs: dict[bytes, bytes] = {}
        acls: dict[bytes, bytes] = {}
        sparse: Records = []
        name, link = self._long_name or name, self._long_link or link
        if self._pax or self._global:
            for key, value in [*self._global.items(), *self._pax]:
                if key[:13] == b"SCHILY.xattr.":
                    xattrs[key[13:]] = value
                elif not value:
                    continue  # as if the record were not there (POSIX)
                elif key == b"path":
                    name = value
                elif key == b"linkpath":
                    link = value
                elif key == b"size":
                    size = decimal(value, key, name)
                elif key == b"uid":
                    uid = decimal(value, key, name)
                elif key == b"gid":
                    gid = decimal(value, key, name)
                elif key == b"mtime":
                    mtime, nsec = time(value, name)
                elif key[:11] == b"SCHILY.acl.":
                    acls[key] = value
                elif key[:11] == b"GNU.sparse.":
                    sparse.append((key[11:], value))
                    if key == b"GNU.sparse.name":
                        name = value
        if not (0 <= uid <= _NO_ID and 0 <= gid <= _NO_ID):
            raise Invalid(f"owner {uid}:{gid} of {quoted(name[:200])} is out of range")
        if not -_TIME_LIMIT < mtime < _TIME_LIMIT:
            raise Invalid(f"the time of {quoted(name[:200])} is out of range")
        if kind in _HAS_DATA:
            data, self._next = self._next, self._next + size + -size % BLOCK
            if name[-1:] == b"/":
                mode = stat.S_IFDIR  # v7 has no type for it
        path = clean(name)
        if len(path) >= MAX_PATH or b"\0" in path:
            raise Invalid(
                f"the name {quoted(path[:80])}… is too long" if len(path) >= MAX_PATH else f"bad name {quoted(path)}"
            )
        up, _, base = path.rpartition(b"/")
        if len(base) > MAX_NAME:
            raise Invalid(f"the name {quoted(base[:80])}… is longer than {MAX_NAME} bytes")
        if base[:4] == b".wh.":
            if base == b".wh..wh..opq":
                self.tree.opaque(up)
            elif base[:8] != b".wh..wh.":
                self.tree.whiteout(up, base[4:], mtime)
            return
        if not mode:
            self.tree.hard_link(path, clean(link))
            return
        mode |= number(h[100:108], name) & 0o7777
        node = Node(mode, uid if uid != _NO_ID else 0, gid if gid != _NO_ID else 0, mtime, nsec)
        if xattrs:
            node.xattrs = kept(mode, xattrs, path)
        if acls:
            self._has_acls = True
            node.xattrs += tuple((key, acls[key]) for key in (ACCESS, DEFAULT) if key in acls)
        kind_of = mode & 0o170000
        if kind_of == stat.S_IFREG:
            node.size, node.offset = size, data
            if sparse or kind == b"S":
                self._sparse_member(SparseFile(path, node, size), h if kind == b"S" else b"", sparse)
                return
        elif kind_of == stat.S_IFLNK:
            if not link or len(link) >= MAX_PATH or b"\0" in link:
                raise Invalid(f"the symbolic link {quoted(path[:200])} has a bad target")
            node.link, node.size = link, len(link)
            node.mode = stat.S_IFLNK | 0o777
        elif kind_of in _DEVICES:
            node.rdev = device(number(h[329:337], name), number(h[337:345], name), path)
            if kind_of == stat.S_IFCHR and not node.rdev:
                raise Invalid(f"the device 0/0 at {quoted(path[:200])} would be a whiteout")
        self.tree.add(path, node)

    def _sparse_member(self, file: SparseFile, header: bytes, records: Records) -> None:
        """`_next` is already behind the member. A map in blocks of its own is read first, and leads back there."""
        if header:
            if file.add_header(header):
                self._read_map(file, file.add_extension, file.packed)
                return
        else:
            keys = dict(records)
            file.node.size = decimal(keys.get(b"realsize") or keys.get(b"size") or b"", b"GNU.sparse.size", file.path)
            if keys.get(b"major") == b"1":
                self._read_map(file, file.add_map, file.packed)
                return
            file.add_records(records)
        self._add_sparse(file)

    def _read_map(self, file: SparseFile, add: Callable[[bytes], bool], packed: int) -> None:
        old = add == file.add_extension  # its blocks are not part of the member's size

        def take(block: bytes) -> None:
            self._next += BLOCK
            if not add(block):
                self._expect(self._header, BLOCK)
                self._next = file.node.offset + (packed + -packed % BLOCK if old else file.packed + -packed % BLOCK)
                self._add_sparse(file)

        self._next = file.node.offset
        self._expect(take, BLOCK)

    def _add_sparse(self, file: SparseFile) -> None:
        file.verify()
        self._sparse_size += file.node.size
        if self._sparse_size > self.limits.max_size:
            raise Invalid(
                f"the sparse file {quoted(file.path[:200])} makes the layer larger than"
                f" {self.limits.max_size >> 20} MiB",
                "LIMPET_MAX_LAYER_SIZE sets the limit",
            )
        self.sparse.append(file)
        self.tree.add(file.path, file.node)
