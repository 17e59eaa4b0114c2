"""The collection: what no manifest needs goes, while the server runs and pushes are under way.

A blob's link is needed by a manifest of its repository; a blob, by a link of any repository. What is younger than the
grace stays: a push uploads blobs first and names them in a manifest later, and a client that asks whether a blob is
there counts on it (asking makes the link young again). Each decision is made anew under the exclusive lock, for which
writers hold the shared one while they link; it is held for one repository at a time.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limpet.errors import LimpetError
from limpet.oci import manifest as documents
from limpet.registry.server import uploads
from limpet.registry.server.errors import RegistryError
from limpet.registry.server.manifests import Manifests, parts
from limpet.store import faults

if TYPE_CHECKING:
    from limpet.oci.manifest import Index, Manifest
    from limpet.registry.server.storage import Storage

GRACE = 3600.0


@dataclass
class Report:
    """What went (or would go): numbers, and the bytes of blobs."""

    manifests: int = 0
    links: int = 0
    blobs: int = 0
    freed: int = 0
    uploads: int = 0
    damaged: list[str] = field(default_factory=list)


def collect(
    storage: Storage,
    *,
    grace: float = GRACE,
    untagged: bool = False,
    unused: float = 0,
    upload_seconds: float = 24 * 3600,
    dry_run: bool = False,
) -> Report:
    """With `untagged` manifests go too that neither a tag nor an index needs, nor are about one that stays.

    With `unused` seconds, as a cache wants it, those go that nobody has asked for in so long, with their tags. A
    repository with a manifest that can't be read loses nothing, and is named in `damaged`.
    """
    now = time.time()
    work = _Collection(storage, now - grace, untagged, now - unused if unused else 0.0, dry_run)
    for repository in list(storage.all_repositories()):
        try:
            work.repository(repository)
        except (OSError, LimpetError, RegistryError) as e:
            work.report.damaged.append(f"{repository}: {e}")
    work.blobs()
    if not dry_run:
        work.report.uploads = uploads.expire(storage, upload_seconds)
        _write_index(storage)
        storage.write("collected", b"")
    return work.report


class _Collection:
    def __init__(self, storage: Storage, limit: float, untagged: bool, unused: float, dry_run: bool) -> None:
        self._storage = storage
        self._manifests = Manifests(storage)
        self._limit = limit
        self._untagged = untagged
        self._unused = unused
        self._dry_run = dry_run
        self._documents: dict[str, Manifest | Index] = {}
        self._dropped: set[tuple[str, str]] = set()  # (repository, digest), for a dry run
        self.report = Report()

    def repository(self, name: str) -> None:
        if not self._candidates(name):
            return
        with self._storage.lock(exclusive=True):
            for kind, digest in self._candidates(name):
                self._dropped.add((name, digest))
                if kind == "manifest":
                    self.report.manifests += 1
                    if not self._dry_run:
                        self._manifests.remove(name, self._manifests.get(name, digest, note=False))
                else:
                    self.report.links += 1
                    if not self._dry_run:
                        self._storage.drop_blob(name, digest)
            if not self._dry_run:
                _remove_empty(f"{self._storage.root}/repositories/{name}")

    def _candidates(self, name: str) -> list[tuple[str, str]]:
        """(kind, digest) of what nothing in the repository needs and nobody asked for lately."""
        there = {digest: self._document(name, digest) for digest in self._storage.links(name, "_manifests")}
        gone: set[str] = set()
        if self._untagged:
            kept = self._kept(name, there)
            gone = {one for one in there if one not in kept and self._old(self._manifests.link_path(name, one))}
        if self._unused:
            gone |= {one for one in there if self._old(self._manifests.link_path(name, one), self._unused)}
        needed = {part.digest for digest, document in there.items() if digest not in gone for part in parts(document)}
        gone -= needed
        links = [one for one in self._storage.links(name, "_blobs") if one not in needed]
        found = [("manifest", one) for one in gone]
        return found + [("blob", one) for one in links if self._old(self._storage.link_path(name, one))]

    def _kept(self, name: str, there: dict[str, Manifest | Index]) -> set[str]:
        """Tagged, in an index that is kept, or about a manifest that is kept."""
        kept: set[str] = set()
        waiting = [self._manifests.resolve(name, tag) for tag in self._manifests.tags(name)]
        about: dict[str, list[str]] = {}
        for digest, document in there.items():
            if document.subject is not None:
                about.setdefault(document.subject.digest, []).append(digest)
        while waiting:
            digest = waiting.pop()
            if digest in kept:
                continue
            kept.add(digest)
            waiting += about.get(digest, ())
            if digest in there:
                waiting += [part.digest for part in parts(there[digest])]
        return kept

    def _document(self, name: str, digest: str) -> Manifest | Index:
        found = self._documents.get(digest)
        if found is None:
            stored = self._manifests.get(name, digest, note=False)
            found = self._documents[digest] = documents.parse(stored.data, stored.media_type)
        return found

    def _old(self, path: str, limit: float = 0.0) -> bool:
        try:
            return os.stat(path).st_mtime < (limit or self._limit)
        except FileNotFoundError:
            return False

    def blobs(self) -> None:
        storage = self._storage
        linked: set[str] = set()
        for name in storage.all_repositories():
            for kind in ("_blobs", "_manifests"):
                linked.update(one for one in storage.links(name, kind) if (name, one) not in self._dropped)
        found = []
        for algorithm in ("sha256", "sha512"):
            for value in os.listdir(f"{storage.root}/blobs/{algorithm}"):
                digest = f"{algorithm}:{value}"
                if digest not in linked and self._old(storage.blob_path(digest)):
                    found.append(digest)
        for start in range(0, len(found), 100):
            with storage.lock(exclusive=True):
                for digest in found[start : start + 100]:
                    path = storage.blob_path(digest)
                    if not self._old(path):
                        continue  # somebody has linked it since
                    self.report.blobs += 1
                    self.report.freed += os.stat(path).st_size
                    if not self._dry_run:
                        os.unlink(path)
                        faults.reach("registry-blob-removed")


def _remove_empty(path: str) -> None:
    """Directories of a repository that hold nothing any more; a push that needs one makes it again."""
    for base, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(base)
        except OSError:
            continue


def _write_index(storage: Storage) -> None:
    """`index.json`: every tag as REPOSITORY:TAG, for tools that read image layouts."""
    manifests = Manifests(storage)
    entries: list[dict[str, Any]] = []
    for name in storage.repositories():
        for tag in manifests.tags(name):
            try:
                stored = manifests.get(name, tag, note=False)
            except RegistryError:
                continue
            entries.append(
                {
                    "mediaType": stored.media_type,
                    "digest": stored.digest,
                    "size": len(stored.data),
                    "annotations": {"org.opencontainers.image.ref.name": f"{name}:{tag}"},
                }
            )
    data = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    with open(f"{storage.root}/index.json", "rb") as file:
        if file.read() == data:
            return
    storage.write("index.json", data)
