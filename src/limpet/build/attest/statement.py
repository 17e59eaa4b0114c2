"""A statement (in-toto attestation spec v1, "Statement"), and an image's statements as a manifest.

The manifest stands in the image's index behind the images, for the platform unknown/unknown, so that nobody runs it
(BuildKit docs/attestations/attestation-storage.md).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from limpet.frozen import dataclass
from limpet.images.package import Member, Part
from limpet.oci import digest as digests
from limpet.oci import media
from limpet.oci.manifest import Descriptor, Manifest
from limpet.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limpet.oci.reference import Reference

IN_TOTO = "application/vnd.in-toto+json"
SPDX = "https://spdx.dev/Document"
SLSA_1 = "https://slsa.dev/provenance/v1"
SLSA_02 = "https://slsa.dev/provenance/v0.2"
_TYPES = {SLSA_02: "https://in-toto.io/Statement/v0.1"}


@dataclass(frozen=True, slots=True)
class Attestation:
    """What is said, about nothing yet. `filename`: its name where the result is files, "" for none there."""

    predicate_type: str
    predicate: Mapping[str, Any]
    filename: str


def statement(one: Attestation, subjects: Sequence[tuple[str, str]]) -> bytes:
    """`subjects`: names with digests (sha256:…). The same bytes for the same statement."""
    whole = {
        "_type": _TYPES.get(one.predicate_type, "https://in-toto.io/Statement/v1"),
        "predicateType": one.predicate_type,
        "subject": [{"name": name, "digest": dict([digest.split(":", 1)])} for name, digest in subjects],
        "predicate": one.predicate,
    }
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")


def member(image: Member, said: Sequence[Attestation], names: Sequence[Reference]) -> Member:
    """The manifest with the statements about an image."""
    digest = image.descriptor.digest
    platform = image.descriptor.platform
    subjects = [(purl(name, platform), digest) for name in names] or [("_", digest)]
    parts = []
    for one in said:
        data = statement(one, subjects)
        noted = {"in-toto.io/predicate-type": one.predicate_type}
        parts.append(Part(Descriptor(IN_TOTO, digests.of(data), len(data), annotations=noted), data=data))
    config = json.dumps(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [part.descriptor.digest for part in parts]},
        },
        separators=(",", ":"),
    ).encode()
    kind = Descriptor(media.OCI_CONFIG, digests.of(config), len(config))
    data = Manifest(media.OCI_MANIFEST, kind, tuple(part.descriptor for part in parts)).to_json()
    about = {"vnd.docker.reference.digest": digest, "vnd.docker.reference.type": "attestation-manifest"}
    descriptor = Descriptor(
        media.OCI_MANIFEST, digests.of(data), len(data), Platform("unknown", "unknown"), annotations=about
    )
    return Member(descriptor, data, (Part(kind, data=config), *parts))


def purl(name: Reference, platform: Platform | None) -> str:
    """A package URL (purl-spec, type docker)."""
    where = name.familiar_name
    version = f"@{quote(name.tag or name.digest, safe=':')}" if name.tag or name.digest else ""
    return f"pkg:docker/{quote(where, safe='/:')}{version}" + (
        f"?platform={quote(str(platform), safe='')}" if platform is not None else ""
    )
