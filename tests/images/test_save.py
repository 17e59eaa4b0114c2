"""Save: the same bytes every time, and archives that limpet, skopeo and podman read."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from typing import TYPE_CHECKING

import pytest
from tests import needs
from tests.registry import server

from limpet.errors import Corrupt, Invalid, LimpetError, NotFound
from limpet.images import catalog, names
from limpet.images.load import load
from limpet.images.save import save
from limpet.oci import manifest, media
from limpet.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

TARS = [server.tar_of({f"file{number}": os.urandom(30_000)}) for number in range(3)]
IMAGE = server.make_image(TARS)
DOCKER = server.make_image(TARS[:2], docker=True, created="2026-01-02T03:04:05Z")


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """IMAGE as debian:12 and app/one:1, with its compressed blobs; DOCKER as app/two:1."""
    load(store, str(server.write_layout(tmp_path / "layout", {"library/debian:12": IMAGE, "app/two:1": DOCKER})))
    names.tag(store, "debian:12", "app/one:1")
    return store


def _archive(store: Store, *texts: str, form: str = "docker-archive") -> bytes:
    out = io.BytesIO()
    save(store, texts, out, form)
    return out.getvalue()


def _files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: file.read() for m in tar if (file := tar.extractfile(m)) is not None}


def _second(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "second"), str(tmp_path / "second-run"))


def test_a_docker_archive(filled: Store, tmp_path: Path) -> None:
    data = _archive(filled, "debian:12", "app/one:1", "app/two:1")
    files = _files(data)
    assert json.loads(files["manifest.json"]) == [
        {
            "Config": f"{IMAGE.id[7:]}.json",
            "RepoTags": ["docker.io/library/debian:12", "docker.io/app/one:1"],
            "Layers": [f"{diff_id[7:]}.tar" for diff_id in IMAGE.diff_ids],
        },
        {
            "Config": f"{DOCKER.id[7:]}.json",
            "RepoTags": ["docker.io/app/two:1"],
            "Layers": [f"{diff_id[7:]}.tar" for diff_id in DOCKER.diff_ids],
        },
    ]
    assert [files[f"{diff_id[7:]}.tar"] for diff_id in IMAGE.diff_ids] == TARS
    assert len(data) % 10240 == 0
    (tmp_path / "a.tar").write_bytes(data)
    second = _second(tmp_path)
    assert load(second, str(tmp_path / "a.tar")) == [
        "Loaded image: debian:12",
        "Loaded image: app/one:1",
        "Loaded image: app/two:1",
    ]
    assert catalog.layers(second, IMAGE.id) == IMAGE.diff_ids


def test_an_oci_archive_has_the_bytes_of_the_registry(filled: Store) -> None:
    files = _files(_archive(filled, "debian:12", form="oci-archive"))
    assert files[f"blobs/sha256/{IMAGE.digest[7:]}"] == IMAGE.manifest
    for digest, data in IMAGE.blobs.items():
        assert files[f"blobs/sha256/{digest[7:]}"] == data
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == IMAGE.digest
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/library/debian:12"
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_an_image_that_came_without_a_manifest_gets_one(filled: Store, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(_archive(filled, "debian:12"))
    second = _second(tmp_path)
    load(second, str(tmp_path / "a.tar"))
    files = _files(_archive(second, "debian:12", form="oci-archive"))
    (entry,) = json.loads(files["index.json"])["manifests"]
    found = manifest.parse(files[f"blobs/sha256/{entry['digest'][7:]}"])
    assert isinstance(found, manifest.Manifest)
    assert [(layer.media_type, layer.digest) for layer in found.layers] == [
        (media.OCI_LAYER, diff_id) for diff_id in IMAGE.diff_ids
    ]
    (tmp_path / "b.tar").write_bytes(_archive(second, "debian:12", form="oci-archive"))
    third = Store(str(tmp_path / "third"), str(tmp_path / "third-run"))
    load(third, str(tmp_path / "b.tar"))
    assert catalog.find(third, "debian:12").id == IMAGE.id
    assert _archive(third, "debian:12", form="oci-archive") == (tmp_path / "b.tar").read_bytes()


def test_plain_layers_of_a_layout_are_not_kept_twice(store: Store, tmp_path: Path) -> None:
    plain = server.make_image(TARS, pack=bytes, layer_type=media.OCI_LAYER)
    load(store, str(server.write_layout(tmp_path / "plain", {"a/a:1": plain})))
    kept = {f"sha256:{name}" for name in os.listdir(f"{store.root}/blobs/sha256")}
    assert kept == {plain.id, plain.digest}
    files = _files(_archive(store, "a/a:1", form="oci-archive"))
    assert files[f"blobs/sha256/{plain.digest[7:]}"] == plain.manifest
    assert files[f"blobs/sha256/{plain.diff_ids[0][7:]}"] == TARS[0]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_the_same_bytes_every_time(filled: Store, form: str) -> None:
    first = _archive(filled, "debian:12", "app/two:1", form=form)
    assert _archive(filled, "debian:12", "app/two:1", form=form) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "")}


def test_a_layout_directory_keeps_what_it_has(filled: Store, tmp_path: Path) -> None:
    save(filled, ["debian:12"], str(tmp_path / "out"), "oci-dir")
    save(filled, ["app/two:1"], str(tmp_path / "out"), "oci-dir")
    save(filled, ["debian:12"], str(tmp_path / "out"), "oci-dir")
    assert load(_second(tmp_path), str(tmp_path / "out")) == ["Loaded image: app/two:1", "Loaded image: debian:12"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(Invalid, match="no OCI layout"):
        save(filled, ["debian:12"], str(tmp_path / "other"), "oci-dir")


def test_a_repository_means_all_its_tags(filled: Store) -> None:
    names.tag(filled, "app/two:1", "debian:13")
    tags = [entry["RepoTags"] for entry in json.loads(_files(_archive(filled, "debian"))["manifest.json"])]
    assert tags == [["docker.io/library/debian:12"], ["docker.io/library/debian:13"]]
    (entry,) = json.loads(_files(_archive(filled, IMAGE.id[7:20]))["manifest.json"])
    assert entry["RepoTags"] is None


def test_what_is_wrong(filled: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        _archive(filled, "none:1")
    with pytest.raises(Invalid, match="unknown format"):
        _archive(filled, "debian:12", form="zip")
    with open(f"{filled.layer_path(IMAGE.diff_ids[1])}/data", "r+b") as file:
        file.seek(2000)
        file.write(b"damage")
    with pytest.raises(Corrupt, match=IMAGE.diff_ids[1]):
        _archive(filled, "debian:12")


def test_the_command(limpet: Any, tmp_path: Path) -> None:
    layout = server.write_layout(tmp_path / "layout", {"library/debian:12": IMAGE})
    limpet("load", "-i", layout)
    limpet("save", "-o", tmp_path / "a.tar", "debian:12")
    with open(tmp_path / "b.tar", "wb") as file:
        subprocess.run([*limpet.command, "save", "debian:12"], stdout=file, env=limpet.environment, check=True)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    missing = limpet("save", "-o", tmp_path / "a.tar", "none:1", check=False)
    assert missing.returncode == 1
    assert "none:1" in missing.stderr
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("a.tar")) == ["a.tar"]
    assert limpet("save", "-o", tmp_path / "no/a.tar", "debian:12", check=False).returncode == 1
    assert limpet("save", "--format", "oci-dir", "debian:12", check=False).returncode == 1


@needs.program("skopeo")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("name", ["debian:12", "app/two:1"])
def test_skopeo_reads_it(filled: Store, tmp_path: Path, form: str, name: str) -> None:
    (tmp_path / "a.tar").write_bytes(_archive(filled, name, form=form))
    command = ["skopeo", "inspect", "--config", f"{form}:{tmp_path}/a.tar"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["rootfs"]["diff_ids"] == (IMAGE if name == "debian:12" else DOCKER).diff_ids
    # A copy reads and verifies every layer.
    subprocess.run(["skopeo", "copy", "-q", f"{form}:{tmp_path}/a.tar", f"dir:{tmp_path}/copy"], check=True)


@pytest.fixture
def podman() -> Iterator[list[str]]:
    if shutil.which("podman") is None:
        pytest.skip("needs Debian's podman")
    # podman takes 50 characters for its run directory at most, fewer than tmp_path has.
    with tempfile.TemporaryDirectory(prefix="podman") as root:
        # fmt: off
        yield ["podman", "--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs",
               "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        # fmt: on


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("name", ["debian:12", "app/two:1"])
def test_podman_loads_it(filled: Store, tmp_path: Path, podman: list[str], form: str, name: str) -> None:
    (tmp_path / "a.tar").write_bytes(_archive(filled, name, form=form))
    image = IMAGE if name == "debian:12" else DOCKER
    result = subprocess.run([*podman, "load", "-q", "-i", tmp_path / "a.tar"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"docker.io/{'library/' if name == 'debian:12' else ''}{name}" in result.stdout
    inspect = [*podman, "image", "inspect", name, "--format", "{{.Id}} {{json .RootFS.Layers}}"]
    found_id, layers = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.split(" ", 1)
    assert f"sha256:{found_id}" == image.id
    assert json.loads(layers) == image.diff_ids
    # And back; podman writes the config anew when it turns Docker's form into OCI's.
    saved = tmp_path / "back.tar"
    subprocess.run([*podman, "save", "-q", "--format", form, "-o", saved, name], check=True)
    assert load(_second(tmp_path), str(saved)) == [f"Loaded image: {name}"]
    back = _second(tmp_path)
    assert catalog.layers(back, catalog.find(back, name).id) == image.diff_ids


def test_docker_lines_of_a_bad_archive(limpet: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    result = limpet("load", "-i", tmp_path / "x", check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    with pytest.raises(LimpetError):
        load(_second(tmp_path), str(tmp_path / "x"))
