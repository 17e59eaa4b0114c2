"""ADD of a local archive: its members as files to copy (Dockerfile reference, "Adding local tar archives").

An archive is what is one inside, whatever it is called: a tar, plain or compressed by gzip, bzip2, xz or zstd. It is
decompressed into a file of its own and understood by the same code, with the same limits, as a layer.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from typing import TYPE_CHECKING

from limpet.build.copying.context import Entry
from limpet.errors import Corrupt, Invalid
from limpet.layers import compression
from limpet.layers.contents import expand
from limpet.layers.fields import verify_checksum
from limpet.layers.limits import from_environment
from limpet.layers.tar import Scanner
from limpet.layers.tree import Tree
from limpet.store.files import remove_tree, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.layers.rootfs_tar import TarWriter
    from limpet.layers.tree import Node
    from limpet.store.store import Store

_PIECE = 1 << 20


def is_archive(fd: int) -> bool:
    """By the first bytes of what is inside. The descriptor's position stays."""
    kind = compression.detect(os.pread(fd, 16, 0))
    try:
        head = next(compression.decompress(_Reader(fd), kind), b"")[:512]
        if len(head) < 512 or not head.strip(b"\0"):
            return False
        verify_checksum(head)
    except (Corrupt, Invalid):
        return False
    return True


class Archive:
    """An open archive. `close` takes its files away."""

    def __init__(self, store: Store, fd: int, name: str) -> None:
        """Raises Invalid and Corrupt, naming the archive."""
        self.name = name
        self._nodes: dict[str, Node] = {}
        self._directory = store.temporary("archive")
        os.mkdir(self._directory, 0o700)
        self._files: list[int] = []
        try:
            self._read(fd)
        except (Corrupt, Invalid) as e:
            self.close()
            raise type(e)(f"{name}: {e.message}", e.hint) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files = []
        remove_tree(self._directory)

    def entries(self, target: str) -> list[Entry]:
        """Its members below `target`, parents first, sorted by name. Raises Invalid for what no copy can make."""
        found: list[Entry] = []
        first: dict[int, str] = {}
        self._walk(self._tree.root, "", target.rstrip("/") or "/", found, first)
        return found

    def write(self, tar: TarWriter, entry: Entry, mtime_ns: int) -> None:
        node = self._nodes[entry.path]
        pieces = self.pieces(entry)
        name = entry.target.strip("/")
        tar.stream(name, node.size, pieces, stat.S_IMODE(entry.mode), entry.uid, entry.gid, mtime_ns, node.xattrs)

    def content(self, entry: Entry) -> str:
        """SHA-256 (hex) of a file."""
        digest = hashlib.sha256()
        for piece in self.pieces(entry):
            digest.update(piece)
        return digest.hexdigest()

    def xattrs(self, entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
        return self._nodes[entry.path].xattrs

    def _read(self, fd: int) -> None:
        limits = from_environment()
        self._tree = Tree()
        scanner = Scanner(self._tree, limits)
        data = os.open(f"{self._directory}/data", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._files.append(data)
        kind = compression.detect(os.pread(fd, 16, 0))
        for piece in compression.decompress(_Reader(fd), kind, max_ratio=limits.max_ratio):
            scanner.feed(piece)
            write_all(data, piece)
        scanner.finish(data)
        broken = self._tree.unresolved()
        if broken:
            path, goal = (os.fsdecode(each) for each in broken[0])
            raise Invalid(f"the hard link {path} is to {goal}, which isn't in the archive")
        if scanner.sparse:
            expand(data, scanner.sparse, f"{self._directory}/extra")
            self._files.append(os.open(f"{self._directory}/extra", os.O_RDONLY | os.O_CLOEXEC))

    def _walk(self, node: Node, path: str, target: str, found: list[Entry], first: dict[int, str]) -> None:
        todo = [(node, path, target)]
        while todo:
            node, path, target = todo.pop()
            self._nodes[path] = node
            if path or target != "/":
                found.append(self._entry(node, path, target, first))
            for name, kid in sorted((node.kids or {}).items(), reverse=True):
                text = os.fsdecode(name)
                todo.append((kid, posixpath.join(path, text), posixpath.join(target, text)))

    def _entry(self, node: Node, path: str, target: str, first: dict[int, str]) -> Entry:
        if node.is_whiteout:
            raise Invalid(f"{self.name}: {path} is a whiteout, which only a layer has", "leave .wh. files out")
        same = ""
        if node.nlink > 1 and node.kids is None:
            same = first.setdefault(id(node), target)
        return Entry(
            path=path,
            target=target,
            mode=node.mode,
            size=node.size,
            link=os.fsdecode(node.link),
            uid=node.uid,
            gid=node.gid,
            mtime_ns=node.mtime * 10**9 + node.nsec,
            device=node.rdev,
            same_as="" if same == target else same,
            implied=node.implied,
        )

    def pieces(self, entry: Entry) -> Iterator[bytes]:
        """The content of a file."""
        node = self._nodes[entry.path]
        fd, at, left = self._files[node.device - 1], node.offset, node.size
        while left:
            piece = os.pread(fd, min(left, _PIECE), at)
            if not piece:
                raise Corrupt(f"{self.name}: a member ends early")
            yield piece
            at, left = at + len(piece), left - len(piece)


class _Reader:
    """Reads from the beginning, whatever the descriptor's position."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def __call__(self, size: int) -> bytes:
        piece = os.pread(self._fd, size, self._at)
        self._at += len(piece)
        return piece
