"""A real Debian: made with mmdebstrap, pushed with skopeo, pulled, changed, committed, saved, and run by podman."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry import server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small package with a program and no dependencies but libc."""
    place = tmp_path_factory.mktemp("package")
    subprocess.run(["apt-get", "download", "hello"], cwd=place, check=True, capture_output=True)
    return next(place.glob("hello_*.deb"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a docker-registry."""
    with server.docker_registry(tmp_path / "registry") as real:
        yield real.domain


def test_the_whole_way(limpet: Any, registry: str, debian_tar: Path, package: Path, tmp_path: Path) -> None:
    subprocess.run(["umoci", "init", "--layout", tmp_path / "layout"], check=True)
    subprocess.run(["umoci", "new", "--image", f"{tmp_path}/layout:base"], check=True)
    raw = ["umoci", "raw", "add-layer", "--image", f"{tmp_path}/layout:base", str(debian_tar)]
    subprocess.run(raw, check=True, capture_output=True)
    name = f"{registry}/debian:12"
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:base", f"docker://{name}"]
    subprocess.run(copy, check=True)

    pulled = limpet("pull", name)
    assert pulled.stdout.splitlines()[-1] == name
    assert "bookworm" in limpet("run", "--rm", name, "cat", "/etc/os-release").stdout

    limpet("run", "--name", "work", "-v", f"{package}:/tmp/hello.deb:ro", name, "dpkg", "-i", "/tmp/hello.deb")
    changed = limpet("diff", "work").stdout.splitlines()
    assert "A /usr/bin/hello" in changed
    assert "C /var/lib/dpkg/status" in changed
    assert not any("/etc/hosts" in line or "/tmp/hello.deb" in line for line in changed)

    limpet("commit", "-m", "with hello", "-c", 'CMD ["hello"]', "work", "debian-hello:1")
    assert limpet("run", "--rm", "debian-hello:1").stdout == "Hello, world!\n"
    archive = tmp_path / "saved.tar"
    limpet("save", "-o", archive, "debian-hello:1")
    layers = json.loads(limpet("image", "inspect", "debian-hello:1").stdout)[0]["RootFS"]["Layers"]

    place = tempfile.mkdtemp(prefix="limpet-", dir="/var/tmp")  # podman refuses a run root of over 50 letters
    podman = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
    podman += ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    try:
        subprocess.run([*podman, "load", "-q", "-i", archive], check=True, capture_output=True)
        inspect = subprocess.run([*podman, "image", "inspect", "debian-hello:1"], check=True, capture_output=True)
        assert json.loads(inspect.stdout)[0]["RootFS"]["Layers"] == layers
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        run = [*podman, "run", "--rm", "--network", "host", *limits, "debian-hello:1"]
        result = subprocess.run(run, capture_output=True, text=True)
        assert (result.stdout, result.returncode) == ("Hello, world!\n", 0), result.stderr
    finally:
        subprocess.run([*podman, "rmi", "-af"], capture_output=True)
        shutil.rmtree(place)

    limpet("rm", "work")
    limpet("rmi", "debian-hello:1", name)
    assert limpet("images", "-aq").stdout == ""
    assert limpet("system", "check").returncode == 0
