"""What of an image can leave the store as it came: its manifest to the byte, its layers in the form that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid, NotFound
from limpet.images import catalog
from limpet.oci import manifest as manifests
from limpet.oci import media
from limpet.oci.manifest import Descriptor, Manifest
from limpet.store import blobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from limpet.images.package import Member
    from limpet.oci.reference import Reference
    from limpet.store.store import Store

_MAX_ATTACHED = 64 << 20
"""Bytes of a statement about an image."""

_KINDS = {"gzip": media.OCI_LAYER_GZIP, "zstd": media.OCI_LAYER_ZSTD}


def arrived_as(
    store: Store, image_id: str, names: Sequence[Reference] = (), elsewhere: Callable[[str], bool] | None = None
) -> bytes | None:
    """A manifest by which the image came or went, all of whose layers can be given out; those of `names` first.

    `elsewhere(digest)` tells of a blob that isn't here whether the receiver has it.
    """
    for digest in _manifests_of(store, image_id, names):
        data = whole(store, digest, image_id, elsewhere)
        if data is not None:
            return data
    return None


def whole(store: Store, digest: str, image_id: str, elsewhere: Callable[[str], bool] | None = None) -> bytes | None:
    """The manifest with this digest if it is one of the image and all its layers can be given out, else None."""
    try:
        data = blobs.read(store, digest, manifests.MAX_BYTES)
        manifest = manifests.parse(data)
    except (NotFound, Invalid):
        return None
    if not isinstance(manifest, Manifest) or manifest.config.digest != image_id:
        return None
    layers = catalog.layers(store, image_id)
    if len(manifest.layers) != len(layers):
        return None
    for blob, diff_id in zip(manifest.layers, layers, strict=True):
        if not is_here(store, blob.digest, diff_id) and (elsewhere is None or not elsewhere(blob.digest)):
            return None
    return data


def _manifests_of(store: Store, image_id: str, names: Sequence[Reference]) -> Iterator[str]:
    rows = [digest for (digest,) in store.db.rows("SELECT digest FROM manifest WHERE image_id = ?", image_id)]
    named = [
        row[0]
        for name in names
        if (row := store.db.row("SELECT manifest FROM name WHERE reference = ?", name.canonical)) and row[0]
    ]
    yield from dict.fromkeys([*(one for one in named if one in rows), *sorted(rows)])


def is_here(store: Store, digest: str, diff_id: str) -> bool:
    """Whether a layer's blob can be given out: it is kept, or it is the plain tar."""
    return digest == diff_id or blobs.exists(store, digest)


def kept(store: Store, diff_id: str, wanted: Callable[[str, str], bool] | None = None) -> Descriptor | None:
    """A compressed form of a layer that is in the store; one whose digest and compression are `wanted`."""
    rows = store.db.rows(
        "SELECT l.digest, l.media_type, b.size FROM layer_blob l JOIN blob b USING (digest) WHERE l.diff_id = ?"
        " ORDER BY l.digest",
        diff_id,
    )
    for digest, media_type, size in rows:
        kind = media.compression(media_type)
        if kind in _KINDS and blobs.exists(store, digest) and (wanted is None or wanted(digest, kind)):
            return Descriptor(_KINDS[kind], digest, size)
    return None


def plain(store: Store, diff_id: str) -> Descriptor:
    """A layer as its tar."""
    row = store.db.row("SELECT size FROM layer WHERE diff_id = ?", diff_id)
    return Descriptor(media.OCI_LAYER, diff_id, row[0] if row else 0)


def attached(store: Store, digest: str) -> Member | None:
    """A manifest about another, all of which is in blobs/ (an attestation that a build made); None if it isn't."""
    from limpet.images.package import Member, Part

    try:
        data = blobs.read(store, digest, manifests.MAX_BYTES)
        manifest = manifests.parse(data)
        if not isinstance(manifest, Manifest):
            return None
        kinds = (manifest.config, *manifest.layers)
        parts = tuple(Part(kind, data=blobs.read(store, kind.digest, _MAX_ATTACHED)) for kind in kinds)
    except (NotFound, Invalid):
        return None
    return Member(Descriptor(manifest.media_type, digest, len(data)), data, parts)


def documents(store: Store, index_digest: str) -> manifests.Index | None:
    """An index that is in the store; None if it isn't."""
    try:
        found = manifests.parse(blobs.read(store, index_digest, manifests.MAX_BYTES))
    except (NotFound, Corrupt):
        return None
    return found if isinstance(found, manifests.Index) else None
