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

No step recurses, and none is quadratic: a hostile tar costs what its length costs.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from limpet.errors import Invalid, quoted
from limpet.layers.limits import MAX_NAME, MAX_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

OPAQUE = (b"trusted.overlay.opaque", b"y")
WHITEOUT = stat.S_IFCHR
"""The whole mode of a whiteout: character device 0/0 without permissions."""

_MAX_LINKS = 40
_MAX_FOLLOWED = 64 << 20  # bytes of link targets walked for one layer: 40 long ones for each member would be a bomb

_MAX_PATH_BYTES = 256 << 20  # of all directories: one member can make 2,000 of them, with paths of 2 KiB on average


class Node:
    """One inode. `device` and `offset` say where a file's bytes lie: 1 is the tar, 2 the `extra` file; bytes.

    `path`, of a directory: where it really is, from the root, no link on the way. `nlink` 0: no longer in the tree.
    """

    __slots__ = (
        "device", "gid", "implied", "kids", "link", "mode", "mtime", "nid", "nlink", "nsec",
        "offset", "opaque", "path", "position", "rdev", "size", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, mode: int, uid: int = 0, gid: int = 0, mtime: int = 0, nsec: int = 0) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.nsec = nsec
        self.size = self.offset = self.rdev = 0
        self.device = 1
        self.link = self.path = b""
        self.xattrs: tuple[tuple[bytes, bytes], ...] = ()
        self.kids: dict[bytes, Node] | None = {} if mode & 0o170000 == 0o040000 else None
        self.opaque = self.implied = False
        self.nlink = 1
        self.nid = -1  # set by the index writer
        self.position = 0

    @property
    def is_whiteout(self) -> bool:
        return self.mode == WHITEOUT and self.rdev == 0


class Below:
    """What the layers below have, for `Tree`: nothing, at first. `seal` has the real one."""

    def entry(self, path: bytes) -> Node | None:
        """What is at a path, no link on the way followed."""
        return None

    def link_target(self, path: bytes) -> Node | None:
        """What a hard link may mean: links on the way are followed. `Node.path` says where it really is."""
        return None


