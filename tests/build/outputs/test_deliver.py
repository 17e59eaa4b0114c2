"""`limpet build --output`: what arrives in directories, archives and registries, as other programs see it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import server

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.slow

DOCKERFILE = """
FROM busybox:test AS made
RUN mkdir -p /out/below && echo one >/out/file && ln /out/file /out/same && ln -s file /out/link && mkfifo /out/fifo \\
 && chown 7:8 /out/file && chmod 4750 /out/file && chmod 1777 /out/below
RUN echo two >/out/below/two && mknod /out/disk b 7 0
FROM scratch
COPY --from=made /out /
CMD ["/file"]
"""


@pytest.fixture
def context(tmp_path: Path, busybox: str) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    return directory


def names(limpet: Any) -> set[str]:
    return set(limpet("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()) - {"busybox:test"}


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def blobs(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member)) is not None}


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry of index.json, and what it names."""
    files = blobs(path)
    (entry,) = json.loads(files["index.json"])["manifests"]
    return entry, json.loads(files[f"blobs/{entry['digest'].replace(':', '/')}"])


def test_a_directory(limpet: Any, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = limpet("build", "-o", out, context)
    assert result.stdout == ""
    assert "devices and sockets are left out" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["below", "fifo", "file", "link", "same"]
    info = (out / "file").stat()
    assert (oct(info.st_mode), info.st_uid, info.st_mtime) == (oct(stat.S_IFREG | 0o750), os.geteuid(), 0)
    assert info.st_ino == (out / "same").stat().st_ino
    assert os.readlink(out / "link") == "file"
    assert stat.S_IMODE((out / "below").stat().st_mode) == 0o1777
    assert (out / "below").stat().st_mtime == 0
    assert (out / "below/two").read_text() == "two\n"
    assert names(limpet) == set()
    again = limpet("build", "-o", out, context)
    assert again.stderr.count(": cached") == 3
    assert (out / "same").stat().st_ino == (out / "file").stat().st_ino
    assert [path.name for path in out.rglob(".*")] == []


def test_a_directory_that_has_files_already(limpet: Any, context: Path, tmp_path: Path) -> None:
    """Others stay, a link is replaced and not written through, and what stands in the way is said."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.write_text("precious\n")
    (out / "mine").write_text("mine\n")
    (out / "file").symlink_to(elsewhere)
    (out / "link").write_text("x")
    limpet("build", "-q", "-o", f"type=local,dest={out}", context)
    assert elsewhere.read_text() == "precious\n"
    assert (out / "file").read_text() == "one\n"
    assert not (out / "file").is_symlink()
    assert (out / "link").is_symlink()
    assert (out / "mine").read_text() == "mine\n"

    other = tmp_path / "other"
    (tmp_path / "target").mkdir()
    other.mkdir()
    (other / "below").symlink_to(tmp_path / "target")
    failed = limpet("build", "-q", "-o", other, context, check=False)
    assert failed.returncode == 1
    assert failed.stderr == (
        f"limpet: {other}/below: the result has a directory where something else is\nremove it, or choose a new dest\n"
    )
    assert list((tmp_path / "target").iterdir()) == []
    (other / "below").unlink()
    (other / "link").mkdir()
    failed = limpet("build", "-q", "-o", other, context, check=False)
    assert "the result has something else where a directory is" in failed.stderr


def test_a_tar_is_the_same_bytes_every_time(limpet: Any, context: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    limpet("build", "-o", f"type=tar,dest={first}", context)
    limpet("build", "--no-cache", "-o", f"type=tar,dest={second}", context)
    assert digest(first) == digest(second)
    os.umask(mask := os.umask(0))
    assert stat.S_IMODE(first.stat().st_mode) == 0o666 & ~mask
    command = [*limpet.command, "build", "-o", "-", context]
    piped = subprocess.run(command, env=limpet.environment, capture_output=True, check=True)
    assert piped.stdout == first.read_bytes()
    with tarfile.open(first) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == sorted(members) == ["below", "below/two", "disk", "fifo", "file", "link", "same"]
    assert (members["file"].mode, members["file"].uid, members["file"].gid) == (0o4750, 7, 8)
    assert members["same"].linkname == "file"
    assert members["disk"].isblk()


def test_an_oci_archive(limpet: Any, context: Path, tmp_path: Path) -> None:
    first, second, told, iid = (tmp_path / name for name in ("1.tar", "2.tar", "metadata.json", "iid"))
    options = ["-t", "registry.example/app:1", "-t", "app", "--metadata-file", told, "--iidfile", iid]
    result = limpet("build", *options, "-o", f"type=oci,dest={first}", context)
    limpet("build", *options, "--no-cache", "-o", f"type=oci,dest={second}", context)
    assert digest(first) == digest(second)
    seen = json.loads(
        subprocess.run(
            ["skopeo", "inspect", "--raw", f"oci-archive:{first}:registry.example/app:1"],
            capture_output=True,
            check=True,
        ).stdout
    )
    assert [layer["mediaType"] for layer in seen["layers"]] == ["application/vnd.oci.image.layer.v1.tar+gzip"]
    metadata = json.loads(told.read_text())
    files = blobs(first)
    index = json.loads(files["index.json"])["manifests"]
    assert {entry["annotations"]["io.containerd.image.name"] for entry in index} == {
        "registry.example/app:1",
        "docker.io/library/app:latest",
    }
    assert {entry["digest"] for entry in index} == {metadata["containerimage.digest"]}
    assert metadata["containerimage.descriptor"]["digest"] == metadata["containerimage.digest"]
    assert metadata["containerimage.descriptor"]["size"] == index[0]["size"]
    assert (
        metadata["containerimage.config.digest"] == seen["config"]["digest"] == result.stdout.strip() == iid.read_text()
    )
    assert metadata["image.name"] == "registry.example/app:1,docker.io/library/app:latest"
    assert names(limpet) == set()
    assert limpet("load", "-i", first).stdout.splitlines()
    assert names(limpet) == {"app:latest", "registry.example/app:1"}
    assert limpet("images", "-q", "--no-trunc", "app").stdout == result.stdout


def test_an_oci_directory_and_the_forms_of_layers(limpet: Any, context: Path, tmp_path: Path) -> None:
    forms = {
        "compression=zstd,compression-level=19": "application/vnd.oci.image.layer.v1.tar+zstd",
        "compression=uncompressed": "application/vnd.oci.image.layer.v1.tar",
        "oci-mediatypes=false": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "": "application/vnd.oci.image.layer.v1.tar+gzip",
    }
    for number, (form, expected) in enumerate(forms.items()):
        limpet("build", "-q", "-o", f"type=oci,dest={tmp_path}/{number}.tar,{form}".rstrip(","), context)
        entry, manifest = documents(tmp_path / f"{number}.tar")
        assert {layer["mediaType"] for layer in manifest["layers"]} == {expected}
        assert entry["mediaType"] == manifest["mediaType"]
        assert ("docker" in entry["mediaType"]) == ("docker" in expected)
    layout = tmp_path / "layout"
    for tag in ("1", "2"):
        limpet("build", "-q", "-t", f"app:{tag}", "-o", f"type=oci,tar=false,dest={layout}", context)
    for tag in ("1", "2"):
        subprocess.run(
            ["skopeo", "inspect", f"oci:{layout}:docker.io/library/app:{tag}"], capture_output=True, check=True
        )
    failed = limpet("build", "-q", "-o", f"type=oci,tar=false,dest={context}", context, check=False)
    assert "has files, but is no OCI layout" in failed.stderr


def test_layers_of_the_base_go_as_they_came_unless_forced(
    limpet: Any, context: Path, tmp_path: Path, registry: server.Registry
) -> None:
    registry.push(server.make_image([server.tar_of({"base": b"x" * 1000})]), "base:1")
    (context / "Dockerfile").write_text(f"FROM {registry.domain}/base:1\nCOPY Dockerfile /\n")
    kinds = []
    for number, force in enumerate(("false", "true")):
        path = tmp_path / f"{number}.tar"
        limpet("build", "-q", "-o", f"type=oci,dest={path},compression=zstd,force-compression={force}", context)
        _, manifest = documents(path)
        kinds.append([layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]])
    assert kinds == [["gzip", "zstd"], ["zstd", "zstd"]]


def test_a_docker_archive(limpet: Any, context: Path, tmp_path: Path) -> None:
    path = tmp_path / "docker.tar"
    made = limpet("build", "-q", "-t", "app:1", "-o", f"type=docker,dest={path}", context).stdout.strip()
    assert json.loads(blobs(path)["manifest.json"])[0]["RepoTags"] == ["docker.io/library/app:1"]
    found = subprocess.run(["skopeo", "inspect", "--raw", f"docker-archive:{path}"], capture_output=True, check=True)
    assert json.loads(found.stdout)["config"]["digest"] == made
    assert names(limpet) == set()
    assert limpet("build", "-q", "-t", "app:1", "-o", "type=docker", context).stdout.strip() == made
    assert names(limpet) == {"app:1"}


def test_annotations(limpet: Any, context: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    output = f"type=oci,dest={path},annotation.own=1"
    limpet("build", "-q", "--annotation", "key=b", "--annotation", "manifest-descriptor:key=d", "-o", output, context)
    entry, manifest = documents(path)
    assert manifest["annotations"] == {"key": "b", "own": "1"}
    assert entry["annotations"] == {"key": "d"}
    failed = limpet("build", "-q", "--annotation", "index:key=b", "-o", output, context, check=False)
    assert "an annotation of an index needs one" in failed.stderr


def test_push(limpet: Any, context: Path, tmp_path: Path, registry: server.Registry) -> None:
    name, told = f"{registry.domain}/pushed:1", tmp_path / "metadata.json"
    result = limpet("build", "-t", name, "--push", "--metadata-file", told, context)
    metadata = json.loads(told.read_text())
    assert f"Pushed {name}@{metadata['containerimage.digest']}" in result.stderr
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    ).stdout
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == metadata["containerimage.digest"]
    assert len(raw) == metadata["containerimage.descriptor"]["size"]
    assert names(limpet) == set()
    # Kept and pushed is one image: a later push has nothing to send.
    limpet("build", "-q", "-t", name, "-o", "type=image,push=true,annotation.a=b", context)
    assert names(limpet) == {name}
    pushed = limpet("push", name).stdout
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    ).stdout
    assert json.loads(raw)["annotations"] == {"a": "b"}
    assert hashlib.sha256(raw).hexdigest() in pushed
    by_digest = limpet(
        "build", "-o", f"type=image,store=false,push=true,push-by-digest=true,name={registry.domain}/other", context
    )
    assert f"Pushed {registry.domain}/other@sha256:" in by_digest.stderr


def test_several_outputs_of_one_build(limpet: Any, context: Path, tmp_path: Path, registry: server.Registry) -> None:
    name = f"{registry.domain}/several:1"
    outputs = [tmp_path / "out", f"type=oci,dest={tmp_path}/a.tar", f"type=tar,dest={tmp_path}/b.tar"]
    options = [option for each in outputs for option in ("-o", each)]
    result = limpet("build", "-t", name, *options, "--push", "--load", context)
    assert result.stderr.count("ran in") == 3
    assert (tmp_path / "out/file").is_file()
    assert (tmp_path / "a.tar").is_file()
    assert (tmp_path / "b.tar").is_file()
    assert names(limpet) == {name}
    assert (
        subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=False
        ).returncode
        == 0
    )


def test_what_is_refused_before_anything_is_built(limpet: Any, context: Path, tmp_path: Path) -> None:
    for output, message in {
        f"type=oci,dest={tmp_path}": "is a directory",
        f"type=tar,dest={tmp_path}/missing/x.tar": "there is no directory",
        f"type=local,dest={context}/Dockerfile": "is no directory",
    }.items():
        failed = limpet("build", "-o", output, context, check=False)
        assert (failed.returncode, failed.stderr.count("\n")) == (1, 2)
        assert message in failed.stderr


def test_a_failed_write_leaves_what_was_there(limpet: Any, context: Path, tmp_path: Path) -> None:
    """A tar that doesn't fit: the old one stays, and nothing lies beside it."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        (small / "x.tar").write_text("old")
        (context / "large").write_bytes(os.urandom(200_000))
        (context / "Dockerfile").write_text("FROM scratch\nCOPY large /\n")
        for output in (f"type=tar,dest={small}/x.tar", f"type=oci,dest={small}/x.tar", f"type=local,dest={small}"):
            failed = limpet("build", "-q", "-o", output, context, check=False)
            assert "No space left on device" in failed.stderr
            assert {path.name: path.read_text() for path in small.iterdir()} == {"x.tar": "old"}
    finally:
        subprocess.run(["umount", small], check=True)
