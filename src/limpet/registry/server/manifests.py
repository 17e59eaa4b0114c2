"""Manifests, tags and referrers in the storage: checked when they come, served as the bytes that came."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from limpet.errors import Invalid
from limpet.frozen import dataclass
from limpet.oci import manifest as documents
from limpet.registry.server import names
from limpet.registry.server.errors import RegistryError
from limpet.registry.server.storage import TOUCH_AFTER
from limpet.store import faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from limpet.oci.manifest import Descriptor, Index, Manifest
    from limpet.registry.server.storage import Storage

_CACHED = 32 << 20
_PAGE = 3 << 20
"""Bytes of descriptors in one page of referrers: clients stop reading a manifest at 4 MiB."""


@dataclass(frozen=True, slots=True)
class Stored:
    digest: str
    media_type: str
    data: bytes


class Manifests:
    """Of one worker; keeps up to 32 MiB of manifests in memory, and asks the disk each time whether they are there."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._cache: OrderedDict[str, Stored] = OrderedDict()  # by the path of the link
        self._cached = 0
        self._tags: dict[str, tuple[int, int, str]] = {}  # path: (inode, mtime, digest)

    # Reading

    def resolve(self, repository: str, reference: str) -> str:
        """The digest of a tag; a digest is checked. Raises MANIFEST_UNKNOWN, DIGEST_INVALID."""
        if names.is_digest(reference):
            return names.digest(reference)
        path = self._tag_path(repository, names.tag(reference, 404))
        try:
            state = os.stat(path)
            known = self._tags.get(path)
            if known is not None and known[:2] == (state.st_ino, state.st_mtime_ns):
                return known[2]
            with open(path, "rb", buffering=0) as file:
                state = os.fstat(file.fileno())
                digest = file.read(200).decode("ascii", "replace")
        except FileNotFoundError:
            raise self.unknown(repository, reference) from None
        if len(self._tags) > 10000:
            self._tags.clear()
        self._tags[path] = (state.st_ino, state.st_mtime_ns, digest)
        return digest

    def get(self, repository: str, reference: str, *, note: bool = True) -> Stored:
        """With `note` the collection sees that somebody asked. Raises MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        digest = self.resolve(repository, reference)
        link = self.link_path(repository, digest)
        try:
            state = os.stat(link)
            stored = self._cache.get(link)
            if stored is not None:
                self._cache.move_to_end(link)
            else:
                stored = self._read(link, digest)
                self._remember(link, stored)
            if note and time.time() - state.st_mtime > TOUCH_AFTER:
                os.utime(link)
        except FileNotFoundError:
            raise self.unknown(repository, reference) from None
        except PermissionError:
            assert stored is not None  # a directory that may only be read
        return stored

    def _read(self, link: str, digest: str) -> Stored:
        with open(link, "rb", buffering=0) as file:
            media_type = file.read(300).decode("ascii", "replace")
        with open(self._storage.blob_path(digest), "rb", buffering=0) as file:
            return Stored(digest, media_type, file.read())

    def _remember(self, link: str, stored: Stored) -> None:
        self._cache[link] = stored
        self._cached += len(stored.data)
        while self._cached > _CACHED:
            self._cached -= len(self._cache.popitem(last=False)[1].data)

    def unknown(self, repository: str, reference: str) -> RegistryError:
        if not self._storage.exists(repository):
            return RegistryError(404, "NAME_UNKNOWN", detail={"name": repository})
        return RegistryError(404, "MANIFEST_UNKNOWN", detail={"reference": reference})

    def tags(self, repository: str) -> list[str]:
        """Sorted. Raises NAME_UNKNOWN."""
        try:
            return sorted(os.listdir(f"{self._storage.root}/repositories/{repository}/_tags"))
        except FileNotFoundError:
            if not self._storage.exists(repository):
                raise RegistryError(404, "NAME_UNKNOWN", detail={"name": repository}) from None
            return []

    def referrers(
        self, repository: str, subject: str, artifact_type: str = "", last: str = ""
    ) -> tuple[list[Any], str]:
        """Descriptors of what refers to a manifest, and where the next page begins ("" if there is none)."""
        base = self._referrers_path(repository, subject)
        try:
            entries = sorted(os.listdir(base))
        except FileNotFoundError:
            return [], ""
        found: list[Any] = []
        size = 0
        for name in entries:
            if name <= last:
                continue
            try:
                with open(f"{base}/{name}", "rb") as file:
                    data = file.read()
            except FileNotFoundError:
                continue
            descriptor = json.loads(data)
            if not os.path.exists(self.link_path(repository, descriptor["digest"])):
                continue  # entered by a push that was killed before its manifest was
            if artifact_type and descriptor.get("artifactType") != artifact_type:
                continue
            if found and size + len(data) > _PAGE:
                return found, last
            found.append(descriptor)
            size += len(data)
            last = name
        return found, ""

    # Writing

    def put(
        self,
        repository: str,
        reference: str,
        data: bytes,
        media_type: str,
        tags: Sequence[str] = (),
        *,
        if_match: str = "",
        if_none_match: str = "",
        check: bool = True,
        sparse: bool = False,
    ) -> tuple[Stored, str]:
        """Stores a manifest under a tag or its digest, and `tags`; with it the digest of its subject ("" for none).

        Raises MANIFEST_INVALID, DIGEST_INVALID, MANIFEST_BLOB_UNKNOWN; 412 where the conditions do not hold. With
        `sparse` an index may name images that are not here; with `check` off, what the manifest names need not be here
        (a cache fetches it when it is asked for).
        """
        digest, document = self._checked(reference, data, media_type)
        wanted = [names.tag(one) for one in tags]
        if not names.is_digest(reference):
            wanted.append(reference)
        conditional = bool(if_match or if_none_match)
        with self._storage.lock(exclusive=conditional):
            if conditional:
                self._conditions(repository, reference, if_match, if_none_match)
            if check and not (sparse and isinstance(document, documents.Index)):
                self._complete(repository, document)
            path = self._storage.blob_path(digest)
            if os.path.exists(path):
                os.utime(path)
            else:
                self._storage.place(path, data)
            stored = Stored(digest, document.media_type, data)
            self._storage.place(self.link_path(repository, digest), document.media_type.encode())
            if document.subject is not None:
                self._refer(repository, stored, document)
            for tag in wanted:
                self._storage.place(self._tag_path(repository, tag), digest.encode())
        return stored, document.subject.digest if document.subject is not None else ""

    def _checked(self, reference: str, data: bytes, media_type: str) -> tuple[str, Manifest | Index]:
        algorithm = "sha256"
        if names.is_digest(reference):
            algorithm = names.digest(reference).partition(":")[0]
        else:
            names.tag(reference)
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if names.is_digest(reference) and digest != reference:
            raise RegistryError(400, "DIGEST_INVALID", detail={"provided": reference, "content": digest})
        try:
            document = documents.parse(data, media_type)
        except Invalid as e:
            raise RegistryError(400, "MANIFEST_INVALID", str(e)) from None
        return digest, document

    def _conditions(self, repository: str, reference: str, if_match: str, if_none_match: str) -> None:
        from limpet.serving.files import matches

        try:
            now = self.resolve(repository, reference)
            there = os.path.exists(self.link_path(repository, now))
        except RegistryError:
            there, now = False, ""
        if if_match and not (there and matches(if_match, now)):
            raise RegistryError(412, "MANIFEST_INVALID", f"If-Match: the manifest now is {now or 'not there'}")
        if if_none_match and there and matches(if_none_match, now):
            raise RegistryError(412, "MANIFEST_INVALID", f"If-None-Match: the manifest now is {now}")

    def _complete(self, repository: str, document: Manifest | Index) -> None:
        """What a manifest is made of must be there first: a manifest that can be pulled is whole."""
        if isinstance(document, documents.Index):
            missing = [one.digest for one in document.manifests if not self._has_any(repository, one)]
        else:
            missing = []
            for one in (document.config, *document.layers):
                size = self._storage.has_blob(repository, one.digest)
                if size is None and not _elsewhere(one):
                    missing.append(one.digest)
                elif size is not None and size != one.size:
                    raise RegistryError(
                        400, "MANIFEST_INVALID", f"{one.digest} has {size} bytes, and the manifest says {one.size}"
                    )
        if missing:
            raise RegistryError(
                404,
                "MANIFEST_BLOB_UNKNOWN",
                f"the manifest names {missing[0]}, which {repository} does not have",
                detail=[{"digest": one} for one in missing[:100]],
            )

    def _has_any(self, repository: str, descriptor: Descriptor) -> bool:
        """An index may list blobs too: BuildKit's cache does."""
        try:
            os.utime(self.link_path(repository, descriptor.digest))
        except FileNotFoundError:
            return self._storage.has_blob(repository, descriptor.digest) is not None
        return True

    def _refer(self, repository: str, stored: Stored, document: Manifest | Index) -> None:
        """An entry as "Listing Referrers" of the specification wants it."""
        assert document.subject is not None
        artifact_type = document.artifact_type
        if not artifact_type and isinstance(document, documents.Manifest):
            artifact_type = document.config.media_type
        entry: dict[str, Any] = {
            "mediaType": stored.media_type,
            "digest": stored.digest,
            "size": len(stored.data),
        }
        if artifact_type:
            entry["artifactType"] = artifact_type
        if document.annotations:
            entry["annotations"] = dict(document.annotations)
        base = self._referrers_path(repository, document.subject.digest)
        self._storage.place(f"{base}/{stored.digest.replace(':', '-')}", json.dumps(entry).encode())

    def delete(self, repository: str, reference: str) -> str:
        """Removes a tag, or a manifest with all its tags. The digest. Raises MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        with self._storage.lock():
            if not names.is_digest(reference):
                digest = self.resolve(repository, reference)
                self._unlink(self._tag_path(repository, reference))
                return digest
            stored = self.get(repository, reference)
            self.remove(repository, stored)
            return stored.digest

    def remove(self, repository: str, stored: Stored) -> None:
        """Takes a manifest out of a repository: its tags, its entry among its subject's referrers, and it last, so that
        after a kill the same can be asked for again."""
        for tag in self.tags(repository):
            if self.resolve(repository, tag) == stored.digest:
                self._unlink(self._tag_path(repository, tag))
        try:
            subject = documents.parse(stored.data, stored.media_type).subject
        except Invalid:  # damaged on the disk: it can be taken away all the same
            subject = None
        if subject is not None:
            base = self._referrers_path(repository, subject.digest)
            self._unlink(f"{base}/{stored.digest.replace(':', '-')}")
        self._unlink(self.link_path(repository, stored.digest))

    # Paths

    def link_path(self, repository: str, digest: str) -> str:
        return f"{self._storage.root}/repositories/{repository}/_manifests/{digest.replace(':', '/')}"

    def _tag_path(self, repository: str, tag: str) -> str:
        return f"{self._storage.root}/repositories/{repository}/_tags/{tag}"

    def _referrers_path(self, repository: str, subject: str) -> str:
        return f"{self._storage.root}/repositories/{repository}/_referrers/{subject.replace(':', '/')}"

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path)
            faults.reach("registry-manifest-removed")
        except FileNotFoundError:
            pass


def parts(document: Manifest | Index) -> Iterable[Descriptor]:
    """What a manifest is made of; its subject is not part of it."""
    if isinstance(document, documents.Index):
        return document.manifests
    return (document.config, *document.layers)


def _elsewhere(descriptor: Descriptor) -> bool:
    """Layers that lie on their owner's server: no registry needs to have them (image spec layer.md)."""
    kind = descriptor.media_type
    return bool(descriptor.urls) or "nondistributable" in kind or "foreign" in kind
