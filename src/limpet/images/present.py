"""Whether a layer is in the store, whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.errors import Corrupt
from limpet.layers import durable

if TYPE_CHECKING:
    from limpet.store.store import Store


def is_whole(store: Store, diff_id: str) -> bool:
    """Whether the layer is here, and did survive if the machine went down before it was on disk."""
    if store.db.row("SELECT 1 FROM layer WHERE diff_id = ?", diff_id) is None:
        return False
    if not os.path.exists(f"{store.layer_path(diff_id)}/data"):
        return False
    try:
        durable.verify(store, [diff_id])
    except Corrupt:
        return False
    return True
