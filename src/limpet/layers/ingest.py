"""A layer comes in: hash, write, understand, in one pass; nothing is visible before the digest was right.

It grows in <root>/tmp/layer-…/ and is renamed to layers/<hex of the diff ID> when all is well (`stored.py` has what is
in it). The bulk is written without waiting for the disk: the row says in which boot, `durable.settle` makes it durable
later, and after a crash such a layer is hashed again before it is used (DESIGN.md, "On disk").
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from limpet.errors import Corrupt
from limpet.frozen import dataclass
from limpet.kernel import fs
from limpet.layers.contents import expand
from limpet.layers.durable import boot_id
from limpet.layers.limits import from_environment
from limpet.layers.tar import Scanner
from limpet.layers.tree import Tree
from limpet.store import faults
from limpet.store.files import remove_tree, sync_directory, write_all

if TYPE_CHECKING:
    from types import TracebackType

    from limpet.layers.limits import Limits
    from limpet.layers.seal import WriteForm
    from limpet.store.store import Store


_SMALL = 64 << 10
"""Bytes of a layer that are kept in memory at first: one that is here already leaves no trace on the disk."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """`size`: bytes of the tar. `entries`: its members."""

    diff_id: str
    size: int
    entries: int


class Ingest:
    """`write` the uncompressed tar in pieces, then `finish`; leaving the `with` block without it leaves nothing behind.

    The caller holds `store.lease()`. `write_form` makes what the driver mounts.
    """

    def __init__(self, store: Store, driver: str, write_form: WriteForm, limits: Limits | None = None) -> None:
        self._store = store
        self._driver = driver
        self._write_form = write_form
        self._tree = Tree()
        self._scanner = Scanner(self._tree, limits or from_environment())
        self._hash = hashlib.sha256()
        self._size = 0
        self._path = store.temporary("layer")
        self._fd = -1
        self._begun = bytearray()

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, piece: bytes | memoryview) -> None:
        """Raises Invalid or Corrupt as soon as something is wrong; nothing else may be called then but `abort`."""
        self._store.stopped()
        self._scanner.feed(piece)
        self._hash.update(piece)
        self._size += len(piece)
        if self._fd < 0:
            self._begun += piece
            if len(self._begun) < _SMALL:
                return
            piece = memoryview(self._open())
        write_all(self._fd, piece)

    def _open(self) -> bytearray:
        """Makes the file; what is to be written first."""
        os.mkdir(self._path, 0o700)
        self._fd = os.open(f"{self._path}/data", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        begun, self._begun = self._begun, bytearray()
        return begun

    def finish(self, expected_diff_id: str | None = None, *, durable: bool = False) -> LayerInfo:
        """Checks the digest, writes the index, and makes the layer visible. `durable`: on disk when this returns.

        A layer that is here already stays as it is. Raises Corrupt when the digest is another one.
        """
        diff_id = f"sha256:{self._hash.hexdigest()}"
        if expected_diff_id is not None and diff_id != expected_diff_id:
            raise Corrupt(f"the layer is {diff_id}, but the image says {expected_diff_id}", "the image is broken")
        if not self._size:
            raise Corrupt("the layer is empty, not even a tar's end")
        here = self._is_here(diff_id, durable)
        if here and self._fd < 0:  # the same bytes were understood when they came in
            return LayerInfo(diff_id, self._size, self._scanner.entries)
        if self._fd < 0:
            begun = self._open()
            write_all(self._fd, begun)
        self._scanner.finish(self._fd)
        info = LayerInfo(diff_id, self._size, self._scanner.entries)
        if not here:
            self._write_forms(durable)
            self._publish(info, durable)
        self.abort()
        return info

    def abort(self) -> None:
        """Takes away what is not visible. Safe to call twice, and after `finish`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            remove_tree(self._path)

    def _is_here(self, diff_id: str, durable: bool) -> bool:
        row = self._store.db.row("SELECT boot FROM layer WHERE diff_id = ?", diff_id)
        if row is None or not os.path.exists(f"{self._store.layer_path(diff_id)}/data"):
            return False
        return row[0] is None or (row[0] == boot_id() and not durable)

    def _write_forms(self, durable: bool) -> None:
        depends = self._tree.depends()
        if depends["opaque"]:
            self._mark("opaque")
        if depends["whiteouts"] or depends["links"]:
            self._mark("depends")  # the form is made when the layers below are known
        else:
            if depends["parents"]:
                self._mark("depends-above")
            sizes = [self._size]
            if self._scanner.sparse:
                sizes.append(expand(self._fd, self._scanner.sparse, f"{self._path}/extra"))
            self._write_form(self._path, "", self._tree, sizes, self._fd, durable)
        if durable:
            os.fsync(self._fd)
            if os.path.exists(f"{self._path}/extra"):
                with open(f"{self._path}/extra", "rb") as file:
                    os.fsync(file.fileno())
            sync_directory(self._path)

    def _mark(self, name: str) -> None:
        os.close(os.open(f"{self._path}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _publish(self, info: LayerInfo, durable: bool) -> None:
        target = self._store.layer_path(info.diff_id)
        faults.reach("layer-written")
        try:
            os.rename(self._path, target)
        except OSError:
            if not os.path.isdir(target):
                raise
            # Left by a crash, or suspect, or another process was as quick: this one will do, `abort` takes the other.
            fs.renameat2(self._path, target, fs.RENAME_EXCHANGE)
        if durable:
            sync_directory(os.path.dirname(target))
        faults.reach("layer-renamed")
        with self._store.db.transaction(durable=durable):
            self._store.db.run(
                "INSERT INTO layer (diff_id, driver, size, boot) VALUES (?1, ?2, ?3, ?4)"
                " ON CONFLICT (diff_id) DO UPDATE SET driver = ?2, boot = ?4",
                info.diff_id,
                self._driver,
                info.size,
                None if durable else boot_id(),
            )
        faults.reach("layer-row")
