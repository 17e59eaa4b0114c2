"""Images that have no name of their own, but belong to one that has: those of an index for other platforms.

They stay and go with the name. In a store that has only named images this costs one query.
"""

from __future__ import annotations

from limpet.images import outgoing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store


def held(store: Store) -> dict[str, set[str]]:
    """The names (canonical) of the indexes that an image without a name is in, by the image's id."""
    nameless = {id for (id,) in store.db.rows("SELECT id FROM image WHERE id NOT IN (SELECT image_id FROM name)")}
    if not nameless:
        return {}
    found: dict[str, set[str]] = {}
    in_index: dict[str, set[str]] = {}
    rows = store.db.rows("SELECT reference, index_digest FROM name WHERE index_digest IS NOT NULL")
    for name, digest in rows:
        if digest not in in_index:
            in_index[digest] = _images(store, digest)
        for image_id in in_index[digest] & nameless:
            found.setdefault(image_id, set()).add(name)
    return found


def _images(store: Store, index_digest: str) -> set[str]:
    index = outgoing.documents(store, index_digest)
    if index is None:
        return set()
    rows = (store.db.row("SELECT image_id FROM manifest WHERE digest = ?", one.digest) for one in index.manifests)
    return {row[0] for row in rows if row is not None}
