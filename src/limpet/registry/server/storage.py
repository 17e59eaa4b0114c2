"""The directory that a registry serves: an OCI image layout with repositories beside its blobs.

    oci-layout, index.json        as the image layout wants them (`index.json` is written by the collection)
    blobs/<algorithm>/<hex>       every blob and manifest once, exactly as it came
    repositories/<name>/_blobs/<algorithm>/<hex>        an empty file: this repository has the blob
    repositories/<name>/_manifests/<algorithm>/<hex>    the manifest's media type
    repositories/<name>/_tags/<tag>                     a digest
    repositories/<name>/_referrers/<algorithm>/<hex>/<algorithm>-<hex>    descriptor of a manifest with that subject
    uploads/<id>/                 `uploads.py`
    new/                          files on their way to their places
    lock                          flock(2): shared by those who write, exclusive for the collection

No component of a repository's name begins with an underscore, so the names can't clash. Any number of processes may
work on one directory: each file gets its place by rename, and what spans files happens under the lock. All of this
blocks; servers call what writes in threads.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from limpet.errors import Invalid, Refused
from limpet.registry.server.errors import RegistryError
from limpet.store import faults, files

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'
_BEGUN = {"blobs", "repositories", "uploads", "new", "index.json", "lost+found", "token.key", "tls"}
"""What a server leaves that was killed before `oci-layout`, its last file, was there; and one of a store's images."""

TOUCH_AFTER = 60.0
"""Seconds after which a use of a link is noted again, so that the collection knows that somebody counts on it."""


