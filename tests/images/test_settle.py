"""What was loaded without a sync is made durable soon, by a process that nobody waits for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from limpet.store.store import Store


def test_a_load_is_on_disk_soon(limpet: Any, busybox: str, tmp_path: Path) -> None:
    archive = tmp_path / "busybox.tar"
    limpet("save", "-o", archive, busybox)
    limpet("rmi", busybox)
    del limpet.environment["LIMPET_SETTLE"]
    limpet("load", "-i", archive)
    db = Store(str(limpet.root), f"{limpet.root}/run").db
    deadline = time.monotonic() + 30
    while db.row("SELECT 1 FROM layer WHERE boot IS NOT NULL") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert db.row("SELECT count(*) FROM layer") == (1,)
