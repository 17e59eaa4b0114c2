"""The image config (OCI image spec config.md; Docker's image spec v1.2 is the same JSON with more fields).

What limpet reads later without asking again (`Env`, `Cmd`, `User`, ...) is checked here once, when an image comes in.
Fields that limpet does not know stay in `raw`: an image is its config's bytes, and its id their digest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.oci import digest as digests
from limpet.oci.platform import Platform

if TYPE_CHECKING:
    from typing import Any

MAX_BYTES = 4 << 20
"""Largest config, as Docker's limit for the documents it reads into memory."""
_MAX_LAYERS = 500

_TEXTS = ("User", "WorkingDir", "StopSignal", "Hostname", "Domainname")
_LISTS = ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell")
_KINDS = {"str": "a text", "list": "a list", "dict": "an object"}
_OBJECTS = ("ExposedPorts", "Volumes", "Labels", "Healthcheck")


@dataclass(frozen=True)
class ImageConfig:
    """`diff_ids` bottom first; `config` is the inner object of run-time defaults, `raw` the whole document."""

    platform: Platform
    created: str
    author: str
    config: dict[str, Any]
    diff_ids: tuple[str, ...]
    history: tuple[dict[str, Any], ...]
    raw: dict[str, Any]

    def to_json(self) -> bytes:
        """The document in the order it was read, compact: equal documents give equal bytes."""
        return json.dumps(self.raw, separators=(",", ":"), ensure_ascii=False).encode()


def parse(data: bytes) -> ImageConfig:
    """Raises Invalid, naming the field."""
    if len(data) > MAX_BYTES:
        raise Invalid(f"image config of {len(data)} bytes", f"the limit is {MAX_BYTES}")
    try:
        raw = json.loads(data)
        data.decode()  # json takes UTF-16 too; the store keeps the text
    except (ValueError, RecursionError):
        raise Invalid("the image config is not JSON") from None
    if not isinstance(raw, dict):
        raise Invalid("the image config is not a JSON object")
    rootfs = _kind(raw, "rootfs", dict, {})
    if rootfs.get("type", "layers") != "layers":
        raise Invalid(f"image config: rootfs type {rootfs['type']!r}", "only 'layers' is known")
    diff_ids = _kind(rootfs, "diff_ids", list, [])
    if len(diff_ids) > _MAX_LAYERS:
        raise Invalid(f"the image has {len(diff_ids)} layers", f"the limit is {_MAX_LAYERS}")
    history = _kind(raw, "history", list, [])
    if not all(isinstance(entry, dict) for entry in history):
        raise Invalid("image config: history is not a list of objects")
    return ImageConfig(
        platform=Platform.from_dict(raw),
        created=_kind(raw, "created", str, ""),
        author=_kind(raw, "author", str, ""),
        config=_inner(_kind(raw, "config", dict, {})),
        diff_ids=tuple(_diff_id(one) for one in diff_ids),
        history=tuple(history),
        raw=raw,
    )


def _diff_id(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("sha256:"):
        raise Invalid(f"image config: diff ID {str(value)[:150]!r} is not a sha256 digest")
    return digests.check(value)


def _inner(config: dict[str, Any]) -> dict[str, Any]:
    for key in _TEXTS:
        if "\0" in _kind(config, key, str, ""):
            raise Invalid(f"image config: {key} has a NUL byte in it")
    for key in _LISTS:
        if not all(isinstance(text, str) and "\0" not in text for text in _kind(config, key, list, [])):
            raise Invalid(f"image config: {key} is not a list of texts")
    for key in _OBJECTS:
        if any("\0" in name for name in _kind(config, key, dict, {})):
            raise Invalid(f"image config: {key} has a NUL byte in it")
    if not all(isinstance(text, str) for text in (config.get("Labels") or {}).values()):
        raise Invalid("image config: Labels is not an object of texts")
    return config


def _kind(value: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    found = value.get(key)
    if found is None:
        return default
    if not isinstance(found, kind):
        raise Invalid(f"image config: {key} is not {_KINDS[kind.__name__]}")
    return found
