from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.errors import Invalid
from limpet.oci import manifest, media
from limpet.oci.manifest import Descriptor, Index, Manifest
from limpet.oci.platform import Platform

SHA = "sha256:" + "a" * 64
CONFIG = {"mediaType": media.OCI_CONFIG, "digest": SHA, "size": 3}
LAYER = {"mediaType": media.OCI_LAYER_GZIP, "digest": SHA, "size": 5, "annotations": {"a": "b"}}


def _manifest(**changes: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER], **changes}


def _parse(value: Any, media_type: str = "") -> Manifest | Index:
    return manifest.parse(json.dumps(value).encode(), media_type)


def test_a_manifest() -> None:
    found = _parse(_manifest(annotations={"x": "y"}))
    assert isinstance(found, Manifest)
    assert found.config == Descriptor(media.OCI_CONFIG, SHA, 3)
    assert found.layers == (Descriptor(media.OCI_LAYER_GZIP, SHA, 5, annotations={"a": "b"}),)
    assert manifest.parse(found.to_json()) == found


def test_an_index() -> None:
    platform = {"os": "linux", "architecture": "aarch64", "variant": "v8"}
    value = {"schemaVersion": 2, "manifests": [{**CONFIG, "mediaType": media.OCI_MANIFEST, "platform": platform}]}
    found = _parse(value)
    assert isinstance(found, Index)
    assert found.manifests[0].platform == Platform("linux", "arm64")
    assert manifest.parse(found.to_json()) == found


def test_the_media_type_may_come_from_outside() -> None:
    value = _manifest()
    del value["mediaType"]
    assert _parse(value).media_type == media.OCI_MANIFEST
    assert _parse(value, f"{media.DOCKER_MANIFEST}; charset=utf-8").media_type == media.DOCKER_MANIFEST
    assert _parse(value, "application/json").media_type == media.OCI_MANIFEST


def test_schema_1_says_what_to_do() -> None:
    with pytest.raises(Invalid, match=r"schema 1.*skopeo copy"):
        _parse({"schemaVersion": 1, "name": "old", "fsLayers": []})
    with pytest.raises(Invalid, match="schema 1"):
        _parse({"schemaVersion": 2}, media.DOCKER_SCHEMA1_SIGNED)


@pytest.mark.parametrize(
    "value",
    [
        [],
        "x",
        {},
        {"schemaVersion": 3},
        {"schemaVersion": 2},
        _manifest(manifests=[]),
        _manifest(config=None),
        _manifest(config=[]),
        _manifest(layers={}),
        _manifest(layers=[None]),
        _manifest(layers=[{**LAYER, "size": -1}]),
        _manifest(layers=[{**LAYER, "size": True}]),
        _manifest(layers=[{**LAYER, "size": 1 << 63}]),
        _manifest(layers=[{**LAYER, "digest": "sha256:../../etc/passwd"}]),
        _manifest(layers=[{**LAYER, "urls": [1]}]),
        _manifest(layers=[{**LAYER, "annotations": {"a": 1}}]),
        _manifest(layers=[{**LAYER, "platform": {"os": 1}}]),
        _manifest(mediaType=media.OCI_INDEX),
        _manifest(mediaType="text/html"),
        _manifest(mediaType=1),
        _manifest(annotations=[]),
    ],
)
def test_what_is_no_manifest(value: Any) -> None:
    with pytest.raises(Invalid):
        _parse(value)


def test_a_document_is_of_one_kind() -> None:
    """GHSA-77vh-xpmg-72qh: what was sent as an index is not read as a manifest."""
    with pytest.raises(Invalid):
        _parse(_manifest(), media.OCI_INDEX)


def test_limits() -> None:
    with pytest.raises(Invalid, match="limit"):
        manifest.parse(b" " * (manifest.MAX_BYTES + 1))
    with pytest.raises(Invalid):
        manifest.parse(b"[" * 100_000)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["schemaVersion", "config", "layers", "size", "digest", "manifests"]), inner)
    ),
    max_leaves=10,
)


@given(_json)
def test_nothing_else_is_raised(value: Any) -> None:
    try:
        _parse({"schemaVersion": 2, **value} if isinstance(value, dict) else value)
    except Invalid:
        pass


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [(media.OCI_LAYER, "tar"), (media.DOCKER_LAYER_GZIP, "gzip"), (media.OCI_LAYER_ZSTD, "zstd")],
)
def test_layers(media_type: str, kind: str) -> None:
    assert media.compression(media_type) == kind


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+encrypted",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "",
    ],
)
def test_other_layers_are_refused_by_name(media_type: str) -> None:
    with pytest.raises(Invalid) as caught:
        media.compression(media_type)
    assert media_type in str(caught.value)
