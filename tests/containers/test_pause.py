"""pause and unpause on real containers: the freezer says what the state is, whoever froze it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import pause, state
from limpet.errors import Conflict
from limpet.kernel import cgroup
from limpet.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(cgroup.root() is None, reason="needs cgroup2")]
COUNT = "i=0; while :; do i=$((i+1)); echo $i >/tmp/count; done"


@pytest.fixture
def mine(limpet: Any, busybox: str) -> Store:
    """The store of the `limpet` fixture, with the image in it."""
    return Store(str(limpet.root), f"{limpet.root}/run")


def cpu_time(store: Store, name: str) -> int:
    """Microseconds that its processes have run."""
    place = cgroup.path(state.find(store, name).id)
    text = Path(f"{place}/cpu.stat").read_text()
    return int(text.split()[1])


def wait_for(check: Any) -> None:
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def inspected(limpet: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(limpet("inspect", name).stdout)[0]["State"]
    return found


@pytest.mark.parametrize("runtime", ["limpet", "runc"])
def test_a_paused_container_does_nothing_and_goes_on(limpet: Any, mine: Store, busybox: str, runtime: str) -> None:
    if runtime == "runc" and not os.path.exists("/usr/sbin/runc"):
        pytest.skip("needs runc")
    limpet("run", "-d", "--name", "web", "--runtime", runtime, busybox, "sh", "-c", COUNT)
    assert limpet("pause", "web").stdout == "web\n"
    before = cpu_time(mine, "web")
    assert re.fullmatch(r"Up .* \(Paused\)\n", limpet("ps", "--format", "{{.Status}}").stdout)
    assert limpet("ps", "-qf", "status=paused").stdout == limpet("ps", "-q").stdout
    assert limpet("ps", "-qf", "status=running").stdout == ""
    found = inspected(limpet, "web")
    assert (found["Status"], found["Running"], found["Paused"]) == ("paused", True, True)
    assert cpu_time(mine, "web") == before
    assert limpet("container", "unpause", "web").stdout == "web\n"
    wait_for(lambda: cpu_time(mine, "web") > before)
    assert inspected(limpet, "web")["Paused"] is False


def test_what_a_paused_container_refuses(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    limpet("create", "--name", "new", busybox, "true")
    limpet("pause", "web")
    for command, words in (
        (("exec", "web", "true"), "Container web is paused, unpause the container before exec"),
        (("attach", "web"), "cannot attach to a paused container, unpause it first"),
        (("pause", "web"), "Container web is already paused"),
        (("start", "web"), "cannot start a paused container, try unpause instead"),
        (("rm", "web"), 'cannot remove container "/web": container is paused'),
        (("pause", "new"), "Container new is not running"),
        (("unpause", "new"), "Container new is not paused"),
    ):
        result = limpet(*command, check=False)
        assert result.returncode == 1, command
        assert result.stderr.startswith(f"limpet: {words}"), command
    assert limpet("top", "web").stdout.count("\n") == 3
    limpet("cp", "web:/etc/passwd", "-")
    result = limpet("pause", "web", "nobody", "new", check=False)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 3)


def test_a_stop_ends_the_pause_and_reaches_the_program(limpet: Any, busybox: str) -> None:
    for name in ("one", "two"):
        limpet(
            "run",
            "-d",
            "--name",
            name,
            busybox,
            "sh",
            "-c",
            "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done",
        )
        wait_for(lambda name=name: "up" in limpet("logs", name).stdout)
        limpet("pause", name)
    assert limpet("stop", "one").stderr == ""
    limpet("kill", "-s", "TERM", "two")
    assert limpet("wait", "two").stdout == "7\n"
    assert inspected(limpet, "one")["ExitCode"] == 7


def test_another_signal_waits_for_the_end_of_the_pause(limpet: Any, busybox: str) -> None:
    script = "trap 'echo usr1' USR1; echo up; while :; do sleep 0.01; done"
    limpet("run", "-d", "--name", "web", "--stop-signal", "TERM", busybox, "sh", "-c", script)
    wait_for(lambda: "up" in limpet("logs", "web").stdout)
    limpet("pause", "web")
    limpet("kill", "-s", "USR1", "web")
    assert inspected(limpet, "web")["Paused"] is True
    assert limpet("logs", "web").stdout == "up\n"
    limpet("unpause", "web")
    wait_for(lambda: limpet("logs", "web").stdout == "up\nusr1\n")


def test_kill_and_rm_by_force_need_no_unpause(limpet: Any, busybox: str) -> None:
    for name in ("one", "two", "three"):
        limpet("run", "-d", "--name", name, busybox, "sleep", "1000")
        limpet("pause", name)
    limpet("kill", "one")
    assert limpet("wait", "one").stdout == "137\n"
    limpet("rm", "-f", "two")
    limpet("restart", "-t", "5", "three")
    assert inspected(limpet, "three")["Status"] == "running"


def test_it_stays_paused_while_its_monitor_sleeps_and_ends_with_it(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    container = state.find(mine, "web")
    pause.pause(mine, container)
    monitor = state.status(mine, container).monitor
    program = f"/proc/{monitor}/exe"
    wait_for(lambda: "limpet-monitor" in os.readlink(program))  # it became machine code meanwhile
    assert state.status(mine, container).state == "paused"
    pause.unpause(mine, container)
    pause.pause(mine, container)
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: not state.monitored(mine, container.id))
    assert state.status(mine, container).state == "exited"
    with pytest.raises(Conflict):
        pause.unpause(mine, container)


def test_commit_leaves_a_paused_container_paused(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", COUNT)
    limpet("pause", "web")
    limpet("commit", "web", "of:web")
    assert state.status(mine, state.find(mine, "web")).state == "paused"
    limpet("unpause", "web")
    limpet("commit", "web", "of:web")
    assert state.status(mine, state.find(mine, "web")).state == "running"


def test_who_is_attached_stays_attached(limpet: Any, busybox: str) -> None:
    command = [*limpet.command, "run", "-i", "--name", "web", busybox, "cat"]
    client = subprocess.Popen(command, env=limpet.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"one\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"one\n"
    limpet("pause", "web")
    client.stdin.write(b"two\n")
    client.stdin.close()
    limpet("unpause", "web")
    with client:
        assert client.stdout.read() == b"two\n"
        assert client.wait(20) == 0
