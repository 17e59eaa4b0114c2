"""Where an image comes from, as the importer sees it: its documents, and the bytes of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.oci import media

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from limpet.oci.manifest import Descriptor, Manifest
    from limpet.oci.platform import Platform

    class Source(Protocol):
        """A registry's repository, an archive, a layout. `done` is what progress says of a whole layer.

        `resumable`: `read` can begin anywhere, and what came is worth keeping when the rest does not.
        """

        done: str
        resumable: bool

        def contents(self, platform: Platform | None) -> Contents:
            """The documents; of several platforms the one asked for, or the host's."""

        def read(self, layer: Layer, offset: int = 0) -> Iterator[bytes]:
            """The bytes of a layer as they are stored, in pieces. Called in several threads, once for each layer.

            `offset` is 0 unless the source is resumable.
            """

        def elsewhere(self) -> bool:
            """Wrong bytes came: whether they may come right from another place, which is used from now on."""


@dataclass(frozen=True)
class Layer:
    """One layer as the source stores it. `descriptor` is None in a docker-archive, which only has diff IDs.

    `compression` is '' where only the first bytes tell. `location` is the source's own word for it.
    """

    descriptor: Descriptor | None
    compression: str
    location: str
    size: int


@dataclass(frozen=True)
class Document:
    """A manifest or an index: its bytes are kept as they came."""

    data: bytes
    media_type: str
    digest: str


@dataclass(frozen=True)
class Contents:
    """`layers` bottom first. `index` if the image was chosen from one."""

    config: bytes
    layers: tuple[Layer, ...]
    manifest: Document | None = None
    index: Document | None = None


def layer_of(descriptor: Descriptor) -> Layer:
    """Raises Invalid for a media type that is no layer, by name."""
    return Layer(descriptor, media.compression(descriptor.media_type), descriptor.digest, descriptor.size)


def check_artifact(manifest: Manifest, name: str) -> None:
    """Registries keep other things than images: charts, signatures, attestations. Raises Invalid, saying which."""
    if manifest.config.media_type not in media.CONFIGS | {"", "application/octet-stream"}:
        what = manifest.artifact_type or manifest.config.media_type
        raise Invalid(f"{name} is not a container image but an artifact of type {what[:200]}")
