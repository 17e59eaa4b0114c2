"""A blob on its way here whose bytes outlive the command: the next one that wants it goes on where this one ended.

    <root>/partial/<algorithm>-<hex>    the beginning of the blob with that digest; whoever fetches it holds its flock

Two commands that want one blob fetch it once: the second waits for the lock, and then finds the blob, or goes on. What
is there is read and hashed again by whoever goes on, who needs the bytes anyway; nobody trusts it before the digest of
the whole was right. What nobody asks for again is garbage after a day, and goes with the next download of anything.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from typing import TYPE_CHECKING

from limpet.errors import Corrupt
from limpet.oci import digest as digests
from limpet.store import blobs, faults
from limpet.store.files import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.store.store import Store

STALE = 24 * 3600
"""Seconds since the last byte came, after which a collection takes it, or whoever downloads something."""

_PIECE = 1 << 20
_POLL = 0.05


class PartialBlob:
    """In the form of `blobs.BlobWriter`; `resumed` first gives what is here already.

    `open_partial` makes it. `abort` leaves the bytes for the next one unless `discard` was called.
    """

    def __init__(self, store: Store, digest: str, fd: int, path: str) -> None:
        self._store = store
        self._digest = digest
        self._algorithm = digest.partition(":")[0]
        self._hash = hashlib.new(self._algorithm)
        self._fd = fd
        self._path = path
        self._kept = True
        self._placed = False
        self.found = os.fstat(fd).st_size
        """Bytes that an earlier command left."""
        self.size = 0

    def resumed(self) -> Iterator[bytes]:
        """The bytes that are here; to be read to the end before the first `write`."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        while self.size < self.found and (piece := os.read(self._fd, min(_PIECE, self.found - self.size))):
            self._hash.update(piece)
            self.size += len(piece)
            yield piece

    def write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        write_all(self._fd, chunk)
        self.size += len(chunk)

    def verify(self) -> None:
        """Raises Corrupt if the bytes have another digest."""
        digest = f"{self._algorithm}:{self._hash.hexdigest()}"
        if digest != self._digest:
            raise Corrupt(f"{self._digest}: the bytes have the digest {digest}")

    def place(self) -> str:
        """Renames into blobs/ and gives the digest. The row is the caller's, who then calls `abort` for the lock."""
        self.verify()
        os.ftruncate(self._fd, self.size)  # what an earlier, longer beginning may have left
        faults.reach("partial-whole")
        blobs.move(self._store, self._path, self._digest)
        self._placed = True
        return self._digest

    def discard(self) -> None:
        """These bytes are of no use to anybody."""
        self._kept = False

    def abort(self, *, close: bool = True) -> None:
        """Gives the lock back, to be called in any case; harmless twice. Without `close` a thread still writes."""
        if self._fd < 0:
            return
        if not self._placed and (not self._kept or self.size + self.found == 0):
            os.unlink(self._path)
        if close:
            os.close(self._fd)
            self._fd = -1


def open_partial(store: Store, digest: str, waiting: Callable[[], None]) -> PartialBlob:
    """Waits until nobody else fetches this blob; `waiting` is called again and again, and may raise.

    The caller holds `store.lease()`.
    """
    path = path_of(store, digest)
    _drop_stale(os.path.dirname(path), but=path)
    while True:
        fd = _open(path)
        try:
            if _locked(fd) and _is(path, fd):
                return PartialBlob(store, digest, fd, path)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        waiting()
        time.sleep(_POLL)


def path_of(store: Store, digest: str) -> str:
    return f"{store.root}/partial/{digests.check(digest).replace(':', '-')}"


def stale(path: str) -> bool:
    """Whether nobody went on with it for so long that nobody will."""
    try:
        return time.time() - os.lstat(path).st_mtime > STALE
    except FileNotFoundError:
        return False


def _drop_stale(directory: str, but: str) -> None:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        path = f"{directory}/{name}"
        if path == but or not stale(path):
            continue
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # somebody was faster
        try:
            if _locked(fd) and _is(path, fd) and stale(path):
                os.unlink(path)
        finally:
            os.close(fd)


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: str, fd: int) -> bool:
    """Whether the file is still the one of this name: its last owner may have put it into blobs/, or taken it away."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)
