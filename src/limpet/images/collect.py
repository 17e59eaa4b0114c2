"""Garbage collection: what no name, container or image needs any more goes, rows first, then files.

Mark and sweep over the rows, in one transaction; there are no counts that could be wrong. A layer is needed by an image
or by a container (which keeps its own list: its image may go before it); a blob by an image or its manifests. A layer
that only builds use (a step of another stage) stays with the image that was built with it; one that no image came of,
until the build cache is pruned. A cached build step needs nothing: it goes with its layer. An image whose names all
came implicitly (the base of a build) is needed while a container or another image stands on it.

Nothing is taken while a lease is out (`Store.lease`): files that are being added have no rows yet. Whoever comes next
takes it. A kill at any step leaves files without rows, which `sweep` finds.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.images import leftovers
from limpet.layers.driver import driver
from limpet.store import eventlog, faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store


class Freed:
    """`bytes` are those that the disk got back; `waiting` says that a lease was out and nothing could be taken."""

    __slots__ = ("bytes", "files", "images", "layers", "waiting")

    def __init__(self) -> None:
        self.images: list[str] = []
        self.layers: list[str] = []
        self.files: list[str] = []
        self.bytes = 0
        self.waiting = False


def collect(store: Store) -> Freed:
    """Takes what rows know and nothing needs. Cheap when there is nothing: four queries."""
    freed = Freed()
    with store.exclusive() as held:
        if not held:
            freed.waiting = True
            return freed
        blobs, layers = _drop_rows(store, freed)
        faults.reach("rows-gone")
        for image_id in freed.images:
            eventlog.write(store, "image", "delete", image_id, {"name": image_id})
        for digest in blobs:
            path = store.blob_path(digest)
            freed.bytes += blocks(path)
            _unlink(path)
            faults.reach("blob-gone")
        for diff_id, kind in layers:
            home = driver(store, kind)
            freed.bytes += home.usage(diff_id)
            home.remove(diff_id)
            freed.layers.append(diff_id)
            faults.reach("layer-gone")
    return freed


def sweep(store: Store) -> Freed:
    """As `collect`, and then all files that no row names: what kills and crashes left."""
    freed = collect(store)
    with store.exclusive() as held:
        if not held:
            freed.waiting = True
            return freed
        for leftover in leftovers.find(store):
            freed.bytes += leftover.bytes
            leftovers.remove(leftover)
            freed.files.append(leftover.path)
            faults.reach("leftover-gone")
    return freed


def _drop_rows(store: Store, freed: Freed) -> tuple[list[str], list[tuple[str, str]]]:
    """Deletes the rows; gives the blobs and the layers (with their driver) whose files are to follow."""
    db = store.db
    with db.transaction():
        for image_id in _unneeded_bases(store):
            db.run("DELETE FROM image WHERE id = ?", image_id)
            freed.images.append(image_id)
        if has_table(store, "build_layer"):
            db.run("DELETE FROM build_layer WHERE owner != '' AND owner NOT IN (SELECT id FROM image)")
        live = needed_layers(store) | cached_layers(store)
        layers = [row for row in db.rows("SELECT diff_id, driver FROM layer") if row[0] not in live]
        for diff_id, _ in layers:
            db.run("DELETE FROM layer WHERE diff_id = ?", diff_id)
        blobs = [
            digest
            for (digest,) in db.rows(
                "SELECT digest FROM blob WHERE digest NOT IN (SELECT id FROM image)"
                " AND digest NOT IN (SELECT digest FROM manifest)"
                " AND digest NOT IN (SELECT digest FROM manifest_blob)"
                " AND digest NOT IN (SELECT index_digest FROM name WHERE index_digest IS NOT NULL)"
            )
        ]
        for digest in blobs:
            db.run("DELETE FROM blob WHERE digest = ?", digest)
        if layers or blobs:
            db.run(
                "DELETE FROM layer_blob WHERE diff_id NOT IN (SELECT diff_id FROM layer)"
                " AND digest NOT IN (SELECT digest FROM blob)"
            )
    return blobs, layers


def drop_layers(store: Store, diff_ids: list[str]) -> None:
    """Takes some layers, cached build steps with them, as far as nothing needs them. Nothing if a lease is out."""
    if not diff_ids:
        return
    with store.exclusive() as held:
        if not held:
            return
        db = store.db
        with db.transaction():
            live = needed_layers(store)
            rows = [row for row in db.rows("SELECT diff_id, driver FROM layer") if row[0] in diff_ids]
            gone = [row for row in rows if row[0] not in live]
            for diff_id, _ in gone:
                db.run("DELETE FROM layer WHERE diff_id = ?", diff_id)
        for diff_id, kind in gone:
            driver(store, kind).remove(diff_id)
            faults.reach("layer-gone")


def needed_layers(store: Store) -> set[str]:
    """The diff IDs that an image or a container stands on."""
    live = {diff_id for (diff_id,) in store.db.rows("SELECT DISTINCT diff_id FROM image_layer")}
    for (text,) in store.db.rows("SELECT DISTINCT layers FROM container_use"):
        live.update(jsontext.loads(text))
    return live


def cached_layers(store: Store) -> set[str]:
    """The diff IDs of layers that the build cache holds (`build.caching.steps` has the table)."""
    if not has_table(store, "build_layer"):
        return set()
    return {diff_id for (diff_id,) in store.db.rows("SELECT DISTINCT diff_id FROM build_layer")}


def has_table(store: Store, name: str) -> bool:
    return store.db.row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", name) is not None


def _unneeded_bases(store: Store) -> list[str]:
    """Images that were only brought in to build upon, and that nothing stands on any more."""
    bases = store.db.rows(
        "SELECT image_id FROM name GROUP BY image_id HAVING min(implicit) = 1"
        " EXCEPT SELECT image_id FROM container_use WHERE image_id IS NOT NULL"
    )
    if not bases:
        return []
    stacks: dict[str, list[str]] = {}
    for image_id, diff_id in store.db.rows("SELECT image_id, diff_id FROM image_layer ORDER BY image_id, position"):
        stacks.setdefault(image_id, []).append(diff_id)
    candidates = {image_id for (image_id,) in bases}
    kept = [stack for image_id, stack in stacks.items() if image_id not in candidates]
    kept += [jsontext.loads(text) for (text,) in store.db.rows("SELECT DISTINCT layers FROM container_use")]
    return [
        image_id
        for image_id in sorted(candidates)
        if not any(stack[: len(stacks.get(image_id, []))] == stacks.get(image_id, []) for stack in kept)
    ]


def blocks(path: str) -> int:
    """Bytes that a file occupies on disk; 0 if it is gone."""
    try:
        return os.lstat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
