"""Which images nothing uses, what their going frees, and their going: `image prune`, and a part of `system prune`."""

from __future__ import annotations

from dataclasses import dataclass

from limpet.images import catalog, filters, members
from limpet.images.collect import collect
from limpet.images.usage import bytes_of
from limpet.oci import reference
from limpet.store import faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from limpet.images.catalog import Image
    from limpet.images.collect import Freed
    from limpet.store.store import Store


@dataclass(frozen=True)
class Plan:
    images: tuple[Image, ...]
    bytes: int  # that would come back on disk


def plan(
    store: Store, *, everything: bool = False, wanted: dict[str, list[str]] | None = None, without: Collection[str] = ()
) -> Plan:
    """Images without a name, or with `everything` all, that no container uses; `wanted` are parsed filters.

    `without` are containers that will be gone by then.
    """
    wanted = dict(wanted or {})
    if "dangling" in wanted:  # Docker's other way to say -a
        everything = not filters.truth(wanted.pop("dangling")[-1])
    matches = filters.matcher(store, wanted)
    used = {
        image_id
        for container_id, image_id in store.db.rows("SELECT container_id, image_id FROM container_use")
        if container_id not in without
    }
    held = members.held(store)
    named = dict(store.db.rows("SELECT reference, image_id FROM name"))

    def unneeded(image: Image) -> bool:
        """An image of an index goes with the one that the name stands for."""
        if image.id in used or any(named[name] in used for name in held.get(image.id, ())):
            return False
        return everything or not (image.names or image.id in held)

    found = tuple(image for image in catalog.all_images(store) if unneeded(image) and matches(image))
    return Plan(found, bytes_of(store, {image.id for image in found}, without))


def carry_out(store: Store, planned: Plan) -> tuple[list[str], Freed]:
    """Docker's lines (`untagged: …`, `deleted: …`) and what was freed. An image that is used by now stays."""
    lines: list[str] = []
    with store.db.transaction():
        for image in planned.images:
            if store.db.row("SELECT 1 FROM container_use WHERE image_id = ?", image.id):
                continue
            names = store.db.rows("SELECT reference FROM name WHERE image_id = ? ORDER BY reference", image.id)
            if store.db.run("DELETE FROM image WHERE id = ?", image.id):
                lines += [f"untagged: {reference.parse(name).familiar}" for (name,) in names]
                lines.append(f"deleted: {image.id}")
    faults.reach("image-rows-gone")
    freed = collect(store)
    lines += [f"deleted: {digest}" for digest in [*freed.images, *freed.layers]]
    return lines, freed
