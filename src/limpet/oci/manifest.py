"""Manifests and indexes (OCI image spec manifest.md, image-index.md, descriptor.md; Docker's v2 schema 2 and list).

`parse` takes bytes from outside: every field that is used is checked, what isn't known is left out. Unknown fields are
not lost: whoever passes a manifest on passes on its bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.oci import digest as digests
from limpet.oci import media
from limpet.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_BYTES = 4 << 20
"""Largest manifest and index (distribution spec, "Pushing manifests": registries take at least 4 MiB)."""
_MAX_SIZE = 1 << 62


@dataclass(frozen=True)
class Descriptor:
    """Names a blob: `size` in bytes, `digest` checked."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.urls:
            found["urls"] = list(self.urls)
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        if self.platform is not None:
            found["platform"] = self.platform.to_dict()
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found


@dataclass(frozen=True)
class Manifest:
    """One image: its config and its layers, bottom first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None
    artifact_type: str = ""

    def to_json(self) -> bytes:
        """Always the same bytes for the same manifest."""
        found: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        found["config"] = self.config.to_dict()
        found["layers"] = [layer.to_dict() for layer in self.layers]
        if self.subject is not None:
            found["subject"] = self.subject.to_dict()
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return json.dumps(found, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Index:
    """Manifests of one name for several platforms; also `index.json` of an image layout."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None
    artifact_type: str = ""

    def to_json(self) -> bytes:
        """Always the same bytes for the same index."""
        found: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        found["manifests"] = [one.to_dict() for one in self.manifests]
        if self.subject is not None:
            found["subject"] = self.subject.to_dict()
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return json.dumps(found, separators=(",", ":")).encode()


def parse(data: bytes, media_type: str = "") -> Manifest | Index:
    """Reads a manifest or an index. `media_type` is what a descriptor or a Content-Type header said, if anything.

    Raises Invalid: too large, no JSON, a field of the wrong kind, schema 1, or a document that could be read as both
    kinds (image spec, "Ensuring the document is what it says": GHSA-77vh-xpmg-72qh).
    """
    if len(data) > MAX_BYTES:
        raise Invalid(f"manifest of {len(data)} bytes", f"the limit is {MAX_BYTES}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Invalid("the manifest is not JSON") from None
    value = _object(value, "manifest")
    stated = media_type.partition(";")[0].strip()
    inner = _text(value, "mediaType")
    if value.get("schemaVersion") == 1 or stated in media.SCHEMA1 or inner in media.SCHEMA1:
        raise old_schema()
    if value.get("schemaVersion") != 2:
        raise Invalid(f"unknown manifest schemaVersion {value.get('schemaVersion')!r}")
    known = media.MANIFESTS | media.INDEXES
    if inner and stated in known and inner != stated:
        raise Invalid(f"the manifest says it is {inner}, but it was sent as {stated}")
    if ("manifests" in value) == ("config" in value or "layers" in value):
        raise Invalid("neither a manifest nor an index, or both at once")
    is_index = "manifests" in value
    kind = inner or (stated if stated in known else "") or (media.OCI_INDEX if is_index else media.OCI_MANIFEST)
    if kind not in (media.INDEXES if is_index else media.MANIFESTS):
        raise Invalid(f"{kind[:200]!r} is not the media type of {'an index' if is_index else 'a manifest'}")
    subject = _descriptor(value["subject"], "subject") if value.get("subject") else None
    artifact_type = _text(value, "artifactType")
    if is_index:
        entries = tuple(_descriptor(one, "manifests") for one in _list(value, "manifests"))
        return Index(kind, entries, _annotations(value), subject, artifact_type)
    layers = tuple(_descriptor(one, "layers") for one in _list(value, "layers"))
    return Manifest(
        kind, _descriptor(value.get("config"), "config"), layers, _annotations(value), subject, artifact_type
    )


def old_schema() -> Invalid:
    return Invalid(
        "the image has an old Docker schema 1 manifest, which has no config and no layer digests to verify",
        "convert it: skopeo copy --format v2s2 docker://OLD docker://NEW, or push it again with any current client",
    )


def _descriptor(value: Any, where: str) -> Descriptor:
    value = _object(value, where)
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _MAX_SIZE:
        raise Invalid(f"manifest: {where}: size {size!r} is not a number of bytes")
    urls = _list(value, "urls")
    if not all(isinstance(url, str) for url in urls):
        raise Invalid(f"manifest: {where}: urls are not a list of texts")
    platform = value.get("platform")
    return Descriptor(
        media_type=_text(value, "mediaType"),
        digest=digests.check(_text(value, "digest")),
        size=size,
        platform=None if platform is None else Platform.from_dict(_object(platform, "platform")),
        annotations=_annotations(value),
        urls=tuple(urls),
        artifact_type=_text(value, "artifactType"),
    )


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"manifest: {where} is not a JSON object")
    return value


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Invalid(f"manifest: {key} is not a text")
    return found


def _list(value: dict[str, Any], key: str) -> list[Any]:
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Invalid(f"manifest: {key} is not a list")
    return found


def _annotations(value: dict[str, Any]) -> dict[str, str]:
    found = value.get("annotations")
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise Invalid("manifest: annotations are not an object of texts")
    return found
