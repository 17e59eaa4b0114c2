"""Small images made in a store without the command line, for tests of the rows and files themselves."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from limpet.images import catalog, importer
from limpet.layers.driver import driver
from limpet.oci import platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.images.catalog import Image
    from limpet.store.store import Store


def _tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _make_image(
    store: Store, *names: str, layers: list[dict[str, bytes]], config: dict[str, Any] | None = None, **more: Any
) -> Image:
    """`layers` bottom first, each a dict of file names and contents."""
    home = driver(store)
    diff_ids = []
    with store.lease():
        for files in layers:
            with home.ingest() as ingest:
                ingest.write(_tar_of(files))
                diff_ids.append(ingest.finish(durable=True).diff_id)
        home.seal(diff_ids)
        document = {
            "architecture": platform.host().architecture,
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            **more,
        }
        return importer.add_image(store, json.dumps(document).encode(), diff_ids, names)


def _add_container(store: Store, image: Image, name: str) -> str:
    """The row and directory of a container that was never started."""
    container_id = hashlib.sha256(name.encode()).hexdigest()
    os.makedirs(f"{store.container_path(container_id)}/upper")
    with open(f"{store.container_path(container_id)}/image.json", "w") as file:
        json.dump(image.config, file)
    with store.db.transaction():
        store.db.run(
            "INSERT INTO container VALUES (?, ?, ?, ?, ?, ?, '{}')",
            container_id,
            name,
            image.id,
            name,
            json.dumps(catalog.layers(store, image.id)),
            time.time(),
        )
    return container_id


@pytest.fixture
def make_image(store: Store) -> Callable[..., Image]:
    """`make_image("a:1", layers=[{"file": b"content"}], config={...})` in the fixture `store`."""
    return lambda *names, **options: _make_image(store, *names, **options)


@pytest.fixture
def add_container(store: Store) -> Callable[[Image, str], str]:
    """`add_container(image, "name")` gives the id."""
    return lambda image, name: _add_container(store, image, name)
