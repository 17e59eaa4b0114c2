"""Which images are in the store, and which one a text means.

A text is looked up as Docker does (moby `daemon/images`): a whole id; then a reference (`debian` is
`docker.io/library/debian:latest`; with a digest, an image that came by that manifest or index); then the
beginning of an id. What isn't found is answered with the names that are nearly it.

On the path of `limpet run`: nothing here imports more than `oci.reference`.
"""

from __future__ import annotations

from limpet import jsontext
from limpet.errors import Conflict, Invalid, NotFound
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.oci.reference import Reference
    from limpet.store.store import Store

_HEX = frozenset("0123456789abcdef")


class Image:
    """`id` is the digest of the config blob, `created` when the image came into this store (Unix seconds)."""

    __slots__ = ("config", "created", "id", "names")

    def __init__(self, id: str, config: dict[str, Any], names: list[str], created: int) -> None:
        self.id = id
        self.config = config  # the parsed OCI image config
        self.names = names  # canonical references, sorted; those with a digest too
        self.created = created


def find(store: Store, text: str) -> Image:
    """The image that `text` means. Raises NotFound (with near names) and, for half an id of two images, Conflict."""
    image_id = find_id(store, text)
    row = store.db.row("SELECT config, created FROM image WHERE id = ?", image_id)
    if row is None:  # removed since
        raise NotFound(f"No such image: {text}")
    config, created = row
    names = [name for (name,) in store.db.rows("SELECT reference FROM name WHERE image_id = ? ORDER BY 1", image_id)]
    return Image(image_id, jsontext.loads(config), names, created)


def find_id(store: Store, text: str) -> str:
    """As `find`, but only the id."""
    hexadecimal = text.removeprefix("sha256:")
    is_hex = bool(hexadecimal) and _HEX.issuperset(hexadecimal) and len(hexadecimal) <= 64
    if is_hex and len(hexadecimal) == 64:
        row = store.db.row("SELECT id FROM image WHERE id = ?", f"sha256:{hexadecimal}")
        if row is not None:
            return str(row[0])
        raise NotFound(f"No such image: {text}")
    wanted: Reference | None = None
    if hexadecimal is text or not is_hex:
        try:
            wanted = reference.parse(text)
        except Invalid:
            if not is_hex:
                raise
    if wanted is not None:
        found = by_reference(store, wanted)
        if found is not None:
            return found
    if is_hex:
        rows = store.db.rows(
            "SELECT id FROM image WHERE id >= ? AND id < ? LIMIT 2", f"sha256:{hexadecimal}", f"sha256:{hexadecimal}g"
        )
        if len(rows) == 1:
            return str(rows[0][0])
        if rows:
            raise Conflict(f"'{text}' is the beginning of several image ids", "give more digits")
    raise NotFound(f"No such image: {text}", _suggestion(store, text))


def by_reference(store: Store, wanted: Reference) -> str | None:
    """The id of the image that has this name. A digest is a manifest's or an index's; a tag beside it is no matter."""
    db = store.db
    if not wanted.digest:
        row = db.row("SELECT image_id FROM name WHERE reference = ?", wanted.canonical)
        return None if row is None else str(row[0])
    repository = wanted.repository
    row = db.row("SELECT image_id FROM name WHERE reference = ?", f"{repository}@{wanted.digest}")
    if row is None:
        row = db.row(
            "SELECT image_id FROM name WHERE (manifest = ?1 OR index_digest = ?1) AND"
            " (substr(reference, 1, ?2) = ?3 OR substr(reference, 1, ?2) = ?4)",
            wanted.digest,
            len(repository) + 1,
            f"{repository}:",
            f"{repository}@",
        )
    return None if row is None else str(row[0])


def all_images(store: Store) -> list[Image]:
    """Every image, the one that came last first; at the same second by id."""
    names: dict[str, list[str]] = {}
    for name, image_id in store.db.rows("SELECT reference, image_id FROM name ORDER BY reference"):
        names.setdefault(image_id, []).append(name)
    return [
        Image(image_id, jsontext.loads(config), names.get(image_id, []), created)
        for image_id, config, created in store.db.rows(
            "SELECT id, config, created FROM image ORDER BY created DESC, id"
        )
    ]


def layers(store: Store, image_id: str) -> list[str]:
    """The diff IDs of an image, bottom first."""
    rows = store.db.rows("SELECT diff_id FROM image_layer WHERE image_id = ? ORDER BY position", image_id)
    return [diff_id for (diff_id,) in rows]


def _suggestion(store: Store, text: str) -> str:
    """What is nearly meant: other tags of the same repository, else names that differ by a typing error or two."""
    from limpet.nearest import near

    tags, others = [], []
    for (name,) in store.db.rows("SELECT reference FROM name WHERE reference NOT LIKE '%@%' ORDER BY 1"):
        known = reference.parse(name)
        familiar, bare = known.familiar, known.familiar_name
        if text.rpartition(":")[0] == bare or text == bare:
            tags.append(familiar)
        elif near(text, (familiar, bare)):
            others.append(familiar)
    found = (tags or others)[:3]
    return f"did you mean {' or '.join(found)}?" if found else ""
