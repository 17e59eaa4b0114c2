"""OCI image layouts (image-spec image-layout.md), in a directory or in a tar, as sources of images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid, NotFound
from limpet.images import archive
from limpet.images.source import Contents, Document, check_artifact, layer_of
from limpet.oci import config as configs
from limpet.oci import manifest as manifests
from limpet.oci import media, reference
from limpet.oci import platform as platforms
from limpet.oci.manifest import Index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.images.archive import Files
    from limpet.images.source import Layer
    from limpet.oci.manifest import Descriptor
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference

CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_MAX_NESTING = 4


def is_layout(files: Files) -> bool:
    return files.has("oci-layout") and files.has("index.json")


def images(files: Files, platform: Platform | None) -> list[tuple[list[Reference], LayoutSource]]:
    """Every image of a layout with its names. Entries of one name and several platforms are one image."""
    index = manifests.parse(archive.read(files, "index.json", manifests.MAX_BYTES), media.OCI_INDEX)
    if not isinstance(index, Index):
        raise Invalid(f"{files.title}: index.json is not an index")
    groups: dict[tuple[str, str], list[Descriptor]] = {}
    for entry in index.manifests:
        if entry.media_type not in media.MANIFESTS | media.INDEXES:
            continue  # signatures and the like, which refer to an image
        name = _name(entry)
        # Without a name, only platforms can say that two entries are the same image.
        key = str(name) if name is not None else "" if entry.platform is not None else entry.digest
        groups.setdefault(("name" if name is not None else "", key), []).append(entry)
    found: dict[str, tuple[list[Reference], LayoutSource]] = {}
    for entries in groups.values():
        entry = entries[0]
        if len(entries) > 1:
            entry = platforms.select(Index(index.media_type, tuple(entries)), platform or platforms.host())
        names, _ = found.setdefault(entry.digest, ([], LayoutSource(files, entry)))
        name = _name(entry)
        if name is not None:
            names.append(name)
    if not found and any(entry.media_type in media.SCHEMA1 for entry in index.manifests):
        raise manifests.old_schema()
    if not found:
        raise Invalid(f"{files.title}: the layout has no image")
    return list(found.values())


def select(files: Files, tag: str, digest: str) -> LayoutSource:
    """The image with this digest, or of this tag or name, or the only one. Raises NotFound, Invalid."""
    index = manifests.parse(archive.read(files, "index.json", manifests.MAX_BYTES), media.OCI_INDEX)
    if not isinstance(index, Index):
        raise Invalid(f"{files.title}: index.json is not an index")
    known = media.MANIFESTS | media.INDEXES
    entries = {each.digest: each for each in index.manifests if each.media_type in known}
    if digest:
        found = [each for each in entries.values() if each.digest == digest]
    elif tag:
        found = [each for each in entries.values() if tag in _tags(each)]
    else:
        found = list(entries.values())
    if len(found) == 1:
        return LayoutSource(files, found[0])
    tags = sorted({text for each in entries.values() for text in _tags(each)})
    hint = f"name one: :{', :'.join(tags[:5])}" if tags else "name one by its digest: @sha256:…"
    if not entries:
        raise Invalid(f"{files.title}: the layout has no image")
    if not found:
        raise NotFound(f"{files.title}: the layout has no image {tag or digest}", hint)
    raise Invalid(f"{files.title}: the layout has {len(found)} images {tag}".rstrip(), hint)


def _tags(entry: Descriptor) -> set[str]:
    """What its annotations call it: a tag, or a name and its tag."""
    texts = {entry.annotations[key] for key in (CONTAINERD_NAME, REF_NAME) if entry.annotations.get(key)}
    return texts | {text.rpartition(":")[2] for text in texts if ":" in text.rpartition("/")[2]}


class LayoutSource:
    """One image of a layout (`images.source.Source`)."""

    done = "Loaded"
    resumable = False

    def __init__(self, files: Files, top: Descriptor) -> None:
        self._files = files
        self._top = top

    def contents(self, platform: Platform | None) -> Contents:
        found, document = self._document(self._top)
        index: Document | None = None
        for _ in range(_MAX_NESTING):
            if not isinstance(found, Index):
                break
            index = index or document
            found, document = self._document(platforms.select(found, platform or platforms.host()))
        if isinstance(found, Index):
            raise Invalid(f"{self._files.title}: indexes in indexes, more than {_MAX_NESTING} deep")
        check_artifact(found, self._files.title)
        layers = tuple(layer_of(descriptor) for descriptor in found.layers)
        return Contents(self._blob(found.config, configs.MAX_BYTES), layers, document, index)

    def elsewhere(self) -> bool:
        return False

    def read(self, layer: Layer, offset: int = 0) -> Iterator[bytes]:
        return self._files.pieces(_path(layer.location))

    def _document(self, descriptor: Descriptor) -> tuple[manifests.Manifest | manifests.Index, Document]:
        data = self._blob(descriptor, manifests.MAX_BYTES)
        parsed = manifests.parse(data, descriptor.media_type)
        return parsed, Document(data, parsed.media_type, descriptor.digest)

    def _blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """A document, verified."""
        data = archive.read(self._files, _path(descriptor.digest), limit)
        algorithm, _, expected = descriptor.digest.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != expected:
            raise Corrupt(f"{self._files.title}: blob {descriptor.digest} has other bytes than its name says")
        return data


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _name(entry: Descriptor) -> Reference | None:
    """containerd's annotation has the whole name; the specification's may, or only a tag, which names no image."""
    text = entry.annotations.get(CONTAINERD_NAME, "")
    if not text:
        text = entry.annotations.get(REF_NAME, "")
        if not any(letter in text for letter in "/:@"):
            return None
    name = reference.parse(text)
    return name if name.tag else None
