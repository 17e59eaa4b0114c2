"""An image put together for its way out: manifest, config and layers in the form asked for; several as an index.

Whoever writes an archive, pushes, or enters the image in the store does it from this: all have the same digests.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.images.packing import Packing, pack
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media
from limpet.oci.manifest import Descriptor, Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limpet.store.store import Store

_DOCKER = {
    media.OCI_LAYER: media.DOCKER_LAYER,
    media.OCI_LAYER_GZIP: media.DOCKER_LAYER_GZIP,
    media.OCI_CONFIG: media.DOCKER_CONFIG,
}


@dataclass(frozen=True)
class Form:
    """How an image is put together. `docker`: Docker's media types instead of the open ones, without annotations."""

    packing: Packing = field(default_factory=lambda: Packing(anew=True))
    docker: bool = False


@dataclass(frozen=True)
class Part:
    """A blob of a manifest: a layer by its diff ID, or a document with its bytes."""

    descriptor: Descriptor
    diff_id: str = ""
    data: bytes = b""


@dataclass(frozen=True)
class Member:
    """A manifest and its blobs, the config first. `descriptor` is what an index says of it.

    `image_id` is that of the image; "" for what only belongs to one, such as an attestation.
    """

    descriptor: Descriptor
    data: bytes
    parts: tuple[Part, ...]
    image_id: str = ""


@dataclass(frozen=True)
class Package:
    """What a name will stand for: one manifest, or with `index` (its bytes) several. `descriptor` is of the whole."""

    descriptor: Descriptor
    members: tuple[Member, ...]
    index: bytes = b""

    @property
    def documents(self) -> list[tuple[Descriptor, bytes]]:
        """Manifests and the index, in the order in which they have to arrive."""
        found = [(member.descriptor, member.data) for member in self.members]
        return [*found, (self.descriptor, self.index)] if self.index else found


def member(
    store: Store,
    config: bytes,
    layers: Sequence[str],
    form: Form,
    *,
    annotations: Mapping[str, str] | None = None,
    described: Mapping[str, str] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Member:
    """The image with this config. `layers` are its diff IDs, bottom first; `described` annotates the descriptor.

    The caller holds `store.lease()`. Raises Invalid for a form that there is not, and what compressing raises.
    """
    rows = threading.Lock()
    packed = {diff_id: pack(store, rows, diff_id, form.packing, check) for diff_id in dict.fromkeys(layers)}
    image_id = digests.of(config)
    kind = Descriptor(media.OCI_CONFIG, image_id, len(config))
    stack = [packed[diff_id] for diff_id in layers]
    media_type = media.OCI_MANIFEST
    if form.docker:
        kind, *stack = (_as_docker(each) for each in (kind, *stack))
        media_type = media.DOCKER_MANIFEST
    data = Manifest(media_type, kind, tuple(stack), dict(annotations or {})).to_json()
    platform = configs.parse(config).platform
    descriptor = Descriptor(media_type, digests.of(data), len(data), platform, dict(described or {}))
    parts = [Part(each, diff_id) for each, diff_id in zip(stack, layers, strict=True)]
    return Member(descriptor, data, (Part(kind, data=config), *parts), image_id)


def arrived(data: bytes, config: bytes, layers: Sequence[str]) -> Member:
    """The image by a manifest that is there already (`outgoing.arrived_as`), to the byte."""
    manifest = manifests.parse(data)
    assert isinstance(manifest, Manifest)
    platform = configs.parse(config).platform
    descriptor = Descriptor(manifest.media_type, digests.of(data), len(data), platform)
    parts = [Part(each, diff_id) for each, diff_id in zip(manifest.layers, layers, strict=True)]
    return Member(descriptor, data, (Part(manifest.config, data=config), *parts), manifest.config.digest)


def alone(one: Member) -> Package:
    return Package(one.descriptor, (one,))


def together(
    members: Sequence[Member], form: Form, *, annotations: Mapping[str, str] | None = None, data: bytes = b""
) -> Package:
    """An index of the members, in their order; or the index `data` that they came by."""
    media_type = media.DOCKER_LIST if form.docker else media.OCI_INDEX
    if data:
        media_type = manifests.parse(data).media_type
    else:
        entries = tuple(each.descriptor for each in members)
        data = Index(media_type, entries, dict(annotations or {})).to_json()
    return Package(Descriptor(media_type, digests.of(data), len(data)), tuple(members), data)


def _as_docker(descriptor: Descriptor) -> Descriptor:
    found = _DOCKER.get(descriptor.media_type)
    if found is None:
        raise Invalid(
            f"Docker's media types have none for {descriptor.media_type}", "gzip layers, or leave out oci-mediatypes"
        )
    return replace(descriptor, media_type=found)
