"""Caches that `--cache-from` names: a manifest of BuildKit's in a registry or a layout, or an image that carries one.

Nothing is read before a step is asked for that isn't here; then the documents, and of the layers those that fit. Each
document is verified by its digest, each layer by that of its blob and of its tar, as in a pull.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING

from limpet.build.caching import records
from limpet.build.caching.specs import ELSEWHERE
from limpet.errors import Corrupt, Invalid, LimpetError, NotFound
from limpet.images import archive
from limpet.images.layerstream import Transfer, bring
from limpet.images.layout import REF_NAME, LayoutSource
from limpet.images.present import is_whole
from limpet.images.source import layer_of
from limpet.layers.driver import driver
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media, reference
from limpet.oci import platform as platforms
from limpet.oci.manifest import Index
from limpet.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from limpet.build.caching.specs import From
    from limpet.images.archive import Files
    from limpet.images.source import Source as Layers
    from limpet.oci.manifest import Descriptor, Manifest
    from limpet.progress import Progress

    class Reader(Protocol):
        def top(self) -> Manifest | Index: ...

        def document(self, descriptor: Descriptor) -> Manifest | Index: ...

        def blob(self, descriptor: Descriptor, limit: int) -> bytes:
            """Verified."""

        def layers(self) -> Layers: ...

        def close(self) -> None: ...


_MAX_NESTING = 4


def sources(
    store: Store, wanted: Sequence[From], platform: str, progress: Progress, warn: Callable[[str], None]
) -> list[Cache]:
    """Of each that can be read. Nothing is fetched yet."""
    found = []
    for each in wanted:
        if each.type in ELSEWHERE:
            warn(f"--cache-from type={each.type}: there is no such cache here; going on without it")
        else:
            found.append(Cache(store.root, store.run, each, platform, progress))
    return found


class Cache:
    """One of them (`steps.Source`)."""

    def __init__(self, root: str, run: str, wanted: From, platform: str, progress: Progress) -> None:
        """`root` and `run` are the store's: layers come in by a connection of its own."""
        self.title = wanted.place
        self._where = (root, run)
        self._store: Store | None = None
        self._wanted = wanted
        self._platform = platform
        self._progress = progress
        self._reader: Reader | None = None
        self._transfer: Transfer | None = None
        self._steps: dict[str, tuple[Descriptor, str]] | None = None  # record digest → layer, diff ID

    def has(self, key: str) -> bool:
        return records.record_digest(key) in self._known()

    def bring(self, key: str, below: Sequence[str]) -> str:
        descriptor, diff_id = self._known()[records.record_digest(key)]
        store = self._store
        assert store is not None
        if not is_whole(store, diff_id):
            if self._transfer is None:
                assert self._reader is not None
                self._transfer = Transfer(store, driver(store), self._reader.layers(), self._progress)
            bring(self._transfer, layer_of(descriptor), diff_id)
        driver(store).seal([*below, diff_id])
        return diff_id

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._store is not None:
            self._store.close()
            self._store = None

    def _known(self) -> dict[str, tuple[Descriptor, str]]:
        if self._steps is None:
            self._steps = {}  # a second question after an error gets no second try
            wanted = self._wanted
            self._store = Store(*self._where)
            self._reader = _InRegistry(self._store, wanted.place) if wanted.type == "registry" else _InDirectory(wanted)
            self._steps = self._read(self._reader)
        return self._steps

    def _read(self, reader: Reader) -> dict[str, tuple[Descriptor, str]]:
        top = reader.top()
        if isinstance(top, Index):
            config = next((each for each in top.manifests if each.media_type == records.MEDIA_TYPE), None)
            layers = top.manifests
        else:
            config = top.config if top.config.media_type == records.MEDIA_TYPE else None
            layers = top.layers
        if config is None:
            return self._inline(reader, top)
        by_blob = {each.digest: each for each in layers}
        found = {}
        for step, blob in records.decode(reader.blob(config, records.MAX_BYTES)).items():
            descriptor = by_blob.get(blob)
            diff_id = descriptor.annotations.get(records.UNCOMPRESSED, "") if descriptor is not None else ""
            if descriptor is not None and diff_id:
                found[step] = (descriptor, digests.check(diff_id))
        return found

    def _inline(self, reader: Reader, top: Manifest | Index) -> dict[str, tuple[Descriptor, str]]:
        """The records in the config of an image, of this platform if it has several."""
        wanted = platforms.parse(self._platform) if self._platform else platforms.host()
        for _ in range(_MAX_NESTING):
            if isinstance(top, Index):
                top = reader.document(platforms.select(top, wanted))
        if isinstance(top, Index) or top.config.media_type not in media.CONFIGS:
            raise NotFound("neither a build cache nor an image")
        text = reader.blob(top.config, configs.MAX_BYTES)
        diff_ids = configs.parse(text).diff_ids
        inline = json.loads(text).get(records.INLINE)
        if inline is None:
            raise NotFound("the image has no cache in it", "build it with --cache-to type=inline")
        if len(diff_ids) != len(top.layers):
            raise Corrupt(f"the config names {len(diff_ids)} layers, the manifest {len(top.layers)}")
        try:
            data = base64.b64decode(inline, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise Invalid("the cache in the image's config is not base64") from None
        steps = records.decode_inline(data, len(diff_ids))
        return {step: (top.layers[index], diff_ids[index]) for step, index in steps.items()}


class _InRegistry:
    def __init__(self, store: Store, name: str) -> None:
        from limpet.images.pull import RegistrySource
        from limpet.registry import policy, settings
        from limpet.registry.client import Registry

        self._name = reference.parse(name)
        policy.check(settings.load(), self._name)
        self._registry = Registry(self._name.domain)
        self._source = RegistrySource(store, self._name)

    def top(self) -> Manifest | Index:
        return self._manifest(self._name.digest or self._name.tag)

    def document(self, descriptor: Descriptor) -> Manifest | Index:
        return self._manifest(descriptor.digest)

    def blob(self, descriptor: Descriptor, limit: int) -> bytes:
        _bounded(descriptor, limit)
        return _verified(descriptor, b"".join(self._registry.blob(self._name.path, descriptor)))

    def layers(self) -> Layers:
        return self._source

    def close(self) -> None:
        pass

    def _manifest(self, wanted: str) -> Manifest | Index:
        data, media_type, _ = self._registry.manifest(self._name.path, wanted)
        return manifests.parse(data, media_type)


class _InDirectory:
    def __init__(self, wanted: From) -> None:
        try:
            self._files: Files = archive.DirectoryFiles(wanted.place)
        except OSError as e:
            raise NotFound(f"{wanted.place}: {e.strerror}") from None
        try:
            self._top = self._choose(wanted)
        except LimpetError:
            self._files.close()
            raise
        self._source = LayoutSource(self._files, self._top)

    def _choose(self, wanted: From) -> Descriptor:
        index = manifests.parse(archive.read(self._files, "index.json", manifests.MAX_BYTES), media.OCI_INDEX)
        assert isinstance(index, Index) or index.config is not None
        entries = index.manifests if isinstance(index, Index) else ()
        for each in entries:
            if each.digest == wanted.digest or (not wanted.digest and each.annotations.get(REF_NAME) == wanted.tag):
                return each
        raise NotFound(f"{wanted.place}: the layout has no {wanted.digest or f'tag {wanted.tag}'}")

    def top(self) -> Manifest | Index:
        return self.document(self._top)

    def document(self, descriptor: Descriptor) -> Manifest | Index:
        return manifests.parse(self.blob(descriptor, manifests.MAX_BYTES), descriptor.media_type)

    def blob(self, descriptor: Descriptor, limit: int) -> bytes:
        _bounded(descriptor, limit)
        data = archive.read(self._files, f"blobs/{descriptor.digest.replace(':', '/')}", limit)
        return _verified(descriptor, data)

    def layers(self) -> Layers:
        return self._source

    def close(self) -> None:
        self._files.close()


def _bounded(descriptor: Descriptor, limit: int) -> None:
    if descriptor.size > limit:
        raise Invalid(f"{descriptor.digest} has {descriptor.size} bytes", f"the limit is {limit}")


def _verified(descriptor: Descriptor, data: bytes) -> bytes:
    algorithm, _, expected = descriptor.digest.partition(":")
    if hashlib.new(algorithm, data).hexdigest() != expected:
        raise Corrupt(f"{descriptor.digest} came with another digest")
    return data
