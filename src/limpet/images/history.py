"""How an image came about: the steps its config tells of, with what each one weighs."""

from __future__ import annotations

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.images.catalog import Image
    from limpet.store.store import Store


@dataclass(frozen=True)
class Step:
    image: str  # the id for the newest step, "<missing>" for the others: only a whole image has an id
    created: str  # RFC 3339 or ""
    created_by: str
    size: int  # bytes of the layer's tar; 0 for a step that made none
    comment: str
    tags: tuple[str, ...]  # canonical names, for the newest step


def history(store: Store, image: Image) -> list[Step]:
    """The steps, newest first. Layers that the config's history doesn't tell of are there too, without a story."""
    rows = store.db.rows(
        "SELECT size FROM image_layer JOIN layer USING (diff_id) WHERE image_id = ? ORDER BY position", image.id
    )
    sizes = [size for (size,) in rows]
    told = [entry for entry in image.config.get("history") or [] if isinstance(entry, dict)]
    told += [{}] * (len(sizes) - sum(not entry.get("empty_layer") for entry in told))
    steps: list[Step] = []
    position = 0
    for entry in told:
        size = 0
        if not entry.get("empty_layer"):
            size = sizes[position] if position < len(sizes) else 0
            position += 1
        steps.append(
            Step(
                image="<missing>",
                created=str(entry.get("created") or ""),
                created_by=str(entry.get("created_by") or ""),
                size=size,
                comment=str(entry.get("comment") or ""),
                tags=(),
            )
        )
    steps.reverse()
    if steps:
        newest = steps[0]
        steps[0] = Step(image.id, newest.created, newest.created_by, newest.size, newest.comment, tuple(image.names))
    return steps
