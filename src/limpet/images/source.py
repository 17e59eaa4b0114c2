"""Where an image comes from, as the importer sees it: its documents, and the bytes of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from limpet.oci.manifest import Descriptor
    from limpet.oci.platform import Platform

    class Source(Protocol):
        """A registry's repository, an archive, a layout. `doing` and `done` are what progress says of a layer."""

        doing: str
        done: str

        def contents(self, platform: Platform | None) -> Contents:
            """The documents; of several platforms the one asked for, or the host's."""

        def read(self, layer: Layer) -> Iterator[bytes]:
            """The bytes of a layer as they are stored, in pieces. Called in several threads, once for each layer."""


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
