"""Volumes and binds: what is in them, who keeps them, when they go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from limpet.containers.mounts import volumefill, volumes
from limpet.errors import Conflict, Invalid, NotFound
from limpet.store.store import Store

pytestmark = pytest.mark.slow

Limpet = Any


@pytest.fixture
def mine(limpet: Limpet, busybox: str) -> Store:
    return Store(str(limpet.root), f"{limpet.root}/run")


def sh(limpet: Limpet, image: str, script: str, *options: str, **more: Any) -> str:
    return limpet("run", "--rm", *options, image, "sh", "-c", script, **more).stdout


def test_a_named_volume_outlives_its_containers(limpet: Limpet, mine: Store, busybox: str) -> None:
    sh(limpet, busybox, "echo kept > /data/file", "-v", "data:/data")
    assert sh(limpet, busybox, "cat /other/file", "--mount", "source=data,target=/other") == "kept\n"
    volume = volumes.find(mine, "data")
    assert not volume.anonymous
    assert Path(volumes.data_path(mine, "data"), "file").read_text() == "kept\n"
    read_only = limpet("run", "--rm", "-v", "data:/data:ro", busybox, "touch", "/data/x", check=False)
    assert "Read-only file system" in read_only.stderr


def test_a_new_volume_begins_with_the_images_files(limpet: Limpet, busybox: str) -> None:
    limpet("create", "--name", "base", busybox, "true")
    limpet("commit", "-c", "VOLUME /var/data", "base", "with:volume")
    script = (
        "mkdir -p /var/data/sub; echo a > /var/data/a; ln /var/data/a /var/data/b; ln -s a /var/data/c;"
        " chmod 640 /var/data/a; chown 33:1000 /var/data /var/data/a; chmod 1777 /var/data; mkfifo /var/data/f"
    )
    limpet("run", "--name", "made", busybox, "sh", "-c", script)
    limpet("commit", "made", "filled:1")
    look = "stat -c '%n %a %u %g %h %F' /v /v/a /v/b /v/f /v/sub; readlink /v/c; cat /v/b"
    out = sh(limpet, "filled:1", look.replace("/v", "/var/data"), "-v", "new:/var/data").splitlines()
    assert out == [
        "/var/data 1777 33 1000 3 directory",
        "/var/data/a 640 33 1000 2 regular file",
        "/var/data/b 640 33 1000 2 regular file",
        "/var/data/f 644 0 0 1 fifo",
        "/var/data/sub 755 0 0 2 directory",
        "a",
        "a",
    ]
    assert sh(limpet, "filled:1", "rm -r /var/data/*; ls /var/data", "-v", "new:/var/data") == ""
    assert sh(limpet, "filled:1", "ls /var/data", "-v", "bare:/var/data:nocopy") == ""


def test_anonymous_volumes_go_with_their_container(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("create", "--name", "base", busybox, "true")
    limpet("commit", "-c", "VOLUME /var/data", "base", "with:volume")
    sh(limpet, "with:volume", "echo x > /var/data/x", "-v", "named:/n")
    assert [volume.name for volume in volumes.all_volumes(mine)] == ["named"]
    assert os.listdir(limpet.root / "volumes") == ["named"]
    limpet("create", "--name", "box", "with:volume", "true")
    assert len(volumes.all_volumes(mine)) == 2
    limpet("rm", "-v", "box")
    assert [volume.name for volume in volumes.all_volumes(mine)] == ["named"]


def test_a_volume_in_use_stays(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("create", "--name", "box", "-v", "data:/data", busybox, "true")
    with pytest.raises(Conflict, match="in use"):
        volumes.remove(mine, "data")
    limpet("rm", "box")
    volumes.remove(mine, "data")
    with pytest.raises(NotFound):
        volumes.find(mine, "data")
    assert os.listdir(limpet.root / "volumes") == []


def test_create_is_idempotent_and_checks_names(store: Store) -> None:
    first = volumes.create(store, "data", {"a": "b"})
    assert volumes.create(store, "data").created == first.created
    assert volumes.find(store, "data").labels == {"a": "b"}
    assert len(volumes.create(store, anonymous=True).name) == 64
    for name in ("x", "a/b", "../up", ".hidden", "/abs", "a b"):
        with pytest.raises(Invalid):
            volumes.create(store, name)


def test_binds(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("host\n")
    bind = f"{tmp_path}/d"
    assert sh(limpet, busybox, "cat /d/f; echo inside > /d/g", "-v", f"{bind}:/d") == "host\n"
    assert (tmp_path / "d/g").read_text() == "inside\n"
    assert sh(limpet, busybox, "cat /etc/f", "-v", f"{bind}/f:/etc/f:ro") == "host\n"
    assert "Read-only" in limpet("run", "--rm", "-v", f"{bind}:/d:ro", busybox, "touch", "/d/x", check=False).stderr
    assert sh(limpet, busybox, "cat /etc/hosts", "-v", f"{bind}/f:/etc/hosts") == "host\n"
    wrong = limpet("run", "--rm", "-v", f"{bind}/f:/var", busybox, "true", check=False)
    assert wrong.returncode == 127  # as in Docker
    assert "a file can't be mounted on a directory" in wrong.stderr


def test_a_missing_source_is_made_on_request_only(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    result = limpet("run", "--rm", "-v", f"{tmp_path}/new:/d", busybox, "true", check=False)
    assert (result.returncode, "--mkdir" in result.stderr) == (125, True)
    assert not (tmp_path / "new").exists()
    sh(limpet, busybox, "touch /d/x", "--mkdir", "-v", f"{tmp_path}/new:/d")
    assert (tmp_path / "new/x").exists()


def test_a_read_only_bind_is_read_only_below_too(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """A bind is recursive, and so is its `ro` (Docker since 25)."""
    out = limpet("run", "--rm", "-v", "/dev:/hostdev:ro", busybox, "touch", "/hostdev/shm/limpet-test", check=False)
    assert out.returncode != 0
    assert not os.path.exists("/dev/shm/limpet-test")


def test_the_same_volume_in_two_places(limpet: Limpet, busybox: str) -> None:
    assert sh(limpet, busybox, "echo x > /a/f; cat /b/f", "-v", "data:/a", "-v", "data:/b") == "x\n"


def test_mounts_are_inspected(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    limpet("create", "--name", "box", "-v", "data:/data", "-v", f"{tmp_path}:/d:ro", "--tmpfs", "/t", busybox, "true")
    mounts = {m["Destination"]: m for m in json.loads(limpet("inspect", "box").stdout)[0]["Mounts"]}
    assert (mounts["/data"]["Type"], mounts["/data"]["Name"], mounts["/data"]["RW"]) == ("volume", "data", True)
    assert (mounts["/d"]["Type"], mounts["/d"]["Source"], mounts["/d"]["RW"]) == ("bind", str(tmp_path), False)


def test_fill_follows_nothing_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/inner").write_text("inside")
    (tmp_path / "root/data").symlink_to("/etc")
    (tmp_path / "to").mkdir()
    root = os.open(tmp_path / "root", os.O_RDONLY)
    volumefill.fill(root, "/data", str(tmp_path / "to"))
    os.close(root)
    assert os.listdir(tmp_path / "to") == ["inner"]


def test_an_orphan_says_whose_it_was(limpet: Limpet, busybox: str) -> None:
    limpet("run", "--name", "web", "-v", "/var/cache", busybox, "true")
    used = limpet("volume", "ls", "-q").stdout.strip()
    refused = limpet("volume", "rm", used, check=False)
    assert "`limpet rm web` first" in refused.stderr
    limpet("rm", "web")
    limpet("volume", "create", "named")
    for command in (("volume", "prune"), ("system", "prune", "--volumes")):
        shown = limpet(*command, input="n\n").stdout
        assert f"web:/var/cache ({busybox})" in shown
        assert "named" not in shown
    assert limpet("volume", "ls", "-q", "-f", "label=com.docker.volume.anonymous").stdout.strip() == used
    assert limpet("volume", "ls", "-q", "-f", "label!=com.docker.volume.anonymous").stdout == "named\n"
    assert limpet("volume", "ls", "-q", "-f", "driver=other").stdout == ""
    assert used in limpet("volume", "prune", "-f").stdout
    assert limpet("volume", "ls", "-q").stdout == "named\n"


def test_a_directory_that_is_made_is_its_parents_owners(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", 1234, 2345)
    sh(limpet, busybox, "true", "--mkdir", "-v", f"{tmp_path}/home/new/deep:/d")
    assert [(p.stat().st_uid, p.stat().st_gid) for p in tmp_path.glob("home/**/*")] == [(1234, 2345)] * 2


def test_a_container_for_data_needs_no_start(limpet: Limpet, busybox: str) -> None:
    """`--volumes-from` gives what that one's image has there, as in Docker, where `create` fills a volume."""
    limpet("run", "--name", "made", busybox, "sh", "-c", "mkdir /data; echo kept >/data/file")
    limpet("commit", "-c", "VOLUME /data", "made", "data:1")
    limpet("create", "--name", "store", "data:1", "true")
    assert sh(limpet, busybox, "cat /data/file; rm /data/file", "--volumes-from", "store") == "kept\n"
