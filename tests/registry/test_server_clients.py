"""The clients that people have, against the server: each pushes and pulls, and the bytes are the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry.ours import Ours, serving
from tests.registry.server import Image, digest_of, make_image, make_index, tar_of, write_layout

from limpet.oci import media

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    with serving(tmp_path_factory.mktemp("registry") / "data", "--workers", "2") as registry:
        yield registry


def run(*command: str | Path, **options: Any) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"needs {command[0]}")
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        **options,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


def sample(text: str) -> Image:
    return make_image([tar_of({"big": os.urandom(200_000), "text": text.encode()}), tar_of({"other": b"x"})])


def test_skopeo(ours: Ours, tmp_path: Path) -> None:
    images = {"linux/amd64": sample("amd64"), "linux/arm64": sample("arm64")}
    index = make_index(images)
    layout = write_layout(tmp_path / "layout", {str(n): image for n, image in enumerate(images.values())}, index)
    name = f"docker://{ours.domain}/skopeo/app:1"
    run("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", f"oci:{layout}", name)
    assert ours("GET", "/v2/skopeo/app/manifests/1").body == index
    run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", name, f"oci:{tmp_path}/back")
    for image in images.values():
        for digest, data in image.blobs.items():
            assert (tmp_path / "back/blobs/sha256" / digest[7:]).read_bytes() == data
    tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{ours.domain}/skopeo/app"))
    assert tags["Tags"] == ["1"]
    again = f"docker://{ours.domain}/skopeo/copy:1"  # its blobs are mounted
    run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", name, again)
    assert ours("GET", "/v2/skopeo/copy/manifests/1").body == index
    run("skopeo", "delete", "--tls-verify=false", again)
    assert ours("GET", "/v2/skopeo/copy/manifests/1").status == 404


def test_podman(ours: Ours, tmp_path: Path, busybox_tar: Path, request: pytest.FixtureRequest) -> None:
    short = tempfile.mkdtemp(prefix="r")  # podman takes no run root of more than 50 characters
    request.addfinalizer(lambda: shutil.rmtree(short))
    podman = ["podman", "--root", f"{tmp_path}/root", "--runroot", short, "--storage-driver", "vfs"]
    podman += ["--tmpdir", f"{tmp_path}/tmp", "--events-backend", "none"]
    name = f"{ours.domain}/podman/app:1"
    run(*podman, "import", "-q", busybox_tar, name)
    run(*podman, "push", "-q", "--tls-verify=false", name)
    pushed = ours("GET", "/v2/podman/app/manifests/1").json()
    run(*podman, "rmi", name)
    identity = run(*podman, "pull", "-q", "--tls-verify=false", name).strip()
    assert f"sha256:{identity}" == pushed["config"]["digest"]
    run(*podman, "rmi", name)


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[list[str]]:
    """Debian's docker and dockerd 20.10, without bridge and firewall rules."""
    if shutil.which("dockerd") is None:
        pytest.skip("needs Debian's docker.io")
    socket = f"{tmp_path}/docker.sock"
    with open(tmp_path / "dockerd.log", "wb") as log:
        server = subprocess.Popen(
            [
                "dockerd",
                "--iptables=false",
                "--bridge=none",
                "--data-root",
                f"{tmp_path}/docker",
                "--storage-driver",
                "vfs",
                "--exec-root",
                f"{tmp_path}/docker-run",
                "--pidfile",
                f"{tmp_path}/docker.pid",
                "-H",
                f"unix://{socket}",
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    command = ["/usr/bin/docker", "-H", f"unix://{socket}"]
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([*command, "info"], capture_output=True).returncode:
            assert server.poll() is None, (tmp_path / "dockerd.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield command
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_docker(ours: Ours, docker: list[str], busybox_tar: Path, request: pytest.FixtureRequest) -> None:
    name = f"{ours.domain}/docker/app:1"
    identity = run(*docker, "import", busybox_tar, name).strip()
    pushed = run(*docker, "push", name)
    manifest = ours("GET", "/v2/docker/app/manifests/1")
    assert digest_of(manifest.body) in pushed
    assert manifest.headers["Content-Type"] == media.DOCKER_MANIFEST
    run(*docker, "rmi", name)
    run(*docker, "pull", name)
    assert run(*docker, "inspect", "-f", "{{.Id}}", name).strip() == identity
    newer = Path("/usr/local/bin/docker")
    if newer.exists():  # docker 28's command line, as people have it on their machines
        command = [str(newer), *docker[1:]]
        run(*command, "tag", name, f"{ours.domain}/docker/other:2")
        run(*command, "push", f"{ours.domain}/docker/other:2")  # its layer is mounted from docker/app
        assert ours("GET", "/v2/docker/other/manifests/2").body == manifest.body


def test_limpet(ours: Ours, limpet: Any, busybox: str) -> None:
    name = f"{ours.domain}/limpet/app:1"
    limpet("tag", busybox, name)
    limpet("push", name)
    identity = limpet("image", "inspect", "-f", "{{.Id}}", busybox).stdout
    limpet("rmi", name, busybox)
    limpet("pull", name)
    assert limpet("image", "inspect", "-f", "{{.Id}}", name).stdout == identity
    assert limpet("run", "--rm", name, "echo", "here").stdout == "here\n"


def test_curl_attaches_a_referrer(ours: Ours, tmp_path: Path) -> None:
    """As oras does it: a blob, a manifest with a subject, and the list of those."""
    image = sample("subject")
    layout = write_layout(tmp_path / "layout", {"x": image})
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:x", f"docker://{ours.domain}/curl/app:1")
    base = f"http://{ours.domain}/v2/curl/app"
    sbom = b'{"spdxVersion": "SPDX-2.3"}'
    for data in (sbom, b"{}"):
        (tmp_path / "blob").write_bytes(data)
        answer = run(
            "curl", "-sSfi", "--data-binary", f"@{tmp_path}/blob", f"{base}/blobs/uploads/?digest={digest_of(data)}"
        )
        assert " 201 " in answer
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": "application/spdx+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/spdx+json", "digest": digest_of(sbom), "size": len(sbom)}],
        "subject": {"mediaType": media.OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)},
    }
    text = json.dumps(manifest).encode()
    (tmp_path / "manifest").write_bytes(text)
    answer = run("curl", "-sSfi", "-T", tmp_path / "manifest", "-H", f"Content-Type: {media.OCI_MANIFEST}",
                 f"{base}/manifests/{digest_of(text)}")  # fmt: skip
    assert f"OCI-Subject: {image.digest}".lower() in answer.lower()
    found = json.loads(run("curl", "-sSf", f"{base}/referrers/{image.digest}"))["manifests"]
    assert [(one["digest"], one["artifactType"]) for one in found] == [(digest_of(text), "application/spdx+json")]
    assert run("curl", "-sSfL", f"{base}/blobs/{digest_of(sbom)}") == sbom.decode()


def test_a_large_body_waits_for_the_head_to_be_judged(ours: Ours, tmp_path: Path) -> None:
    """curl asks with `Expect: 100-continue`, and would wait a second for an answer that never came."""
    (tmp_path / "blob").write_bytes(data := os.urandom(3 << 20))
    curl = ("curl", "-sSi", "--expect100-timeout", "60", "-H", "Expect: 100-continue")
    target = f"http://{ours.domain}/v2/curl/large/blobs/uploads/?digest={digest_of(data)}"
    answer = run(*curl, "--data-binary", f"@{tmp_path}/blob", target)
    assert " 100 Continue" in answer
    assert " 201 Created" in answer
    answer = run(*curl, "-T", tmp_path / "blob", f"http://{ours.domain}/v2/curl/large/manifests/BAD:TAG")
    assert " 100 Continue" not in answer
    assert " 400 Bad Request" in answer
