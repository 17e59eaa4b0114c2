"""Push: an image to the registry that its name says.

What came from a registry goes up to the byte: the same layers under the same manifest have the same digest. Layers
that were made here are compressed first (`packing.py`). Of an index all platforms go up that are in the store: all of
them as the same index, some as an index of those, one as a manifest alone, and a line says so.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from limpet.errors import Invalid, NotFound
from limpet.images import catalog, importer, outgoing
from limpet.images.packing import Packing, pack
from limpet.images.pull import check_platform
from limpet.images.uploads import Remembered
from limpet.layers.driver import driver
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media, reference
from limpet.oci import platform as platforms
from limpet.oci.manifest import Descriptor, Manifest
from limpet.progress import Progress
from limpet.registry.client import Registry
from limpet.registry.parallel import Group
from limpet.registry.upload import Upload, send
from limpet.store import blobs, eventlog, faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from limpet.images.package import Member, Package
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference
    from limpet.registry.rate import Rate
    from limpet.store.store import Store

PARALLEL = 3
_PIECE = 256 << 10


@dataclass(frozen=True)
class Pushed:
    """`line` is Docker's last word about it."""

    name: Reference
    digest: str
    size: int  # bytes of the manifest or index

    @property
    def line(self) -> str:
        return f"{self.name.tag}: digest: {self.digest} size: {self.size}"


def names_of(store: Store, text: str, all_tags: bool) -> list[Reference]:
    """The names in the store that a push of `text` means. Raises Invalid, NotFound."""
    wanted = reference.parse(text)
    if wanted.digest:
        raise Invalid(f"'{text}' has a digest", "a push goes by a tag: limpet tag IMAGE NAME:TAG")
    if not all_tags:
        if catalog.by_reference(store, wanted) is None:
            try:
                catalog.find_id(store, text)
            except NotFound as e:
                raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar}", e.hint) from None
            raise Invalid(f"'{text}' is an id, not a name", f"give it one: limpet tag {text} REGISTRY/NAME:TAG")
        return [wanted]
    if text not in (wanted.familiar_name, wanted.repository):
        raise Invalid("tag can't be used with --all-tags/-a", "leave out the tag")
    begin = f"{wanted.repository}:"
    rows = store.db.rows("SELECT reference FROM name WHERE substr(reference, 1, ?) = ? ORDER BY 1", len(begin), begin)
    if not rows:
        raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar_name}")
    return [reference.parse(name) for (name,) in rows]


def push(
    store: Store,
    names: Sequence[Reference],
    *,
    packing: Packing | None = None,
    platform: str | None = None,
    rate: Rate | None = None,
    progress: Progress | None = None,
) -> Iterator[Pushed]:
    """Pushes names of one repository, one after the other. With `platform` only that image of an index goes up.

    Raises NotFound, Refused, Corrupt, TransferError; what was pushed until then is there, and found by the next try.
    """
    pusher = _Pusher(store, Registry(names[0].domain, rate), names[0].path, packing or Packing(), progress)
    with store.lease():
        for name in names:
            done = pusher.name(name) if platform is None else pusher.platform(name, platforms.parse(platform))
            eventlog.write(store, "image", "push", name.familiar, {"name": name.familiar_name})
            yield done


def push_package(
    store: Store,
    names: Sequence[Reference],
    package: Package,
    *,
    by_digest: bool = False,
    progress: Progress | None = None,
) -> Iterator[Pushed]:
    """Pushes what was put together under names of any repositories. The caller holds a lease. Raises as `push` does."""
    repositories: dict[tuple[str, str], list[Reference]] = {}
    for name in names:
        repositories.setdefault((name.domain, name.path), []).append(name)
    for (domain, path), tags in repositories.items():
        for done in _Pusher(store, Registry(domain), path, Packing(), progress).package(tags, package, by_digest):
            eventlog.write(store, "image", "push", done.name.familiar, {"name": done.name.familiar_name})
            yield done


