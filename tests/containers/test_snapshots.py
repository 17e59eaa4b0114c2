"""copy, snapshot, restore, export, volume export and import as a user types them."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.descriptors import opened

from limpet.containers.files import treecopy
from limpet.store.files import remove_tree

pytestmark = pytest.mark.slow


@pytest.fixture
def web(limpet: Any, busybox: str) -> str:
    """A running one that wrote /f, made /d with a hard link, and removed something of its image."""
    script = "echo one >/f; mkdir /d; ln /f /d/g; rm -rf /bin/vi; echo ready; sleep 60"
    limpet("run", "-d", "--name", "web", "-v", "/anonymous", busybox, "sh", "-c", f"touch /anonymous/a; {script}")
    while "ready" not in limpet("logs", "web").stdout:
        pass
    return "web"


def test_a_snapshot_is_put_back(limpet: Any, web: str) -> None:
    before = limpet("diff", web).stdout
    assert limpet("snapshot", web).stdout == "snap0\n"
    limpet("exec", web, "sh", "-c", "echo two >/f; rm -r /d; touch /new")
    assert limpet("diff", web).stdout != before
    assert limpet("snapshot", web, "later").stdout == "later\n"
    assert limpet("snapshots", "-q", web).stdout == "snap0\nlater\n"
    refused = limpet("restore", web, "snap0", check=False)
    assert refused.returncode == 1
    assert "is running" in refused.stderr
    limpet("stop", "-t", "0", web)
    limpet("restore", web, "snap0")
    assert limpet("diff", web).stdout == before
    assert limpet("restore", web).stdout == "later\n"
    assert "A /new" in limpet("diff", web).stdout
    assert "there is later" in limpet("restore", web, "latr", check=False).stderr
    assert "there is snap0, later" in limpet("restore", web, "xyzzy", check=False).stderr
    assert "already" in limpet("snapshot", web, "later", check=False).stderr
    assert "invalid snapshot name '../x'" in limpet("snapshot", web, "../x", check=False).stderr
    assert limpet("snapshot", "--rm", web).stdout == "later\n"
    assert limpet("snapshots", "-q", web).stdout == "snap0\n"
    limpet("rm", web)
    assert limpet("system", "check").stdout == "nothing is wrong\n"


def test_a_copy_has_all_of_it(limpet: Any, web: str) -> None:
    limpet("copy", web, "other")
    assert limpet("diff", "other").stdout == limpet("diff", web).stdout
    limpet("exec", web, "sh", "-c", "echo two >/f; rm /anonymous/a")
    limpet("start", "other")
    assert limpet("exec", "other", "ls", "/anonymous").stdout == "a\n"
    assert limpet("inspect", "-f", "{{.State.Status}} {{.Config.Cmd}}", "other").stdout.startswith("running [sh -c")
    assert "already in use" in limpet("copy", web, "other", check=False).stderr
    limpet("rm", "-fv", web, "other")
    assert limpet("volume", "ls", "-q").stdout == ""


def test_export_leaves_out_what_is_mounted(limpet: Any, web: str, busybox: str, tmp_path: Path) -> None:
    limpet("export", "-o", tmp_path / "web.tar", web)
    with tarfile.open(tmp_path / "web.tar") as tar:
        names = set(tar.getnames())
    assert {"f", "d/g", "anonymous", "proc"} <= names
    assert not any(name.startswith(("anonymous/", "proc/", "sys/")) for name in names)
    limpet("import", tmp_path / "web.tar", "web:saved")
    assert limpet("run", "--rm", "web:saved", "cat", "/d/g").stdout == "one\n"


def test_volumes_out_and_in(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("run", "--rm", "-v", "data:/data", busybox, "sh", "-c", "echo x >/data/f; chown 33:44 /data/f")
    limpet("volume", "export", "data", "-o", tmp_path / "data.tar")
    limpet("volume", "create", "other")
    limpet("volume", "import", "other", tmp_path / "data.tar")
    assert limpet("run", "--rm", "-v", "other:/data", busybox, "stat", "-c", "%u:%g", "/data/f").stdout == "33:44\n"
    for command in (("export", "nosuch"), ("import", "nosuch", tmp_path / "data.tar"), ("import", "other", "/nosuch")):
        result = limpet("volume", *command, check=False)
        assert result.returncode == 1
        assert result.stderr.startswith("limpet: ")
        assert "Traceback" not in result.stderr


def test_a_tree_as_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "below").mkdir(parents=True)
    (source / "file").write_bytes(b"content")
    os.link(source / "file", source / "below" / "link")
    os.symlink("../file", source / "below" / "symlink")
    os.mknod(source / "whiteout", 0o020000, 0)
    os.chown(source / "file", 33, 44)
    os.chmod(source / "file", 0o4755)
    os.setxattr(source, "trusted.overlay.opaque", b"y")
    with open(source / "sparse", "wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"middle")
    os.utime(source / "file", ns=(1, 2))
    treecopy.copy_path(str(source), str(target))
    assert (target / "file").read_bytes() == b"content"
    info = (target / "file").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777, info.st_mtime_ns) == (33, 44, 0o4755, 2)
    assert info.st_ino == (target / "below" / "link").stat().st_ino
    assert os.readlink(target / "below" / "symlink") == "../file"
    assert (target / "whiteout").stat().st_rdev == 0
    assert os.getxattr(target, "trusted.overlay.opaque") == b"y"
    assert (target / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (target / "sparse").stat().st_blocks < 100


_FILES = """
n=0
while true; do n=$((n + 1)); echo $n >/v/first; echo $n >/v/second; done
"""


def test_a_volume_is_put_back(limpet: Any, busybox: str) -> None:
    """Its containers stand still meanwhile: the second file is never ahead of the first, whenever it is taken."""
    for name in ("one", "two"):
        script = _FILES.replace("/v/", f"/v/{name}-")
        limpet("run", "-d", "--name", name, "-v", "data:/v", busybox, "sh", "-c", f"echo {name} >>/v/began;{script}")
    data = Path(limpet.root) / "volumes/data"
    while not all((data / "_data" / f"{name}-second").exists() for name in ("one", "two")):
        pass
    assert [limpet("volume", "snapshot", "data").stdout for _ in range(3)] == ["snap0\n", "snap1\n", "snap2\n"]
    for snap in data.glob("snapshots/*"):
        for name in ("one", "two"):
            first, second = ((snap / f"_data/{name}-{n}").read_text() for n in ("first", "second"))
            assert not first or not second or int(first) - 1 <= int(second) <= int(first)  # "" while it is truncated
    assert limpet("inspect", "-f", "{{.State.Status}}", "one").stdout == "running\n"  # and not frozen any more
    before = (data / "_data/one-first").read_text()
    while (data / "_data/one-first").read_text() == before:
        pass
    refused = limpet("volume", "restore", "data", check=False)
    assert (refused.returncode, "which runs" in refused.stderr) == (1, True)
    limpet("kill", "one", "two")
    limpet("wait", "one", "two")
    (data / "_data/began").write_text("spoilt")
    assert limpet("volume", "restore", "data", "snap1").stdout == "snap1\n"
    assert sorted((data / "_data/began").read_text().split()) == ["one", "two"]
    assert "there is snap1" in limpet("volume", "restore", "data", "snp1", check=False).stderr
    assert limpet("volume", "snapshot", "--rm", "data").stdout == "snap2\n"
    assert limpet("volume", "snapshots", "-q", "data").stdout == "snap0\nsnap1\n"
    assert limpet("volume", "snapshots", "data").stdout.split()[:3] == ["NAME", "CREATED", "SIZE"]
    limpet("rm", "one", "two")
    limpet("volume", "rm", "data")
    assert not data.exists()
    assert limpet("system", "check").stdout == "nothing is wrong\n"


def test_a_snapshot_that_was_killed_leaves_the_volume(limpet: Any, busybox: str) -> None:
    limpet("volume", "create", "data")
    environment = {**limpet.environment, "LIMPET_FAULT": "kill:snapshot-copied:1"}
    killed = subprocess.run([*limpet.command, "volume", "snapshot", "data"], env=environment, capture_output=True)
    assert killed.returncode == -9
    assert limpet("volume", "snapshots", "-q", "data").stdout == ""
    assert "a temporary file" in limpet("system", "check").stdout
    limpet("system", "prune", "-f", "garbage")
    assert limpet("system", "check").stdout == "nothing is wrong\n"


def test_a_tree_deeper_than_paths_and_descriptors(tmp_path: Path) -> None:
    """Where a copy by recursion would end in a traceback; links far down stay links as far as paths reach."""
    depth, name = 700, "d" * 20
    (tmp_path / "source").mkdir()
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    for level in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
        if level in (100, depth - 1):
            os.link("file", "link", src_dir_fd=fd, dst_dir_fd=fd)
        os.mkdir(name, 0o750, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    before = opened()
    treecopy.copy_path(str(tmp_path / "source"), str(tmp_path / "target"))
    assert opened() == before
    fd = os.open(tmp_path / "target", os.O_RDONLY)
    for level in range(depth):
        names = sorted(os.listdir(fd))
        assert names == ([name, "file", "link"] if level in (100, depth - 1) else [name, "file"])
        if level == 100:
            assert os.stat("file", dir_fd=fd).st_nlink == 2
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        assert os.fstat(fd).st_mode & 0o777 == 0o750
    assert os.listdir(fd) == []
    os.close(fd)
    for tree in ("source", "target"):
        remove_tree(str(tmp_path / tree))