class Tree:
    """Entries in, a root out; `finish` when the last one is in."""

    def __init__(self, below: Below | None = None) -> None:
        self.root = Node(stat.S_IFDIR | 0o755)
        self.root.implied = True
        self.adopted: dict[Node, None] = {}  # files of layers below that got another name here
        self._below = below or Below()
        self._directories: dict[bytes, Node] = {b"": self.root}  # by `Node.path`
        self._whiteouts: list[tuple[Node, bytes]] = []
        self._links: dict[
            bytes, tuple[Node, bytes]
        ] = {}  # real path → (parent, target) of what could not be linked yet
        self._implied: list[Node] = []
        self._followed = 0
        self._path_bytes = 0

    def add(self, path: bytes, node: Node) -> None:
        """Enters a file, link, device or directory at a clean path (see `attributes.clean`)."""
        up, _, base = path.rpartition(b"/")
        parent = self._directories.get(up) or self.directory(up)
        kids = parent.kids
        assert kids is not None
        if not base:
            if node.kids is None:
                raise Invalid("the root of the layer is not a directory")
            _take_attributes(self.root, node)
            return
        if parent.path != up:
            path = _joined(parent, base)
        if self._links:
            self._links.pop(path, None)
        old = kids.get(base)
        if node.kids is None:
            if old is not None:
                self._drop(old)
            kids[base] = node
            return
        if old is not None and old.kids is not None:
            _take_attributes(old, node)
            return
        if old is not None:
            node.opaque = old.is_whiteout  # a whiteout and then a directory of that name: nothing below shows
            self._drop(old)
        kids[base] = node
        self._enter(path, node)

    def hard_link(self, path: bytes, target: bytes) -> None:
        """One more name for an inode; the target may come later, or lie in a layer below."""
        up, _, base = path.rpartition(b"/")
        if not base or not target:
            raise Invalid(f"hard link {quoted(path[:200])} to {quoted(target[:200])}: neither may be the root")
        parent = self._directories.get(up) or self.directory(up)
        path = path if parent.path == up else _joined(parent, base)
        found = self._find(target)
        if found is None or found.is_whiteout:
            kids = parent.kids
            assert kids is not None
            if base in kids:
                self._drop(kids.pop(base))
            self._links[path] = (parent, target)
        else:
            self._links.pop(path, None)
            self._link(parent, base, found, target)

    def whiteout(self, path: bytes, name: bytes, mtime: int) -> None:
        """`.wh.<name>` in the directory `path`."""
        if name in (b"", b".", b".."):
            raise Invalid(f"bad whiteout in {quoted(path[:200])}")
        parent = self.directory(path)
        assert parent.kids is not None
        old = parent.kids.get(name)
        if old is None:
            parent.kids[name] = Node(WHITEOUT, mtime=mtime)
            self._whiteouts.append((parent, name))
        elif old.kids is not None:
            old.opaque = True

    def opaque(self, path: bytes) -> None:
        """`.wh..wh..opq` in the directory `path`."""
        self.directory(path).opaque = True

    def lookup(self, path: bytes) -> Node | None:
        """What this layer has at a path, links to directories on the way followed."""
        return self._find(path)

    def finish(self) -> None:
        """Resolves the hard links that came before their targets, and those that mean a file below."""
        for first in list(self._links):
            trail: list[bytes] = []
            seen: set[bytes] = set()
            at = first
            while at in self._links and at not in seen:
                trail.append(at)
                seen.add(at)
                at = self._real(self._links[at][1]) or b""
            for path in reversed(trail):
                parent, target = self._links[path]
                if not parent.nlink:
                    del self._links[path]  # the directory that it was in was replaced
                    continue
                found = self._find(target)
                if found is None or found.is_whiteout:
                    found = self._adopt(target)
                if found is not None:
                    del self._links[path]
                    self._link(parent, path.rpartition(b"/")[2], found, target)

    def unresolved(self) -> list[tuple[bytes, bytes]]:
        """(name, target) of hard links whose target is neither here nor, as far as is known, below."""
        return [(path, target) for path, (_, target) in self._links.items()]

    def depends(self) -> dict[str, bool]:
        """What of this layer the layers below may change."""
        return {
            "parents": any(node.implied and node.nlink for node in self._implied),
            "whiteouts": any(self._visible_whiteouts()),
            "links": bool(self._links),
            "opaque": self.root.opaque,
        }

    def drop_stray_whiteouts(self) -> None:
        """Takes away whiteouts that hide nothing: overlayfs lists what is in a directory that it does not merge."""
        for parent, name in list(self._visible_whiteouts()):
            if self._covered(parent) or self._below.entry(_joined(parent, name)) is None:
                assert parent.kids is not None
                del parent.kids[name]

    @property
    def implied(self) -> int:
        """How many directories were made that have no entry of their own."""
        return len(self._implied)

    def implied_directories(self) -> list[Node]:
        """Those of them whose attributes are a matter of the layers below, and of nothing else."""
        if any(node.opaque for node in self._directories.values()):
            return []
        return [node for node in self._implied if node.implied and node.nlink]

    def directory(self, path: bytes) -> Node:
        """The directory at a path; missing ones are made, symbolic links followed within the root."""
        node = self._directories.get(path)
        if node is not None:
            return node
        found = self._walk(path, make=True)
        assert found is not None
        return found

    def _walk(self, path: bytes, *, make: bool) -> Node | None:
        node, links = self.root, 0
        covered = node.opaque  # whether nothing of the layers below shows in `node`
        parts = path.split(b"/")[::-1] if path else []
        while parts:
            part = parts.pop()
            if part == b"..":
                node = self._directories[node.path.rpartition(b"/")[0]]
                covered = self._covered(node)
                continue
            if part in (b"", b"."):
                continue
            kid = node.kids.get(part) if node.kids is not None else None
            if kid is None or kid.kids is None:
                link = kid.link if kid is not None else b""
                if not link:
                    path = _joined(node, part)
                    below = self._below.entry(path) if kid is None and not covered else None
                    link = below.link if below is not None else b""
                    if not link:
                        if not make:
                            return None
                        kid = self._imply(node, part, kid, below)
                if link:
                    links += 1
                    self._followed += len(link) + 1
                    if links > _MAX_LINKS or self._followed > _MAX_FOLLOWED:
                        raise Invalid(f"too many symbolic links at {quoted(path[:200])}")
                    if link[:1] == b"/":
                        node = self.root
                        covered = node.opaque
                    parts += link.split(b"/")[::-1]
                    continue
            assert kid is not None
            node = kid
            covered = covered or node.opaque
        return node

    def _imply(self, parent: Node, name: bytes, old: Node | None, below: Node | None) -> Node:
        """A directory in the place of nothing, or of something that is none; `below`: what the layers below have."""
        if len(name) > MAX_NAME:
            raise Invalid(f"the name {quoted(name[:80])}… is longer than {MAX_NAME} bytes")
        path = _joined(parent, name)
        node = Node(stat.S_IFDIR | 0o755)
        if below is not None and below.kids is not None:
            _take_attributes(node, below)
        node.implied = True
        self._implied.append(node)
        node.opaque = old is not None and old.is_whiteout
        if old is not None:
            self._drop(old)
        assert parent.kids is not None
        self._links.pop(path, None)
        parent.kids[name] = node
        self._enter(path, node)
        return node

    def _enter(self, path: bytes, node: Node) -> None:
        node.path = path
        self._directories[path] = node
        self._path_bytes += len(path)
        if self._path_bytes > _MAX_PATH_BYTES:
            raise Invalid("the layer's directories are too many and too deep")

    def _find(self, path: bytes) -> Node | None:
        up, _, base = path.rpartition(b"/")
        parent = self._directories.get(up) or self._walk(up, make=False)
        return parent.kids.get(base) if parent is not None and parent.kids is not None else None

    def _real(self, path: bytes) -> bytes | None:
        up, _, base = path.rpartition(b"/")
        parent = self._directories.get(up) or self._walk(up, make=False)
        return None if parent is None else _joined(parent, base)

    def _link(self, parent: Node, base: bytes, node: Node, target: bytes) -> None:
        kids = parent.kids
        assert kids is not None
        if node.kids is not None:
            raise Invalid(f"hard link {quoted(_joined(parent, base)[:200])} to the directory {quoted(target[:200])}")
        old = kids.get(base)
        if old is node:
            return
        if old is not None:
            self._drop(old)
        node.nlink += 1
        kids[base] = node

    def _adopt(self, target: bytes) -> Node | None:
        """A file of a layer below becomes one of this layer, under its own name too: link(2) copies both up."""
        node = self._below.link_target(target)
        if node is None or node.kids is not None:
            return None
        if node not in self.adopted:
            self.adopted[node] = None
            node.nlink = 0  # its names here are counted
        up, _, base = node.path.rpartition(b"/")
        parent = self.directory(up)
        assert parent.kids is not None
        if base not in parent.kids:
            self._link(parent, base, node, target)
        return node

    def _visible_whiteouts(self) -> Iterator[tuple[Node, bytes]]:
        for parent, name in self._whiteouts:
            if parent.nlink and parent.kids and name in parent.kids and parent.kids[name].is_whiteout:
                yield parent, name

    def _covered(self, node: Node) -> bool:
        """Whether nothing of the layers below shows in a directory."""
        while not node.opaque:
            if not node.path:
                return False
            node = self._directories[node.path.rpartition(b"/")[0]]
        return True

    def _drop(self, old: Node) -> None:
        """`old` loses a name; with a directory everything in it."""
        stack = [old]
        while stack:
            node = stack.pop()
            if node.kids is None:
                node.nlink -= 1
                continue
            del self._directories[node.path]
            node.nlink = 0
            stack.extend(node.kids.values())


def _take_attributes(node: Node, of: Node) -> None:
    node.mode, node.uid, node.gid, node.mtime, node.nsec = of.mode, of.uid, of.gid, of.mtime, of.nsec
    node.xattrs = of.xattrs
    node.implied = False


def _joined(parent: Node, base: bytes) -> bytes:
    path = parent.path + b"/" + base if parent.path else base
    if len(path) >= MAX_PATH:
        raise Invalid(f"the path {quoted(path[:80])}… is too long", f"{MAX_PATH - 1} bytes are the kernel's limit")
    return path
