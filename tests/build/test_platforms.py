"""Several platforms at once: what is done once, what an index has, and what a foreign RUN needs."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import server

from limpet.build import merging
from limpet.errors import Invalid
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Registry]:
    with server.docker_registry(tmp_path_factory.mktemp("registry")) as real:
        yield real


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
