"""An image comes in: from a registry, an archive, a layout, or made here. One way for all of them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid
from limpet.images import catalog, layerstream
from limpet.images.layerstream import Transfer
from limpet.images.pipe import Cancelled
from limpet.images.present import is_whole
from limpet.layers.driver import driver
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import platform as platforms
from limpet.oci import reference
from limpet.store import blobs, eventlog, faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from limpet.images.catalog import Image
    from limpet.images.package import Member, Package
    from limpet.images.source import Contents, Layer, Source
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference
    from limpet.progress import Progress
    from limpet.store.store import Store

PARALLEL = 3
"""Layers at once. More would not be faster: three are decompressed by two cores, and a network is shared."""


def import_image(
    store: Store,
    source: Source,
    *,
    names: Sequence[Reference] = (),
    platform: Platform | None = None,
    progress: Progress,
) -> Image:
    """Brings an image in and gives it the names. Layers that are here already are not read again.

    An error leaves the store as it was, but for whole layers, which the next try finds (or a collection takes).
    """
    with store.lease():
        contents = source.contents(platform)
        config = configs.parse(contents.config)
        if len(config.diff_ids) != len(contents.layers):
            raise Corrupt(f"the config names {len(config.diff_ids)} layers, the manifest {len(contents.layers)}")
        home = driver(store)
        _bring_layers(
            Transfer(store, home, source, progress),
            _missing(store, contents.layers, config.diff_ids, progress),
        )
        home.seal(config.diff_ids)
        faults.reach("layers-here")
        return _enter_all(store, contents, config.diff_ids, names)


def _missing(
    store: Store, layers: Sequence[Layer], diff_ids: Sequence[str], progress: Progress
) -> list[tuple[Layer, str]]:
    """The layers to fetch, bottom first, each one once."""
    wanted: dict[str, Layer] = {}
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        if diff_id in wanted:
            continue
        if not is_whole(store, diff_id):
            wanted[diff_id] = layer
        else:
            key = digests.short(layer.descriptor.digest if layer.descriptor is not None else diff_id)
            progress.begin(key, key, layer.size)
            progress.finish(key, "Already exists")
    return [(layer, diff_id) for diff_id, layer in wanted.items()]


def _bring_layers(transfer: Transfer, layers: list[tuple[Layer, str]]) -> None:
    """In up to PARALLEL threads. The first error stops all of them and is raised when they are gone."""
    queue = list(reversed(layers))
    errors: list[BaseException] = []

    def work() -> None:
        while not transfer.stopped:
            try:
                layer, diff_id = queue.pop()
            except IndexError:
                return
            try:
                layerstream.bring(transfer, layer, diff_id)
            except Cancelled:
                return
            except BaseException as e:
                errors.append(e)
                transfer.stop()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(PARALLEL, len(layers)) - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        try:
            thread.join()
        except KeyboardInterrupt as e:
            errors.insert(0, e)
            transfer.stop()
            thread.join()
    if errors:
        raise errors[0]


def _enter_all(store: Store, contents: Contents, diff_ids: Sequence[str], names: Sequence[Reference]) -> Image:
    """All rows of a fetched image in one transaction, after its documents are durable."""
    image_id = blobs.put(store, contents.config)
    manifest, index = contents.manifest, contents.index
    for document in (manifest, index):
        if document is not None and not blobs.exists(store, document.digest):
            with blobs.BlobWriter(store, document.digest.partition(":")[0], durable=True) as blob:
                blob.write(document.data)
                blob.commit(document.digest)
    with store.db.transaction():
        enter(store, image_id, contents.config.decode(), diff_ids)
        if manifest is not None:
            parts = [image_id, *(layer.descriptor.digest for layer in contents.layers if layer.descriptor is not None)]
            enter_manifest(store, manifest.digest, image_id, manifest.media_type, parts)
        for name in names:
            give_name(
                store,
                name,
                image_id,
                manifest.digest if manifest is not None else None,
                index.digest if index is not None else None,
            )
    faults.reach("image-row")
    return catalog.find(store, image_id)


def add_image(
    store: Store,
    config: bytes,
    diff_ids: Sequence[str],
    names: Iterable[Reference | str],
    *,
    created: int | None = None,
) -> Image:
    """Enters an image whose layers are here: the last step of every way to make one. Durable when it returns.

    `config` is the config blob, `diff_ids` bottom first as it says them, `created` Unix seconds (now). A name that
    another image had is taken from it. The caller holds `store.lease()`.
    """
    parsed = configs.parse(config)
    if tuple(diff_ids) != parsed.diff_ids:
        raise Invalid("the config names other layers than the image has")
    image_id = blobs.put(store, config)
    wanted = [reference.parse(name) if isinstance(name, str) else name for name in names]
    with store.db.transaction():
        enter(store, image_id, config.decode(), diff_ids, created)
        for name in wanted:
            give_name(store, name, image_id)
    faults.reach("image-row")
    for name in wanted:
        eventlog.write(store, "image", "tag", image_id, {"name": name.familiar})
    return catalog.find(store, image_id)


def add_package(store: Store, package: Package, names: Iterable[Reference]) -> Image:
    """Enters images that were put together (`images.package`), their layers here, and their documents. Durable.

    A name stands for the image that this machine runs, or else the first; a push or a save of it finds all. Gives that
    image. The caller holds `store.lease()`.
    """
    for _, data in package.documents:
        blobs.put(store, data)
    images = [member for member in package.members if member.image_id]
    for member in package.members:
        for part in member.parts:
            if not part.diff_id:
                blobs.put(store, part.data)
    here = next((each for each in images if _runs_here(each)), images[0])
    wanted = list(names)
    with store.db.transaction():
        for member in images:
            diff_ids = [part.diff_id for part in member.parts if part.diff_id]
            enter(store, member.image_id, member.parts[0].data.decode(), diff_ids)
        for member in package.members:
            parts = [part.descriptor.digest for part in member.parts]
            descriptor = member.descriptor
            enter_manifest(store, descriptor.digest, member.image_id or here.image_id, descriptor.media_type, parts)
        index = package.descriptor.digest if package.index else None
        for name in wanted:
            give_name(store, name, here.image_id, here.descriptor.digest, index)
    faults.reach("image-row")
    for name in wanted:
        eventlog.write(store, "image", "tag", here.image_id, {"name": name.familiar})
    return catalog.find(store, here.image_id)


def _runs_here(member: Member) -> bool:
    platform, host = member.descriptor.platform, platforms.host()
    return platform is not None and (platform.os, platform.architecture) == (host.os, host.architecture)


def enter(store: Store, image_id: str, config: str, diff_ids: Sequence[str], created: int | None = None) -> None:
    """The rows of an image, within the caller's transaction. An image that is here already stays as it is."""
    now = int(time.time()) if created is None else created
    if not store.db.run("INSERT OR IGNORE INTO image (id, config, created) VALUES (?, ?, ?)", image_id, config, now):
        return
    for position, diff_id in enumerate(diff_ids):
        store.db.run("INSERT INTO image_layer VALUES (?, ?, ?)", image_id, position, diff_id)


def enter_manifest(store: Store, digest: str, image_id: str, media_type: str, blobs_of: Iterable[str]) -> None:
    """The rows of a manifest that is in blobs/, within the caller's transaction. `blobs_of`: its config, its layers."""
    store.db.run("INSERT OR IGNORE INTO manifest VALUES (?, ?, ?)", digest, image_id, media_type)
    for position, blob in enumerate(blobs_of):
        store.db.run("INSERT OR IGNORE INTO manifest_blob VALUES (?, ?, ?)", digest, position, blob)


def give_name(
    store: Store, name: Reference, image_id: str, manifest: str | None = None, index_digest: str | None = None
) -> None:
    """The row of a name, within the caller's transaction."""
    store.db.run(
        "INSERT INTO name (reference, image_id, manifest, index_digest, implicit) VALUES (?1, ?2, ?3, ?4, 0)"
        " ON CONFLICT (reference) DO UPDATE SET image_id = ?2, manifest = ?3, index_digest = ?4, implicit = 0",
        name.canonical,
        image_id,
        manifest,
        index_digest,
    )
