"""Pull: an image from a registry, by reference."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid, NotFound
from limpet.images import catalog, importer
from limpet.images.source import Contents, Document, check_artifact, layer_of
from limpet.oci import config as configs
from limpet.oci import manifest as manifests
from limpet.oci import platform as platforms
from limpet.oci import reference
from limpet.oci.manifest import Index
from limpet.progress import Progress
from limpet.registry import policy, settings
from limpet.registry.client import Registry
from limpet.store import blobs, eventlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.images.catalog import Image
    from limpet.images.source import Layer
    from limpet.oci.manifest import Descriptor
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference
    from limpet.registry.rate import Rate
    from limpet.store.store import Store

_MAX_NESTING = 4


def pull(
    store: Store,
    wanted: Reference | str,
    *,
    platform: Platform | str | None = None,
    progress: Progress | None = None,
) -> Image:
    """As `fetch`; `progress.note` gets Docker's lines about it."""
    progress = progress or Progress()
    name = reference.parse(wanted) if isinstance(wanted, str) else wanted
    progress.note(opening(name))
    pulled = fetch(store, name, platform=platform, progress=progress)
    for line in pulled.lines:
        progress.note(line)
    return pulled.image


@dataclass(frozen=True)
class Pulled:
    """`lines`: what Docker says at the end of a pull."""

    image: Image
    name: Reference
    lines: tuple[str, ...]


def fetch(
    store: Store,
    name: Reference,
    *,
    platform: Platform | str | None = None,
    rate: Rate | None = None,
    progress: Progress,
) -> Pulled:
    """Brings in the image and gives it the name; what had the name before loses it.

    Raises NotFound, Refused, Invalid, Corrupt.
    """
    if name.digest:
        name = name.with_digest(name.digest)  # a tag beside a digest is no matter, as Docker has it
    policy.check(settings.load(), name)
    target = platforms.parse(platform) if isinstance(platform, str) else platform
    source = RegistrySource(store, name, rate)
    before = catalog.by_reference(store, name)
    image = importer.import_image(store, source, names=[name], platform=target, progress=progress)
    eventlog.write(store, "image", "pull", name.familiar, {"name": name.familiar_name})
    what = "Image is up to date" if before == image.id else "Downloaded newer image"
    return Pulled(image, name, (f"Digest: {source.digest}", f"Status: {what} for {name.familiar}"))


def opening(name: Reference) -> str:
    """The first line of a pull."""
    return f"{name.digest or name.tag}: Pulling from {name.path}"


class RegistrySource:
    """A name in a registry (`images.source.Source`). After `contents`, `digest` is what the name stands for."""

    done = "Pull complete"
    resumable = True

    def __init__(self, store: Store, name: Reference, rate: Rate | None = None) -> None:
        self._store = store
        self._name = name
        self._registry = Registry(name.domain, rate)
        self.digest = ""

    def contents(self, platform: Platform | None) -> Contents:
        """The manifest of the host's platform, or of the one asked for; and its config, verified."""
        found, document = self._document(self._name.digest or self._name.tag)
        self.digest = document.digest
        index: Document | None = None
        for _ in range(_MAX_NESTING):
            if not isinstance(found, Index):
                break
            index = index or document
            chosen = _choose(found, platform or platforms.host(), self._name)
            found, document = self._document(chosen.digest, chosen)
        if isinstance(found, Index):
            raise Invalid(f"{self._name.familiar}: indexes in indexes, more than {_MAX_NESTING} deep")
        check_artifact(found, self._name.familiar)
        layers = tuple(layer_of(descriptor) for descriptor in found.layers)
        config = self._config(found.config)
        if platform is not None and index is None:
            check_platform(config, platform, self._name.familiar)
        return Contents(config, layers, document, index)

    def read(self, layer: Layer, offset: int = 0) -> Iterator[bytes]:
        if layer.descriptor is None:
            raise AssertionError("a registry's layer has a descriptor")
        return self._registry.blob(self._name.path, layer.descriptor, offset)

    def elsewhere(self) -> bool:
        """A mirror may have sent them; the registry itself is asked then."""
        return self._registry.connection.distrust_mirrors()

    def _document(
        self, wanted: str, descriptor: Descriptor | None = None
    ) -> tuple[manifests.Manifest | manifests.Index, Document]:
        if descriptor is not None and blobs.exists(self._store, descriptor.digest):
            data, media_type = blobs.read(self._store, descriptor.digest, manifests.MAX_BYTES), descriptor.media_type
            digest = descriptor.digest
        else:
            data, media_type, digest = self._registry.manifest(self._name.path, wanted)
        parsed = manifests.parse(data, media_type)
        return parsed, Document(data, parsed.media_type, digest)

    def _config(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > configs.MAX_BYTES:
            raise Invalid(f"image config of {descriptor.size} bytes", f"the limit is {configs.MAX_BYTES}")
        if blobs.exists(self._store, descriptor.digest):
            return blobs.read(self._store, descriptor.digest, configs.MAX_BYTES)
        try:
            return self._fetched_config(descriptor)
        except Corrupt:
            if not self.elsewhere():
                raise
            return self._fetched_config(descriptor)

    def _fetched_config(self, descriptor: Descriptor) -> bytes:
        data = b"".join(self._registry.blob(self._name.path, descriptor))
        algorithm, _, expected = descriptor.digest.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != expected:
            raise Corrupt(f"{descriptor.digest}: the config that came has another digest")
        return data


def check_platform(config: bytes, wanted: Platform, name: str) -> None:
    """An image without an index is what it is. Raises NotFound if that can't run on the platform asked for."""
    actual = configs.parse(config).platform
    if not any(
        (actual.os, actual.architecture, actual.variant) == (one.os, one.architecture, one.variant)
        for one in platforms.ranked(wanted)
    ):
        raise NotFound(
            f"image {name} was found but does not match the wanted platform: wanted {wanted}, actual {actual}"
        )


def _choose(index: Index, wanted: Platform, name: Reference) -> Descriptor:
    try:
        return platforms.select(index, wanted)
    except NotFound as e:
        raise NotFound(f"{name.familiar}: {e.message}", e.hint) from None
