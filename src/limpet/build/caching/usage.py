"""What the build cache holds on disk, and what goes when it is too much: results of steps, and cache mounts.

A result costs something only while nothing but the cache holds its layer: what images and containers stand on is
shared with them, and is neither counted nor taken. Nothing that a running build uses can go: files are removed under
the lock that waits for all of them, a cache mount under its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.build.caching.steps import TABLES
from limpet.build.steps import cachemounts
from limpet.containers.options import parse_size
from limpet.errors import Invalid
from limpet.frozen import dataclass
from limpet.images import collect, leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.store.store import Store

LIMIT = "LIMPET_CACHE_SIZE"
"""The variable with the size that the cache may have, `off` for any; without it a tenth of the store's disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind`: "step", "import" (a step that came from `source`), "mount", "fetched".

    Times in Unix seconds, `bytes` on disk.
    `shared`: an image or a container has the layer too. `diff_id` is "" for the last two.
    """

    kind: str
    id: str
    name: str
    created: float
    used: float
    bytes: int
    shared: bool = False
    source: str = ""
    diff_id: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """`kept` are in use. `waiting`: a build is running, and the files go with the next collection after it."""

    gone: tuple[Entry, ...]
    kept: tuple[Entry, ...]
    bytes: int
    waiting: bool


def entries(store: Store, *, exact: bool = True) -> list[Entry]:
    """All of the cache, what was used last first. Not `exact`: sizes as they were last known."""
    for statement in TABLES:
        store.db.run(statement)
    needed = collect.needed_layers(store)
    sizes = dict(store.db.rows("SELECT diff_id, size FROM layer"))
    measured: dict[str, int] = {}

    def size(diff_id: str) -> int:
        if not exact:
            return int(sizes.get(diff_id, 0))
        if diff_id not in measured:
            measured[diff_id] = leftovers.tree_bytes(store.layer_path(diff_id))
        return measured[diff_id]

    found = [
        Entry("step", key, what or "", created or 0.0, used or 0.0, size(diff_id), diff_id in needed, "", diff_id)
        for key, diff_id, what, created, used in store.db.rows(
            "SELECT s.key, s.diff_id, r.what, r.created, r.used FROM build_step s LEFT JOIN build_record r USING (key)"
        )
    ]
    found += [
        Entry("import", key, what, created, used, size(diff_id), diff_id in needed, source, diff_id)
        for source, key, diff_id, what, created, used in store.db.rows(
            "SELECT source, key, diff_id, what, created, used FROM imported_step"
        )
    ]
    found += [
        Entry("fetched" if each.fetched else "mount", each.key, each.name, each.created, each.used, each.bytes)
        for each in cachemounts.caches(store, exact=exact)
    ]
    return sorted(found, key=lambda entry: (-entry.used, entry.kind, entry.name, entry.id))


def total(found: Sequence[Entry]) -> int:
    """Bytes that only the cache holds; a layer of several steps once."""
    layers = {entry.diff_id: entry.bytes for entry in found if entry.diff_id and not entry.shared}
    return sum(layers.values()) + sum(entry.bytes for entry in found if not entry.diff_id)


def chosen(found: Sequence[Entry], candidates: Sequence[Entry], keep: int) -> list[Entry]:
    """Of the candidates those that were not used for longest, until all that is left has at most `keep` bytes."""
    left = total(found)
    claims: dict[str, int] = {}  # steps of each layer: the last one to go frees it
    for entry in found:
        claims[entry.diff_id] = claims.get(entry.diff_id, 0) + 1
    taken: list[Entry] = []
    for entry in sorted(candidates, key=lambda each: each.used):
        if left <= keep:
            break
        taken.append(entry)
        claims[entry.diff_id] -= 1
        if not entry.diff_id or (not claims[entry.diff_id] and not entry.shared):
            left -= entry.bytes
    return taken


def remove(store: Store, wanted: Sequence[Entry]) -> Removed:
    """Rows first, then files; the layers that nothing needs any more go at once, or with the next collection."""
    gone, kept, freed = [], [], 0
    steps = [entry for entry in wanted if entry.diff_id]
    with store.db.transaction():
        for entry in steps:
            if entry.kind == "import":
                store.db.run("DELETE FROM imported_step WHERE source = ? AND key = ?", entry.source, entry.id)
            else:
                store.db.run("DELETE FROM build_step WHERE key = ?", entry.id)
            gone.append(entry)
        store.db.run(
            "DELETE FROM build_layer WHERE diff_id NOT IN (SELECT diff_id FROM build_step)"
            " AND diff_id NOT IN (SELECT diff_id FROM imported_step)"
        )
    for entry in wanted:
        if not entry.diff_id:
            if cachemounts.remove(store, entry.id):
                gone.append(entry)
                freed += entry.bytes
            else:
                kept.append(entry)
    collected = collect.collect(store)
    return Removed(tuple(gone), tuple(kept), freed + collected.bytes, bool(steps) and collected.waiting)


def forget_image(store: Store, image_id: str) -> None:
    """An image that was only made to build others from goes, if nobody has named or uses it; its steps stay cached."""
    db = store.db
    with db.transaction():
        if db.row(
            "SELECT 1 FROM name WHERE image_id = ? UNION SELECT 1 FROM container_use WHERE image_id = ?1", image_id
        ):
            return
        db.run("INSERT OR IGNORE INTO build_layer SELECT diff_id, '' FROM build_layer WHERE owner = ?", image_id)
        db.run("DELETE FROM image WHERE id = ?", image_id)
    collect.collect(store)


def limit(store: Store) -> int | None:
    """Bytes that the cache may have, None for any number. Raises Invalid."""
    text = os.environ.get(LIMIT, "")
    if text == "off":
        return None
    if text:
        try:
            return parse_size(text, LIMIT)
        except Invalid as e:
            raise Invalid(e.message, "write a number with m or g, like 20g, or off") from None
    disk = os.statvfs(store.root)
    return disk.f_blocks * disk.f_frsize // 10


def bound(store: Store, tell: Callable[[str], None]) -> None:
    """After a build that made something: what was not used for longest goes, until the cache has its size."""
    from limpet.units import size_decimal

    most = limit(store)
    if most is None:
        return
    found = entries(store, exact=False)
    if total(found) <= most:
        return
    removed = remove(store, chosen(found, [entry for entry in found if not entry.shared], most))
    if removed.gone:
        oldest = f"the {len(removed.gone)} entries that were not used for longest are gone"
        tell(f"The build cache was larger than {size_decimal(most)} ({LIMIT}): {oldest}")
