"""Load: images from an archive (docker save's, OCI's) or a layout directory.

A docker-archive has a `manifest.json` that lists, for each image, a config, names, and layers as files of the archive;
old and new docker, podman and skopeo write it with different names for the files. Newer ones are an OCI layout as well,
which is then preferred: it has digests.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Invalid, LimpetError, NotFound
from limpet.images import archive, importer, layout
from limpet.images.archive import DirectoryFiles
from limpet.images.source import Contents, Layer
from limpet.oci import config as configs
from limpet.oci import platform as platforms
from limpet.oci import reference
from limpet.progress import Progress
from limpet.store import eventlog

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, BinaryIO

    from limpet.images.archive import Files
    from limpet.images.catalog import Image
    from limpet.images.source import Source
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference
    from limpet.store.store import Store

_MAX_MANIFEST = 16 << 20


def load(
    store: Store,
    source: str | BinaryIO,
    *,
    platform: Platform | str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Brings in every image of `source`, a path or an open file; gives Docker's lines, `Loaded image: NAME`.

    Raises NotFound for a missing file, Invalid for one that is no archive of images, Corrupt for a damaged one.
    """
    progress = progress or Progress()
    wanted = platforms.parse(platform) if isinstance(platform, str) else platform
    files = _open(store, source)
    lines: list[str] = []
    try:
        for names, one in _images(files, wanted):
            image = importer.import_image(store, one, names=names, platform=wanted, progress=progress)
            eventlog.write(store, "image", "load", image.id, {"name": image.id})
            lines += [f"Loaded image: {name.familiar}" for name in names] or [f"Loaded image ID: {image.id}"]
    finally:
        files.close()
    return lines


def one(store: Store, path: str, *, tag: str, digest: str, platform: Platform | None, progress: Progress) -> Image:
    """The image of an OCI layout with a tag or a digest, or the only one; it gets no name.

    Raises NotFound, Invalid, Corrupt.
    """
    files = _open(store, path)
    try:
        if not layout.is_layout(files):
            raise Invalid(f"{path} is no OCI layout", "it has a file oci-layout and an index.json")
        source = layout.select(files, tag, digest)
        return importer.import_image(store, source, names=[], platform=platform, progress=progress)
    finally:
        files.close()


def _open(store: Store, source: str | BinaryIO) -> Files:
    if isinstance(source, str):
        try:
            if stat.S_ISDIR(os.stat(source).st_mode):
                return DirectoryFiles(source)
            fd, title = os.open(source, os.O_RDONLY | os.O_CLOEXEC), source
        except FileNotFoundError:
            raise NotFound(f"{source}: no such file or directory", exit_code=1) from None
        except OSError as e:
            raise LimpetError(f"{source}: {e.strerror}", exit_code=1) from None
    else:
        fd, title = os.dup(source.fileno()), "standard input"
    return archive.open_tar(store, fd, title)


def _images(files: Files, platform: Platform | None) -> Sequence[tuple[list[Reference], Source]]:
    if layout.is_layout(files):
        return layout.images(files, platform)
    if files.has("manifest.json"):
        return _docker_images(files)
    if files.has("repositories"):
        raise Invalid(f"{files.title} was saved by a docker before 1.10", "load and save it again with a newer one")
    raise Invalid(
        f"{files.title} is not an archive of images: it has neither manifest.json nor index.json",
        "`limpet import` makes an image from a tar of a root file system",
    )


def _docker_images(files: Files) -> list[tuple[list[Reference], Source]]:
    try:
        entries = json.loads(archive.read(files, "manifest.json", _MAX_MANIFEST))
    except (ValueError, RecursionError):
        raise Invalid(f"{files.title}: manifest.json is not JSON") from None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Invalid(f"{files.title}: manifest.json is not a list of images")
    found: list[tuple[list[Reference], Source]] = []
    for entry in entries:
        config = entry.get("Config")
        if not isinstance(config, str):
            raise Invalid(f"{files.title}: manifest.json: Config is not a file's name")
        names = [reference.parse(text) for text in _texts(files, entry, "RepoTags")]
        found.append((names, DockerArchiveSource(files, config, _texts(files, entry, "Layers"))))
    return found


def _texts(files: Files, entry: dict[str, Any], key: str) -> list[str]:
    value = entry.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Invalid(f"{files.title}: manifest.json: {key} is not a list of texts")
    return value


class DockerArchiveSource:
    """One image of a docker-archive (`images.source.Source`). Its layers have diff IDs only, and may be compressed."""

    done = "Loaded"
    resumable = False

    def __init__(self, files: Files, config: str, layers: Sequence[str]) -> None:
        self._files = files
        self._config = config
        self._layers = layers

    def contents(self, platform: Platform | None) -> Contents:
        config = archive.read(self._files, self._config, configs.MAX_BYTES)
        return Contents(config, tuple(Layer(None, "", name, self._files.size(name)) for name in self._layers))

    def elsewhere(self) -> bool:
        return False

    def read(self, layer: Layer, offset: int = 0) -> Iterator[bytes]:
        return self._files.pieces(layer.location)
