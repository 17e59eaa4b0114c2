"""stop, kill, wait, rm, rename on real containers: what is sent, what is said, and that there always is an end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import state, stop
from limpet.errors import Conflict, Invalid
from limpet.kernel import cgroup
from limpet.store.store import Store

LOOP = "while :; do sleep 0.05; done"


@pytest.fixture
def mine(limpet: Any, busybox: str) -> Store:
    """The store of the `limpet` fixture, with the image in it."""
    return Store(str(limpet.root), f"{limpet.root}/run")


def started(limpet: Any, name: str, *args: str) -> None:
    limpet("run", "-d", "--name", name, *args)


def test_stop_sends_the_signal_and_waits(limpet: Any, mine: Store, busybox: str) -> None:
    started(limpet, "web", busybox, "sh", "-c", f"trap 'exit 7' TERM; echo up; {LOOP}")
    wait_for_log(limpet, "web", "up")
    container = state.find(mine, "web")
    assert stop.stop(mine, container) == ""
    status = state.status(mine, container)
    assert (status.state, status.exit_code) == ("exited", 7)
    assert not os.path.exists(cgroup.path(container.id) or "/none")
    assert stop.stop(mine, container) == ""  # as often as one likes


def test_stop_takes_the_signal_of_the_user_and_of_the_image(limpet: Any, mine: Store, busybox: str) -> None:
    script = f"trap 'exit 5' USR1; trap 'exit 6' USR2; echo up; {LOOP}"
    limpet("create", "--name", "base", busybox, "true")
    limpet("commit", "-c", "STOPSIGNAL SIGUSR2", "base", "usr2:1")
    started(limpet, "one", "--stop-signal", "SIGUSR1", busybox, "sh", "-c", script)
    started(limpet, "two", "usr2:1", "sh", "-c", script)
    for name, code in (("one", 5), ("two", 6)):
        wait_for_log(limpet, name, "up")
        stop.stop(mine, state.find(mine, name))
        assert state.status(mine, state.find(mine, name)).exit_code == code


@pytest.mark.slow
def test_a_deaf_program_is_killed_and_the_reason_is_said(limpet: Any, mine: Store, busybox: str) -> None:
    """PID 1 without a handler does not get SIGTERM at all (row 35 of the notes)."""
    started(limpet, "web", "--no-init", busybox, "sleep", "1000")
    container = state.find(mine, "web")
    said: list[str] = []
    remark = stop.stop(mine, container, timeout=2, explain=said.append)
    assert "PID 1 does not handle SIGTERM" in remark
    assert "--init" in remark
    assert said == [remark]
    assert state.status(mine, container).exit_code == 137


@pytest.mark.slow
def test_a_slow_program_is_explained_while_it_is_waited_for(limpet: Any, mine: Store, busybox: str) -> None:
    started(limpet, "web", busybox, "sh", "-c", f"trap 'sleep 1.2; exit 4' TERM; echo up; {LOOP}")
    wait_for_log(limpet, "web", "up")
    said: list[str] = []
    assert stop.stop(mine, state.find(mine, "web"), explain=said.append) == ""
    assert said == ["has not ended yet: SIGTERM was sent, SIGKILL follows after 10 s"]
    assert state.status(mine, state.find(mine, "web")).exit_code == 4


def test_with_an_init_nothing_is_slow(limpet: Any, mine: Store, busybox: str) -> None:
    started(limpet, "web", busybox, "sleep", "1000")
    began = time.monotonic()
    assert stop.stop(mine, state.find(mine, "web")) == ""
    assert time.monotonic() - began < 2
    assert state.status(mine, state.find(mine, "web")).exit_code == 143


@pytest.mark.slow
def test_our_init_is_never_called_deaf(limpet: Any, mine: Store, busybox: str) -> None:
    """It waits, reaps and passes on in turn: what is seen of it at one moment says nothing. Here it is stopped."""
    started(limpet, "web", busybox, "sleep", "1000")
    container = state.find(mine, "web")
    pid = state.status(mine, container).pid
    os.kill(pid, signal.SIGSTOP)
    said: list[str] = []
    assert stop.stop(mine, container, timeout=2, explain=said.append) == ""
    assert said == ["has not ended yet: SIGTERM was sent, SIGKILL follows after 2 s"]


def test_no_patience_needs_no_explanation(limpet: Any, mine: Store, busybox: str) -> None:
    for name in ("one", "two"):
        started(limpet, name, "--no-init", busybox, "sleep", "1000")
    said: list[str] = []
    assert stop.stop(mine, state.find(mine, "one"), timeout=0, explain=said.append) == ""
    assert said == []
    assert limpet("stop", "-t", "0", "two").stderr == ""


@pytest.mark.slow
def test_several_stop_at_the_same_time(limpet: Any, busybox: str) -> None:
    names = [f"c{i}" for i in range(4)]
    for name in names:
        started(limpet, name, "--no-init", busybox, "sleep", "1000")
    began = time.monotonic()
    result = limpet("stop", "-t", "1", *names, "nothing", check=False)
    assert time.monotonic() - began < 3
    assert (result.returncode, result.stdout.split()) == (1, names)
    assert "No such container: nothing" in result.stderr
    assert limpet("ps", "-q").stdout == ""


def test_a_restart_policy_does_not_bring_back_what_was_stopped(limpet: Any, mine: Store, busybox: str) -> None:
    started(limpet, "web", "--restart", "always", busybox, "sh", "-c", "exit 1")
    container = state.find(mine, "web")
    stop.stop(mine, container)  # most likely while it waits for the next try
    assert state.status(mine, container).state == "exited"
    assert not state.monitored(mine, container.id)


def test_kill(limpet: Any, mine: Store, busybox: str) -> None:
    started(limpet, "web", busybox, "sh", "-c", f"trap 'echo hup' HUP; echo up; {LOOP}")
    wait_for_log(limpet, "web", "up")
    container = state.find(mine, "web")
    stop.kill(mine, container, "SIGHUP")
    wait_for_log(limpet, "web", "hup")
    stop.kill(mine, container)
    assert state.status(mine, container).exit_code == 137
    with pytest.raises(Conflict, match="is not running"):
        stop.kill(mine, container)
    with pytest.raises(Invalid, match="invalid signal: NONSENSE"):
        stop.kill(mine, container, "NONSENSE")


def test_wait(limpet: Any, busybox: str) -> None:
    started(limpet, "job", busybox, "sh", "-c", "read x </dev/zero; exit 3")
    waiting = subprocess.Popen(
        [*limpet.command, "wait", "job"], env=limpet.environment, stdout=subprocess.PIPE, text=True
    )
    limpet("kill", "-s", "KILL", "job")
    assert waiting.communicate(timeout=20)[0] == "137\n"
    assert waiting.returncode == 0
    assert limpet("wait", "job").stdout == "137\n"  # it is over: at once


def test_remove_of_a_running_one(limpet: Any, mine: Store, busybox: str) -> None:
    started(limpet, "web", busybox, "sleep", "1000")
    container = state.find(mine, "web")
    pid = state.status(mine, container).pid
    with pytest.raises(Conflict, match='cannot remove container "/web": container is running'):
        stop.remove(mine, container)
    stop.remove(mine, container, force=True)
    assert not os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(mine.container_path(container.id))
    assert not os.path.exists(mine.run_path(container.id))
    assert not os.path.exists(cgroup.path(container.id) or "/none")
    assert state.all_containers(mine) == []


@pytest.mark.slow
def test_remove_ends_though_the_monitor_hangs(limpet: Any, mine: Store, busybox: str) -> None:
    started(limpet, "web", busybox, "sleep", "1000")
    container = state.find(mine, "web")
    monitor = state.status(mine, container).monitor
    os.kill(monitor, signal.SIGSTOP)
    stop.remove(mine, container, force=True)
    assert state.all_containers(mine) == []
    assert not os.path.exists(cgroup.path(container.id) or "/none")
    assert not state.monitored(mine, container.id)


def test_remove_after_the_monitor_was_killed(limpet: Any, mine: Store, busybox: str) -> None:
    """Nothing of a dead container is in the way: it is seen as ended, goes without force, and starts again."""
    started(limpet, "web", busybox, "sleep", "1000")
    started(limpet, "again", busybox, "sleep", "1000")
    for name in ("web", "again"):
        container = state.find(mine, name)
        status = state.status(mine, container)
        pidfd = os.pidfd_open(status.monitor)
        os.kill(status.monitor, signal.SIGKILL)
        assert stop._gone(pidfd, 10)
        os.close(pidfd)
        assert state.status(mine, container).state == "exited"
    stop.remove(mine, state.find(mine, "web"))
    limpet("start", "again")
    assert limpet("ps", "--format", "{{.Names}}").stdout == "again\n"
    assert [c.name for c in state.all_containers(mine)] == ["again"]


def test_rename(limpet: Any, mine: Store, busybox: str) -> None:
    for name in ("one", "two"):
        limpet("create", "--name", name, busybox, "true")
    stop.rename(mine, state.find(mine, "one"), "/three")
    assert state.find(mine, "three").options.name == "three"
    with pytest.raises(Conflict, match='"/two" is already in use by container'):
        stop.rename(mine, state.find(mine, "three"), "two")
    with pytest.raises(Invalid, match="invalid container name"):
        stop.rename(mine, state.find(mine, "three"), "-x")
    assert limpet("rename", "three", "one").stdout == ""


def wait_for_log(limpet: Any, name: str, text: str) -> None:
    """Until the container has written `text`: reads its log as it comes."""
    with subprocess.Popen(
        [*limpet.command, "logs", "-f", name], env=limpet.environment, stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert any(text in line for line in follower.stdout), Path(limpet.root)
        follower.kill()
