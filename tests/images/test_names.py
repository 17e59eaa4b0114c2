"""tag and rmi: Docker's rules of what may go, and its lines."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from limpet.errors import Conflict, Invalid, NotFound
from limpet.images import catalog, names

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.images.catalog import Image
    from limpet.store.store import Store

    MakeImage = Callable[..., Image]
    AddContainer = Callable[[Image, str], str]

FILES = [{"a": b"1"}]


def known(store: Store) -> list[str]:
    return [name for (name,) in store.db.rows("SELECT reference FROM name ORDER BY 1")]


def test_tag_gives_a_name_and_takes_it_from_another(store: Store, make_image: MakeImage) -> None:
    first = make_image("a:1", layers=FILES)
    second = make_image("b:1", layers=[{"b": b"2"}])
    assert names.tag(store, "a:1", "localhost:5000/x") == "localhost:5000/x:latest"
    assert catalog.find(store, "localhost:5000/x").id == first.id
    names.tag(store, second.id, "localhost:5000/x")
    assert catalog.find(store, "localhost:5000/x").id == second.id


def test_a_tag_has_the_manifest_of_the_name_that_it_was_made_of(store: Store, make_image: MakeImage) -> None:
    """One image may have come in several manifests, and in an index beside images that are none of its business."""
    image = make_image("a:1", "b:1", "c:1", layers=FILES)
    index = f"sha256:{9:064x}"
    for number, name in enumerate(("a:1", "b:1", "c:1"), 1):
        digest = f"sha256:{number:064x}"
        store.db.run("INSERT INTO manifest VALUES (?, ?, 'application/json')", digest, image.id)
        store.db.run(
            "UPDATE name SET manifest = ?, index_digest = ? WHERE reference = ?",
            digest,
            index if name == "a:1" else None,
            f"docker.io/library/{name}",
        )

    def of(source: str) -> tuple[str, str | None]:
        row: tuple[str, str | None] = store.db.row(
            "SELECT manifest, index_digest FROM name WHERE reference = ?", names.tag(store, source, "new:1")
        )
        return row

    assert of("c:1") == (f"sha256:{3:064x}", None)
    assert of("a:1") == (f"sha256:{1:064x}", index)
    assert of(image.id) == (f"sha256:{2:064x}", None)


def test_tag_of_what_is_not_there_or_as_what_cannot_be(store: Store, make_image: MakeImage) -> None:
    make_image("a:1", layers=FILES)
    with pytest.raises(NotFound, match="No such image: b"):
        names.tag(store, "b", "c")
    with pytest.raises(Invalid):
        names.tag(store, "a:1", "UPPER")
    with pytest.raises(Invalid, match="has a digest"):
        names.tag(store, "a:1", "b@sha256:" + "0" * 64)


def test_a_name_that_is_not_the_last_is_untagged(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", "b:1", layers=FILES)
    assert names.remove(store, "a:1") == ["Untagged: a:1"]
    assert catalog.find(store, image.id).names == ["docker.io/library/b:1"]


def test_the_last_name_takes_the_image_and_its_files(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=[*FILES, {"b": b"2"}])
    bottom, top = catalog.layers(store, image.id)
    assert names.remove(store, "a:1") == [
        "Untagged: a:1",
        f"Deleted: {image.id}",
        *(f"Deleted: {layer}" for layer in sorted((bottom, top), reverse=True)),
    ]
    assert os.listdir(f"{store.root}/layers") == os.listdir(f"{store.root}/blobs/sha256") == []


def test_shared_layers_stay(store: Store, make_image: MakeImage) -> None:
    make_image("a:1", layers=FILES)
    second = make_image("b:1", layers=[*FILES, {"b": b"2"}])
    names.remove(store, "a:1")
    assert {f"sha256:{name}" for name in os.listdir(f"{store.root}/layers")} == set(catalog.layers(store, second.id))


def test_names_by_digest_go_with_the_last_tag_of_their_repository(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=FILES)
    digest = "sha256:" + "1" * 64
    with store.db.transaction():
        store.db.run("INSERT INTO name (reference, image_id) VALUES (?, ?)", f"docker.io/library/a@{digest}", image.id)
    assert names.remove(store, "a:1")[:3] == ["Untagged: a:1", f"Untagged: a@{digest}", f"Deleted: {image.id}"]


def test_what_it_was_pulled_as_is_shown(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=FILES)
    digest = "sha256:" + "1" * 64
    with store.db.transaction():
        store.db.run("INSERT INTO manifest VALUES (?, ?, 'x')", digest, image.id)
        store.db.run("UPDATE name SET manifest = ?", digest)
    assert names.remove(store, "a:1")[:2] == ["Untagged: a:1", f"Untagged: a@{digest}"]


def test_by_id_all_names_of_one_repository_go(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=FILES)
    assert names.remove(store, image.id[7:15])[:2] == ["Untagged: a:1", f"Deleted: {image.id}"]


def test_by_id_several_names_need_force(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", "b:1", layers=FILES)
    with pytest.raises(Conflict, match=r"must be forced.*multiple repositories"):
        names.remove(store, image.id)
    assert known(store) == ["docker.io/library/a:1", "docker.io/library/b:1"]
    assert names.remove(store, image.id, force=True)[:3] == ["Untagged: a:1", "Untagged: b:1", f"Deleted: {image.id}"]


def test_a_stopped_container_stands_in_the_way_unless_forced(
    store: Store, make_image: MakeImage, add_container: AddContainer
) -> None:
    image = make_image("a:1", layers=FILES)
    add_container(image, "one")
    with pytest.raises(Conflict, match=r'"a:1" \(must force\) - container .* is using'):
        names.remove(store, "a:1")
    with pytest.raises(Conflict, match=r"must be forced\) - image is being used by stopped container"):
        names.remove(store, image.id)
    assert known(store) == ["docker.io/library/a:1"]
    assert names.remove(store, "a:1", force=True) == ["Untagged: a:1", f"Deleted: {image.id}"]
    assert len(os.listdir(f"{store.root}/layers")) == 1  # the container stands on it


def test_a_second_name_may_go_although_a_container_uses_the_image(
    store: Store, make_image: MakeImage, add_container: AddContainer
) -> None:
    image = make_image("a:1", "b:1", layers=FILES)
    add_container(image, "one")
    assert names.remove(store, "b:1") == ["Untagged: b:1"]


def test_a_running_container_keeps_the_image(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    image = make_image("a:1", layers=FILES)
    container_id = add_container(image, "one")
    os.makedirs(store.run_path(container_id))
    with open(f"{store.run_path(container_id)}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match=r"cannot be forced.*running container"):
            names.remove(store, image.id, force=True)
        assert names.remove(store, "a:1", force=True) == ["Untagged: a:1"]
        assert catalog.find(store, image.id).names == []
    assert names.remove(store, image.id, force=True) == [f"Deleted: {image.id}"]


def test_nothing_is_taken_while_a_lease_is_out_but_later(store: Store, make_image: MakeImage) -> None:
    make_image("a:1", layers=FILES)
    make_image("b:1", layers=[{"b": b"2"}])
    with store.lease():
        assert [line[:8] for line in names.remove(store, "a:1")] == ["Untagged", "Deleted:"]
        assert len(os.listdir(f"{store.root}/layers")) == 2
    names.remove(store, "b:1")
    assert os.listdir(f"{store.root}/layers") == []


def test_what_is_not_there(store: Store, make_image: MakeImage) -> None:
    make_image("debian:12", layers=FILES)
    with pytest.raises(NotFound, match="No such image: debain:12") as caught:
        names.remove(store, "debain:12")
    assert caught.value.hint == "did you mean debian:12?"
