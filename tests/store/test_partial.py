"""Beginnings of downloads do not pile up: whoever downloads something takes those that nobody went on with."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from limpet.store import partial

if TYPE_CHECKING:
    from limpet.store.store import Store


def test_the_next_download_takes_old_ones(store: Store) -> None:
    def name(digit: str) -> str:
        return f"sha256:{digit * 64}"

    paths = {digit: Path(partial.path_of(store, name(digit))) for digit in "1234"}
    held = partial.open_partial(store, name("1"), lambda: None)
    paths["2"].write_bytes(b"old")
    paths["3"].write_bytes(b"young")
    paths["4"].write_bytes(b"old, but wanted")
    long_ago = time.time() - partial.STALE - 10
    for digit in "124":
        os.utime(paths[digit], (long_ago, long_ago))
    with_more = partial.open_partial(store, name("4"), lambda: None)
    assert b"".join(with_more.resumed()) == b"old, but wanted"
    assert [digit for digit, path in paths.items() if path.exists()] == ["1", "3", "4"]
    with_more.abort()
    held.abort()
