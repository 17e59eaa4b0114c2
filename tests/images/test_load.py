"""Load: every form that docker, podman and skopeo write, and archives that mean harm."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from tests import needs
from tests.registry import server

from limpet.errors import Corrupt, Invalid, LimpetError, NotFound
from limpet.images import catalog, collect
from limpet.images.load import load
from limpet.layers import compression
from limpet.oci import media

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from limpet.store.store import Store

TARS = [server.tar_of({f"file{number}": os.urandom(30_000)}) for number in range(3)]
IMAGE = server.make_image(TARS)

Member = tuple[str, bytes | str]
"""A name, and bytes or where a symbolic link leads."""


def tar_of(members: list[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def old_docker(*tags: str) -> list[Member]:
    """`docker save` up to 24: a directory for each layer; an equal layer is a link to the first one."""
    layers = [f"{number:064x}/layer.tar" for number in range(len(TARS))]
    manifest = [{"Config": f"{IMAGE.id[7:]}.json", "RepoTags": list(tags) or None, "Layers": layers}]
    found: list[Member] = []
    for name, tar in zip(layers, TARS, strict=True):
        found += [(f"{os.path.dirname(name)}/VERSION", b"1.0"), (name, tar)]
    return [*found, (f"{IMAGE.id[7:]}.json", IMAGE.config), ("manifest.json", json.dumps(manifest).encode())]


def no_image_and_no_trace(store: Store) -> None:
    assert catalog.all_images(store) == []
    collect.collect(store)
    assert os.listdir(f"{store.root}/tmp") == []
    assert os.listdir(f"{store.root}/blobs/sha256") == []
    assert os.listdir(f"{store.root}/layers") == []


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def _zstd(data: bytes) -> bytes:
    packer = compression.Compressor("zstd")
    return packer.write(data) + packer.finish()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, _zstd, lzma.compress, bz2.compress], ids=["tar", "gzip", "zstd", "xz", "bzip2"]
)
@pytest.mark.parametrize("way", ["file", "pipe", "stdin"])
def test_ways_in(store: Store, tmp_path: Path, pack: Callable[[bytes], bytes], way: str) -> None:
    path = _write(tmp_path / "a.tar", pack(tar_of(old_docker("debian:12", "localhost/other:1"))))
    if way == "file":
        lines = load(store, path)
    elif way == "stdin":
        with open(path, "rb") as file:
            lines = load(store, file)
    else:
        with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as process:
            lines = load(store, cast("BinaryIO", process.stdout))
    assert lines == ["Loaded image: debian:12", "Loaded image: localhost/other:1"]
    found = catalog.find(store, "debian:12")
    assert found.id == IMAGE.id
    assert catalog.layers(store, found.id) == IMAGE.diff_ids
    assert os.listdir(f"{store.root}/tmp") == []


def test_without_a_name(store: Store, tmp_path: Path) -> None:
    assert load(store, _write(tmp_path / "a", tar_of(old_docker()))) == [f"Loaded image ID: {IMAGE.id}"]


def test_linked_layers(store: Store, tmp_path: Path) -> None:
    """Podman and old docker: a layer's name is a link to another member. The links are followed in the archive."""
    image = server.make_image([TARS[0], TARS[0]])
    manifest = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["x/layer.tar", "y/layer.tar"]}]
    members: list[Member] = [
        ("./real.tar", TARS[0]),
        ("x/layer.tar", "../real.tar"),
        ("y/layer.tar", "../x/layer.tar"),
        ("c.json", image.config),
        ("manifest.json", json.dumps(manifest).encode()),
    ]
    load(store, _write(tmp_path / "a", tar_of(members)))
    assert catalog.layers(store, image.id) == image.diff_ids


def test_compressed_layers_in_a_docker_archive(store: Store, tmp_path: Path) -> None:
    manifest = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["0", "1", "2"]}]
    members: list[Member] = [(str(number), gzip.compress(tar)) for number, tar in enumerate(TARS)]
    members += [("c.json", IMAGE.config), ("manifest.json", json.dumps(manifest).encode())]
    load(store, _write(tmp_path / "a", tar_of(members)))
    assert catalog.find(store, "a:1").id == IMAGE.id


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("docker.io/library/debian:12", "Loaded image: debian:12"),
        ("localhost/a:b", "Loaded image: localhost/a:b"),
        ("12", f"Loaded image ID: {IMAGE.id}"),
        ("", f"Loaded image ID: {IMAGE.id}"),
    ],
)
@pytest.mark.parametrize("form", ["directory", "archive"])
def test_layouts(store: Store, tmp_path: Path, form: str, name: str, line: str) -> None:
    path = server.write_layout(tmp_path / "layout", {name: IMAGE})
    if form == "archive":
        with tarfile.open(tmp_path / "layout.tar", "w") as tar:
            tar.add(path, ".")
        path = tmp_path / "layout.tar"
    assert load(store, str(path)) == [line]
    assert catalog.layers(store, IMAGE.id) == IMAGE.diff_ids
    if ":" in name:
        row = store.db.row("SELECT manifest FROM name")
        assert row == (IMAGE.digest,)
        assert catalog.find(store, f"{name.rpartition(':')[0]}@{IMAGE.digest}").id == IMAGE.id


