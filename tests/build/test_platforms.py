"""Several platforms at once: what is done once, what an index has, and what a foreign RUN needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import server

from limpet.build.planning import merging
from limpet.errors import Invalid
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.slow

HERE = platforms.host().architecture
OTHER = "arm64" if HERE == "amd64" else "amd64"
BOTH = f"linux/{HERE},linux/{OTHER}"

CROSS = """
FROM --platform=$BUILDPLATFORM busybox:test AS common
RUN mkdir /out && cat /proc/sys/kernel/random/uuid >/out/once
FROM --platform=$BUILDPLATFORM busybox:test AS each
ARG TARGETARCH
RUN mkdir /out && echo $TARGETARCH >/out/arch
FROM scratch
COPY --from=common /out /
COPY --from=each /out /
CMD ["/x"]
"""


@pytest.fixture
def context(tmp_path: Path, busybox: str) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(CROSS)
    return directory


def raw(name: str) -> dict[str, Any]:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", name]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def architectures(index: dict[str, Any]) -> list[str]:
    return [entry["platform"]["architecture"] for entry in index["manifests"]]


def test_requested_platforms() -> None:
    assert merging.requested("") == [""]
    assert merging.requested("linux/arm64,linux/amd64,aarch64") == ["linux/arm64", "linux/amd64"]
    assert merging.requested("local") == [str(platforms.host())]
    for text in ("linux/arm64,", ",", "linux/"):
        with pytest.raises(Invalid):
            merging.requested(text)


def test_stages_of_this_machine_are_run_once(limpet: Any, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = limpet("build", "--no-cache", "--platform", BOTH, "-o", out, context)
    assert result.stderr.count("uuid >/out/once\n") == 1
    assert sorted(path.name for path in out.iterdir()) == sorted([f"linux_{HERE}", f"linux_{OTHER}"])
    assert (out / f"linux_{HERE}/once").read_text() == (out / f"linux_{OTHER}/once").read_text()
    for architecture in (HERE, OTHER):
        assert (out / f"linux_{architecture}/arch").read_text() == f"{architecture}\n"
    failed = limpet(
        "build", "--platform", BOTH, "-o", f"type=local,platform-split=false,dest={out}", context, check=False
    )
    assert "the platforms' files would be mixed" in failed.stderr
    single = limpet("build", "-q", "--platform", f"linux/{OTHER}", "-o", "type=tar,dest=-", context).stdout
    assert OTHER in single


def test_an_index_in_archive_registry_and_store(
    limpet: Any, context: Path, tmp_path: Path, registry: server.Registry
) -> None:
    name, archive, told = f"{registry.domain}/multi:1", tmp_path / "multi.tar", tmp_path / "metadata.json"
    limpet(
        *("build", "--platform", BOTH, "-t", name, "-o", f"type=oci,dest={archive}", "--metadata-file", told),
        *(
            "--push",
            "--load",
            "--annotation",
            "index:whole=1",
            "--annotation",
            f"manifest[linux/{OTHER}]:part=2",
            context,
        ),
    )
    metadata = json.loads(told.read_text())
    assert metadata["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    pushed = raw(f"docker://{name}")
    assert architectures(pushed) == [HERE, OTHER]
    assert pushed["annotations"] == {"whole": "1"}
    with tarfile.open(archive) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        entries = json.load(file)["manifests"]
    assert [entry["digest"] for entry in entries] == [metadata["containerimage.digest"]]
    parts = [raw(f"docker://{registry.domain}/multi@{entry['digest']}") for entry in pushed["manifests"]]
    assert [part.get("annotations") for part in parts] == [None, {"part": "2"}]

    # The name in the store is the image for this machine, and a push of it is the same index.
    (shown,) = json.loads(limpet("image", "inspect", name).stdout)
    assert shown["Architecture"] == HERE
    assert metadata["containerimage.digest"] in limpet("push", name).stdout
    saved = tmp_path / "saved.tar"
    limpet("save", "--format", "oci-archive", "-o", saved, name)
    assert raw(f"oci-archive:{saved}") == pushed

    # The other images belong to it: they are not listed and not pruned, and go with the name.
    assert sorted(limpet("images", "--format", "{{.Tag}}").stdout.split()) == ["1", "test"]
    assert len(limpet("images", "-aq").stdout.split()) == 3
    limpet("image", "prune", "-f")
    assert len(limpet("images", "-aq").stdout.split()) == 3
    assert limpet("rmi", name).stdout.count("Deleted: sha256:") >= 2
    assert limpet("images", "-a", "--format", "{{.Tag}}").stdout.split() == ["test"]


def test_a_base_for_several_platforms(limpet: Any, context: Path, tmp_path: Path, registry: server.Registry) -> None:
    """Each platform's own base is taken; the next build finds both without asking anybody."""
    images = [server.make_image([server.tar_of({"base": each.encode()})], architecture=each) for each in (HERE, OTHER)]
    index = server.make_index({f"linux/{HERE}": images[0], f"linux/{OTHER}": images[1]})
    for number, image in enumerate(images):
        registry.push(image, f"base:{number}")
    registry.push(images[0], "base:1", index)
    (context / "Dockerfile").write_text(f"FROM {registry.domain}/base:1\nCOPY Dockerfile /\n")
    out = tmp_path / "out"
    for _ in range(2):
        result = limpet(
            "build", "--platform", f"linux/{OTHER},linux/{HERE}", "-t", "made", "-o", out, "--load", context
        )
        for architecture in (HERE, OTHER):
            assert (out / f"linux_{architecture}/base").read_text() == architecture
    assert "Pulling" not in result.stderr
    (shown,) = json.loads(limpet("image", "inspect", f"{registry.domain}/base:1").stdout)
    assert shown["Architecture"] == HERE


