"""Layers that were made here become blobs for a registry: compressed once, and kept, so that each push sends the same.

A layer that came from a registry has its blob already, and it is never made anew: that would be another digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid
from limpet.images import outgoing
from limpet.layers import compress
from limpet.layers.driver import driver
from limpet.oci import media
from limpet.oci.manifest import Descriptor
from limpet.store import blobs
from limpet.store.blobs import BlobWriter

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from limpet.store.store import Store

_PIECE = 1 << 20
_TYPES = {"gzip": media.OCI_LAYER_GZIP, "zstd": media.OCI_LAYER_ZSTD}

PLAIN = "uncompressed"
"""The kind that leaves a layer as its tar."""

_TABLE = """
CREATE TABLE IF NOT EXISTS made_blob (  -- compressed here, not by others: may be made anew with other settings
    digest TEXT PRIMARY KEY,
    kind TEXT NOT NULL,                 -- 'gzip', 'zstd'
    level INTEGER NOT NULL
) WITHOUT ROWID"""


@dataclass(frozen=True)
class Packing:
    """How new layers are compressed; `level` None is the usual one. Raises Invalid for what there is not.

    With `anew`, what was made here before with other settings is made again; else any form that is kept will do.
    With `force` a layer that came compressed in another way is made again, too: its digest will be another one.
    """

    kind: str = "gzip"
    level: int | None = None
    anew: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.kind != PLAIN:
            object.__setattr__(self, "level", compress.check(self.kind, self.level))
        elif self.level is not None:
            raise Invalid("what is uncompressed has no compression level", "leave it out, or choose gzip or zstd")

    def takes(self, store: Store) -> Callable[[str, str], bool]:
        """Whether a blob (its digest and how it is compressed) will do as it is."""
        refused = self.refuses(store)
        return lambda digest, kind: digest not in refused and (not self.force or kind == self.kind)

    def refuses(self, store: Store) -> set[str]:
        """The digests of blobs that are to be made again."""
        if not self.anew:
            return set()
        return {digest for digest, made in _made(store).items() if made != (self.kind, self.level)}


def pack(
    store: Store, rows: threading.Lock, diff_id: str, packing: Packing, check: Callable[[], None] = lambda: None
) -> Descriptor:
    """The blob of a layer: as it came, or as it was made before with these settings, or made now.

    `rows` guards the database. `check` is called now and then and may raise. The caller holds `store.lease()`.
    """
    with rows:
        found = outgoing.kept(store, diff_id, packing.takes(store))
        if found is None and packing.kind == PLAIN:
            found = outgoing.plain(store, diff_id)
    if found is not None:
        return found
    with BlobWriter(store) as blob:
        for piece in compress.compress(_tar(store, diff_id), packing.kind, packing.level):
            check()
            blob.write(piece)
        with rows:
            digest = blob.place()
            with store.db.transaction():
                blobs.record(store, digest, blob.size, durable=False)
                store.db.run(_TABLE)
                store.db.run("DELETE FROM made_blob WHERE digest NOT IN (SELECT digest FROM blob)")
                store.db.run("INSERT OR REPLACE INTO made_blob VALUES (?, ?, ?)", digest, packing.kind, packing.level)
                media_type = _TYPES[packing.kind]
                store.db.run("INSERT OR REPLACE INTO layer_blob VALUES (?, ?, ?)", digest, diff_id, media_type)
        return Descriptor(media_type, digest, blob.size)


def _made(store: Store) -> dict[str, tuple[str, int]]:
    """(compression, level) of the blobs that were made here, by digest."""
    if store.db.row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'made_blob'") is None:
        return {}
    return {digest: (kind, level) for digest, kind, level in store.db.rows("SELECT digest, kind, level FROM made_blob")}


def _tar(store: Store, diff_id: str) -> Iterator[bytes]:
    """The layer's tar; raises Corrupt at its end if it is not the one that the layer is called by."""
    found = hashlib.sha256()
    with driver(store).open_tar(diff_id) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
            yield piece
    if f"sha256:{found.hexdigest()}" != diff_id:
        raise Corrupt(f"layer {diff_id}: the file in the store is damaged", "`limpet system check` says what else is")
