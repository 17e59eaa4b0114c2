"""Save: images as an archive or an OCI layout, always the same bytes for the same images and names.

    docker-archive   manifest.json, a config and plain tars: what every docker and podman loads
    oci-archive      a tar of an image layout, blobs as the registry sent them where they are kept; with a manifest.json
                     beside it, as newer dockers save, so that older ones load it too
    oci-dir          the same as a directory; images of other names that a layout there has already stay in it

Every layer is hashed again on its way out: what is written has the digest that it is called by.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, Invalid, LimpetError, NotFound
from limpet.images import archive, catalog, outgoing
from limpet.images import package as packages
from limpet.images.archive import DirectoryFiles
from limpet.images.layout import CONTAINERD_NAME, REF_NAME, is_layout
from limpet.images.package import Form
from limpet.images.sink import DirectorySink, TarSink
from limpet.layers.driver import driver
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media, reference
from limpet.oci.manifest import Descriptor, Index, Manifest
from limpet.store import blobs, eventlog
from limpet.store.files import NewFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, BinaryIO

    from limpet.images.catalog import Image
    from limpet.images.package import Member, Package, Part
    from limpet.images.sink import Sink
    from limpet.oci.reference import Reference
    from limpet.store.store import Store

FORMATS = ("docker-archive", "oci-archive", "oci-dir")
_PIECE = 1 << 20


@dataclass
class _Chosen:
    image: Image
    names: list[Reference] = field(default_factory=list)


@dataclass(frozen=True)
class Saved:
    """What an archive gets: images put together, and the names by which they are called there."""

    package: Package
    names: tuple[Reference, ...] = ()


def save(store: Store, names: Sequence[str], out: BinaryIO | str, format: str = "docker-archive") -> None:
    """Writes the images that `names` mean; a repository without a tag means all its tags, as Docker has it.

    `out` is an open file for the archives, a directory's path for oci-dir. Raises NotFound, Invalid, Corrupt.
    """
    if format not in FORMATS:
        raise Invalid(f"unknown format {format!r}", f"known are {', '.join(FORMATS)}")
    with store.lease():
        chosen = _choose(store, names)
        if format == "oci-dir":
            if not isinstance(out, str):
                raise Invalid("oci-dir writes a directory", "give its path with -o")
            write_layout(store, _saved(store, chosen, True), DirectorySink(out), present(out))
        elif isinstance(out, str):
            raise Invalid(f"{format} writes a file")
        else:
            sink = TarSink(out)
            if format == "docker-archive":
                write_docker(store, _saved(store, chosen, False), sink)
            else:
                write_layout(store, _saved(store, chosen, True), sink)
            sink.finish()
    for one in chosen:
        eventlog.write(store, "image", "save", one.image.id, {"name": one.image.id})


def _choose(store: Store, texts: Sequence[str]) -> list[_Chosen]:
    """Each image once, in the order asked for, with the names it is saved under."""
    found: dict[str, _Chosen] = {}
    for text in texts:
        for name in _all_tags(store, text) or [text]:
            image = catalog.find(store, name)
            one = found.setdefault(image.id, _Chosen(image))
            wanted = _as_name(name, image)
            if wanted is not None and wanted not in one.names:
                one.names.append(wanted)
    return list(found.values())


def _all_tags(store: Store, text: str) -> list[str]:
    try:
        wanted = reference.parse(text)
    except Invalid:
        return []
    if wanted.digest or text not in (wanted.familiar_name, wanted.repository):
        return []
    begin = f"{wanted.repository}:"
    rows = store.db.rows("SELECT reference FROM name WHERE substr(reference, 1, ?) = ? ORDER BY 1", len(begin), begin)
    return [name for (name,) in rows]


def _as_name(text: str, image: Image) -> Reference | None:
    """The name with its tag, None for an image given by its id or a digest."""
    try:
        wanted = reference.parse(text)
    except Invalid:
        return None
    return wanted if wanted.tag and wanted.canonical in image.names else None


def _saved(store: Store, chosen: Sequence[_Chosen], indexes: bool) -> list[Saved]:
    """With `indexes` a name that stands for images of several platforms, all of them here, has all of them."""
    found = []
    for one in chosen:
        alone = list(one.names)
        for name in one.names if indexes else ():
            package = _index(store, name)
            if package is not None:
                found.append(Saved(package, (name,)))
                alone.remove(name)
        if alone or not one.names:
            found.append(Saved(packages.alone(_member(store, one.image.id, alone)), tuple(alone)))
    return found


def _index(store: Store, name: Reference) -> Package | None:
    row = store.db.row("SELECT index_digest FROM name WHERE reference = ?", name.canonical)
    index = outgoing.documents(store, row[0]) if row is not None and row[0] else None
    if index is None or len(index.manifests) < 2:
        return None
    members = []
    for entry in index.manifests:
        known = store.db.row("SELECT image_id FROM manifest WHERE digest = ?", entry.digest)
        data = outgoing.whole(store, entry.digest, known[0]) if known is not None else None
        if data is None:
            member = outgoing.attached(store, entry.digest) if known is not None else None
            if member is None:
                return None
            members.append(member)
            continue
        config = blobs.read(store, known[0], configs.MAX_BYTES)
        members.append(packages.arrived(data, config, catalog.layers(store, known[0])))
    return packages.together(members, Form(), data=blobs.read(store, row[0], manifests.MAX_BYTES))


def _member(store: Store, image_id: str, names: Sequence[Reference]) -> Member:
    """By the manifest by which it came, if all its blobs can be given out; else by one that fits what is here."""
    config, layers = blobs.read(store, image_id, configs.MAX_BYTES), catalog.layers(store, image_id)
    data = outgoing.arrived_as(store, image_id, names)
    if data is None:
        stack = tuple(outgoing.kept(store, diff_id) or outgoing.plain(store, diff_id) for diff_id in layers)
        data = Manifest(media.OCI_MANIFEST, Descriptor(media.OCI_CONFIG, image_id, len(config)), stack).to_json()
    return packages.arrived(data, config, layers)


def write_docker(store: Store, saved: Sequence[Saved], sink: Sink) -> None:
    """A docker-archive, which has no place for an index: one manifest for each name."""
    entries = []
    for each in saved:
        for member in each.package.members:
            config, *layers = member.parts
            names = {}
            for layer in layers:
                names[layer.diff_id] = f"{digests.hex_of(layer.diff_id)}.tar"
                _put_tar(store, sink, names[layer.diff_id], layer.diff_id)
            config_name = f"{digests.hex_of(config.descriptor.digest)}.json"
            sink.put(config_name, config.data)
            entries.append(_listed(each, config_name, [names[layer.diff_id] for layer in layers]))
    sink.put("manifest.json", json.dumps(entries, separators=(",", ":")).encode())


def _listed(saved: Saved, config: str, layers: list[str]) -> dict[str, Any]:
    """An entry of docker's manifest.json. Whole names: podman takes a short one for its own."""
    return {"Config": config, "RepoTags": [name.canonical for name in saved.names] or None, "Layers": layers}