class _Pusher:
    def __init__(
        self, store: Store, registry: Registry, repository: str, packing: Packing, progress: Progress | None
    ) -> None:
        self._store = store
        self._registry = registry
        self._repository = repository
        self._packing = packing
        self._progress = progress or Progress()
        self._rows = threading.Lock()
        self._done: set[str] = set()  # digests of blobs that are there by now

    def name(self, name: Reference) -> Pushed:
        image_id = catalog.by_reference(self._store, name)
        if image_id is None:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar}")
        row = self._store.db.row("SELECT index_digest FROM name WHERE reference = ?", name.canonical)
        index = self._index(row[0]) if row[0] else None
        if index is not None:
            data = index.data
            for image, manifest in index.images.items():
                self._image(image, manifest)
            for member in index.attached:
                self._parts(member)
                about = member.descriptor
                self._registry.put_manifest(self._repository, about.digest, member.data, about.media_type)
            digest, _ = self._registry.put_manifest(self._repository, name.tag, data, index.media_type)
            own = outgoing.arrived_as(self._store, image_id, [name])
            manifest_digest = digests.of(own) if own is not None else None
            self._remember(name, image_id, None, manifest_digest, data)
            return Pushed(name, digest, len(data))
        return self._alone(name, image_id, outgoing.arrived_as(self._store, image_id, [name], self._is_there))

    def _alone(self, name: Reference, image_id: str, document: bytes | None) -> Pushed:
        refused = self._packing.refuses(self._store)
        if document is not None and any(layer.digest in refused for layer in _layers(document)):
            document = None
        data = self._image(image_id, document, name.tag)
        self._remember(name, image_id, data, digests.of(data), None)
        return Pushed(name, digests.of(data), len(data))

    def platform(self, name: Reference, wanted: Platform) -> Pushed:
        """The manifest of one platform, alone."""
        image_id, document = catalog.by_reference(self._store, name), None
        row = self._store.db.row("SELECT index_digest FROM name WHERE reference = ?", name.canonical)
        index = outgoing.documents(self._store, row[0]) if row and row[0] else None
        if index is not None:
            entry = platforms.select(index, wanted)
            found = self._store.db.row("SELECT image_id FROM manifest WHERE digest = ?", entry.digest)
            document = outgoing.whole(self._store, entry.digest, found[0], self._is_there) if found else None
            if document is None:
                raise NotFound(
                    f"{name.familiar}: the image for {wanted} is not in the store",
                    f"limpet pull --platform {wanted} {name.familiar}",
                )
            image_id = found[0]
        if image_id is None:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar}")
        if index is None:
            check_platform(blobs.read(self._store, image_id, configs.MAX_BYTES), wanted, name.familiar)
            document = outgoing.arrived_as(self._store, image_id, [name], self._is_there)
        return self._alone(name, image_id, document)

    def _index(self, digest: str) -> _Present | None:
        """The index by which an image came, as far as its images are here; None if there are not several of them."""
        store = self._store
        index = outgoing.documents(store, digest)
        if index is None:
            return None
        present: dict[str, bytes] = {}
        attached: list[Member] = []
        entries: list[Descriptor] = []
        for entry in index.manifests:
            row = store.db.row("SELECT image_id FROM manifest WHERE digest = ?", entry.digest)
            data = outgoing.whole(store, entry.digest, row[0]) if row else None
            if data is not None:
                present[row[0]] = data
                entries.append(entry)
            elif row and (member := outgoing.attached(store, entry.digest)) is not None:
                attached.append(member)
                entries.append(entry)
        if len(entries) == len(index.manifests):
            return _Present(blobs.read(store, digest, manifests.MAX_BYTES), index.media_type, present, attached)
        platforms = ", ".join(str(entry.platform) for entry in entries if entry.platform is not None)
        if len(entries) > 1:
            self._progress.note(
                f"Only {platforms} of the {len(index.manifests)} platforms of the image are in the store: the index"
                " that goes up has these, and so another digest"
            )
            return _Present(replace(index, manifests=tuple(entries)).to_json(), index.media_type, present, attached)
        self._progress.note(
            f"Only {platforms or 'one'} of the {len(index.manifests)} platforms of the image is in the store: it goes"
            " up alone (`limpet registry copy` carries all of them)"
        )
        return None

    def _image(self, image_id: str, document: bytes | None, tag: str = "") -> bytes:
        """Layers, config, manifest; gives the manifest."""
        store, group = self._store, Group(PARALLEL)
        layers = catalog.layers(store, image_id)
        config = blobs.read(store, image_id, configs.MAX_BYTES)
        known = manifests.parse(document) if document is not None else None
        assert not isinstance(known, manifests.Index)
        blobs_of = dict(zip(layers, known.layers, strict=True)) if known is not None else {}
        unique = list(dict.fromkeys(layers))  # a layer that comes twice in a stack goes up once
        sent = group.run(lambda diff_id: self._layer(group, diff_id, blobs_of.get(diff_id)), unique)
        config_descriptor = known.config if known else Descriptor(media.OCI_CONFIG, image_id, len(config))
        self._document(config_descriptor, config)
        if document is None:
            found = dict(zip(unique, sent, strict=True))
            stack = tuple(found[diff_id] for diff_id in layers)
            document = Manifest(media.OCI_MANIFEST, config_descriptor, stack).to_json()
        media_type = known.media_type if known else media.OCI_MANIFEST
        self._registry.put_manifest(self._repository, tag or digests.of(document), document, media_type)
        return document

    def package(self, names: Sequence[Reference], package: Package, by_digest: bool) -> Iterator[Pushed]:
        """What was put together, layers and documents, under names of one repository; `by_digest` without the tags."""
        for one in package.members:
            self._parts(one)
        *members, (top, data) = package.documents
        for descriptor, document in members:
            self._registry.put_manifest(self._repository, descriptor.digest, document, descriptor.media_type)
        for name in names:
            tag = top.digest if by_digest else name.tag
            self._registry.put_manifest(self._repository, tag, data, top.media_type)
            yield Pushed(name, top.digest, len(data))

    def _parts(self, member: Member) -> None:
        group = Group(PARALLEL)
        layers = {part.diff_id: part.descriptor for part in member.parts if part.diff_id}
        group.run(lambda diff_id: self._layer(group, diff_id, layers[diff_id]), list(layers))
        for part in member.parts:
            if not part.diff_id:
                self._document(part.descriptor, part.data)

    def _document(self, descriptor: Descriptor, data: bytes) -> None:
        send(self._registry, self._repository, Upload(descriptor, lambda offset: iter([data[offset:]])))

    def _layer(self, group: Group, diff_id: str, descriptor: Descriptor | None) -> Descriptor:
        key, progress = digests.short(diff_id), self._progress
        progress.begin(key, key, descriptor.size if descriptor is not None else None)
        if descriptor is None:
            descriptor = pack(self._store, self._rows, diff_id, self._packing, group.check)
            progress.begin(key, key, descriptor.size)
        if descriptor.digest in self._done:
            progress.finish(key, "Layer already exists")
            return descriptor
        with self._rows:
            sources = self._known(descriptor.digest)
        blob = descriptor.digest
        with Remembered(self._store, self._registry.domain, self._repository, blob, descriptor.size) as kept:
            upload = Upload(
                descriptor,
                lambda offset: group.watched(_bytes(self._store, blob, diff_id, offset)),
                sources,
                lambda count: progress.advance(key, count),
                kept.location,
                kept.keep,
            )
            done = send(self._registry, self._repository, upload)
            kept.keep("")
        progress.finish(key, done)
        self._done.add(descriptor.digest)
        return descriptor

    def _known(self, digest: str) -> list[str]:
        """Repositories of this registry which, as far as is known here, have a blob."""
        rows = self._store.db.rows(
            "SELECT DISTINCT reference FROM name JOIN manifest_blob ON name.manifest = manifest_blob.manifest"
            " WHERE digest = ? ORDER BY reference",
            digest,
        )
        parsed = [reference.parse(name) for (name,) in rows]
        found = [one.path for one in parsed if one.domain == self._registry.domain and one.path != self._repository]
        return list(dict.fromkeys(found))

    def _is_there(self, digest: str) -> bool:
        return self._registry.has_blob(self._repository, digest) is not None

    def _remember(
        self, name: Reference, image_id: str, document: bytes | None, digest: str | None, index: bytes | None
    ) -> None:
        """The name stands for what it now is in the registry: a save or another push sends the same."""
        store = self._store
        if document is not None:
            blobs.put(store, document)
        index_digest = blobs.put(store, index) if index is not None else None
        faults.reach("push-documents")
        with store.db.transaction():
            if document is not None:
                manifest = manifests.parse(document)
                assert isinstance(manifest, Manifest)
                parts = [part.digest for part in (manifest.config, *manifest.layers)]
                importer.enter_manifest(store, digest or "", image_id, manifest.media_type, parts)
            store.db.run(
                "UPDATE name SET manifest = ?, index_digest = ? WHERE reference = ? AND image_id = ?",
                digest,
                index_digest,
                name.canonical,
                image_id,
            )


@dataclass(frozen=True)
class _Present:
    """An index, the manifests of it that are here, by image, and what is said about them."""

    data: bytes
    media_type: str
    images: dict[str, bytes]
    attached: list[Member]


def _layers(document: bytes) -> tuple[Descriptor, ...]:
    manifest = manifests.parse(document)
    return manifest.layers if isinstance(manifest, Manifest) else ()


def _bytes(store: Store, digest: str, diff_id: str, offset: int) -> Iterator[bytes]:
    """A layer's blob, or where it is the plain tar, that."""
    try:
        file: BinaryIO = open(store.blob_path(digest), "rb")
    except FileNotFoundError:
        if digest != diff_id:
            raise NotFound(f"no blob {digest} in the store", "`limpet system check` finds what is missing") from None
        file = driver(store).open_tar(diff_id)
    with file:
        file.seek(offset)
        while piece := file.read(_PIECE):
            yield piece
