"""Collection: what nothing needs goes, what something needs stays, and leftovers of kills are found."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from limpet.images import catalog, collect, leftovers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from limpet.images.catalog import Image
    from limpet.store.store import Store

    MakeImage = Callable[..., Image]
    AddContainer = Callable[[Image, str], str]


def drop(store: Store, *tables: str) -> None:
    with store.db.transaction():
        for table in tables:
            store.db.run(f"DELETE FROM {table}")


def du(path: str) -> int:
    return int(subprocess.run(["du", "-sB1", path], capture_output=True, text=True, check=True).stdout.split()[0])


def test_nothing_to_take(store: Store, make_image: MakeImage) -> None:
    make_image("a:1", layers=[{"a": b"1"}])
    freed = collect.collect(store)
    assert (freed.images, freed.layers, freed.files, freed.bytes, freed.waiting) == ([], [], [], 0, False)


def test_the_bytes_that_come_back_are_those_of_du(store: Store, make_image: MakeImage) -> None:
    make_image("a:1", layers=[{"a": os.urandom(300_000)}])
    before = du(f"{store.root}/layers") + du(f"{store.root}/blobs")
    drop(store, "image")
    freed = collect.collect(store)
    assert freed.bytes == before - du(f"{store.root}/layers") - du(f"{store.root}/blobs") > 300_000


def test_a_container_keeps_its_layers(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    layers = catalog.layers(store, image.id)
    add_container(image, "one")
    drop(store, "image")
    assert collect.collect(store).layers == []
    drop(store, "container")
    assert collect.collect(store).layers == layers


def test_a_cached_build_step_goes_with_its_layer(store: Store, make_image: MakeImage) -> None:
    (layer,) = catalog.layers(store, make_image("a:1", layers=[{"a": b"1"}]).id)
    with store.db.transaction():
        store.db.run("INSERT INTO build_step VALUES ('key', ?)", layer)
    drop(store, "image")
    assert collect.collect(store).layers == [layer]
    assert store.db.rows("SELECT * FROM build_step") == []


def test_blobs_of_manifests_stay(store: Store, make_image: MakeImage) -> None:
    from limpet.store import blobs

    image = make_image("a:1", layers=[{"a": b"1"}])
    manifest, layer, index, lost = (blobs.put(store, text) for text in (b"manifest", b"layer", b"index", b"lost"))
    with store.db.transaction():
        store.db.run("INSERT INTO manifest VALUES (?, ?, 'x')", manifest, image.id)
        store.db.run("INSERT INTO manifest_blob VALUES (?, 1, ?)", manifest, layer)
        store.db.run("UPDATE name SET index_digest = ?", index)
    collect.collect(store)
    kept = {f"sha256:{name}" for name in os.listdir(f"{store.root}/blobs/sha256")}
    assert kept == {image.id, manifest, layer, index}
    assert lost not in kept


def test_an_implicit_base_goes_when_nothing_stands_on_it(
    store: Store, make_image: MakeImage, add_container: AddContainer
) -> None:
    base = make_image("base:1", layers=[{"a": b"1"}])
    with store.db.transaction():
        store.db.run("UPDATE name SET implicit = 1")
    built = make_image("built:1", layers=[{"a": b"1"}, {"b": b"2"}])
    assert collect.collect(store).images == []
    add_container(base, "one")
    with store.db.transaction():
        store.db.run("DELETE FROM image WHERE id = ?", built.id)
    assert collect.collect(store).images == []
    drop(store, "container")
    assert collect.collect(store).images == [base.id]
    assert os.listdir(f"{store.root}/layers") == []


def test_a_base_that_was_asked_for_too_stays(store: Store, make_image: MakeImage) -> None:
    make_image("base:1", "mine:1", layers=[{"a": b"1"}])
    with store.db.transaction():
        store.db.run("UPDATE name SET implicit = 1 WHERE reference LIKE '%base%'")
    assert collect.collect(store).images == []


def test_sweep_takes_what_no_row_names(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    container_id = add_container(image, "one")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    made = [
        "blobs/sha256/" + "0" * 64,
        "layers/" + "1" * 64 + "/data",
        "containers/" + "2" * 64 + "/upper/x",
        "volumes/lost/_data/x",
        f"tmp/layer-{gone.pid}-abc/data",
        f"driver.new-{gone.pid}",
        f"containers/{container_id}/status.new-{gone.pid}",
    ]
    for name in made:
        os.makedirs(os.path.dirname(f"{store.root}/{name}"), exist_ok=True)
        with open(f"{store.root}/{name}", "w") as file:
            file.write("x")
    os.makedirs(f"{store.run}/{'3' * 64}")
    assert len(leftovers.find(store)) == len(made) + 1
    freed = collect.sweep(store)
    assert len(freed.files) == len(made) + 1
    assert leftovers.find(store) == []
    assert catalog.find(store, "a:1").id == image.id
    assert os.path.isdir(f"{store.container_path(container_id)}/upper")
    assert len(os.listdir(f"{store.root}/layers")) == 1


def test_temporary_files_of_a_living_process_stay(store: Store, tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        for name in (f"tmp/removed-{os.getpid()}-ab", f"status.new-{os.getpid()}"):
            open(f"{sys.argv[1]}/{name}", "w").close()
        print("made", flush=True)
        sys.stdin.read()"""
    with subprocess.Popen(
        [sys.executable, "-c", code, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        assert leftovers.find(store) == []
        process.stdin.close()
        process.wait()
    assert len(leftovers.find(store)) == 2


def test_nothing_is_swept_while_a_lease_is_out(store: Store) -> None:
    with open(f"{store.root}/blobs/sha256/{'0' * 64}", "w"):
        pass
    with store.lease():
        assert collect.sweep(store).waiting
    assert len(os.listdir(f"{store.root}/blobs/sha256")) == 1


def test_a_link_in_garbage_leads_nowhere(store: Store, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("x")
    os.makedirs(f"{store.root}/containers/x")
    os.symlink(tmp_path / "precious", f"{store.root}/containers/x/link")
    os.symlink(tmp_path / "precious", f"{store.root}/layers/link")
    assert len(collect.sweep(store).files) == 2
    assert (tmp_path / "precious/file").exists()
