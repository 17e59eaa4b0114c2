"""A full disk costs one clear error, and nothing else: 16 MB of ext4 that something fills."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


class Disk:
    """`limpet` works in a store on it; `place` is where it is mounted."""

    def __init__(self, limpet: Any, place: Path) -> None:
        self.limpet = limpet
        self.place = place
        self.store = place / "store"

    def fill(self) -> None:
        """Until not even an empty directory can be made."""
        with open(self.place / "ballast", "wb", buffering=0) as file:
            for size in (1 << 20, 1 << 10, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    def make_room(self) -> None:
        (self.place / "ballast").unlink()

    def refused(self, *command: str | Path, codes: tuple[int, ...] = (1,), **options: Any) -> str:
        """The command fails for want of space, says so in one line (and a hint), and harms nothing: that line."""
        before = self.contents()
        result = self.limpet(*command, check=False, **options)
        assert result.returncode in codes, f"{result.returncode}: {result.stderr}"
        lines = [line for line in result.stderr.splitlines() if line.startswith("limpet: ")]
        assert len(lines) == 1, result.stderr
        assert "No space left on device" in lines[0]
        assert "Errno" not in result.stderr
        assert self.contents() == before
        self.is_sound()
        return str(lines[0])

    def contents(self) -> list[str]:
        names = self.limpet("images", "-a", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--no-trunc")
        return [names.stdout, self.limpet("ps", "-aq", "--no-trunc").stdout]

    def is_sound(self) -> None:
        """No damage: at most garbage, and that goes."""
        found = self.limpet("system", "check", "-q").stdout.splitlines()
        assert [line for line in found if not line.startswith("garbage: ")] == []
        if found:
            self.limpet("system", "prune", "-f", "garbage")
            assert self.limpet("system", "check").stdout == "nothing is wrong\n"


@pytest.fixture
def disk(limpet: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """Of a loop device, with blocks of 4 KiB, or of as many bytes as the parameter says."""
    block = getattr(request, "param", 4096)
    image, place = tmp_path / "disk.img", tmp_path / "small"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    made = shutil.which("mkfs.ext4") and subprocess.run(["mkfs.ext4", "-q", "-b", str(block), image]).returncode == 0
    if not made or subprocess.run(["mount", "-o", "loop", image, place], capture_output=True).returncode != 0:
        pytest.skip("needs mkfs.ext4 and a loop device")
    limpet.environment |= {"LIMPET_ROOT": str(place / "store"), "LIMPET_RUN": str(tmp_path / "run")}
    try:
        yield Disk(limpet, place)
        ids = limpet("ps", "-aq").stdout.split()
        if ids:
            limpet("rm", "-fv", *ids)
    finally:
        subprocess.run(["umount", "-R", place], check=True)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A tar that is larger than the disk."""
    (tmp_path / "big").write_bytes(os.urandom(1 << 20) * 40)
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "big.tar", "big"], check=True)
    return tmp_path / "big.tar"


def test_an_image_that_does_not_fit(disk: Disk, busybox_tar: Path, big: Path) -> None:
    disk.limpet("import", busybox_tar, "busybox:test")
    commands: list[list[str | Path]] = [["capture", "-q", "too/large"], ["import", big, "too/large"]]
    for command in commands:
        line = disk.refused(*command)
        assert str(disk.store) in line
        assert re.search(
            r"\(more was needed than the [\d.]+MB that are free of [\d.]+MB; what was written is removed", line
        )
    # When something was removed, there is room again
    disk.limpet("rmi", "busybox:test")
    disk.limpet("import", busybox_tar, "busybox:again")
    assert os.listdir(disk.store / "tmp") == []


def test_unpacked_layers_need_twice_their_size_and_that_is_said(limpet: Any, busybox_tar: Path, tmp_path: Path) -> None:
    """On tmpfs the kernel mounts no index: the tar fits, and the files beside it don't."""
    place = tmp_path / "small"
    place.mkdir()
    size = busybox_tar.stat().st_size * 3 // 2 + (1 << 20)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    try:
        limpet.environment |= {"LIMPET_ROOT": str(place / "store"), "LIMPET_RUN": str(tmp_path / "run")}
        result = limpet("import", busybox_tar, "busybox:test", check=False)
        assert result.returncode == 1
        message, hint = result.stderr.splitlines()[-2:]
        assert message.startswith(f"limpet: the store in {place}/store: No space left on device (more was needed than")
        assert hint.endswith("; with the storage driver dir an image takes twice its size")
    finally:
        subprocess.run(["umount", place], check=True)


