"""What a layer tar says, as a tree of inodes: the last entry of a name wins, as when unpacking.

The rules are those of the OCI image spec (layer.md) and of what containerd and umoci do where it is silent:

- A directory entry for a directory that is there changes its attributes only; any other entry replaces what has its
  name, a directory with all that is in it too.
- Missing parents are made, mode 0755, root's: they are *implied*. What the layers below have at that place decides in
  the end (`seal`): an implied directory takes the attributes of the one below, and follows a symbolic link below.
- A path that goes through a symbolic link of the same layer follows it, within the root, at most 40 times.
- `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` everything below a directory; neither touches what the layer
  itself brings, whatever the order. `.wh..wh.*` else is aufs's own and is dropped.
- A hard link to something of this layer shares its inode, in any order; one whose target is not here means a file of a
  layer below, and is resolved by `seal`.
- `trusted.overlay.*` attributes in a tar are dropped: they would be orders to overlayfs.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from limpet.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable

OPAQUE = (b"trusted.overlay.opaque", b"y")
WHITEOUT = stat.S_IFCHR
"""The whole mode of a whiteout: character device 0/0 without permissions."""

_MAX_LINKS = 40
_XATTR_LIMIT = 65536


class Node:
    """One inode. `device` and `offset` say where a file's bytes lie: 1 is the tar, 2 the `extra` file; bytes."""

    __slots__ = (
        "device", "gid", "implied", "kids", "link", "mode", "mtime", "nid", "nlink", "nsec",
        "offset", "opaque", "position", "rdev", "size", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, mode: int, uid: int = 0, gid: int = 0, mtime: int = 0, nsec: int = 0) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.nsec = nsec
        self.size = self.offset = self.rdev = 0
        self.device = 1
        self.link = b""
        self.xattrs: list[tuple[bytes, bytes]] = []
        self.kids: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None
        self.opaque = self.implied = False
        self.nlink = 1
        self.nid = -1  # set by the index writer
        self.position = 0

    @property
    def is_directory(self) -> bool:
        return self.kids is not None

    @property
    def is_whiteout(self) -> bool:
        return self.mode == WHITEOUT and self.rdev == 0