class Storage:
    """`root` is made if it is not there. Raises Refused if that fails, Invalid for a directory of something else.

    Without `make` nothing is made or looked at: for a server of what is elsewhere, which keeps at most its keys here.
    """

    def __init__(self, root: str, *, make: bool = True) -> None:
        self.root = os.path.abspath(root)
        if not make:
            return
        try:
            os.makedirs(self.root, 0o755, exist_ok=True)
            if not os.path.exists(f"{self.root}/oci-layout") and set(os.listdir(self.root)) - _BEGUN:
                raise Invalid(
                    f"{self.root} is not empty and not a registry's directory", "give an empty one, or one that is new"
                )
            for name in ("blobs/sha256", "blobs/sha512", "repositories", "uploads", "new"):
                os.makedirs(f"{self.root}/{name}", 0o755, exist_ok=True)
            if not os.path.exists(f"{self.root}/oci-layout"):
                self.write("index.json", b'{"schemaVersion": 2, "manifests": []}')
                self.write("oci-layout", LAYOUT)
        except OSError as e:
            raise Refused(f"{self.root}: {e.strerror}", "--storage DIR gives another directory") from None

    @contextmanager
    def lock(self, *, exclusive: bool = False) -> Iterator[None]:
        fd = os.open(f"{self.root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    # Blobs

    def blob_path(self, digest: str) -> str:
        """`digest` must have been checked."""
        return f"{self.root}/blobs/{digest.replace(':', '/')}"

    def link_path(self, repository: str, digest: str) -> str:
        return f"{self.root}/repositories/{repository}/_blobs/{digest.replace(':', '/')}"

    def has_blob(self, repository: str, digest: str) -> int | None:
        """The size of a blob that this repository has. Notes that somebody asked."""
        link = self.link_path(repository, digest)
        try:
            seen = os.stat(link).st_mtime
            size = os.stat(self.blob_path(digest)).st_size
            if time.time() - seen > TOUCH_AFTER:
                os.utime(link)
        except FileNotFoundError:
            return None
        except PermissionError:
            return size  # a directory that may only be read
        return size

    def open_blob(self, repository: str, digest: str) -> int | None:
        """A descriptor of a blob that this repository has: it stays whole even if the blob is collected."""
        if self.has_blob(repository, digest) is None:
            return None
        try:
            return os.open(self.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def keep_blob(self, repository: str, digest: str, source: str) -> None:
        """Moves the file `source`, which holds exactly that blob, to its place, and links it."""
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        path = self.blob_path(digest)
        with self.lock():
            if os.path.exists(path):
                os.unlink(source)
            else:
                os.rename(source, path)
                files.sync_directory(os.path.dirname(path))
            faults.reach("registry-blob-placed")
            os.utime(path)  # the collection sees that somebody links it, before it sees the link
            self._place(self.link_path(repository, digest), b"")

    def mount_blob(self, repository: str, digest: str, origin: str) -> bool:
        """Whether `origin` had the blob, which `repository` has now too."""
        with self.lock():
            if self.has_blob(origin, digest) is None:
                return False
            os.utime(self.blob_path(digest))
            self._place(self.link_path(repository, digest), b"")
        return True

    def link_blob(self, repository: str, digest: str) -> None:
        """Links a blob that is in the storage. Raises FileNotFoundError if it isn't any more."""
        with self.lock():
            os.utime(self.blob_path(digest))
            self._place(self.link_path(repository, digest), b"")

    def drop_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository had the blob. Its bytes stay until the collection."""
        try:
            os.unlink(self.link_path(repository, digest))
        except FileNotFoundError:
            return False
        faults.reach("registry-link-removed")
        return True

    # Repositories

    def exists(self, repository: str) -> bool:
        base = f"{self.root}/repositories/{repository}"
        return any(os.path.isdir(f"{base}/{name}") for name in ("_manifests", "_blobs", "_tags"))

    def repositories(self) -> list[str]:
        """Those with a manifest, sorted."""
        return sorted(name for name in self.all_repositories() if self._has_manifest(name))

    def all_repositories(self) -> Iterator[str]:
        """Also those of which only blobs have come so far."""
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                entries = os.listdir(f"{self.root}/repositories/{prefix}")
            except (FileNotFoundError, NotADirectoryError):
                continue
            waiting += [f"{prefix}{name}/" for name in entries if not name.startswith("_")]
            if prefix and any(name.startswith("_") for name in entries):
                yield prefix[:-1]

    def holders(self, digest: str) -> list[str]:
        """Repositories that have a blob."""
        if not os.path.exists(self.blob_path(digest)):
            return []
        return [name for name in self.all_repositories() if os.path.exists(self.link_path(name, digest))]

    def _has_manifest(self, repository: str) -> bool:
        return next(self.links(repository, "_manifests"), None) is not None

    def links(self, repository: str, kind: str) -> Iterator[str]:
        """The digests of the files below `_blobs` or `_manifests`."""
        for algorithm in ("sha256", "sha512"):
            try:
                names = os.listdir(f"{self.root}/repositories/{repository}/{kind}/{algorithm}")
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in names:
                yield f"{algorithm}:{name}"

    def usage(self, repository: str) -> int:
        """Bytes of all blobs and manifests that the repository has, each once."""
        total = 0
        for digest in {*self.links(repository, "_blobs"), *self.links(repository, "_manifests")}:
            try:
                total += os.stat(self.blob_path(digest)).st_size
            except FileNotFoundError:
                pass
        return total

    # Files

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file below the root; its directory must be there. Durable when this returns."""
        temporary = f"{self.root}/new/{os.urandom(16).hex()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        path = f"{self.root}/{name}"
        try:
            files.write_all(fd, data)
            os.fsync(fd)
            faults.reach("registry-file-written")
            os.rename(temporary, path)
            faults.reach("registry-file-renamed")
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        files.sync_directory(os.path.dirname(path))

    def place(self, path: str, data: bytes) -> None:
        """As `write`, with an absolute path; makes its directory, and anew if the collection takes it meanwhile."""
        self._place(path, data)

    def _place(self, path: str, data: bytes) -> None:
        for _ in range(8):
            try:
                self._directories(os.path.dirname(path))
                self.write(path[len(self.root) + 1 :], data)
                return
            except FileNotFoundError:
                continue
        raise RegistryError(503, "UNAVAILABLE", "the repository is being deleted: try again")

    def _directories(self, path: str) -> None:
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for one in reversed(missing):
            try:
                os.mkdir(one, 0o755)
            except FileExistsError:
                continue
            files.sync_directory(os.path.dirname(one))
