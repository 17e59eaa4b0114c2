"""Images that a Dockerfile names, for a platform: what is here under the name, or what has to be brought in for it.

A name stands for one image, which is that of the platform it was pulled for. That of another platform, from the same
index, is kept beside it under its digest: the name stays what it was, and the next build finds both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.errors import LimpetError
from limpet.images import catalog, ensure, outgoing
from limpet.oci import platform as platforms
from limpet.oci import reference
from limpet.oci.platform import Platform

if TYPE_CHECKING:
    from limpet.images.catalog import Image
    from limpet.oci.manifest import Descriptor
    from limpet.oci.reference import Reference
    from limpet.progress import Progress
    from limpet.store.store import Store


def image_for(store: Store, name: str, platform: str, progress: Progress) -> Image:
    """The image for a platform ("" for this machine's). Raises what pulling raises, NotFound if none is for it."""
    image = ensure.ensure(store, name, progress=progress, platform=platform, implicit=True)
    wanted = platforms.parse(platform) if platform else platforms.host()
    actual = Platform.from_dict(image.config)
    if not platform or not actual.architecture or _same(actual, wanted):
        return image
    if reference.parse(name).canonical == ensure.HOST:
        raise ensure.not_of_host(name, wanted)
    return _beside(store, name, image, actual, wanted, progress)


def _beside(store: Store, name: str, image: Image, actual: Platform, wanted: Platform, progress: Progress) -> Image:
    found = _in_index(store, name, image, wanted)
    if found is None and actual.architecture == wanted.architecture and actual in platforms.ranked(wanted):
        return image  # an older variant, and nobody knows of a better one
    if found is None:
        try:
            return ensure.bring(store, name, progress=progress, platform=str(wanted))
        except LimpetError as e:
            raise type(e)(f"{name} is here for {actual}, not for {wanted}: {e.message}", e.hint) from None
    known, entry = found
    row = store.db.row("SELECT image_id FROM manifest WHERE digest = ?", entry.digest)
    if row is not None and _is_whole(store, row[0]):
        return catalog.find(store, row[0])
    text = known.with_digest(entry.digest).canonical
    return ensure.ensure(store, text, progress=progress, platform=str(wanted), implicit=True)


def _in_index(store: Store, name: str, image: Image, wanted: Platform) -> tuple[Reference, Descriptor] | None:
    """The image's name, and what the index by which it came has for the platform; None if it came alone."""
    mine = {reference.parse(text).canonical: reference.parse(text) for text in image.names}
    given = reference.parse(name).canonical
    for canonical in sorted(mine, key=lambda each: (each != given, each)):
        row = store.db.row("SELECT index_digest FROM name WHERE reference = ?", canonical)
        index = outgoing.documents(store, row[0]) if row is not None and row[0] else None
        if index is not None:
            return mine[canonical], platforms.select(index, wanted)
    return None


def _is_whole(store: Store, image_id: str) -> bool:
    return store.db.row("SELECT 1 FROM image WHERE id = ?", image_id) is not None


def _same(one: Platform, other: Platform) -> bool:
    return (one.os, one.architecture, one.variant) == (other.os, other.architecture, other.variant)
