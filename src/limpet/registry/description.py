"""What a registry has under a name, for people and scripts: `limpet registry inspect`."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media
from limpet.oci import platform as platforms
from limpet.oci.manifest import Index, Manifest
from limpet.registry.client import Registry

if TYPE_CHECKING:
    from typing import Any

    from limpet.oci.manifest import Descriptor
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference

_MAX_NESTING = 4


def raw(name: Reference, platform: Platform | None = None, *, config: bool = False) -> bytes:
    """The manifest or index to the byte, with `platform` that image's manifest; or the image's config."""
    registry = Registry(name.domain)
    data, parsed, _ = _document(registry, name, name.digest or name.tag, "")
    if platform is None and not config:
        return data
    data, manifest, _ = _image(registry, name, data, parsed, platform)
    return _config(registry, name, manifest.config) if config else data


def describe(name: Reference, platform: Platform | None = None) -> dict[str, Any]:
    """Name, digest and type; of an index what is in it; of the image (the one for `platform`, or for this machine)
    its config's main fields and its layers. Raises NotFound, Refused, Invalid, Corrupt, TransferError.
    """
    registry = Registry(name.domain)
    data, parsed, digest = _document(registry, name, name.digest or name.tag, "")
    found: dict[str, Any] = {
        "Name": name.repository,
        "Tag": name.tag,
        "Digest": digest,
        "MediaType": parsed.media_type,
        "Platforms": [],
    }
    if isinstance(parsed, Index):
        found["Platforms"] = [
            {"Platform": str(one.platform or ""), "Digest": one.digest, "MediaType": one.media_type, "Size": one.size}
            for one in parsed.manifests
        ]
    _, manifest, image_digest = _image(registry, name, data, parsed, platform)
    found |= {
        "ManifestDigest": image_digest,
        "ArtifactType": manifest.artifact_type,
        "Annotations": dict(manifest.annotations),
        "Subject": manifest.subject.digest if manifest.subject is not None else "",
        "Size": manifest.config.size + sum(layer.size for layer in manifest.layers),
        "Layers": [{"MediaType": one.media_type, "Digest": one.digest, "Size": one.size} for one in manifest.layers],
    }
    if manifest.config.media_type in media.CONFIGS:
        found |= _fields(_config(registry, name, manifest.config))
    return found


def _fields(data: bytes) -> dict[str, Any]:
    try:
        config = json.loads(data)
        inner = config.get("config") or {}
        return {
            "Id": digests.of(data),
            "Created": config.get("created") or "",
            "Architecture": config.get("architecture") or "",
            "Variant": config.get("variant") or "",
            "Os": config.get("os") or "",
            "Author": config.get("author") or "",
            **{key: inner.get(key) for key in ("Labels", "Env", "Entrypoint", "Cmd", "User", "WorkingDir")},
        }
    except (ValueError, AttributeError, RecursionError):
        raise Invalid("the image's config is not JSON") from None


def _document(registry: Registry, name: Reference, wanted: str, media_type: str) -> tuple[bytes, Manifest | Index, str]:
    data, said, digest = registry.manifest(name.path, wanted)
    return data, manifests.parse(data, said or media_type), digest


def _image(
    registry: Registry, name: Reference, data: bytes, parsed: Manifest | Index, platform: Platform | None
) -> tuple[bytes, Manifest, str]:
    digest = digests.of(data)
    for _ in range(_MAX_NESTING):
        if isinstance(parsed, Manifest):
            return data, parsed, digest
        chosen = platforms.select(parsed, platform or platforms.host())
        data, parsed, digest = _document(registry, name, chosen.digest, chosen.media_type)
    raise Invalid(f"{name.familiar}: indexes in indexes, more than {_MAX_NESTING} deep")


def _config(registry: Registry, name: Reference, descriptor: Descriptor) -> bytes:
    if descriptor.size > configs.MAX_BYTES:
        raise Invalid(f"image config of {descriptor.size} bytes", f"the limit is {configs.MAX_BYTES}")
    data = b"".join(registry.blob(name.path, descriptor))
    algorithm, _, expected = descriptor.digest.partition(":")
    if hashlib.new(algorithm, data).hexdigest() != expected:
        raise Corrupt(f"{descriptor.digest}: the config that came has another digest")
    return data
