"""A layer comes in: hash, write, understand, in one pass; nothing is visible before the digest was right.

    <root>/tmp/layer-…/             renamed to layers/<hex of the diff ID> when all is well
      data                          the tar, to the byte
      index                         EROFS over it (`erofs.py`); only the erofs driver reads it
      extra                         contents of sparse files, expanded into holes (only if there are any)
      pending                       JSON: what depends on the layers below (`seal.py`; only if there is something)
      tree/                         the dir driver's unpacked files

The bulk is written without waiting for the disk: the row says in which boot, `settle` makes it durable later, and after
an unclean boot such a layer is hashed again before it is used (DESIGN.md, "On disk").
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Corrupt
from limpet.kernel import fs
from limpet.layers import erofs
from limpet.layers.limits import Limits, from_environment
from limpet.layers.tar import Scanner
from limpet.layers.tree import Tree
from limpet.store import faults
from limpet.store.files import remove_tree, sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from limpet.layers.tar import SparseFile
    from limpet.store.store import Store

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """`size`: bytes of the tar. `entries`: its members."""

    diff_id: str
    size: int
    entries: int


class Ingest:
    """`write` the uncompressed tar in pieces, then `finish`; leaving the `with` block without it leaves nothing behind.

    The caller holds `store.lease()`. `unpack`, if given, gets the directory when all is written (the dir driver).
    """

    def __init__(
        self,
        store: Store,
        driver: str,
        limits: Limits | None = None,
        unpack: Callable[[str, Tree], None] | None = None,
    ) -> None:
        self._store = store
        self._driver = driver
        self._limits = limits or from_environment()
        self._unpack = unpack
        self._tree = Tree()
        self._scanner = Scanner(self._tree, self._limits)
        self._hash = hashlib.sha256()
        self._size = 0
        self._path = store.temporary("layer")
        os.mkdir(self._path, 0o700)
        self._fd = os.open(f"{self._path}/data", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, piece: bytes | memoryview) -> None:
        """Raises Invalid or Corrupt as soon as something is wrong; nothing else may be called then but `abort`."""
        self._scanner.feed(piece)
        self._hash.update(piece)
        self._size += len(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self, expected_diff_id: str | None = None, *, durable: bool = False) -> LayerInfo:
        """Checks the digest, writes the index, and makes the layer visible. `durable`: on disk when this returns.

        A layer that is here already stays as it is. Raises Corrupt when the digest is another one.
        """
        diff_id = f"sha256:{self._hash.hexdigest()}"
        if expected_diff_id is not None and diff_id != expected_diff_id:
            raise Corrupt(f"the layer is {diff_id}, but the image says {expected_diff_id}", "the image is broken")
        if not self._size:
            raise Corrupt("the layer is empty, not even a tar's end")
        self._scanner.finish()
        info = LayerInfo(diff_id, self._size, self._scanner.entries)
        if self._store.db.row("SELECT 1 FROM layer WHERE diff_id = ?", diff_id) is None:
            self._write_index(durable)
            self._publish(info, durable)
        self.abort()
        return info

    def abort(self) -> None:
        """Takes away what is not visible. Safe to call twice, and after `finish`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            remove_tree(self._path)

    def _write_index(self, durable: bool) -> None:
        sizes = [self._size]
        if self._scanner.sparse:
            sizes.append(expand(self._fd, self._scanner.sparse, f"{self._path}/extra"))
        pending = {
            "parents": bool(self._tree.implied_paths()),
            "whiteouts": bool(self._tree.whiteouts),
            "links": len(self._tree.links),
        }
        if any(pending.values()):
            self._write("pending", json.dumps(pending).encode(), durable)
        if self._unpack is not None:
            self._unpack(self._path, self._tree)
        else:
            self._write("index", erofs.build(self._tree.root, sizes), durable)
        if durable:
            os.fsync(self._fd)
            sync_directory(self._path)

    def _write(self, name: str, data: bytes, durable: bool) -> None:
        with open(f"{self._path}/{name}", "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())

    def _publish(self, info: LayerInfo, durable: bool) -> None:
        target = self._store.layer_path(info.diff_id)
        faults.reach("layer-written")
        if os.path.isdir(target):
            remove_tree(target)  # a row would have been found above: this is what a crash left
        try:
            os.rename(self._path, target)
        except OSError:
            if not os.path.isdir(target):
                raise
            # Another process brought the same layer in between: its row is as good.
        if durable:
            sync_directory(os.path.dirname(target))
        faults.reach("layer-renamed")
        with self._store.db.transaction(durable=durable):
            self._store.db.run(
                "INSERT OR IGNORE INTO layer (diff_id, driver, size, boot) VALUES (?, ?, ?, ?)",
                info.diff_id,
                self._driver,
                info.size,
                None if durable else boot_id(),
            )
        faults.reach("layer-row")


def expand(data: int, files: list[SparseFile], path: str) -> int:
    """Writes sparse files with their holes into one sparse file, and points their inodes there. Its size in bytes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    end = 0
    try:
        for file in files:
            source = file.node.offset
            file.node.device, file.node.offset = 2, end
            for offset, length in file.pieces:
                copy_range(data, source, fd, end + offset, length)
                source += length
            end += file.node.size + -file.node.size % _BLOCK
        os.ftruncate(fd, end)
    finally:
        os.close(fd)
    return end


def copy_range(source: int, at: int, target: int, to: int, length: int) -> None:
    """Copies within the kernel where the file system can. Raises Corrupt when the source ends early."""
    while length:
        try:
            done = os.copy_file_range(source, target, min(length, 1 << 30), at, to)
        except OSError:
            piece = os.pread(source, min(length, 1 << 20), at)
            done = os.pwrite(target, piece, to) if piece else 0
        if not done:
            raise Corrupt("the tar is truncated: it ends inside a sparse file")
        at, to, length = at + done, to + done, length - done


def rescan(path: str, tree: Tree) -> list[SparseFile]:
    """Enters a stored layer's tar into `tree` again; its sparse members."""
    scanner = Scanner(tree, Limits(max_size=1 << 62, max_entries=1 << 62))
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
            scanner.feed(view)
    scanner.finish()
    return scanner.sparse


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def settle(store: Store) -> None:
    """One syncfs makes all that this boot wrote durable, then the rows say so."""
    boot = boot_id()
    if store.db.row("SELECT 1 FROM layer WHERE boot = ?1 UNION SELECT 1 FROM blob WHERE boot = ?1", boot) is None:
        return
    fd = os.open(store.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Read what to mark before the sync: what comes in meanwhile is not covered by it.
        layers = [row[0] for row in store.db.rows("SELECT diff_id FROM layer WHERE boot = ?", boot)]
        blobs = [row[0] for row in store.db.rows("SELECT digest FROM blob WHERE boot = ?", boot)]
        fs.syncfs(fd)
    finally:
        os.close(fd)
    with store.db.transaction():
        for diff_id in layers:
            store.db.run("UPDATE layer SET boot = NULL WHERE diff_id = ?", diff_id)
        for digest in blobs:
            store.db.run("UPDATE blob SET boot = NULL WHERE digest = ?", digest)
