"""Whatever a path says, it leads to a place below the storage or to an error of the specification."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.registry.test_server_page import Reader

from limpet.registry.server import html, names, page, routes
from limpet.registry.server.errors import RegistryError
from limpet.registry.server.manifests import Manifests
from limpet.registry.server.storage import Storage
from limpet.serving.files import parse_range

WORDS = st.sampled_from(
    ["..", ".", "", "a", "A", "_tags", "_blobs", "manifests", "blobs", "uploads", "tags", "list", "referrers", "%2e%2e",
     "%2f", "%00", "a.b", "a__b", "a--b", "-a", "sha256:" + "0" * 64, "sha256:..", "x" * 300, "\\", "é", "0" * 32]
)  # fmt: skip
PATHS = st.one_of(st.lists(WORDS, max_size=8).map(lambda parts: "/v2/" + "/".join(parts)), st.text(max_size=60))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("storage")))


@given(path=PATHS, method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]))
def test_every_path_is_below_the_storage(storage: Storage, path: str, method: str) -> None:
    manifests = Manifests(storage)
    refused = 0
    try:
        route = routes.find(method, path)
        if route is None or route.kind in ("base", "catalog"):
            return
        repository = names.repository(route.repository)
        if route.kind == "blob":
            made = [storage.blob_path(names.digest(route.argument)), storage.link_path(repository, route.argument)]
        elif route.kind == "manifest" and names.is_digest(route.argument):
            made = [manifests.link_path(repository, names.digest(route.argument))]
        elif route.kind == "manifest":
            made = [manifests._tag_path(repository, names.tag(route.argument))]
        elif route.kind == "upload":
            made = [f"{storage.root}/uploads/{names.upload(route.argument)}"]
        elif route.kind == "referrers":
            made = [manifests._referrers_path(repository, names.digest(route.argument))]
        else:
            made = [f"{storage.root}/repositories/{repository}"]
    except RegistryError as e:
        made, refused = [], e.status
    assert made or refused in (400, 404, 405)
    for one in made:
        assert os.path.normpath(one) == one
        assert Path(one).is_relative_to(storage.root)
        assert len(os.path.basename(one)) <= 255


@given(text=st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=5).map("/".join)))
def test_every_page_is_of_a_name(text: str) -> None:
    try:
        repository, refused = page._parse(text).repository, 0
    except RegistryError as e:
        repository, refused = "", e.status
    assert names.repository(repository) if repository else refused in (400, 404)


@given(first=st.integers(-2, 12), last=st.integers(-2, 12), size=st.integers(0, 10))
def test_ranges_are_of_the_file(first: int, last: int, size: int) -> None:
    """As slices of the bytes have it: `first` or `last` below 0 is one that is left out."""
    data = bytes(range(size))
    text = f"bytes={first if first >= 0 else ''}-{last if last >= 0 else ''}"
    found = parse_range(text, size)
    if first < 0 and last < 0:
        assert found is None
        return
    wanted = (
        data[-last:] if first < 0 and last else data[first : last + 1 if last >= 0 else None] if first >= 0 else b""
    )
    assert found is not None
    begin, end = found
    assert data[begin : end + 1] == wanted if begin <= end else wanted == b""


@given(words=st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20), max_size=4))
def test_text_stays_text(words: list[str]) -> None:
    shown = html.tag("p", html.join(words, "|"), title="".join(words))
    reader = Reader(shown)
    assert reader.tags == {"p"}
    assert "".join(reader.words) == "|".join(words)
