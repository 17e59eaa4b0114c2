"""Uploads under way: `uploads/<id>/data` grows, `uploads/<id>/session` says whose it is. Both survive a restart.

The hash of what has come is kept in memory by the worker that took it; a worker that has not seen all of it (after a
restart, or because a chunk went to another worker) hashes the file once more at the end.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limpet.registry.server.errors import RegistryError
from limpet.store import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.registry.server.storage import Storage

_REMEMBERED = 1024
_PIECE = 1 << 20


@dataclass(frozen=True)
class Session:
    """One upload; `algorithm` is what its client said that the digest will be of."""

    id: str
    repository: str
    user: str
    algorithm: str


class Uploads:
    """Of one worker: what is on disk is shared, the hashes are its own."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._hashes: dict[str, tuple[Any, int]] = {}  # id: (hash, bytes it has seen)

    def directory(self, id: str) -> str:
        return f"{self._storage.root}/uploads/{id}"

    def begin(self, repository: str, user: str, algorithm: str = "sha256") -> Session:
        session = Session(os.urandom(16).hex(), repository, user, algorithm)
        base = self.directory(session.id)
        os.mkdir(base, 0o755)
        with open(f"{base}/data", "xb"):
            pass
        text = json.dumps({"repository": repository, "user": user, "algorithm": algorithm})
        with open(f"{base}/session", "x") as file:
            file.write(text)
        return session

    def find(self, id: str, repository: str, user: str) -> Session:
        """Raises BLOB_UPLOAD_UNKNOWN, also for an upload into another repository or of somebody else."""
        try:
            with open(f"{self.directory(id)}/session") as file:
                said = json.load(file)
            session = Session(id, said["repository"], said["user"], said["algorithm"])
        except (FileNotFoundError, ValueError, KeyError):
            raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN") from None
        if (session.repository, session.user) != (repository, user):
            raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN")
        return session

    def size(self, session: Session) -> int:
        """Bytes that have come. Raises BLOB_UPLOAD_UNKNOWN."""
        try:
            return os.stat(f"{self.directory(session.id)}/data").st_size
        except FileNotFoundError:
            raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN") from None

    def open(self, session: Session) -> Appender:
        """Raises BLOB_UPLOAD_UNKNOWN, or BLOB_UPLOAD_INVALID while another request writes to this upload."""
        try:
            fd = os.open(f"{self.directory(session.id)}/data", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RegistryError(409, "BLOB_UPLOAD_INVALID", "another request writes to this upload") from None
        size = os.fstat(fd).st_size
        hasher, seen = self._hashes.get(session.id, (None, -1))
        if seen != size:
            hasher = hashlib.new(session.algorithm) if size == 0 else None
        return Appender(fd, size, hasher)

    def close(self, session: Session, appender: Appender) -> None:
        """Remembers the hash for the next chunk."""
        os.close(appender.fd)
        self._hashes.pop(session.id, None)
        if appender.hasher is not None:
            while len(self._hashes) >= _REMEMBERED:
                self._hashes.pop(next(iter(self._hashes)))
            self._hashes[session.id] = (appender.hasher, appender.size)

    def finish(self, session: Session, digest: str) -> None:
        """Makes a blob of what has come. Raises DIGEST_INVALID: then the upload is gone, and nothing is stored."""
        data = f"{self.directory(session.id)}/data"
        algorithm = digest.partition(":")[0]
        size = self.size(session)
        hasher, seen = self._hashes.pop(session.id, (None, -1))
        if seen != size or hasher.name != algorithm:
            hasher = _hash_file(data, algorithm)
        found = f"{algorithm}:{hasher.hexdigest()}"
        if found != digest:
            self.cancel(session)
            raise RegistryError(400, "DIGEST_INVALID", detail={"provided": digest, "content": found, "size": size})
        self._storage.keep_blob(session.repository, digest, data)
        files.remove_tree(self.directory(session.id))

    def cancel(self, session: Session) -> None:
        self._hashes.pop(session.id, None)
        files.remove_tree(self.directory(session.id))


class Appender:
    """The open end of an upload. `write` blocks and may be called from a thread, one call at a time."""

    def __init__(self, fd: int, size: int, hasher: Any) -> None:
        self.fd = fd
        self.size = size
        self.hasher = hasher
        self._start = size

    def write(self, pieces: Sequence[bytes]) -> None:
        """Raises OSError for a full disk; then the upload is what it was: others need the space."""
        for piece in pieces:
            view = memoryview(piece)
            while view:
                try:
                    count = os.write(self.fd, view)
                except OSError:
                    os.ftruncate(self.fd, self._start)
                    self.size, self.hasher = self._start, None
                    raise
                if self.hasher is not None:
                    self.hasher.update(view[:count])
                self.size += count
                view = view[count:]


def expire(storage: Storage, seconds: float) -> int:
    """Removes uploads that nothing came to for so long, and files that nobody will finish; how many."""
    count = 0
    limit = time.time() - seconds
    for base in (f"{storage.root}/uploads", f"{storage.root}/new", f"{storage.root}/fetch"):
        for name in os.listdir(base) if os.path.isdir(base) else ():
            path = f"{base}/{name}"
            try:
                data = f"{path}/data"
                moment = os.stat(data if os.path.exists(data) else path).st_mtime
            except FileNotFoundError:
                continue
            if moment < limit and not files.in_use(f"{path}/data"):
                files.remove_tree(path)
                count += 1
    return count


def _hash_file(path: str, algorithm: str) -> Any:
    hasher = hashlib.new(algorithm)
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                hasher.update(piece)
    except FileNotFoundError:
        raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN") from None
    return hasher