def present(path: str) -> list[Descriptor]:
    """The images of a layout that is there already. Raises Invalid for a directory of something else."""
    if not os.path.isdir(path) or not os.listdir(path):
        return []
    files = DirectoryFiles(path)
    try:
        if not is_layout(files):
            raise Invalid(f"{path} has files, but is no OCI layout", "choose a new directory")
        index = manifests.parse(archive.read(files, "index.json", manifests.MAX_BYTES), media.OCI_INDEX)
    finally:
        files.close()
    return list(index.manifests) if isinstance(index, Index) else []


def write_layout(store: Store, saved: Sequence[Saved], sink: Sink, present: Sequence[Descriptor] | None = None) -> None:
    """After the images that are `present`, in a directory; in an archive with docker's manifest.json beside it."""
    entries: list[Descriptor] = []
    listed: list[dict[str, Any]] = []
    for each in saved:
        for member in each.package.members:
            config, *layers = member.parts
            for part in (*layers, config):
                _put_part(store, sink, part)
            if member.image_id and not each.package.index:
                paths = [_blob(layer.descriptor.digest) for layer in layers]
                listed.append(_listed(each, _blob(config.descriptor.digest), paths))
        for descriptor, data in each.package.documents:
            sink.put(_blob(descriptor.digest), data)
        top = each.package.descriptor
        named = [
            replace(top, annotations={**top.annotations, CONTAINERD_NAME: name.canonical, REF_NAME: name.canonical})
            for name in each.names
        ]
        entries += named or [top]
    replaced = {one.annotations.get(CONTAINERD_NAME, one.digest) for one in entries}
    kept = [one for one in present or () if one.annotations.get(CONTAINERD_NAME, one.digest) not in replaced]
    sink.put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    sink.put("index.json", Index(media.OCI_INDEX, tuple(kept + entries)).to_json())
    if present is None and listed:
        sink.put("manifest.json", json.dumps(listed, separators=(",", ":")).encode())


def _put_part(store: Store, sink: Sink, part: Part) -> None:
    """A blob as it is kept; a layer of which only the tar is, as that."""
    path = _blob(part.descriptor.digest)
    if not part.diff_id:
        sink.put(path, part.data)
    elif blobs.exists(store, part.descriptor.digest):
        sink.stream(path, part.descriptor.size, _blob_bytes(store, part.descriptor.digest))
    else:
        _put_tar(store, sink, path, part.diff_id)


def _put_tar(store: Store, sink: Sink, path: str, diff_id: str) -> None:
    row = store.db.row("SELECT size FROM layer WHERE diff_id = ?", diff_id)
    if row is None:
        raise NotFound(f"layer {diff_id} is not in the store", "`limpet system check` finds what is missing")
    home = driver(store)
    sink.stream(path, row[0], _verified(lambda: home.open_tar(diff_id), diff_id))


def _blob_bytes(store: Store, digest: str) -> Iterator[bytes]:
    return _verified(lambda: open(store.blob_path(digest), "rb", buffering=0), digest)


def _verified(opening: Callable[[], BinaryIO], digest: str) -> Iterator[bytes]:
    """The bytes of a file; raises Corrupt at the end if they are others than the digest says."""
    algorithm, _, expected = digest.partition(":")
    found = hashlib.new(algorithm)
    with opening() as file:
        while piece := file.read(_PIECE):
            found.update(piece)
            yield piece
    if found.hexdigest() != expected:
        raise Corrupt(f"{digest}: the file in the store is damaged", "`limpet system check --repair` drops it")


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def to_file(path: str, write: Callable[[BinaryIO], object], mode: int = 0o600) -> None:
    """Calls `write` with a new file that replaces `path` when all is well; a pipe or a device is written as it is.

    `mode` is that of a file which was not there.
    """
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "wb") as file:
                write(file)
            return
        mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else mode
        parent, name = os.path.split(os.path.realpath(path))
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with NewFile(directory, name, mode) as new:
                with open(new.fd, "wb", closefd=False) as file:
                    write(file)
                new.place()
        finally:
            os.close(directory)
    except OSError as e:
        raise LimpetError(f"{path}: {e.strerror}", exit_code=1) from e
