"""A build's steps as a cache of BuildKit's form, in a registry or a directory, or within the image.

`mode=min` has the steps of the image's own layers, `max` those of all stages. The layers of base images are not part
of it: they are in the registry already, and who builds has to have them anyway. The manifest depends on the steps
alone, so that the same build writes the same cache.
"""

from __future__ import annotations

import base64
import threading
import time
from typing import TYPE_CHECKING

from limpet.build.caching import records
from limpet.errors import LimpetError
from limpet.images.packing import Packing, pack
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media, reference
from limpet.oci.manifest import Descriptor, Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from limpet.build.caching.specs import To
    from limpet.build.caching.steps import Used
    from limpet.progress import Progress
    from limpet.store.store import Store

_PIECE = 256 << 10
_DOCKER = {media.OCI_LAYER_GZIP: media.DOCKER_LAYER_GZIP, media.OCI_LAYER_ZSTD: media.DOCKER_LAYER_ZSTD}
_REF_NAME = "org.opencontainers.image.ref.name"


def export(
    store: Store, target: To, used: Sequence[Used], stacks: Sequence[Sequence[str]], epoch: int, progress: Progress
) -> int:
    """Writes the cache of a build; the number of its steps. `stacks`: its images' layers. The caller holds a lease.

    Raises LimpetError: no access, a full disk.
    """
    steps = [each for each in used if target.mode == "max" or any(in_image(each, layers) for layers in stacks)]
    steps.sort(key=lambda each: (each.stage, len(each.below), each.key))  # stages ran side by side
    if not steps:
        return 0
    created = _time(epoch)
    packing = Packing(target.compression, target.level)
    rows = threading.Lock()
    blobs: dict[str, Descriptor] = {}
    for each in steps:
        if each.diff_id not in blobs:
            blobs[each.diff_id] = _described(pack(store, rows, each.diff_id, packing), each.diff_id, created, target)
    config = _config(steps, blobs, created)
    document = _document(list(blobs.values()), config, target)
    if target.type == "registry":
        _send(store, target, list(blobs.values()), config, document, progress)
    else:
        _write(store, target, list(blobs.values()), config, document)
    return len({each.key for each in steps})


def inline(used: Sequence[Used], layers: Sequence[str], epoch: int) -> str:
    """What goes into the image's config as `moby.buildkit.cache.v0`; "" if there is nothing."""
    steps = {each.key: len(each.below) for each in used if in_image(each, layers)}
    return base64.b64encode(records.encode_inline(steps, _time(epoch))).decode() if steps else ""


def in_image(step: Used, layers: Sequence[str]) -> bool:
    """Whether the step's layer is, in its place, one of the image's."""
    count = len(step.below)
    return tuple(layers[: count + 1]) == (*step.below, step.diff_id)


def _described(blob: Descriptor, diff_id: str, created: str, target: To) -> Descriptor:
    media_type = _DOCKER[blob.media_type] if target.docker else blob.media_type
    annotations = {records.CREATED: created, records.UNCOMPRESSED: diff_id}
    return Descriptor(media_type, blob.digest, blob.size, annotations=annotations)


def _config(steps: Sequence[Used], blobs: Mapping[str, Descriptor], created: str) -> bytes:
    """Each layer stands on the next one below it that is in the cache."""
    layers: list[records.Layer] = []
    places: dict[tuple[str, int], int] = {}
    chains: dict[tuple[str, ...], int] = {}
    found: dict[str, int] = {}
    for each in sorted(steps, key=lambda step: len(step.below)):
        chain = (*each.below, each.diff_id)
        parent = next((chains[chain[:end]] for end in range(len(each.below), 0, -1) if chain[:end] in chains), -1)
        place = (blobs[each.diff_id].digest, parent)
        if place not in places:
            places[place] = len(layers)
            layers.append(records.Layer(*place))
        found[each.key] = chains[chain] = places[place]
    return records.encode(layers, found, created)