class Tree:
    """Entries in, a root out. `lower` tells what the layers below have at a path, where that is known (`seal`)."""

    def __init__(self, lower: Callable[[bytes], Node | None] | None = None) -> None:
        self.root = Node(stat.S_IFDIR | 0o755)
        self.root.implied = True
        self.whiteouts: list[bytes] = []
        self.links: list[tuple[bytes, bytes]] = []  # (name, target) of hard links whose target was not here yet
        self.adopted: list[tuple[bytes, Node]] = []  # (path below, node) of hard links that `lower` answered
        self._lower = lower
        self._implied: list[tuple[bytes, Node]] = []
        self._directories: dict[bytes, Node] = {b"": self.root}

    def add(self, path: bytes, node: Node) -> None:
        """Enters a file, link, device or directory at a clean path (see `clean`)."""
        up, _, base = path.rpartition(b"/")
        parent = self._directories.get(up) or self.directory(up)
        kids = parent.kids
        assert kids is not None
        if not base:
            if node.kids is None:
                raise Invalid("the root of the layer is not a directory")
            _take_attributes(self.root, node)
            return
        old = kids.get(base)
        if node.kids is None:
            if old is not None:
                self._drop(path, old)
            kids[base] = node
            return
        if old is not None and old.kids is not None:
            _take_attributes(old, node)
            return
        if old is not None:
            node.opaque = old.is_whiteout  # a whiteout and then a directory of that name: nothing below shows
            self._drop(path, old)
        kids[base] = node
        self._directories[path] = node

    def hard_link(self, path: bytes, target: bytes) -> None:
        """One more name for an inode; the target may come later, or lie in a layer below."""
        found = self._find(target)
        if found is None or found.is_whiteout:
            self.links.append((path, target))
            return
        self._link(path, target, found)

    def whiteout(self, path: bytes, name: bytes, mtime: int) -> None:
        """`.wh.<name>` in the directory `path`."""
        if name in (b"", b".", b".."):
            raise Invalid(f"bad whiteout in {path[:200]!r}")
        parent = self.directory(path)
        assert parent.kids is not None
        old = parent.kids.get(name)
        if old is None:
            parent.kids[name] = Node(WHITEOUT, mtime=mtime)
            self.whiteouts.append(path + b"/" + name if path else name)
        elif old.kids is not None:
            old.opaque = True

    def opaque(self, path: bytes) -> None:
        """`.wh..wh..opq` in the directory `path`."""
        self.directory(path).opaque = True

    def finish(self) -> None:
        """Resolves the hard links that came before their targets. `links` keeps those that point below."""
        waiting, self.links = self.links, []
        progress = True
        while waiting and progress:
            progress = False
            still = []
            for path, target in waiting:
                found = self._find(target)
                if found is None or found.is_whiteout:
                    still.append((path, target))
                else:
                    self._link(path, target, found)
                    progress = True
            waiting = still
        for path, target in waiting:
            node = self._lower(target) if self._lower is not None else None
            if node is not None and node.kids is None:
                self.add(path, node)
                self.adopted.append((target, node))
            else:
                self.links.append((path, target))

    def implied_paths(self) -> list[bytes]:
        """Directories that had no entry of their own."""
        return [path for path, node in self._implied if node.implied]

    def drop_whiteout(self, path: bytes) -> None:
        """Takes a whiteout away that hides nothing: overlayfs would list it (a directory that is not merged)."""
        up, _, name = path.rpartition(b"/")
        kids = self.directory(up).kids or {}
        if name in kids and kids[name].is_whiteout:
            del kids[name]

    def directory(self, path: bytes, depth: int = 0) -> Node:
        """The directory at a path; missing ones are made, symbolic links followed."""
        node = self._directories.get(path)
        if node is not None:
            return node
        up, _, name = path.rpartition(b"/")
        parent = self.directory(up, depth)
        assert parent.kids is not None
        found = parent.kids.get(name)
        if found is not None and stat.S_ISLNK(found.mode):
            return self._through(path, up, found.link, depth)
        if found is None or found.kids is None:
            below = self._lower(path) if self._lower is not None and found is None else None
            if below is not None and stat.S_ISLNK(below.mode):
                return self._through(path, up, below.link, depth)
            if found is not None:
                self._drop(path, found)
            fresh = Node(stat.S_IFDIR | 0o755)
            fresh.implied = True
            if below is not None and below.kids is not None:
                _take_attributes(fresh, below)
            fresh.opaque = found is not None and found.is_whiteout
            parent.kids[name] = found = fresh
            self._implied.append((path, fresh))
        self._directories[path] = found
        return found

    def _through(self, path: bytes, up: bytes, link: bytes, depth: int) -> Node:
        if depth >= _MAX_LINKS:
            raise Invalid(f"too many symbolic links at {path[:200]!r}")
        # Not remembered in _directories: the link may be replaced by a later entry.
        return self.directory(_join(b"" if link[:1] == b"/" else up, link), depth + 1)

    def _find(self, path: bytes) -> Node | None:
        up, _, base = path.rpartition(b"/")
        node = self._directories.get(up)
        if node is None:
            node = self.root
            for part in up.split(b"/") if up else ():
                kid = node.kids.get(part) if node.kids is not None else None
                if kid is None:
                    return None
                if stat.S_ISLNK(kid.mode):
                    node = self.directory(up)
                    break
                node = kid
        return node.kids.get(base) if node.kids is not None else None

    def _link(self, path: bytes, target: bytes, node: Node) -> None:
        if node.kids is not None:
            raise Invalid(f"hard link {path[:200]!r} to the directory {target[:200]!r}")
        up, _, base = path.rpartition(b"/")
        kids = self.directory(up).kids
        assert kids is not None
        old = kids.get(base)
        if old is node:
            return
        if old is not None:
            self._drop(path, old)
        node.nlink += 1
        kids[base] = node

    def _drop(self, path: bytes, old: Node) -> None:
        """`old` loses a name; with a directory everything in it."""
        if old.kids is None:
            old.nlink -= 1
            return
        for known in [p for p in self._directories if p == path or p.startswith(path + b"/")]:
            del self._directories[known]
        stack = [old]
        while stack:
            for kid in (stack.pop().kids or {}).values():
                if kid.kids is not None:
                    stack.append(kid)
                else:
                    kid.nlink -= 1


def clean(name: bytes) -> bytes:
    """A member's name as a path from the root: no leading slash, no `.`; `..` raises Invalid."""
    if name[:2] == b"./":
        name = name[2:]
    name = name.strip(b"/")
    if b"//" in name or b"./" in name or name[-2:] in (b"/.", b"..") or name == b".":
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise Invalid(f"path traversal: '..' in the member {name[:200]!r}")
        name = b"/".join(parts)
    return name


def kept_xattrs(xattrs: list[tuple[bytes, bytes]], path: bytes) -> list[tuple[bytes, bytes]]:
    """Without overlayfs's own. Raises Invalid for names and values that Linux can't have."""
    kept = [(name, value) for name, value in xattrs if not name.startswith((b"trusted.overlay.", b"user.overlay."))]
    for name, value in kept:
        if not 0 < len(name) <= 255 or len(value) > _XATTR_LIMIT:
            raise Invalid(f"the extended attribute {name[:80]!r} of {path[:200]!r} is too long")
    return kept


def _take_attributes(node: Node, of: Node) -> None:
    node.mode, node.uid, node.gid, node.mtime, node.nsec = of.mode, of.uid, of.gid, of.mtime, of.nsec
    node.xattrs = of.xattrs
    node.implied = of.implied


def _join(base: bytes, link: bytes) -> bytes:
    """A link's target as a path from the root; `..` stops at the root, as in a chroot."""
    parts = [part for part in base.split(b"/") if part]
    for part in link.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
