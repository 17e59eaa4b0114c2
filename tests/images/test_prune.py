"""Which images a filter means, which ones a prune takes, and that it frees what it said."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from limpet.errors import Invalid
from limpet.images import catalog, filters, prune

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.images.catalog import Image
    from limpet.store.store import Store

    MakeImage = Callable[..., Image]
    AddContainer = Callable[[Image, str], str]


def matching(store: Store, *texts: str) -> set[str]:
    matches = filters.matcher(store, filters.parse(texts, filters.IMAGES))
    return {
        image.names[0].rpartition("/")[2] if image.names else ""
        for image in catalog.all_images(store)
        if matches(image)
    }


@pytest.fixture
def several(make_image: MakeImage) -> None:
    make_image("a:1", layers=[{"a": b"1"}], created="2020-01-01T00:00:00Z", config={"Labels": {"x": "1", "y": ""}})
    make_image("b:1", layers=[{"b": b"1"}], created="2021-01-01T00:00:00.123456789Z", config={"Labels": {"x": "2"}})
    make_image("localhost/deep/c:2", layers=[{"c": b"1"}], created="2022-01-01T00:00:00Z")
    make_image(layers=[{"d": b"1"}], created="2023-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), {"a:1", "b:1", "c:2", ""}),
        (("dangling=true",), {""}),
        (("dangling=false",), {"a:1", "b:1", "c:2"}),
        (("label=x",), {"a:1", "b:1"}),
        (("label=x=1",), {"a:1"}),
        (("label=x", "label=y"), {"a:1"}),
        (("label!=x",), {"c:2", ""}),
        (("before=b:1",), {"a:1"}),
        (("since=b:1",), {"c:2", ""}),
        (("since=a:1", "before=localhost/deep/c:2"), {"b:1"}),
        (("until=2021-06-01",), {"a:1", "b:1"}),
        (("until=1h",), {"a:1", "b:1", "c:2", ""}),
        (("reference=a",), {"a:1"}),
        (("reference=?:1",), {"a:1", "b:1"}),
        (("reference=*",), {"a:1", "b:1"}),
        (("reference=localhost/*/*",), {"c:2"}),
        (("reference=localhost/*",), set()),
        (("reference=a:1", "reference=b"), {"a:1", "b:1"}),
        (("reference=a:2",), set()),
    ],
)
@pytest.mark.usefixtures("several")
def test_filters(store: Store, texts: tuple[str, ...], expected: set[str]) -> None:
    assert matching(store, *texts) == expected


@pytest.mark.parametrize("text", ["nonsense=1", "dangling", "dangling=maybe", "until=yesterday"])
def test_filters_that_mean_nothing(store: Store, text: str) -> None:
    with pytest.raises(Invalid):
        filters.matcher(store, filters.parse([text], filters.IMAGES))


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("1h30m", 5400), ("24h", 86400), ("1.5s", 1.5), ("500ms", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert filters.moment(text) == pytest.approx(time.time() - seconds, abs=5)


def test_prune_frees_what_it_said(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    shared = {"shared": os.urandom(100_000)}
    kept = make_image("kept:1", layers=[shared])
    used = make_image("used:1", layers=[{"used": b"1"}])
    add_container(used, "one")
    make_image("loose:1", layers=[shared, {"own": os.urandom(50_000)}])
    dangling = make_image(layers=[{"dangling": os.urandom(30_000)}])
    plan = prune.plan(store)
    assert [image.id for image in plan.images] == [dangling.id]
    lines, freed = prune.carry_out(store, plan)
    assert lines[0] == f"deleted: {dangling.id}"
    assert freed.bytes == plan.bytes > 30_000
    plan = prune.plan(store, everything=True, wanted={"label!": ["x"]})
    assert {image.names[0] for image in plan.images} == {"docker.io/library/kept:1", "docker.io/library/loose:1"}
    lines, freed = prune.carry_out(store, plan)
    assert lines[0] in ("untagged: kept:1", "untagged: loose:1")
    assert freed.bytes == plan.bytes > 150_000
    assert [image.id for image in catalog.all_images(store)] == [used.id]
    assert kept.id not in "".join(os.listdir(f"{store.root}/blobs/sha256"))


def test_what_came_into_use_since_the_plan_stays(
    store: Store, make_image: MakeImage, add_container: AddContainer
) -> None:
    image = make_image(layers=[{"a": b"1"}])
    plan = prune.plan(store)
    add_container(image, "one")
    assert prune.carry_out(store, plan)[0] == []


def test_containers_that_will_be_gone_do_not_count(
    store: Store, make_image: MakeImage, add_container: AddContainer
) -> None:
    container_id = add_container(make_image("a:1", layers=[{"a": os.urandom(20_000)}]), "one")
    assert prune.plan(store, everything=True).images == ()
    plan = prune.plan(store, everything=True, without={container_id})
    assert len(plan.images) == 1
    assert plan.bytes > 20_000