def _document(layers: list[Descriptor], config: bytes, target: To) -> Manifest | Index:
    described = Descriptor(records.MEDIA_TYPE, _digest(config), len(config))
    if target.index:
        kind = media.DOCKER_LIST if target.docker else media.OCI_INDEX
        return Index(kind, (*layers, described))
    return Manifest(media.OCI_MANIFEST, described, tuple(layers))


def _send(
    store: Store, target: To, layers: list[Descriptor], config: bytes, document: Manifest | Index, progress: Progress
) -> None:
    from limpet.images.push import PARALLEL
    from limpet.registry.client import Registry
    from limpet.registry.parallel import Group
    from limpet.registry.upload import Upload, send

    name = reference.parse(target.place)
    registry, group = Registry(name.domain, mirrors=False), Group(PARALLEL)

    def layer(blob: Descriptor) -> None:
        key = digests.short(blob.digest)
        progress.begin(key, key, blob.size)
        upload = Upload(
            blob,
            lambda offset: group.watched(_bytes(store, blob.digest, offset)),
            advance=lambda count: progress.advance(key, count),
        )
        progress.finish(key, send(registry, name.path, upload))

    group.run(layer, layers)
    described = Descriptor(records.MEDIA_TYPE, _digest(config), len(config))
    send(registry, name.path, Upload(described, lambda offset: iter([config[offset:]])))
    registry.put_manifest(name.path, name.tag, document.to_json(), document.media_type)


def _write(store: Store, target: To, layers: list[Descriptor], config: bytes, document: Manifest | Index) -> None:
    """Into an image layout (image-spec image-layout.md): blobs first, index.json last, which keeps the other tags."""
    from limpet.images.archive import DirectoryFiles, read
    from limpet.images.sink import DirectorySink

    try:
        sink = DirectorySink(target.place)
        data = document.to_json()
        for blob in layers:
            sink.stream(_path(blob.digest), blob.size, _bytes(store, blob.digest, 0))
        sink.put(_path(_digest(config)), config)
        sink.put(_path(_digest(data)), data)
        sink.put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        entries: list[Descriptor] = []
        files = DirectoryFiles(target.place)
        try:
            if files.has("index.json"):
                before = manifests.parse(read(files, "index.json", manifests.MAX_BYTES), media.OCI_INDEX)
                found = before.manifests if isinstance(before, Index) else ()
                entries = [each for each in found if each.annotations.get(_REF_NAME) != target.tag]
        finally:
            files.close()
        annotations = {_REF_NAME: target.tag}
        entries.append(Descriptor(document.media_type, _digest(data), len(data), annotations=annotations))
        sink.put("index.json", Index(media.OCI_INDEX, tuple(entries)).to_json())
        if target.reset:
            _drop_others(target.place, entries)
    except OSError as e:
        raise LimpetError(f"{target.place}: {e.strerror}", exit_code=1) from e


def _drop_others(place: str, entries: Sequence[Descriptor]) -> None:
    """`reset=true`: the blobs that no entry of index.json needs. One that can't be read keeps all."""
    import os

    from limpet.images.archive import DirectoryFiles, read

    files = DirectoryFiles(place)
    try:
        needed = {each.digest for each in entries}
        for each in entries:
            found = manifests.parse(read(files, _path(each.digest), manifests.MAX_BYTES), each.media_type)
            parts = found.manifests if isinstance(found, Index) else (found.config, *found.layers)
            needed.update(part.digest for part in parts)
    finally:
        files.close()
    for name in os.listdir(f"{place}/blobs/sha256"):
        if f"sha256:{name}" not in needed:
            os.unlink(f"{place}/blobs/sha256/{name}")


def _bytes(store: Store, digest: str, offset: int) -> Iterator[bytes]:
    with open(store.blob_path(digest), "rb") as file:
        file.seek(offset)
        while piece := file.read(_PIECE):
            yield piece


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest(data: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _time(epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
