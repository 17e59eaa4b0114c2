"""`system df` adds up to what `du` says."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from limpet.images import usage
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.images.catalog import Image
    from limpet.store.store import Store

    MakeImage = Callable[..., Image]
    AddContainer = Callable[[Image, str], str]


def du(path: str) -> int:
    return int(subprocess.run(["du", "-sB1", path], capture_output=True, text=True, check=True).stdout.split()[0])


def test_an_empty_store(store: Store) -> None:
    assert store.db.rows("SELECT 1 FROM image") == []
    assert usage.usage(store).total == du(store.root)


def test_adds_up(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    base = {"base": os.urandom(200_000)}
    first = make_image("a:1", layers=[base, {"a": os.urandom(50_000)}])
    second = make_image("b:1", layers=[base])
    container_id = add_container(first, "one")
    with open(f"{store.container_path(container_id)}/upper/file", "wb") as file:
        file.write(bytes(100_000))
    os.link(f"{store.container_path(container_id)}/upper/file", f"{store.container_path(container_id)}/upper/link")
    with open(f"{store.container_path(container_id)}/{container_id}-json.log", "wb") as file:
        file.write(bytes(30_000))
    os.makedirs(f"{store.volume_path('data')}/_data/deep")
    with open(f"{store.volume_path('data')}/_data/deep/file", "wb") as file:
        file.write(bytes(70_000))
    with store.db.transaction():
        store.db.run("INSERT INTO volume (name, created, anonymous, labels) VALUES ('data', 0, 0, '{}')")
        store.db.run("INSERT INTO container_volume VALUES (?, 'data')", container_id)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f"tmp/layer-{gone.pid}-x", f"containers/{container_id}/status.new-{gone.pid}", "blobs/sha256/junk"):
        with open(f"{store.root}/{name}", "wb") as file:
            file.write(bytes(10_000))
    found = usage.usage(store)
    assert found.total == du(store.root)
    by_name = {one.image.id: one for one in found.images}
    assert by_name[first.id].shared == by_name[second.id].shared > 200_000
    assert by_name[first.id].unique > 50_000 > by_name[second.id].unique
    assert by_name[first.id].containers == 1
    assert found.layers + found.blobs == sum(one.unique for one in found.images) + by_name[first.id].shared
    assert found.reclaimable == by_name[second.id].unique
    (container,) = found.containers
    assert container.size > 130_000
    assert 30_000 < container.log < 40_000
    (volume,) = found.volumes
    assert (volume.name, volume.links) == ("data", 1)
    assert volume.size > 70_000
    assert found.leftover >= 20_000


def test_layers_that_only_a_container_has(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    add_container(make_image("a:1", layers=[{"a": os.urandom(50_000)}]), "one")
    with store.db.transaction():
        store.db.run("DELETE FROM image")
    found = usage.usage(store)
    assert found.total == du(store.root)
    assert found.layers > 50_000
    assert found.reclaimable < 5_000  # the config blob


def test_trees_deeper_than_a_path_may_be_long(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    container_id = add_container(make_image("a:1", layers=[{"a": b"1"}]), "one")
    fd = os.open(f"{store.container_path(container_id)}/upper", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=fd)
        inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    (container,) = usage.usage(store).containers
    assert container.size == du(store.container_path(container_id))
    remove_tree(store.container_path(container_id))  # pytest's own removal would not come to an end