def test_a_layout_of_several_images(store: Store, tmp_path: Path) -> None:
    other = server.make_image(TARS[:1])
    path = server.write_layout(tmp_path / "layout", {"a/a:1": IMAGE, "b/b:1": other, "c/c:1": IMAGE})
    assert load(store, str(path)) == ["Loaded image: a/a:1", "Loaded image: c/c:1", "Loaded image: b/b:1"]
    assert catalog.find(store, "c/c:1").id == IMAGE.id


def test_a_layout_of_several_platforms(store: Store, tmp_path: Path) -> None:
    arm = server.make_image(TARS[:1], architecture="arm64")
    index = server.make_index({"linux/arm64": arm, "linux/amd64": IMAGE})
    path = server.write_layout(tmp_path / "layout", {"": IMAGE, "1": arm}, index)
    assert load(store, str(path), platform="linux/arm64") == [f"Loaded image ID: {arm.id}"]
    assert load(store, str(path), platform="linux/amd64") == [f"Loaded image ID: {IMAGE.id}"]
    with pytest.raises(NotFound, match="linux/amd64, linux/arm64"):
        load(store, str(path), platform="linux/s390x")


@needs.program("skopeo")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci"])
def test_what_skopeo_writes(store: Store, tmp_path: Path, form: str) -> None:
    source = server.write_layout(tmp_path / "layout", {"1": IMAGE})
    target = f"{form}:{tmp_path}/out:localhost/skopeo:1"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{source}:1", target], check=True)
    assert load(store, f"{tmp_path}/out") == ["Loaded image: localhost/skopeo:1"]
    assert catalog.layers(store, catalog.find(store, "localhost/skopeo:1").id) == IMAGE.diff_ids


def test_the_command(limpet: Any, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", tar_of(old_docker("debian:12")))
    assert limpet("load", "-i", path).stdout == "Loaded image: debian:12\n"
    with open(path, "rb") as file:
        assert limpet("load", "-q", stdin=file).stdout == "Loaded image: debian:12\n"
    missing = limpet("load", "-i", tmp_path / "none", check=False)
    assert (missing.returncode, missing.stderr) == (1, f"limpet: {tmp_path}/none: no such file or directory\n")


# What is no archive, or means harm.


def _manifest(**changes: Any) -> bytes:
    return json.dumps([{"Config": "c", "RepoTags": ["a:1"], "Layers": ["0", "1", "2"], **changes}]).encode()


_FILES: list[Member] = [("c", IMAGE.config), *[(str(number), tar) for number, tar in enumerate(TARS)]]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("manifest.json", b"{")], "not JSON"),
        ([("manifest.json", b"{}")], "not a list of images"),
        ([("manifest.json", b"[]")], "not a list of images"),
        ([*_FILES, ("manifest.json", _manifest(Config=1))], "Config"),
        ([*_FILES, ("manifest.json", _manifest(Layers="x"))], "Layers"),
        ([*_FILES, ("manifest.json", _manifest(RepoTags=["A b"]))], "invalid reference"),
        ([*_FILES, ("manifest.json", _manifest(Layers=["0", "1", "none"]))], "no file 'none'"),
        ([*_FILES, ("manifest.json", _manifest(Layers=["0", "1", "../../../etc/passwd"]))], "no file"),
        ([*_FILES, ("manifest.json", _manifest(Config="/etc/passwd"))], "no file"),
        ([*_FILES, ("l", "/etc/passwd"), ("manifest.json", _manifest(Layers=["0", "1", "l"]))], "no file"),
        ([*_FILES, ("l", "m"), ("m", "l"), ("manifest.json", _manifest(Layers=["0", "1", "l"]))], "no file"),
        ([*_FILES, ("manifest.json", _manifest(Layers=["0", "1"]))], "the config names 3 layers"),
        ([*_FILES, ("manifest.json", _manifest(Layers=["0", "2", "1"]))], "the image says"),
        ([("repositories", b"{}")], "before 1.10"),
        ([("etc/passwd", b"")], "limpet import"),
        ([("oci-layout", b"{}"), ("index.json", b"{}")], "manifest"),
        ([("oci-layout", b"{}"), ("index.json", b'{"schemaVersion":2,"manifests":[]}')], "has no image"),
    ],
)
def test_archives_that_are_refused(store: Store, tmp_path: Path, members: list[Member], message: str) -> None:
    with pytest.raises(LimpetError, match=message):
        load(store, _write(tmp_path / "a", tar_of(members)))
    no_image_and_no_trace(store)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\0" * 10240, b"text, not a tar" * 100, gzip.compress(b"x"), gzip.compress(b"x" * 99)[:-9]]
)
def test_what_is_no_archive(store: Store, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Invalid):
        load(store, _write(tmp_path / "a", data))
    no_image_and_no_trace(store)


