"""Images and containers that want to reach the host."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

Limpet = Any


def image_with(limpet: Limpet, busybox_tar: Path, tmp_path: Path, *members: tuple[str, str, bytes | str]) -> str:
    """busybox and more: (kind, path, content of a file or target of a link)."""
    path = tmp_path / "hostile.tar"
    with tarfile.open(busybox_tar) as old, tarfile.open(path, "w") as new:
        replaced = {name for _, name, _ in members}
        for member in old.getmembers():
            if member.name.removeprefix("./") not in replaced:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
        for kind, name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, str(content)
                new.addfile(info)
            else:
                data = content if isinstance(content, bytes) else content.encode()
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    limpet("import", path, "hostile:1")
    return "hostile:1"


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_the_kernels_file_systems_are_not_mounted_through_a_link(
    limpet: Limpet, busybox_tar: Path, tmp_path: Path, place: str
) -> None:
    image = image_with(limpet, busybox_tar, tmp_path, ("link", place, "/tmp"))
    result = limpet("run", "--rm", image, "true", check=False)
    assert result.returncode == 125
    assert f"/{place} is a symbolic link" in result.stderr


@pytest.mark.parametrize("target", ["/proc/self/fd/{}/etc", "../../../../../../tmp", "/proc/1/root/tmp"])
def test_mount_points_that_are_links_stay_inside(
    limpet: Limpet, busybox_tar: Path, tmp_path: Path, target: str
) -> None:
    for number in range(3, 8) if "{}" in target else (0,):
        image = image_with(limpet, busybox_tar, tmp_path, ("link", "var/data", target.format(number)))
        limpet("run", "--rm", "-v", f"{tmp_path}:/var/data", image, "true", check=False)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(tmp_path) not in mounts


def test_a_working_directory_of_a_leaked_descriptor(limpet: Limpet, busybox: str) -> None:
    """CVE-2024-21626: the host's directory by /proc/self/fd."""
    script = ("sh", "-c", "pwd; ls ../../../..")
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    for number in range(3, 14):
        place = f"/proc/self/fd/{number}"
        for command in (("run", "--rm", "-w", place, busybox), ("exec", "-w", place, "box")):
            result = limpet(*command, *script, check=False)
            assert "limpet" not in result.stdout
            assert "boot" not in result.stdout.split()


def test_nothing_is_imported_from_the_image(limpet: Limpet, busybox_tar: Path, tmp_path: Path) -> None:
    """A module that limpet would import after it changed its root must not come from there."""
    import limpet as package

    source = Path(package.__file__).parent
    planted = b"open('/planted', 'w').close()\n"
    library = Path(os.__file__).parent
    modules = [*source.rglob("*.py"), library / "traceback.py", library / "json/__init__.py"]
    members = [("file", str(path).lstrip("/"), planted) for path in modules]
    image = image_with(limpet, busybox_tar, tmp_path, *members)
    script = "[ ! -e /planted ]"
    limpet("run", "--rm", image, "sh", "-c", script)
    limpet("run", "--rm", "-t", image, "sh", "-c", script)
    limpet("run", "--rm", "--network", "none", "-u", "1:1", "--ulimit", "nofile=100", image, "sh", "-c", script)
    assert limpet("run", "--name", "failing", image, "/nosuch", check=False).returncode == 127
    assert "planted" not in limpet("diff", "failing").stdout
    limpet("run", "-d", "--name", "box", image, "sleep", "1000")
    for options in ((), ("-t",), ("-d",), ("-u", "user")):
        limpet("exec", *options, "box", "sh", "-c", script)
    limpet("exec", "box", "/nosuch", check=False)
    limpet("exec", "box", "sh", "-c", script)


def test_pid_1_has_nothing_to_look_for(limpet: Limpet, busybox: str) -> None:
    script = (
        "cat /proc/1/environ; cut -d/ -f2- /proc/1/maps | grep -v '\\['; [ /proc/1/root -ef / ] && echo same root;"
        " ls /proc/1/fd; kill -STOP 1; kill -KILL 1; echo on"
    )
    result = limpet("run", "--rm", busybox, "sh", "-c", script, check=False)
    image, *rest = result.stdout.splitlines()
    assert (image.startswith("dev/#"), image.endswith(" (deleted)")) == (True, True)  # a file without a name
    assert rest == ["same root", "1", "2", "on"]


def test_a_program_can_not_write_to_the_hosts_files_by_its_descriptors(limpet: Limpet, busybox: str) -> None:
    out = limpet("run", "--rm", busybox, "sh", "-c", "ls -l /proc/self/fd").stdout
    targets = [line.partition(" -> ")[2] for line in out.splitlines() if " -> " in line]
    assert targets[0] == "/dev/null"
    assert all(target.startswith(("pipe:", "/dev/null", "/proc/")) for target in targets)


def test_a_fork_bomb_ends_with_its_container(limpet: Limpet, busybox: str) -> None:
    script = "for i in $(seq 50); do (trap '' TERM HUP; sleep 1000) & done; echo ready; wait"
    limpet("run", "-d", "--name", "box", busybox, "sh", "-c", script)
    limpet("exec", "box", "sh", "-c", "until [ $(ps | grep -c sleep) -gt 40 ]; do sleep 0.01; done")
    limpet("rm", "-f", "box")
    assert limpet("ps", "-aq").stdout == ""


def test_a_tree_of_any_depth_can_be_removed(limpet: Limpet, busybox: str) -> None:
    script = "i=0; while [ $i -lt 1200 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done"
    limpet("run", "--rm", "-w", "/tmp", busybox, "sh", "-c", script)
    assert os.listdir(limpet.root / "containers") == []
    assert os.listdir(limpet.root / "tmp") == []
