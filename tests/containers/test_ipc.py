"""`--ipc shareable` and `container:NAME`: one IPC namespace and /dev/shm for several containers; `--uts` likewise."""

from __future__ import annotations

import os
from typing import Any

import pytest


def namespace(limpet: Any, name: str, kind: str) -> str:
    pid = limpet("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def test_two_share_memory_and_queues(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "first", "--ipc", "shareable", "--shm-size", "1m", busybox, "sleep", "1000")
    limpet("exec", "first", "sh", "-c", "echo hello > /dev/shm/said; touch /dev/mqueue/q")
    limpet("run", "-d", "--name", "second", "--ipc", "container:first", busybox, "sleep", "1000")
    assert namespace(limpet, "second", "ipc") == namespace(limpet, "first", "ipc")
    assert limpet("exec", "second", "cat", "/dev/shm/said").stdout == "hello\n"
    assert limpet("exec", "second", "ls", "/dev/mqueue").stdout == "q\n"
    limpet("exec", "second", "sh", "-c", "echo back > /dev/shm/said")
    assert limpet("exec", "first", "cat", "/dev/shm/said").stdout == "back\n"
    shown = limpet("exec", "second", "sh", "-c", "df -k /dev/shm | tail -n 1; grep ' /dev/shm ' /proc/mounts").stdout
    assert shown.split()[1] == "1024"
    assert "noexec" in shown
    # A third joins the second, which has it of the first; and it stays when its maker ends.
    chained = limpet("run", "--rm", "--ipc", "container:second", busybox, "cat", "/dev/shm/said")
    assert chained.stdout == "back\n"
    limpet("rm", "-f", "first")
    assert limpet("exec", "second", "cat", "/dev/shm/said").stdout == "back\n"
    result = limpet("inspect", "-f", "{{.HostConfig.IpcMode}}", "second").stdout
    assert result.startswith("container:")


def test_one_with_a_mount_of_its_own_there_keeps_it(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "first", "--ipc", "shareable", busybox, "sleep", "1000")
    limpet("exec", "first", "touch", "/dev/shm/theirs")
    for mount in (["--tmpfs", "/dev/shm"], ["-v", "other:/dev/shm"]):
        assert limpet("run", "--rm", "--ipc", "container:first", *mount, busybox, "ls", "/dev/shm").stdout == ""


def test_root_that_is_nobody_shares_too(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "first", "--userns", "auto", "--ipc", "shareable", busybox, "sleep", "1000")
    limpet("exec", "first", "touch", "/dev/shm/theirs")
    assert limpet("run", "--rm", "--ipc", "container:first", busybox, "ls", "/dev/shm").stdout == "theirs\n"


@pytest.mark.parametrize("mode", ["private", "none", ""])
def test_what_is_not_shared_is_not_joined(limpet: Any, busybox: str, mode: str) -> None:
    limpet("run", "-d", "--name", "first", *(["--ipc", mode] if mode else []), busybox, "sleep", "1000")
    result = limpet("run", "--rm", "--ipc", "container:first", busybox, "true", check=False)
    assert result.returncode == 125
    assert "does not share it\nmake that one with --ipc shareable" in result.stderr


def test_a_link_in_place_of_shared_memory_leads_nowhere(limpet: Any, busybox: str) -> None:
    """Whoever is root in the first container, with its mounts in hand, shows nothing else to the second."""
    limpet("run", "-d", "--name", "first", "--privileged", "--ipc", "shareable", busybox, "sleep", "1000")
    limpet(
        "exec", "--privileged", "first", "sh", "-c", "umount /dev/shm; rmdir /dev/shm; ln -s /proc/1/root/etc /dev/shm"
    )
    result = limpet("run", "--rm", "--ipc", "container:first", busybox, "ls", "/dev/shm", check=False)
    assert result.returncode == 125
    assert "/dev/shm of the container whose IPC is joined: Too many levels of symbolic links" in result.stderr


def test_names_and_groups_of_another(limpet: Any, busybox: str) -> None:
    options = ["--hostname", "one", "--domainname", "example.org"]
    limpet("run", "-d", "--name", "first", "--network", "none", *options, busybox, "sleep", "1000")
    joined = ["--uts", "container:first", "--cgroupns", "container:first"]
    script = "hostname; echo $HOSTNAME; cat /etc/hostname; readlink /proc/self/ns/cgroup"
    *names, group = limpet("run", "--rm", *joined, busybox, "sh", "-c", script).stdout.split()
    assert names == ["one", "one", "one"]
    assert group == namespace(limpet, "first", "cgroup")
    limpet("exec", "--privileged", "first", "hostname", "other", check=False)
    result = limpet("run", "--rm", "--uts", "container:first", "-h", "two", busybox, "true", check=False)
    assert (result.returncode, "the name is the other container's" in result.stderr) == (125, True)


def test_device_rules(limpet: Any, busybox: str) -> None:
    """/dev/loop-control is 10:237: in no container's list."""
    script = "mknod /tmp/loop c 10 237 && exec 3< /tmp/loop && echo opened"
    assert limpet("run", "--rm", busybox, "sh", "-c", script, check=False).stdout == ""
    for rule in ("c 10:237 r", "c 10:* rwm", "a *:* rwm", "c *:237 r"):
        result = limpet("run", "--rm", "--device-cgroup-rule", rule, busybox, "sh", "-c", script)
        assert result.stdout == "opened\n", rule
    for rule in ("c 10:236 rwm", "b 10:237 rwm", "c 10:237 m"):
        result = limpet("run", "--rm", "--device-cgroup-rule", rule, busybox, "sh", "-c", script, check=False)
        assert result.stdout == "", rule
    for bad in ("c 10:237", "x 1:3 r", "c 1 r", "c 1:3 rwx", "c 1:-3 r", "c 1:3  r", "", "c 4294967296:1 r", "c 1:³ r"):
        result = limpet("create", "--device-cgroup-rule", bad, busybox, "true", check=False)
        assert result.returncode == 125, bad
        assert "invalid device cgroup rule" in result.stderr