@pytest.mark.parametrize("cut", [1000, 20_000, 60_000])
def test_a_cut_archive(store: Store, tmp_path: Path, cut: int) -> None:
    whole = tar_of([("manifest.json", _manifest()), *_FILES])
    with pytest.raises(LimpetError):
        load(store, _write(tmp_path / "a", whole[: 10240 * (len(whole) // 10240) - cut - 10240]))
    no_image_and_no_trace(store)


def test_a_layout_whose_blobs_lie(store: Store, tmp_path: Path) -> None:
    path = server.write_layout(tmp_path / "layout", {"": IMAGE})
    (path / "blobs/sha256" / IMAGE.id[7:]).write_bytes(IMAGE.config.replace(b"linux", b"LINUX"))
    with pytest.raises(Corrupt, match="other bytes"):
        load(store, str(path))
    no_image_and_no_trace(store)


def test_a_layout_whose_links_lead_out(store: Store, tmp_path: Path) -> None:
    path = server.write_layout(tmp_path / "layout", {"": IMAGE})
    blob = path / "blobs/sha256" / IMAGE.id[7:]
    blob.rename(tmp_path / "outside")
    blob.symlink_to(tmp_path / "outside")
    with pytest.raises(NotFound):
        load(store, str(path))
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(NotFound, match="not a file"):
        load(store, str(path))
    blob.unlink()
    (tmp_path / "outside").rename(path / "inside")
    blob.symlink_to("../../inside")
    assert load(store, str(path)) == [f"Loaded image ID: {IMAGE.id}"]


def test_a_missing_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        load(store, str(tmp_path / "none"))


def test_nothing_is_written_by_the_archives_names(store: Store, tmp_path: Path) -> None:
    """Absolute names and names with .. are only names."""
    evil = [(f"../../../../../../{tmp_path}/evil", b"x"), (f"{tmp_path}/evil2", b"x")]
    load(store, _write(tmp_path / "a", tar_of([*evil, *_FILES, ("manifest.json", _manifest())])))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", Path(store.run).name, Path(store.root).name]


def test_a_schema_1_manifest_in_a_layout_is_called_that(store: Store, tmp_path: Path) -> None:
    index = {"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws", "digest": f"sha256:{'0' * 64}"}
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [{**index, "size": 3}]}))
    with pytest.raises(Invalid, match="old Docker schema 1 manifest") as caught:
        load(store, str(tmp_path))
    assert "skopeo copy" in caught.value.hint


@pytest.mark.parametrize(
    ("media_type", "pack", "said"),
    [
        (media.OCI_LAYER, gzip.compress, "but its bytes are gzip-compressed"),
        (media.OCI_LAYER_ZSTD, gzip.compress, "but its bytes are gzip-compressed"),
        (media.OCI_LAYER_GZIP, bytes, "but its bytes are not gzip-compressed"),
    ],
)
def test_a_layer_compressed_otherwise_than_its_media_type_says(
    store: Store, tmp_path: Path, media_type: str, pack: Callable[[bytes], bytes], said: str
) -> None:
    tar = server.tar_of({"file": b"content"})
    image = server.make_image([tar], pack=pack, layer_type=media_type)
    with pytest.raises(Corrupt, match=said) as caught:
        load(store, str(server.write_layout(tmp_path / "layout", {"": image})))
    assert media_type in caught.value.message
    assert catalog.all_images(store) == []
