"""Blobs: files named by the digest of their bytes. What has the name has the bytes; nothing is visible before.

A blob that can be fetched again is written without a sync, and its row says so with the boot's id (table `blob`);
after another boot such a blob is suspect until it was hashed. What can't be fetched again is synced first.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, NotFound
from limpet.oci import digest as digests
from limpet.store import faults
from limpet.store.files import sync_directory, write_all

if TYPE_CHECKING:
    from types import TracebackType

    from limpet.store.store import Store


class BlobWriter:
    """A blob that is being written, in tmp/. `with BlobWriter(store) as blob:` aborts what was not committed.

    `write` may run in any thread, one at a time; `place` and `commit` once, at the end.
    """

    def __init__(self, store: Store, algorithm: str = "sha256", *, durable: bool = False) -> None:
        self._store = store
        self._durable = durable
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._path = store.temporary("blob")
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._hash.update(chunk)
        write_all(self._fd, chunk)
        self.size += len(chunk)

    def verify(self, expected: str | None = None, size: int | None = None) -> str:
        """The digest of what was written. Raises Corrupt if it or the size is another than expected."""
        digest = f"{self._algorithm}:{self._hash.hexdigest()}"
        if size is not None and self.size != size:
            raise Corrupt(f"{expected or digest}: has {self.size} bytes instead of {size}")
        if expected is not None and expected != digest:
            raise Corrupt(f"{expected}: the bytes have the digest {digest}")
        return digest

    def place(self, expected: str | None = None, size: int | None = None) -> str:
        """Verifies, renames into blobs/, gives the digest. The row is the caller's (`record`)."""
        digest = self.verify(expected, size)
        if self._durable:
            os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        faults.reach("blob-written")
        move(self._store, self._path, digest)
        if self._durable:
            sync_directory(os.path.dirname(self._store.blob_path(digest)))
        faults.reach("blob-renamed")
        return digest

    def commit(self, expected: str | None = None, size: int | None = None) -> str:
        """`place` and the row."""
        digest = self.place(expected, size)
        record(self._store, digest, self.size, durable=self._durable)
        return digest

    def abort(self, *, close: bool = True) -> None:
        """Leaves nothing; harmless after `place`. Without `close` the descriptor stays, for a thread that writes."""
        if self._fd < 0:
            return
        if close:
            os.close(self._fd)
            self._fd = -1
        os.unlink(self._path)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def move(store: Store, path: str, digest: str) -> None:
    """Puts a file whose bytes were verified into blobs/."""
    target = store.blob_path(digest)
    try:
        os.rename(path, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), mode=0o711, exist_ok=True)
        os.rename(path, target)


def record(store: Store, digest: str, size: int, *, durable: bool) -> None:
    """The row of a blob whose file was just put in place."""
    store.db.run(
        "INSERT INTO blob (digest, size, boot) VALUES (?1, ?2, ?3)"
        " ON CONFLICT (digest) DO UPDATE SET size = ?2, boot = ?3",
        digest,
        size,
        None if durable else boot_id(),
    )


def put(store: Store, data: bytes) -> str:
    """Keeps a small document durably, with its row; gives its sha256 digest. The same bytes twice are one blob."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    row = store.db.row("SELECT boot FROM blob WHERE digest = ?", digest)
    if row is not None and row[0] is None and os.path.exists(store.blob_path(digest)):
        return digest
    with BlobWriter(store, durable=True) as blob:
        blob.write(data)
        return blob.commit()


def read(store: Store, digest: str, limit: int) -> bytes:
    """The verified bytes of a blob of at most `limit` bytes. Raises NotFound or Corrupt."""
    try:
        with open(store.blob_path(digests.check(digest)), "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise NotFound(f"no blob {digest} in the store") from None
    if len(data) > limit:
        raise Corrupt(f"{digest}: more than {limit} bytes")
    if hashlib.new(digest.partition(":")[0], data).hexdigest() != digests.hex_of(digest):
        raise Corrupt(f"{digest}: the file in the store is damaged", "`limpet system check --repair` drops it")
    return data


def exists(store: Store, digest: str) -> bool:
    """Whether the blob's row and file are here."""
    row = store.db.row("SELECT size FROM blob WHERE digest = ?", digest)
    if row is None:
        return False
    try:
        return os.stat(store.blob_path(digest)).st_size == int(row[0])
    except FileNotFoundError:
        return False


def boot_id() -> str:
    """Names this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
