"""One layer on its way in: read, hash, keep, decompress, hash, write, index, side by side in three threads.

    reader        source → SHA-256 of the stored bytes, blobs/, pipe        (network or file)
    decompressor  pipe → pipe                                              (isal, zstd: outside Python's global lock)
    this thread   pipe → ingest: SHA-256 of the tar, layers/, its index

Hashing, decompressing and file I/O release the global lock, so that two cores are used by one layer. What is in flight
is bounded by the pipes. Nothing is visible before both digests were right.

From a registry the stored bytes go to a file that outlives the command (`store.partial`), so that the next pull goes on
where this one ended, and two pulls of one layer fetch it once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid
from limpet.images.pipe import Cancelled, Pipe
from limpet.images.present import is_whole
from limpet.layers import compression
from limpet.layers.limits import from_environment
from limpet.oci import digest as digests
from limpet.store import blobs
from limpet.store.blobs import BlobWriter
from limpet.store.partial import PartialBlob, open_partial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.images.source import Layer, Source
    from limpet.layers.driver import Driver
    from limpet.progress import Progress
    from limpet.store.store import Store

_PATIENCE = 1.0
"""Seconds that an interrupted import waits for a thread that waits for the network; the process ends without it."""

_COMPRESSED_PIECE = 256 << 10
"""What the decompressor takes at once: it copies what it did not get to."""


class Transfer:
    """What all layers of one import share. `rows` guards the database: one connection, several threads."""

    def __init__(self, store: Store, driver: Driver, source: Source, progress: Progress) -> None:
        self.store = store
        self.driver = driver
        self.source = source
        self.progress = progress
        self.rows = threading.Lock()
        self.stopped = False
        self._arriving: list[_Arriving] = []

    def stop(self) -> None:
        """Makes every `bring` that goes on raise Cancelled soon, also one that waits for the network."""
        self.stopped = True
        for arriving in list(self._arriving):
            arriving.cancel()

    def enter(self, arriving: _Arriving) -> None:
        self._arriving.append(arriving)
        if self.stopped:
            arriving.cancel()


def bring(transfer: Transfer, layer: Layer, diff_id: str) -> None:
    """Brings one layer in, with its rows, if no other command has by now.

    Raises what went wrong, with nothing left behind but, of a source that can go on, the bytes that came.
    """
    key = digests.short(layer.descriptor.digest if layer.descriptor is not None else diff_id)
    transfer.progress.begin(key, key, layer.size)
    elsewhere = False
    while True:
        blob = _writer(transfer, layer, key)
        resumed = isinstance(blob, PartialBlob) and blob.found > 0
        try:
            _bring(transfer, layer, diff_id, key, blob)
            return
        except Corrupt:
            if not resumed and (elsewhere or not transfer.source.elsewhere()):
                raise
            elsewhere = elsewhere or not resumed
            where = "from the registry itself" if elsewhere else "again"
            transfer.progress.note(f"{key}: what came of it is damaged: all of it is fetched {where}")
            transfer.progress.begin(key, key, layer.size)


def _bring(transfer: Transfer, layer: Layer, diff_id: str, key: str, blob: BlobWriter | PartialBlob | None) -> None:
    store = transfer.store
    arriving = _Arriving(transfer, layer, key, blob)
    try:
        if isinstance(blob, PartialBlob) and _came_meanwhile(transfer, diff_id):
            blob.discard()
            transfer.progress.finish(key, "Already exists")
            return
        with transfer.driver.ingest() as ingest:
            transfer.enter(arriving)
            for piece in arriving.pieces():
                ingest.write(piece)
            arriving.verify()
            with transfer.rows:
                ingest.finish(diff_id)
                kept = arriving.place()
                with store.db.transaction(durable=False):
                    if kept:
                        blobs.record(store, kept, layer.size, durable=False)
                    if layer.descriptor is not None:
                        store.db.run(
                            "INSERT OR REPLACE INTO layer_blob (digest, diff_id, media_type) VALUES (?, ?, ?)",
                            layer.descriptor.digest,
                            diff_id,
                            layer.descriptor.media_type,
                        )
    except (Invalid, OSError) as e:  # wrong bytes are no use to anybody, and a full disk wants the space back
        if isinstance(blob, PartialBlob):
            blob.discard()
        if isinstance(e, Corrupt):
            raise arriving.explain(e) from e
        raise
    finally:
        arriving.close()
    transfer.progress.finish(key, transfer.source.done)


def _writer(transfer: Transfer, layer: Layer, key: str) -> BlobWriter | PartialBlob | None:
    """Where the stored bytes are kept. Waits while another command fetches the same."""
    if layer.descriptor is None:
        return None
    told: list[str] = []

    def waiting() -> None:
        if transfer.stopped:
            raise Cancelled
        if not told:
            told.append(key)
            transfer.progress.note(f"{key}: waiting for another pull of it")

    if transfer.source.resumable:
        blob = open_partial(transfer.store, layer.descriptor.digest, waiting)
        if blob.found <= layer.size:
            return blob
        blob.discard()
        blob.abort()
        return _writer(transfer, layer, key)
    # A plain tar is its own blob: `layers/` has it, and the diff ID is its digest.
    return BlobWriter(transfer.store, layer.descriptor.digest.partition(":")[0]) if _is_kept(layer) else None


def _is_kept(layer: Layer) -> bool:
    return layer.descriptor is not None and layer.compression != "tar"


def _came_meanwhile(transfer: Transfer, diff_id: str) -> bool:
    with transfer.rows:
        return is_whole(transfer.store, diff_id)


class _Arriving:
    """The stored bytes on their way to being plain. `pieces`, `verify`, `place`; `close` in any case."""

    def __init__(self, transfer: Transfer, layer: Layer, key: str, blob: BlobWriter | PartialBlob | None) -> None:
        self._transfer = transfer
        self._layer = layer
        self._key = key
        self._blob = blob
        self._read_size = 0
        self._head = b""
        self._stored, self._plain = Pipe(), Pipe()
        self._threads: list[threading.Thread] = []

    def pieces(self) -> Iterator[bytes]:
        self._start(self._stored, self._read)
        self._head = self._stored.peek(6)
        kind = self._layer.compression or compression.detect(self._head)
        if kind == "tar":
            return iter(self._stored)
        self._start(self._plain, lambda put: self._decompress(kind, put))
        return iter(self._plain)

    def explain(self, error: Corrupt) -> Corrupt:
        """The same error, or that the bytes are not compressed as the manifest says."""
        descriptor, found = self._layer.descriptor, compression.detect(self._head)
        if descriptor is None or not self._layer.compression or found == self._layer.compression:
            return error
        return Corrupt(
            f"{descriptor.digest}: the manifest says {descriptor.media_type}, but its bytes are"
            f" {f'{found}-compressed' if found != 'tar' else f'not {self._layer.compression}-compressed'}",
            "the image is broken: build or push it again",
        )

    def verify(self) -> None:
        """All bytes came: are they as many, and those, that the manifest says? Raises Corrupt."""
        for thread in self._threads:
            thread.join()
        descriptor = self._layer.descriptor
        if descriptor is not None and self._read_size != descriptor.size:
            raise Corrupt(f"{descriptor.digest}: has {self._read_size} bytes instead of {descriptor.size}")
        if descriptor is not None and isinstance(self._blob, BlobWriter):
            self._blob.verify(descriptor.digest)
        elif self._blob is not None:
            self._blob.verify()

    def place(self) -> str:
        """The digest of the blob that is now in blobs/; "" if none is kept."""
        if self._blob is not None and _is_kept(self._layer):
            return self._blob.place()
        if isinstance(self._blob, PartialBlob):
            self._blob.discard()
        return ""

    def cancel(self) -> None:
        self._plain.cancel()
        self._stored.cancel()

    def close(self) -> None:
        """Ends the threads and leaves nothing."""
        self.cancel()
        for thread in self._threads:
            thread.join(_PATIENCE)
        if self._blob is not None:
            # A thread that still waits for the network would write into a closed file, or into another one.
            self._blob.abort(close=not any(thread.is_alive() for thread in self._threads))

    def _start(self, output: Pipe, work: Callable[[Callable[[bytes], None]], None]) -> None:
        def run() -> None:
            try:
                work(output.put)
            except BaseException as e:  # it is raised in the thread that reads the pipe
                output.end(e)
            else:
                output.end()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self, put: Callable[[bytes], None]) -> None:
        blob, progress, size = self._blob, self._transfer.progress, self._layer.size
        if isinstance(blob, PartialBlob):
            for piece in blob.resumed():
                self._read_size += len(piece)
                put(piece)
                progress.advance(self._key, len(piece))
        offset = self._read_size
        for piece in self._transfer.source.read(self._layer, offset) if offset < size or not offset else ():
            self._read_size += len(piece)
            if self._read_size > size:
                raise Corrupt(f"{self._layer.location}: longer than the {size} bytes that were announced")
            put(piece)
            if blob is not None:
                blob.write(piece)
            progress.advance(self._key, len(piece))

    def _decompress(self, kind: str, put: Callable[[bytes], None]) -> None:
        ratio = from_environment().max_ratio
        try:
            for piece in compression.decompress(
                lambda n: self._stored.read(min(n, _COMPRESSED_PIECE)), kind, max_ratio=ratio
            ):
                put(piece)
        finally:
            self._stored.cancel()
