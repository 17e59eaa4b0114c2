"""An image comes in: from a registry, an archive, a layout, or made here. One way for all of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.images import catalog
from limpet.oci import config as configs
from limpet.oci import reference
from limpet.store import blobs, faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from limpet.images.catalog import Image
    from limpet.oci.reference import Reference
    from limpet.store.store import Store


def add_image(
    store: Store,
    config: bytes,
    diff_ids: Sequence[str],
    names: Iterable[Reference | str],
    *,
    created: int | None = None,
) -> Image:
    """Enters an image whose layers are here: the last step of every way to make one. Durable when it returns.

    `config` is the config blob, `diff_ids` bottom first as it says them, `created` Unix seconds (now). A name that
    another image had is taken from it. The caller holds `store.lease()`.
    """
    parsed = configs.parse(config)
    if tuple(diff_ids) != parsed.diff_ids:
        raise Invalid("the config names other layers than the image has")
    image_id = blobs.put(store, config)
    wanted = [reference.parse(name) if isinstance(name, str) else name for name in names]
    with store.db.transaction():
        enter(store, image_id, config.decode(), diff_ids, created)
        for name in wanted:
            give_name(store, name, image_id)
    faults.reach("image-row")
    return catalog.find(store, image_id)


def enter(store: Store, image_id: str, config: str, diff_ids: Sequence[str], created: int | None = None) -> None:
    """The rows of an image, within the caller's transaction. An image that is here already stays as it is."""
    now = int(time.time()) if created is None else created
    if not store.db.run("INSERT OR IGNORE INTO image (id, config, created) VALUES (?, ?, ?)", image_id, config, now):
        return
    for position, diff_id in enumerate(diff_ids):
        store.db.run("INSERT INTO image_layer VALUES (?, ?, ?)", image_id, position, diff_id)


def give_name(
    store: Store, name: Reference, image_id: str, manifest: str | None = None, index_digest: str | None = None
) -> None:
    """The row of a name, within the caller's transaction."""
    store.db.run(
        "INSERT INTO name (reference, image_id, manifest, index_digest, implicit) VALUES (?1, ?2, ?3, ?4, 0)"
        " ON CONFLICT (reference) DO UPDATE SET image_id = ?2, manifest = ?3, index_digest = ?4, implicit = 0",
        name.canonical,
        image_id,
        manifest,
        index_digest,
    )
