"""Layers in, mounted trees out, for both drivers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from limpet.kernel import mounts
from limpet.layers.driver import driver
from limpet.store.store import Store

Ingested = Callable[[bytes], str]


@pytest.fixture(params=["erofs", "dir"])
def home(request: pytest.FixtureRequest, store: Store) -> Any:
    if request.param == "erofs" and driver(store).name != "erofs":
        pytest.skip("this kernel does not mount EROFS from plain files (needs Linux 6.12)")
    return driver(store, request.param)


@pytest.fixture
def ingest(home: Any, store: Store) -> Ingested:
    """Takes a tar in, gives its diff ID."""

    def take(tar: bytes) -> str:
        with store.lease(), home.ingest() as layer:
            for at in range(0, len(tar), 700):  # pieces that end anywhere
                layer.write(tar[at : at + 700])
            return layer.finish().diff_id

    return take


@contextmanager
def mounted(home: Any, diff_ids: list[str], place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    home.seal(diff_ids)
    fd = home.mount(diff_ids)
    mounts.attach(fd, str(place))
    os.close(fd)
    try:
        yield place
    finally:
        mounts.umount(str(place), mounts.MNT_DETACH)
