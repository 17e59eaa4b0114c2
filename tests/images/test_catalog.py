"""Which image a text means."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from limpet.errors import Conflict, Invalid, NotFound
from limpet.images import catalog
from limpet.nearest import distance

if TYPE_CHECKING:
    from limpet.store.store import Store


def add(store: Store, number: int, *names: str, image_id: str = "") -> str:
    config = json.dumps({"os": "linux", "number": number})
    image_id = image_id or f"sha256:{hashlib.sha256(config.encode()).hexdigest()}"
    with store.db.transaction():
        store.db.run("INSERT INTO image (id, config, created) VALUES (?, ?, ?)", image_id, config, number)
        for name in names:
            store.db.run("INSERT INTO name (reference, image_id) VALUES (?, ?)", name, image_id)
    return image_id


def test_finds_by_name_as_docker_writes_it(store: Store) -> None:
    image_id = add(store, 1, "docker.io/library/debian:12", "docker.io/library/debian:latest", "localhost:5000/a/b:1")
    for text in ("debian:12", "debian", "docker.io/library/debian:12", "library/debian", "localhost:5000/a/b:1"):
        image = catalog.find(store, text)
        assert image.id == image_id
        assert image.config["number"] == 1
        assert image.names == sorted(image.names)


def test_finds_by_id_and_the_beginning_of_one(store: Store) -> None:
    image_id = add(store, 1)
    hexadecimal = image_id.partition(":")[2]
    for text in (image_id, hexadecimal, hexadecimal[:12], hexadecimal[0], f"sha256:{hexadecimal[:5]}"):
        assert catalog.find(store, text).id == image_id


def test_a_name_wins_over_an_id(store: Store) -> None:
    add(store, 1, image_id="sha256:" + "beef" * 16)
    named = add(store, 2, "docker.io/library/beef:latest")
    assert catalog.find(store, "beef").id == named
    assert catalog.find(store, "beefb").id == "sha256:" + "beef" * 16


def test_half_an_id_of_two_images_is_a_conflict(store: Store) -> None:
    add(store, 1, image_id="sha256:" + "a" * 64)
    add(store, 2, image_id="sha256:" + "ab" * 32)
    with pytest.raises(Conflict, match="several"):
        catalog.find(store, "a")
    assert catalog.find(store, "ab").id == "sha256:" + "ab" * 32


def test_finds_by_the_digest_of_a_manifest_or_an_index(store: Store) -> None:
    image_id = add(store, 1, "docker.io/library/debian:12")
    manifest, index = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    with store.db.transaction():
        store.db.run("INSERT INTO manifest VALUES (?, ?, 'x')", manifest, image_id)
        store.db.run("UPDATE name SET manifest = ?, index_digest = ?", manifest, index)
    assert catalog.find(store, f"debian@{manifest}").id == image_id
    assert catalog.find(store, f"debian:whatever@{index}").id == image_id
    for text in (f"other@{manifest}", f"debian@sha256:{'3' * 64}", f"debia@{manifest}"):
        with pytest.raises(NotFound):
            catalog.find(store, text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("debain:12", "did you mean debian:12?"),
        ("debiann", "did you mean debian:12?"),
        ("debian:11", "did you mean debian:12?"),
        ("debian", "did you mean debian:12?"),
        ("fedora", ""),
        ("a" * 64, ""),
        ("12ff", ""),
    ],
)
def test_what_is_not_found_is_answered_with_what_is_near(store: Store, text: str, hint: str) -> None:
    add(store, 1, "docker.io/library/debian:12")
    with pytest.raises(NotFound, match=f"^No such image: {text}") as caught:
        catalog.find(store, text)
    assert caught.value.hint == hint


def test_a_bad_reference_is_invalid(store: Store) -> None:
    with pytest.raises(Invalid):
        catalog.find(store, "UPPER/Case:")


def test_all_images_newest_first(store: Store) -> None:
    first, second = add(store, 1), add(store, 2, "docker.io/library/b:1", "docker.io/library/a:1")
    assert [image.id for image in catalog.all_images(store)] == [second, first]
    assert catalog.all_images(store)[0].names == ["docker.io/library/a:1", "docker.io/library/b:1"]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("abc", "axcd", 2), ("kitten", "sitting", 3)],
)
def test_distance(left: str, right: str, expected: int) -> None:
    assert distance(left, right) == distance(right, left) == expected
