"""Platforms by the rules of containerd/platforms (platforms_test.go, compare_test.go)."""

from __future__ import annotations

import os

import pytest

from limpet.errors import Invalid, NotFound
from limpet.oci import media, platform
from limpet.oci.manifest import Descriptor, Index
from limpet.oci.platform import Platform

SHA = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/x86-64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/arm64", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("arm64", "linux/arm64"),
        ("riscv64", "linux/riscv64"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert str(platform.parse(text)) == expected


def test_the_host() -> None:
    assert platform.parse("linux") == platform.host()
    if os.uname().machine == "x86_64":
        assert str(platform.host()) == "linux/amd64"


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "a/b/c/d", "linux/amd64/v2/x", "li nux/amd64", "nonsense", "linux/a*"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(Invalid):
        platform.parse(text)


def _index(*texts: str | None) -> Index:
    entries = []
    for number, text in enumerate(texts):
        known = None if text is None else platform.parse(text)
        entries.append(Descriptor(media.OCI_MANIFEST, SHA, number, platform=known))
    return Index(media.OCI_INDEX, tuple(entries))


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", "linux/386"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v3"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v9", ["linux/arm64", "linux/arm/v7"], 0),
        ("linux/arm64/v9.1", ["linux/arm64/v8.2", "linux/arm64/v8.6"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/amd64", ["linux/arm64", None], 1),
        ("linux/amd64", ["unknown/unknown", "linux/amd64"], 1),
        ("linux/s390x", ["linux/s390x", "linux/s390x"], 0),
    ],
)
def test_the_best_of_an_index(wanted: str, there: list[str | None], expected: int) -> None:
    assert platform.select(_index(*there), platform.parse(wanted)).size == expected


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("linux/amd64", ["linux/arm64", "windows/amd64"]),
        ("linux/386", ["linux/amd64"]),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm64"]),
        ("linux/amd64", ["linux/amd64/v2"]),
        ("linux/amd64", []),
    ],
)
def test_nothing_fits(wanted: str, there: list[str]) -> None:
    with pytest.raises(NotFound) as caught:
        platform.select(_index(*there), platform.parse(wanted))
    assert all(text in caught.value.hint for text in there)
    assert wanted in caught.value.message


def test_attestations_are_no_images() -> None:
    attestation = Descriptor(
        media.OCI_MANIFEST, SHA, 0, annotations={"vnd.docker.reference.type": "attestation-manifest"}
    )
    signature = Descriptor("application/vnd.dev.cosign.artifact", SHA, 1)
    with pytest.raises(NotFound, match="no image at all"):
        platform.select(Index(media.OCI_INDEX, (attestation, signature)), Platform("linux", "amd64"))
