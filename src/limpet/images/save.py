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
from limpet.images.archive import DirectoryFiles
from limpet.images.layout import CONTAINERD_NAME, REF_NAME, is_layout
from limpet.images.sink import DirectorySink, TarSink
from limpet.layers.driver import driver
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media, reference
from limpet.oci.manifest import Descriptor, Index, Manifest
from limpet.store import blobs, eventlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, BinaryIO

    from limpet.images.catalog import Image
    from limpet.images.sink import Sink
    from limpet.oci.reference import Reference
    from limpet.store.store import Store

FORMATS = ("docker-archive", "oci-archive", "oci-dir")
_PIECE = 1 << 20


@dataclass
class _Chosen:
    image: Image
    names: list[Reference] = field(default_factory=list)


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
            _write_layout(store, chosen, DirectorySink(out), _present(out))
        elif isinstance(out, str):
            raise Invalid(f"{format} writes a file")
        else:
            sink = TarSink(out)
            if format == "docker-archive":
                _write_docker(store, chosen, sink)
            else:
                listed = _write_layout(store, chosen, sink)
                sink.put("manifest.json", json.dumps(listed, separators=(",", ":")).encode())
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


def _write_docker(store: Store, chosen: Sequence[_Chosen], sink: Sink) -> None:
    entries = []
    for one in chosen:
        config = blobs.read(store, one.image.id, configs.MAX_BYTES)
        config_name = f"{digests.hex_of(one.image.id)}.json"
        layers = catalog.layers(store, one.image.id)
        for diff_id in layers:
            _put_tar(store, sink, f"{digests.hex_of(diff_id)}.tar", diff_id)
        sink.put(config_name, config)
        entries.append(_listed(one, config_name, [f"{digests.hex_of(diff_id)}.tar" for diff_id in layers]))
    sink.put("manifest.json", json.dumps(entries, separators=(",", ":")).encode())


def _listed(one: _Chosen, config: str, layers: list[str]) -> dict[str, Any]:
    """An entry of docker's manifest.json. Whole names: podman takes a short one for its own."""
    return {"Config": config, "RepoTags": [name.canonical for name in one.names] or None, "Layers": layers}


def _present(path: str) -> list[Descriptor]:
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


def _write_layout(
    store: Store, chosen: Sequence[_Chosen], sink: Sink, present: Sequence[Descriptor] = ()
) -> list[dict[str, Any]]:
    """Writes the layout after the images that are `present`; gives what docker's manifest.json says of these."""
    entries: list[Descriptor] = []
    listed: list[dict[str, Any]] = []
    for one in chosen:
        data = _manifest(store, one)
        manifest = manifests.parse(data)
        assert isinstance(manifest, Manifest)
        layers = catalog.layers(store, one.image.id)
        for descriptor, diff_id in zip(manifest.layers, layers, strict=True):
            path = _blob(descriptor.digest)
            if blobs.exists(store, descriptor.digest):
                sink.stream(path, descriptor.size, _blob_bytes(store, descriptor.digest))
            else:
                _put_tar(store, sink, path, diff_id)
        sink.put(_blob(manifest.config.digest), blobs.read(store, one.image.id, configs.MAX_BYTES))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        sink.put(_blob(digest), data)
        platform = configs.parse(blobs.read(store, one.image.id, configs.MAX_BYTES)).platform
        entry = Descriptor(manifest.media_type, digest, len(data), platform=platform)
        named = [
            replace(entry, annotations={CONTAINERD_NAME: name.canonical, REF_NAME: name.canonical})
            for name in one.names
        ]
        entries += named or [entry]
        listed.append(_listed(one, _blob(one.image.id), [_blob(layer.digest) for layer in manifest.layers]))
    replaced = {one.annotations.get(CONTAINERD_NAME, one.digest) for one in entries}
    kept = [one for one in present if one.annotations.get(CONTAINERD_NAME, one.digest) not in replaced]
    sink.put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    sink.put("index.json", Index(media.OCI_INDEX, tuple(kept + entries)).to_json())
    return listed


def _manifest(store: Store, one: _Chosen) -> bytes:
    """The manifest by which the image came, if all its blobs can be given out; else one that fits what is here."""
    data = outgoing.arrived_as(store, one.image.id, one.names)
    if data is not None:
        return data
    config = blobs.read(store, one.image.id, configs.MAX_BYTES)
    layers = tuple(
        outgoing.kept(store, diff_id) or outgoing.plain(store, diff_id)
        for diff_id in catalog.layers(store, one.image.id)
    )
    return Manifest(media.OCI_MANIFEST, Descriptor(media.OCI_CONFIG, one.image.id, len(config)), layers).to_json()


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


def to_file(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Calls `write` with a new file that replaces `path` when all is well; a pipe or a device is written as it is."""
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "wb") as file:
                write(file)
            return
        temporary = f"{path}.new-{os.getpid()}"
        mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else 0o600
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            with open(fd, "wb") as file:
                write(file)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as e:
        raise LimpetError(f"{path}: {e.strerror}", exit_code=1) from e
