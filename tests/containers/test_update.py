"""`update` of mounts, environment and labels: at once, kept, undone when the kernel refuses. Limits: test_limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

SLEEP = ("sleep", "1000")


def sh(limpet: Any, name: str, script: str) -> str:
    text: str = limpet("exec", name, "sh", "-c", script).stdout
    return text


@pytest.mark.parametrize("options", [(), ("--userns", "auto"), ("--isolate", "strict")])
def test_a_mount_comes_and_goes(limpet: Any, busybox: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "page").write_text("first\n")
    limpet("run", "-d", "--name", "web", *options, busybox, *SLEEP)
    place = "/run/www"  # a read-only root can get a mount point there only
    limpet("update", "-v", f"{tmp_path}:{place}:ro", "--mount-add", "type=tmpfs,dst=/run/c,tmpfs-size=1m", "web")
    assert sh(limpet, "web", f"cat {place}/page; touch /run/c/x && stat -c %u /run/c/x") == "first\n0\n"
    refused = limpet("exec", "web", "touch", f"{place}/new", check=False)
    assert "Read-only file system" in refused.stderr
    limpet("update", "--mount-rm", place, "web")
    assert sh(limpet, "web", f"ls {place}") == ""
    assert limpet("exec", "web", "test", "-e", "/run/c/x").returncode == 0


def test_what_was_added_is_there_after_a_restart(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, *SLEEP)
    result = limpet("update", "-v", "data:/data", "-e", "A=1", "-e", "B=2", "--label-add", "tier=front", "web")
    assert "from its next start on: limpet restart web" in result.stderr
    assert sh(limpet, "web", "echo kept >/data/file; echo $A") == "\n"
    limpet("update", "--unsetenv", "B", "--label-add", "x=y", "--label-rm", "tier", "web")
    limpet("restart", "web")
    assert sh(limpet, "web", "cat /data/file; echo $A$B") == "kept\n1\n"
    assert json.loads(limpet("inspect", "web").stdout)[0]["Config"]["Labels"] == {"x": "y"}
    assert "in use" in limpet("volume", "rm", "data", check=False).stderr
    limpet("update", "--mount-rm", "/data", "web")
    limpet("volume", "rm", "data")


def test_a_restart_by_policy_takes_it_up(limpet: Any, busybox: str) -> None:
    script = "echo $A; while ! test -e /end; do sleep 0.05; done; rm /end"
    limpet("run", "-d", "--name", "web", "--restart", "always", busybox, "sh", "-c", script)
    limpet("update", "-e", "A=new", "-v", "data:/data", "web")
    sh(limpet, "web", "touch /end")
    until(lambda: "new" in limpet("logs", "web").stdout)
    until(lambda: limpet("exec", "web", "test", "-d", "/data", check=False).returncode == 0)


def test_what_is_refused_changes_nothing(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("run", "-d", "--name", "web", "-v", "first:/first", busybox, *SLEEP)
    before = limpet("inspect", "--format", "{{json .Mounts}}", "web").stdout
    for options, message in (
        (("-v", "other:/first"), "has a mount on /first"),
        (("--mount-rm", "/nothing"), "no mount on /nothing; it has /first"),
        (("-v", f"{tmp_path}/nope:/x"), "does not exist"),
        (("-v", "fine:/fine", "-v", f"{tmp_path}:/etc/passwd"), "mounting on /etc/passwd: Not a directory"),
    ):
        result = limpet("update", *options, "web", check=False)
        assert result.returncode == 1, options
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert limpet("inspect", "--format", "{{json .Mounts}}", "web").stdout == before
    assert limpet("exec", "web", "mountpoint", "-q", "/fine", check=False).returncode != 0
    limpet("volume", "rm", "fine", "other")  # nobody holds them


def test_an_image_and_a_part_of_a_volume(limpet: Any, busybox: str) -> None:
    limpet("run", "--rm", "-v", "data:/data", busybox, "sh", "-c", "mkdir /data/in; echo part >/data/in/file")
    limpet("run", "-d", "--name", "web", busybox, *SLEEP)
    image = f"type=image,src={busybox},dst=/other,subpath=bin"
    limpet("update", "--mount-add", image, "--mount-add", "type=volume,src=data,dst=/part,volume-subpath=in", "web")
    assert sh(limpet, "web", "cat /part/file; /other/busybox echo from it") == "part\nfrom it\n"
    limpet("restart", "-t", "0", "web")
    assert sh(limpet, "web", "cat /part/file; /other/busybox echo from it") == "part\nfrom it\n"


def test_links_in_the_container_lead_nowhere_else(limpet: Any, busybox: str, tmp_path: Path) -> None:
    """A container with the host's processes has /proc/1/root; a mount point must not be made through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    limpet("run", "-d", "--name", "web", "--pid", "host", busybox, *SLEEP)
    sh(limpet, "web", f"ln -s /proc/1/root{outside} /way")
    result = limpet("update", "-v", "data:/way/in", "web", check=False)
    assert result.returncode == 1
    assert "mounting on /way/in" in result.stderr
    assert not list(outside.iterdir())