def test_a_foreign_run_without_an_emulator(limpet: Any, context: Path, busybox_tar: Path) -> None:
    """COPY builds for any platform; what would have to be executed is refused at its line."""
    limpet("import", "--platform", "linux/s390x", busybox_tar, "foreign:1")
    (context / "Dockerfile").write_text("FROM foreign:1\nCOPY Dockerfile /\nWORKDIR /srv\n")
    limpet("build", "-q", "--platform", "linux/s390x", context)
    (context / "Dockerfile").write_text("FROM foreign:1\nCOPY Dockerfile /\nRUN true\n")
    failed = limpet("build", "-q", "--platform", "linux/s390x", context, check=False)
    assert failed.returncode == 1
    assert "Dockerfile:3:1: this machine runs no programs for s390x" in failed.stderr
    (context / "Dockerfile").write_text("FROM limpet/host\n")
    failed = limpet("build", "-q", "--platform", "linux/s390x", context, check=False)
    assert "limpet/host is this machine's own" in failed.stderr
    assert os.listdir(limpet.root / "containers") == []


REGISTERED = """
import os, subprocess, sys
interpreter, header, *command = sys.argv[1:]
subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"], check=True)
escaped = "".join(f"\\\\x{byte:02x}" for byte in bytes.fromhex(header))
with open("/proc/sys/fs/binfmt_misc/register", "w") as file:
    file.write(f":limpet-test-{os.getpid()}:M::{escaped}::{interpreter}:F")
os.execvp(command[0], command)
"""
"""In a mount namespace of its own: the kernel forgets what is registered when its last mount goes, whatever happens."""


def test_a_foreign_run_goes_to_the_emulator(limpet: Any, context: Path, busybox_rootfs: Path, tmp_path: Path) -> None:
    """The "machine" is a shell: its programs are scripts behind an ELF header. The kernel hands them to it."""
    if "binfmt_misc" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no binfmt_misc")
    header = bytes.fromhex("7f454c46020201000000000000000000" + "0002" + "0008")  # mips64, big-endian
    emulator, rootfs = tmp_path / "sh", tmp_path / "rootfs"
    shutil.copy(busybox_rootfs / "bin/busybox", emulator)
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "bin/sh").write_bytes(header + b'\necho emulated "$2"\neval "$2"\n')
    (rootfs / "bin/sh").chmod(0o755)
    limpet("import", "--platform", "linux/mips64", rootfs, "foreign:1")
    (context / "Dockerfile").write_text("FROM foreign:1\nRUN echo made >/made\nFROM scratch\nCOPY --from=0 /made /\n")
    build = [*limpet.command, "build", "--platform", "linux/mips64", "-o", tmp_path / "out", context]
    without = subprocess.run(build, env=limpet.environment, capture_output=True, text=True, check=False)
    assert "this machine runs no programs for mips64" in without.stderr
    command = ["unshare", "-m", sys.executable, "-c", REGISTERED, emulator, header.hex(), *build]
    result = subprocess.run(command, env=limpet.environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "emulated echo made >/made" in result.stderr
    assert (tmp_path / "out/made").read_text() == "made\n"
