"""What an image contains, read from a `dir:` or an OCI layout by code that shares nothing with the product.

The layers are applied as the OCI image specification says (layer.md): whiteouts, opaque directories, hard links. What
comes out is one `File` a path and the config; two builders' results are then compared as plain data.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class File:
    """`kind` is tar's type as a letter: `-` file, `d`, `l` link, `c`, `b`, `p`. `same` are all paths of one file."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str
    xattrs: tuple[tuple[str, str], ...]
    mtime: float
    same: set[str] = field(default_factory=set)

    def shown(self) -> str:
        links = f" = {' '.join(sorted(self.same))}" if len(self.same) > 1 else ""
        xattrs = f" {dict(self.xattrs)}" if self.xattrs else ""
        return f"{self.kind}{self.mode:04o} {self.owner[0]}:{self.owner[1]} {self.content}{xattrs}{links}".strip()


@dataclass
class Contents:
    config: dict[str, Any]
    files: dict[str, File]
    layers: int


_KINDS = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}


def read(place: Path) -> Contents:
    """`place`: a directory as `skopeo copy … dir:` or `oci:` make it."""
    blobs = place / "blobs/sha256"
    if blobs.is_dir():
        found = json.loads((place / "index.json").read_text())["manifests"][0]["digest"]
        manifest = json.loads((blobs / found.partition(":")[2]).read_text())
    else:
        blobs = place
        manifest = json.loads((place / "manifest.json").read_text())
    document = json.loads((blobs / manifest["config"]["digest"].partition(":")[2]).read_text())
    files: dict[str, File] = {}
    for layer in manifest["layers"]:
        data = (blobs / layer["digest"].partition(":")[2]).read_bytes()
        _apply(files, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    return Contents(document, files, len(manifest["layers"]))


def _apply(files: dict[str, File], data: bytes) -> None:
    new: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            path = member.name.removeprefix("./").strip("/")
            if path in ("", "."):
                continue
            parent, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                _remove(files, parent, new, itself=False)
            elif name.startswith(".wh."):
                _remove(files, f"{parent}/{name[4:]}".lstrip("/"), new)
            else:
                _put(files, path, member, tar)
                new.add(path)


def _remove(files: dict[str, File], path: str, new: set[str], *, itself: bool = True) -> None:
    """What the layers below have there; what this one brings stays."""
    for each in [one for one in files if one.startswith(f"{path}/") or (itself and one == path)]:
        if each not in new:
            files.pop(each).same.discard(each)


def _put(files: dict[str, File], path: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    there = files.get(path)
    if there is not None:
        if there.kind == "d" and not member.isdir():
            for each in [one for one in files if one.startswith(f"{path}/")]:
                files.pop(each).same.discard(each)
        there.same.discard(path)
    if member.islnk():
        found = files[member.linkname.removeprefix("./").strip("/")]
        found.same.add(path)
        files[path] = found
        return
    kind = _KINDS.get(member.type, "-")
    content = member.linkname if kind == "l" else ""
    if kind in "cb":
        content = f"{member.devmajor}:{member.devminor}"
    elif kind == "-":
        stream = tar.extractfile(member)
        assert stream is not None
        data = stream.read()
        content = f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"
    xattrs = tuple(
        sorted(
            (key.removeprefix("SCHILY.xattr."), value.encode("utf-8", "surrogateescape").hex())
            for key, value in member.pax_headers.items()
            if key.startswith("SCHILY.xattr.")
        )
    )
    mode = 0 if kind == "l" else member.mode & 0o7777
    files[path] = File(kind, mode, (member.uid, member.gid), content, xattrs, member.mtime, {path})


def settings(document: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config that say something, lists of variables as a mapping."""
    inner = {key: value for key, value in (document.get("config") or {}).items() if value not in ("", None, [], {})}
    if "Env" in inner:
        inner["Env"] = dict(each.partition("=")[::2] for each in inner["Env"])
    inner |= {key: document[key] for key in ("architecture", "os", "author") if document.get(key)}
    return {key: value for key, value in inner.items() if value is not False}
