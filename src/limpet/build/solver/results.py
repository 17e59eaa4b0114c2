"""What steps made, by their keys: rows of `build_step`, each valid as long as its layer is in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limpet.store.store import Store


def find(store: Store, key: str) -> str | None:
    """The diff ID of the layer that a step with this key made."""
    row = store.db.row("SELECT diff_id FROM build_step WHERE key = ?", key)
    return row[0] if row is not None else None


def keep(store: Store, key: str, diff_id: str) -> None:
    """The caller has held a lease since before the layer was made."""
    with store.db.transaction(durable=False):
        store.db.run("INSERT OR REPLACE INTO build_step (key, diff_id) VALUES (?, ?)", key, diff_id)