def test_load(disk: Disk, busybox_tar: Path, big: Path, tmp_path: Path) -> None:
    elsewhere = ("--root", tmp_path / "other")
    for tar, name in ((big, "too/large"), (busybox_tar, "busybox:test")):
        disk.limpet(*elsewhere, "import", tar, name)
        disk.limpet(*elsewhere, "save", "-o", tmp_path / f"{name.partition('/')[0]}.tar", name)
    disk.limpet("import", busybox_tar, "busybox:kept")
    assert str(disk.store) in disk.refused("load", "-q", "-i", tmp_path / "too.tar")
    with open(tmp_path / "too.tar", "rb") as stream:  # a pipe or not: what comes by standard input is kept as it comes
        assert str(disk.store) in disk.refused("load", "-q", stdin=stream)
    disk.fill()
    assert "its file system has 0B of" in disk.refused("load", "-q", "-i", tmp_path / "busybox:test.tar")
    disk.make_room()
    disk.limpet("load", "-q", "-i", tmp_path / "busybox:test.tar")
    assert disk.limpet("run", "--rm", "busybox:test", "echo", "hi").stdout == "hi\n"


def test_pull(disk: Disk, busybox_tar: Path, big: Path, tmp_path: Path) -> None:
    with server.docker_registry(tmp_path / "registry") as registry:
        registry.push(server.make_image([big.read_bytes()], pack=lambda tar: gzip.compress(tar, 1)), "large:1")
        registry.push(server.make_image([busybox_tar.read_bytes()]), "small:1")
        large, small = f"{registry.domain}/large:1", f"{registry.domain}/small:1"
        assert str(disk.store) in disk.refused("pull", "-q", large)
        assert str(disk.store) in disk.refused("run", "--rm", "-q", large, "true", codes=(125,))
        disk.limpet("images")
        disk.fill()
        assert str(disk.store) in disk.refused("pull", "-q", small)
        disk.make_room()
        disk.limpet("pull", "-q", small)
        assert disk.limpet("run", "--rm", small, "echo", "hi").stdout == "hi\n"


@pytest.mark.parametrize("disk", [1024, 4096], indirect=True)
def test_a_container_that_fills_the_disk(disk: Disk, busybox_tar: Path) -> None:
    """Its end is recorded, its exit code kept; another can not begin, and removing this one makes room."""
    limpet = disk.limpet
    limpet("import", busybox_tar, "busybox:test")
    limpet("create", "--name", "later", "busybox:test", "true")
    script = "dd if=/dev/zero of=/a bs=1M; dd if=/dev/zero of=/b bs=1k; dd if=/dev/zero of=/c bs=1; exit 7"
    result = limpet("run", "--name", "greedy", "busybox:test", "sh", "-c", f"({script}) 2>&1", check=False)
    assert result.returncode == 7
    assert "No space left on device" in result.stdout
    assert limpet("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "greedy").stdout == "exited 7\n"
    store = str(disk.store)
    assert store in disk.refused("run", "--rm", "busybox:test", "true", codes=(125,))
    assert store in disk.refused("run", "-d", "--name", "other", "busybox:test", "true", codes=(125,))
    assert store in disk.refused("create", "busybox:test", "true", codes=(125,))
    assert store in disk.refused("commit", "greedy", "made:1")
    assert limpet("start", "-a", "greedy", check=False).returncode == 7  # its records have their place already
    assert limpet("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "greedy").stdout == "exited 7\n"
    assert store in disk.refused("start", "later")
    assert limpet("inspect", "-f", "{{.State.Status}}", "later").stdout == "created\n"
    limpet("tag", "busybox:test", "other:1")  # the database has space of its own
    limpet("rmi", "other:1")
    limpet("rm", "greedy")
    disk.is_sound()
    limpet("start", "-a", "later")
    assert limpet("run", "--rm", "busybox:test", "echo", "hi").stdout == "hi\n"


def test_commit_of_more_than_fits(disk: Disk, busybox_tar: Path) -> None:
    limpet = disk.limpet
    limpet("import", busybox_tar, "busybox:test")
    limpet("run", "--name", "large", "busybox:test", "dd", "if=/dev/zero", "of=/large", "bs=1M", "count=6")
    assert str(disk.store) in disk.refused("commit", "large", "made:1")
    limpet("run", "--name", "fits", "busybox:test", "touch", "/new")
    limpet("commit", "fits", "made:1")
    assert limpet("run", "--rm", "made:1", "ls", "/new").stdout == "/new\n"


def test_save_to_a_full_disk(disk: Disk, busybox_tar: Path, tmp_path: Path) -> None:
    """The store is elsewhere: the message names the file, or standard output."""
    limpet = disk.limpet
    limpet.environment |= {"LIMPET_ROOT": str(tmp_path / "elsewhere")}
    limpet("import", busybox_tar, "busybox:test")
    disk.fill()
    target = disk.place / "saved.tar"
    assert f"limpet: {target}: No space left on device" in disk.refused("save", "-o", target, "busybox:test")
    assert not target.exists()
    for command in (["save", "busybox:test"], ["run", "--rm", "busybox:test", "cat", "/bin/busybox"]):
        with open("/dev/full", "wb") as full:
            result = subprocess.run(
                [*limpet.command, *command], env=limpet.environment, stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert result.stderr == "limpet: standard output: No space left on device\n"
        assert result.returncode == (125 if command[0] == "run" else 1)
    disk.make_room()
    limpet("save", "-o", target, "busybox:test")
    target.unlink()
