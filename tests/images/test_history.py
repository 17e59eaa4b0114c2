"""The steps by which an image came about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.images.history import history

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.images.catalog import Image
    from limpet.store.store import Store


def test_newest_first_with_the_size_of_each_layer(store: Store, make_image: Callable[..., Image]) -> None:
    told = [
        {"created": "2020-01-01T00:00:00Z", "created_by": "ADD rootfs"},
        {"created": "2020-01-02T00:00:00Z", "created_by": 'CMD ["sh"]', "empty_layer": True},
        {"created": "2020-01-03T00:00:00Z", "created_by": "RUN x", "comment": "buildkit.dockerfile.v0"},
    ]
    image = make_image("a:1", layers=[{"a": bytes(20_000)}, {"b": b""}], history=told)
    steps = history(store, image)
    assert [step.created_by for step in steps] == ["RUN x", 'CMD ["sh"]', "ADD rootfs"]
    assert [step.image for step in steps] == [image.id, "<missing>", "<missing>"]
    assert [step.size for step in steps] == [10_240, 0, 30_720]
    assert steps[0].tags == ("docker.io/library/a:1",)
    assert steps[0].comment == "buildkit.dockerfile.v0"


def test_layers_without_a_story(store: Store, make_image: Callable[..., Image]) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}, {"b": b"2"}])
    assert [(step.created_by, step.size) for step in history(store, image)] == [("", 10_240), ("", 10_240)]


def test_more_story_than_layers(store: Store, make_image: Callable[..., Image]) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}], history=[{"created_by": "one"}, {"created_by": "two"}])
    assert [(step.created_by, step.size) for step in history(store, image)] == [("two", 0), ("one", 10_240)]
