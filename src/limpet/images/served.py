"""The images of a store as a registry serves them (`limpet registry serve --from-store`): pulled with no push before.

A name is served without its domain: `web:1` as `web` and `library/web`, `registry.example/team/app:1` as `team/app`. An
image that came from a registry is given out as it came; one that was made here, with its layers as they lie in the
store, which for those that were never compressed is the plain tar.

One object for each process, used by one thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.images import catalog, outgoing
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media, reference
from limpet.oci.manifest import Descriptor, Manifest
from limpet.store import blobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.oci.reference import Reference
    from limpet.store.store import Store


class ServedImages:
    """Methods give None, or an empty list, for what is not there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def repositories(self) -> list[str]:
        return sorted({_shown(name) for name, _ in self._names()})

    def tags(self, repository: str) -> list[str]:
        return sorted({name.tag for name, _ in self._of(repository)})

    def manifest(self, repository: str, wanted: str) -> tuple[bytes, str, str] | None:
        """(bytes, media type, digest) by a tag or a digest."""
        for name, image_id in self._of(repository):
            if ":" not in wanted and name.tag != wanted:
                continue
            for data in self._documents(name, image_id):
                digest = digests.of(data)
                if wanted in (name.tag, digest):
                    return data, manifests.parse(data).media_type, digest
        return None

    def blob(self, repository: str, digest: str) -> int | None:
        """An open file of a config or layer that an image of the repository has."""
        for name, image_id in self._of(repository):
            layers = catalog.layers(self._store, image_id)
            for data in self._documents(name, image_id):
                document = manifests.parse(data)
                if isinstance(document, Manifest) and digest in (
                    document.config.digest,
                    *(layer.digest for layer in document.layers),
                ):
                    return self._open(digest, layers)
        return None

    def _names(self) -> Iterator[tuple[Reference, str]]:
        for name, image_id in self._store.db.rows("SELECT reference, image_id FROM name ORDER BY reference"):
            parsed = reference.parse(name)
            if parsed.tag and not parsed.digest:
                yield parsed, image_id

    def _of(self, repository: str) -> list[tuple[Reference, str]]:
        return [(name, image_id) for name, image_id in self._names() if repository in (_shown(name), name.path)]

    def _documents(self, name: Reference, image_id: str) -> Iterator[bytes]:
        """The index first if all of it is here (a tag means it), then manifests."""
        row = self._store.db.row("SELECT index_digest FROM name WHERE reference = ?", name.canonical)
        index = outgoing.documents(self._store, row[0]) if row and row[0] else None
        if index is not None:
            parts = []
            for entry in index.manifests:
                found = self._store.db.row("SELECT image_id FROM manifest WHERE digest = ?", entry.digest)
                parts.append(outgoing.whole(self._store, entry.digest, found[0]) if found else None)
            if all(part is not None for part in parts):
                yield blobs.read(self._store, row[0], manifests.MAX_BYTES)
                yield from (part for part in parts if part is not None)
        yield outgoing.arrived_as(self._store, image_id, [name]) or self._made(image_id)

    def _made(self, image_id: str) -> bytes:
        config = blobs.read(self._store, image_id, configs.MAX_BYTES)
        layers = tuple(
            outgoing.kept(self._store, diff_id) or outgoing.plain(self._store, diff_id)
            for diff_id in catalog.layers(self._store, image_id)
        )
        return Manifest(media.OCI_MANIFEST, Descriptor(media.OCI_CONFIG, image_id, len(config)), layers).to_json()

    def _open(self, digest: str, layers: list[str]) -> int | None:
        digests.check(digest)
        paths = [self._store.blob_path(digest)]
        if digest in layers:
            paths.append(f"{self._store.layer_path(digest)}/data")
        for path in paths:
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
        return None


def _shown(name: Reference) -> str:
    return name.familiar_name if name.domain == reference.DEFAULT_DOMAIN else name.path
