"""Where a container's group is, who can end its monitor, and how: with systemd (in a guest), and without."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_activation import free_port

from limpet.kernel import cgroup

BASE = Path(cgroup.root() or "/nowhere")
GENTLE = "trap 'echo gently; exit 3' QUIT; echo began; while sleep 0.1; do :; done"
by_systemd = pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="needs systemd: ./check --vm trixie")
pytestmark = pytest.mark.skipif(not BASE.is_dir(), reason="needs cgroup version 2")


def inspected(limpet: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(limpet("inspect", name).stdout)[0]
    return found


def group(pid: int | str) -> str:
    """The process's group of version 2, below the root."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


def monitor(limpet: Any, name: str) -> int:
    lines = Path(f"/proc/{inspected(limpet, name)['State']['Pid']}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


def until_it_says(limpet: Any, name: str, word: str) -> None:
    while word not in limpet("logs", name).stdout:
        time.sleep(0.05)


def systemctl(*words: str, check: bool = True) -> str:
    result = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 or not check, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("asleep", [False, True])
def test_a_monitor_that_is_told_to_end_ends_its_container_gently(limpet: Any, busybox: str, asleep: bool) -> None:
    """As at the end of a machine without systemd: SIGTERM for all. What has a restart policy comes back at boot."""
    script = "trap 'echo gently; exit 3' QUIT; echo began; sleep 1000 & wait"
    limpet("run", "-d", "--name", "web", "--stop-signal", "QUIT", busybox, "sh", "-c", script)
    limpet("update", "--restart", "always", "web")
    until_it_says(limpet, "web", "began")
    pid = monitor(limpet, "web")
    while asleep and b"python" in os.readlink(f"/proc/{pid}/exe").encode():
        time.sleep(0.1)
    os.kill(pid, signal.SIGTERM)
    assert limpet("wait", "web").stdout == "3\n"
    until_it_says(limpet, "web", "gently")
    deadline = time.monotonic() + 20
    while limpet("system", "boot").stdout != "web: started (--restart always)\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert limpet("ps", "--format", "{{.Names}}").stdout == "web\n"


def test_nothing_in_the_container_has_blocked_signals(limpet: Any, busybox: str) -> None:
    """The monitor blocks those that it waits for."""
    for words in (["run", "--rm"], ["run", "--rm", "--no-init"]):
        said = limpet(*words, busybox, "grep", "SigBlk", "/proc/self/status").stdout
        assert int(said.split()[1], 16) == 0, words


def test_a_parent_by_its_path(limpet: Any, busybox: str) -> None:
    name = f"limpet-test-{os.getpid()}"
    words = ["--cgroup-parent", f"/{name}/inner", "--pids-limit", "30"]
    limpet("run", "-d", "--name", "web", *words, busybox, "sleep", "1000")
    found = inspected(limpet, "web")
    place = f"/{name}/inner/{found['Id']}"
    assert group(found["State"]["Pid"]) == place
    assert found["HostConfig"]["CgroupParent"] == f"/{name}/inner"
    limpet("update", "--pids-limit", "40", "web")
    limits = [Path(f"/sys/fs/cgroup{sub}{place}/pids.max") for sub in ("", "/pids")]
    assert [file.read_text() for file in limits if file.exists()] == ["40\n"]
    assert limpet("exec", "web", "true").returncode == 0
    assert "1 of 40" not in limpet("stats", "--no-stream", "--format", "{{.PIDs}} of {{.PIDsLimit}}").stdout
    limpet("pause", "web")
    assert "Paused" in limpet("ps").stdout
    limpet("rm", "-f", "web")
    assert list(Path("/sys/fs/cgroup").glob(f"**/{name}")) == []


@pytest.mark.parametrize(
    ("parent", "words"),
    [
        ("/a/../b", "--cgroup-parent '/a/../b' is no place of a control group"),
        ("//", "--cgroup-parent '//' is no place of a control group"),
        ("/machine/x.slice", "--cgroup-parent '/machine/x.slice': a slice of systemd is told by its name alone"),
        ("a--b.slice", "--cgroup-parent 'a--b.slice' is no name of a slice"),
        ("-.slice", "--cgroup-parent '-.slice' is no name of a slice"),
        ("a b.slice", "--cgroup-parent 'a b.slice' is no name of a slice"),
    ],
)
def test_bad_parents(limpet: Any, busybox: str, parent: str, words: str) -> None:
    result = limpet("run", "--rm", "--cgroup-parent", parent, busybox, "true", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (125, f"limpet: {words}")


@by_systemd
def test_a_container_has_a_scope_and_its_monitor_is_in_it(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    found = inspected(limpet, "web")
    unit = f"limpet-{found['Id']}.scope"
    assert group(found["State"]["Pid"]) == f"/limpet.slice/{unit}/container"
    assert group(monitor(limpet, "web")) == f"/limpet.slice/{unit}/monitor"
    assert systemctl("show", "-p", "Description,Delegate,Slice,TasksMax", unit).split("\n") == [
        "Slice=limpet.slice",
        "Delegate=yes",
        "TasksMax=infinity",
        "Description=limpet container web",
    ]
    assert limpet("exec", "web", "cat", "/proc/self/cgroup").stdout == "0::/\n"
    assert not (BASE / "limpet").exists()
    limpet("restart", "-t", "0", "web")
    assert group(inspected(limpet, "web")["State"]["Pid"]) == f"/limpet.slice/{unit}/container"
    limpet("rm", "-f", "web")
    deadline = time.monotonic() + 10
    while systemctl("list-units", "--all", "--no-legend", unit):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@by_systemd
@pytest.mark.slow
def test_weights_are_the_scope_s_and_limits_the_container_s(limpet: Any, busybox: str) -> None:
    """A group competes with its neighbours: two containers are neighbours by their scopes."""
    words = ["--cpu-shares", "512", "--memory", "64m", "--memory-reservation", "20m", "--cpus", "0.5"]
    limpet("run", "-d", "--name", "web", *words, busybox, "sleep", "1000")
    scope = BASE / f"limpet.slice/limpet-{inspected(limpet, 'web')['Id']}.scope"

    def read(name: str) -> str:
        return (scope / name).read_text().strip()

    assert (read("cpu.weight"), read("memory.low")) == ("20", str(20 << 20))
    assert (read("container/cpu.max"), read("container/memory.max")) == ("50000 100000", str(64 << 20))
    limpet("update", "--cpu-shares", "2048", "--cpuset-cpus", "0", "web")
    assert (read("cpu.weight"), read("container/cpu.weight"), read("container/cpuset.cpus")) == ("79", "79", "0")
    systemctl("daemon-reload")  # systemd writes again what it believes to be right
    assert (read("cpu.weight"), read("container/memory.max")) == ("79", str(64 << 20))


@by_systemd
@pytest.mark.slow
def test_what_started_a_container_may_be_stopped(limpet: Any, busybox: str) -> None:
    """A unit as a session is: systemd ends what is in its group."""
    environment = [f"--setenv={key}={limpet.environment[key]}" for key in ("LIMPET_ROOT", "LIMPET_RUN")]
    unit = f"starter-{os.getpid()}.service"
    words = ["-p", "Type=oneshot", "-p", "RemainAfterExit=yes", "--unit", unit, *environment]
    command = ["systemd-run", "--quiet", *words, "sh", "-c"]
    run = shlex.join([*limpet.command, "run", "-d"])
    waits = f"--name waits --on-demand --socket 127.0.0.1:{free_port()}"  # nothing of it runs but its monitor
    script = f"{run} --name web --restart always {busybox} sleep 1000 && {run} {waits} {busybox} sleep 1000"
    subprocess.run([*command, script], check=True, capture_output=True)
    before = {name: inspected(limpet, name)["State"] for name in ("web", "waits")}
    assert before["waits"]["Pid"] == 0
    systemctl("stop", unit)
    assert {name: inspected(limpet, name)["State"] for name in ("web", "waits")} == before
    assert Path(f"/proc/{before['web']['Pid']}").exists()


@by_systemd
@pytest.mark.slow
@pytest.mark.parametrize("asleep", [False, True])
def test_a_scope_is_stopped_gently(limpet: Any, busybox: str, asleep: bool) -> None:
    """By the container's stop signal, which only its first process gets; a paused one goes on for it."""
    limpet("run", "-d", "--name", "web", "--restart", "always", "--stop-signal", "QUIT", busybox, "sh", "-c", GENTLE)
    until_it_says(limpet, "web", "began")
    pid = monitor(limpet, "web")
    while asleep and b"python" in os.readlink(f"/proc/{pid}/exe").encode():
        time.sleep(0.1)
    if not asleep:
        limpet("pause", "web")
    unit = f"limpet-{inspected(limpet, 'web')['Id']}.scope"
    systemctl("stop", unit)
    assert limpet("logs", "web").stdout == "began\ngently\n"
    assert inspected(limpet, "web")["State"]["ExitCode"] == 3
    assert limpet("system", "boot").stdout == "web: started (--restart always)\n"


@by_systemd
@pytest.mark.slow
def test_a_killed_monitor_is_followed_by_one_in_the_same_scope(limpet: Any, busybox: str) -> None:
    """Its guardian starts the container again, out of that scope."""
    limpet("run", "-d", "--name", "web", "--restart", "always", busybox, "sleep", "1000")
    before = inspected(limpet, "web")["State"]["Pid"]
    os.kill(monitor(limpet, "web"), signal.SIGKILL)
    deadline = time.monotonic() + 25  # less than systemd is waited for
    while (pid := inspected(limpet, "web")["State"]["Pid"]) in (0, before):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert group(pid) == f"/limpet.slice/limpet-{inspected(limpet, 'web')['Id']}.scope/container"


@by_systemd
@pytest.mark.slow
def test_a_slice_as_the_parent(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", "--cgroup-parent", "tenants-alice.slice", "-m", "40m", busybox, "sleep", "99")
    found = inspected(limpet, "web")
    place = f"/tenants.slice/tenants-alice.slice/limpet-{found['Id']}.scope/container"
    assert group(found["State"]["Pid"]) == place
    assert Path(f"{BASE}{place}/memory.max").read_text() == f"{40 << 20}\n"
    limpet("pause", "web")
    limpet("unpause", "web")
    limpet("stop", "-t", "0", "web")
    limpet("start", "web")
    assert group(inspected(limpet, "web")["State"]["Pid"]) == place


@by_systemd
@pytest.mark.slow
def test_what_systemd_refuses_is_told(limpet: Any, busybox: str) -> None:
    """A slice that is masked can't be started, and no scope in it."""
    limpet("create", "--name", "web", "--cgroup-parent", "refused.slice", busybox, "true")
    systemctl("mask", "--runtime", "refused.slice")
    try:
        result = limpet("start", "web", check=False)
    finally:
        systemctl("unmask", "--runtime", "refused.slice")
    assert result.returncode == 1
    assert "systemd refuses limpet-" in result.stderr or "systemd did not start limpet-" in result.stderr
    assert limpet("start", "web").stdout == "web\n"
