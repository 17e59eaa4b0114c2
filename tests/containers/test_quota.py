"""--storage-opt size= and volumes with a size: held by the kernel where it counts by project, else as documented."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import runner

from limpet.containers.mounts import diskwatch, quota
from limpet.errors import Invalid
from limpet.kernel import mounts
from limpet.kernel import quota as kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

Limpet = Any
WRITE = "dd if=/dev/zero of=%s bs=64k count=%d 2>&1 | grep -o 'Disk quota exceeded\\|No space left on device'"


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 that counts by project; needs CONFIG_QFMT_V2."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(192 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota", image], check=True)
    place.mkdir()
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-aq", "loop", "quota_v2"], check=False)
    done = subprocess.run(["mount", "-o", "loop,prjquota", image, place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a kernel with CONFIG_QFMT_V2 (project quotas of ext4)")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def there(counted: Path, busybox_tar: Path) -> Iterator[Limpet]:
    limpet = runner(counted / "limpet")
    limpet("import", busybox_tar, "busybox:test")
    yield limpet
    ids = limpet("ps", "-aq").stdout.split()
    limpet("rm", "-fv", *ids, check=False)


def test_the_kernel_holds_what_a_container_may_write(there: Limpet) -> None:
    limpet, image = there, "busybox:test"
    limit = ("--storage-opt", "size=4m")
    out = limpet("run", "--name", "hog", *limit, image, "sh", "-c", WRITE % ("/f", 100) + "; stat -c %s /f")
    said, size = out.stdout.splitlines()
    assert said == "Disk quota exceeded"
    assert 3 << 20 <= int(size) <= 4 << 20
    upper = f"{limpet.root}/containers/{limpet('inspect', '-f', '{{.Id}}', 'hog').stdout.strip()}/upper"
    held = quota.held(upper)
    assert held is not None
    assert held[1] == 4 << 20
    assert abs(held[0] - (4 << 20)) < 1 << 20
    mount = ("--mount", f"type=image,src={image},dst=/i,rw")
    out = limpet("run", "--rm", *limit, *mount, image, "sh", "-c", WRITE % ("/i/f", 100)).stdout
    assert out == "Disk quota exceeded\n"  # an image that is mounted with rw is no way round
    # Another one has its own, a snapshot that is put back is not more, and who has none is not held.
    assert limpet("run", "--rm", *limit, image, "sh", "-c", WRITE % ("/f", 40), check=False).stdout == ""
    assert limpet("run", "--rm", image, "sh", "-c", WRITE % ("/f", 100), check=False).stdout == ""
    limpet("snapshot", "hog")
    assert quota.held(upper) == held
    limpet("restore", "hog")
    limpet("update", "--storage-opt", "size=6m", "hog")
    again = quota.held(upper)
    assert again is not None
    assert again[1] == 6 << 20
    limpet("update", "--storage-opt", "size=4m", "hog")
    again = quota.held(upper)
    assert again is not None
    assert abs(again[0] - held[0]) < 1 << 16
    limpet("start", "hog")
    limpet("wait", "hog")
    limpet("copy", "hog", "twin")
    twin = f"{limpet.root}/containers/{limpet('inspect', '-f', '{{.Id}}', 'twin').stdout.strip()}/upper"
    fd = kernel.open_directory(upper)
    other = kernel.open_directory(twin)
    assert kernel.project(fd) != kernel.project(other)
    assert kernel.usage(other, kernel.project(other))[0] > 3 << 20
    gone = kernel.project(fd)
    os.close(fd)
    limpet("rm", "hog")
    assert kernel.usage(other, gone) == (0, 0)
    os.close(other)
    limpet("rm", "twin")


def test_the_kernel_holds_what_is_in_a_volume(there: Limpet) -> None:
    limpet, image = there, "busybox:test"
    limpet("volume", "create", "-o", "size=2m", "data")
    assert limpet("run", "--rm", "-v", "data:/v", image, "sh", "-c", WRITE % ("/v/f", 100)).stdout.strip() != ""
    assert mounts.below(f"{limpet.root}/volumes") == []  # no file system of its own is needed
    assert os.listdir(f"{limpet.root}/volumes/data") == ["_data"]
    limpet("volume", "snapshot", "data")
    limpet("volume", "restore", "data")
    assert limpet("run", "--rm", "-v", "data:/v", image, "sh", "-c", WRITE % ("/v/g", 100)).stdout.strip() != ""
    limpet("volume", "rm", "data")


def test_elsewhere_it_is_watched(limpet: Limpet, busybox: str) -> None:
    if quota.held(str(limpet.root)) is not None:
        pytest.skip("this file system counts by project")
    script = (
        "dd if=/dev/zero of=/f bs=64k count=%d 2>/dev/null; trap 'echo told; exit 3' TERM; while :; do sleep 0.1; done"
    )
    limpet("run", "-d", "--name", "small", "--storage-opt", "size=4m", busybox, "sh", "-c", script % 16)
    begin = time.monotonic()
    limit = ("--storage-opt", "size=2m", "--restart", "always")
    limpet("run", "-d", "--name", "hog", *limit, busybox, "sh", "-c", script % 64)
    assert limpet("wait", "hog").stdout == "3\n"  # stopped gently, and for good
    assert time.monotonic() - begin < 10
    found = json.loads(limpet("inspect", "hog").stdout)[0]["State"]
    assert found["Status"] == "exited"
    assert "its writable layer has 4.2MB, more than --storage-opt size=2.1MB" in found["Error"]
    said = limpet("events", "--since", "1h", "--until", "0s", "--filter", "event=disk-full", "--format", "json").stdout
    assert json.loads(said)["Actor"]["Attributes"]["name"] == "hog"
    assert limpet("inspect", "-f", "{{.State.Status}}", "small").stdout == "running\n"
    assert "too little" in limpet("update", "--storage-opt", "size=1k", "small", check=False).stderr
    limpet("update", "--storage-opt", "size=1m", "small")
    assert limpet("wait", "small").stdout == "3\n"
    limit = ("--rm", "--name", "seen", "--storage-opt", "size=2m")
    result = limpet("run", *limit, busybox, "sh", "-c", script % 64, check=False)
    assert result.returncode == 3
    assert "limpet: container seen was stopped: its writable layer has 4.2MB" in result.stderr
    assert "seen" not in limpet("ps", "-a").stdout


def test_what_is_written_into_an_image_counts(limpet: Limpet, busybox: str) -> None:
    if quota.held(str(limpet.root)) is not None:
        pytest.skip("this file system counts by project")
    args = ("--storage-opt", "size=2m", "--mount", f"type=image,src={busybox},dst=/i,rw")
    script = "head -c 4000000 /dev/zero >/i/f; trap 'exit 3' TERM; while :; do sleep 0.1; done"
    assert limpet("run", "--rm", *args, busybox, "sh", "-c", script, check=False).returncode == 3


def test_a_volume_with_a_size_has_a_file_system_of_its_own(limpet: Limpet, busybox: str) -> None:
    limpet("volume", "create", "-o", "size=8m", "data")
    script = f"ls -A /v; {WRITE % ('/v/f', 200)}; rm /v/f; echo x >/v/kept"
    out = limpet("run", "--rm", "-v", "data:/v", busybox, "sh", "-c", script).stdout
    assert out.strip() in ("No space left on device", "Disk quota exceeded")
    assert limpet("run", "--rm", "-v", "data:/v", busybox, "cat", "/v/kept").stdout == "x\n"
    assert Path(f"{limpet.root}/volumes/data/image").stat().st_blocks * 512 < 4 << 20  # what was deleted is free again
    mount = "type=volume,src=more,dst=/v,volume-opt=size=8m"
    assert limpet("run", "--rm", "--mount", mount, busybox, "sh", "-c", WRITE % ("/v/f", 200)).stdout.strip() != ""
    assert mounts.below(f"{limpet.root}/volumes") == []
    assert "its size" in limpet("volume", "snapshot", "data", check=False).stderr
    limpet("volume", "rm", "data", "more")
    assert os.listdir(f"{limpet.root}/volumes") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "1k"}, "too little"),
        ({"size": "x"}, "invalid size"),
        ({"quota": "1m"}, "--storage-opt quota is not known"),
    ],
)
def test_sizes_that_can_not_be(options: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        quota.size_of(options, "--storage-opt")


def test_the_rule_is_as_documented() -> None:
    text = (Path(__file__).parent.parent.parent / "docs/volumes.md").read_text()
    assert f"{diskwatch.SOONEST:.0f} to {diskwatch.LATEST:.0f} seconds" in text
    assert f"{diskwatch.FASTEST // 10**6} MB/s" in text
