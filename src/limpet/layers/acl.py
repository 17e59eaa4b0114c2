"""Access control lists as text in a tar: `SCHILY.acl.access` and `SCHILY.acl.default`, of star and `tar --acls`.

They become what `tar --acls` would restore, and the list decides the mode, as there. Names are looked up in the layer's
own /etc/passwd and /etc/group, then, as GNU tar does, on this host; star's fourth field, a number, goes before both.
A list with a name that nobody knows is left out, as by GNU tar, which warns. One that is no list at all raises
Invalid. (acl(5), "ACL TEXT FORMS"; GNU tar `xattrs.c`; star(5), SCHILY.acl.access.)
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Invalid, quoted
from limpet.layers import attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.layers.tree import Node, Tree

    Lookup = Callable[[bytes, bytes], int | None]
    """("user" or "group", name) → number."""

ACCESS, DEFAULT = b"SCHILY.acl.access", b"SCHILY.acl.default"
_NAMES = {ACCESS: b"system.posix_acl_access", DEFAULT: b"system.posix_acl_default"}
_TAGS = {b"u": b"user", b"g": b"group", b"m": b"mask", b"o": b"other"}
_NO_ID = 0xFFFFFFFF
_DATABASE_LIMIT = 4 << 20  # bytes of a passwd file that are looked at


def resolve(tree: Tree, data: int) -> None:
    """Puts the kernel's form in place of the texts that the scanner left in `Node.xattrs`. `data`: the tar, or -1."""
    lookup = _Names(tree, data)
    for node, path in _nodes(tree):
        texts = {name: value for name, value in node.xattrs if name in _NAMES}
        if not texts:
            continue
        found = {name: value for name, value in node.xattrs if name not in _NAMES}
        for name, text in texts.items():
            if stat.S_ISLNK(node.mode):
                continue
            entries = parse(text, path, lookup)
            if entries is None:
                continue
            if name == ACCESS:
                node.mode = node.mode & ~0o777 | _mode(entries)
            found[_NAMES[name]] = attributes.packed(entries)
        node.xattrs = attributes.kept(node.mode, found, path)


def parse(text: bytes, path: bytes, lookup: Lookup) -> list[tuple[int, int, int]] | None:
    """(tag, permissions, id) in the kernel's order. None if a name is unknown. Raises Invalid."""
    entries = []
    for line in text.replace(b",", b"\n").split(b"\n"):
        line = line.partition(b"#")[0].strip()
        if not line:
            continue
        fields = [field.strip() for field in line.split(b":")]
        kind = _TAGS.get(fields[0], fields[0])
        if kind in (b"mask", b"other") and len(fields) == 2:
            fields.insert(1, b"")  # the short form
        permissions = _permissions(fields[2]) if 3 <= len(fields) <= 4 else -1
        if kind not in _TAGS.values() or permissions < 0 or (kind in (b"mask", b"other") and fields[1]):
            raise Invalid(f"the ACL of {quoted(path[:200])} is damaged")
        who = _NO_ID
        if fields[1]:
            found = _number(fields[3]) if len(fields) == 4 else None
            found = _number(fields[1]) if found is None else found
            found = lookup(kind, fields[1]) if found is None else found
            if found is None:
                return None
            who = found
        entries.append((_tag(kind, bool(fields[1])), permissions, who))
    return sorted(entries, key=lambda entry: (entry[0], entry[2]))


def _tag(kind: bytes, named: bool) -> int:
    return {b"user": 2 if named else 1, b"group": 8 if named else 4, b"mask": 16, b"other": 32}[kind]


def _permissions(text: bytes) -> int:
    """`rwx`, `r-x`, `-`; -1 for what is none."""
    if not text or len(text) > 3 or text.strip(b"rwx-"):
        return -1
    return sum(bit for letter, bit in ((b"r", 4), (b"w", 2), (b"x", 1)) if letter in text)


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= 10 and int(text) < _NO_ID else None


def _mode(entries: list[tuple[int, int, int]]) -> int:
    """The permissions that stat(2) shows: the mask, if there is one, stands for the group's."""
    bits = {tag: permissions for tag, permissions, _ in entries}
    return bits.get(1, 0) << 6 | bits.get(16, bits.get(4, 0)) << 3 | bits.get(32, 0)


def _nodes(tree: Tree) -> Iterator[tuple[Node, bytes]]:
    """Each inode once, with one of its paths."""
    seen = set()
    directories = [tree.root]
    yield tree.root, b""
    for directory in directories:  # grows while it is gone through
        for name, node in (directory.kids or {}).items():
            if node in seen:
                continue
            seen.add(node)
            if node.kids is not None:
                directories.append(node)
            yield node, directory.path + b"/" + name if directory.path else name


class _Names:
    def __init__(self, tree: Tree, data: int) -> None:
        self._tree = tree
        self._data = data
        self._known: dict[bytes, dict[bytes, int]] = {}

    def __call__(self, kind: bytes, name: bytes) -> int | None:
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = self._read(b"etc/passwd" if kind == b"user" else b"etc/group")
        if name not in known:
            found = _of_host(kind, name)
            if found is None:
                return None
            known[name] = found
        return known[name]

    def _read(self, path: bytes) -> dict[bytes, int]:
        node = self._tree.lookup(path)
        if node is None or not stat.S_ISREG(node.mode) or node.device != 1 or self._data < 0:
            return {}
        lines = os.pread(self._data, min(node.size, _DATABASE_LIMIT), node.offset).split(b"\n")
        rows = [line.split(b":") for line in lines]
        return {row[0]: int(row[2]) for row in rows if len(row) > 2 and _number(row[2]) is not None}


def _of_host(kind: bytes, name: bytes) -> int | None:
    import grp
    import pwd

    try:
        text = name.decode()
        return pwd.getpwnam(text).pw_uid if kind == b"user" else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        return None
