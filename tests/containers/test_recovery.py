"""Containers whose monitor somebody killed: what is seen of them, and what `system recover` and `prune` do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import recovery, state
from limpet.containers.monitor import hibernation
from limpet.kernel import cgroup
from limpet.store.files import remove_tree
from limpet.store.store import Store
from limpet.units import seconds_of

pytestmark = pytest.mark.slow

Limpet = Any


@pytest.fixture
def mine(limpet: Limpet, busybox: str) -> Store:
    return Store(str(limpet.root), f"{limpet.root}/run")


def until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def lose(store: Store, name: str) -> state.Container:
    """Kills the monitor, and who would notice, and sees that the container ends with it."""
    container = state.find(store, name)
    before = state.status(store, container)
    group = cgroup.path(container.id)
    inside = cgroup.pids(group) if group is not None else [before.pid]
    assert before.pid in inside
    kill_monitor(container, before.monitor)
    until(lambda: state.status(store, container).lost)
    until(lambda: all(map(ended, inside)))
    return container


def guardian_of(monitor: int) -> int:
    """Its pid; 0 without one."""
    for child in Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text() == "limpet-guard\n":
            return int(child)
    return 0


def kill_monitor(container: state.Container, monitor: int) -> None:
    """Its guardian first, which begins a moment after the container."""
    options = container.options
    if hibernation.possible() and (options.restart not in ("", "no") or (options.auto_remove and options.detach)):
        until(lambda: guardian_of(monitor))
        os.kill(guardian_of(monitor), signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)


def names(limpet: Limpet) -> list[str]:
    return sorted(limpet("ps", "-a", "--format", "{{.Names}}:{{.State}}").stdout.split())


def test_a_lost_container_ended_at_its_last_sign_of_life(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--name", "box", busybox, "sh", "-c", "echo said; sleep 1000")
    until(lambda: limpet("logs", "box").stdout)
    limpet("exec", "-d", "box", "sleep", "1000")  # it ends too
    container = lose(mine, "box")
    log = Path(mine.container_path(container.id), f"{container.id}-json.log")
    moment = time.time_ns() - 7200 * 10**9
    for path in (log, log.parent / "status", log.parent / "upper"):
        os.utime(path, ns=(moment, moment))
    assert limpet("ps", "-a", "--format", "{{.Status}}").stdout == "Exited (137) 2 hours ago\n"
    os.utime(log, ns=(moment + 3600 * 10**9, moment + 3600 * 10**9))
    finished = limpet("inspect", "-f", "{{.State.FinishedAt}}", "box").stdout.strip()
    assert abs(seconds_of(finished) - moment / 1e9 - 3600) < 0.001
    assert limpet("wait", "box").stdout == "137\n"
    limpet("cp", "box:/etc/passwd", "-")  # takes the lock and writes down what is known
    assert limpet("inspect", "-f", "{{.State.FinishedAt}}", "box").stdout.strip() == finished
    assert limpet("system", "recover").stdout == ""  # no policy: it stays as it is
    assert names(limpet) == ["box:exited"]
    limpet("start", "box")
    assert names(limpet) == ["box:running"]
    assert not state.status(mine, container).lost


@pytest.mark.parametrize(
    ("policy", "again"),
    [("no", False), ("always", True), ("unless-stopped", True), ("on-failure", True), ("on-failure:3", True)],
)
def test_recover_starts_what_has_a_policy(limpet: Limpet, mine: Store, busybox: str, policy: str, again: bool) -> None:
    limpet("run", "-d", "--name", "box", "--restart", policy, busybox, "sleep", "1000")
    container = lose(mine, "box")
    limpet("cp", "box:/etc/passwd", "-")  # that is not forgotten when somebody takes the lock
    pruned = limpet("container", "prune", "-f").stdout + limpet("system", "prune", "-f", "containers").stdout
    if not again:
        assert container.id in pruned
        assert names(limpet) == []
        return
    assert container.id not in pruned
    assert limpet("system", "recover").stdout == f"box: started (--restart {policy})\n"
    assert names(limpet) == ["box:running"]
    assert limpet("system", "recover").stdout == ""


def test_after_a_boot(limpet: Limpet, mine: Store, busybox: str) -> None:
    """Nothing is left of /run then."""
    for name, policy in (("again", "unless-stopped"), ("once", "no"), ("stopped", "always")):
        limpet("run", "-d", "--name", name, "--restart", policy, busybox, "sleep", "1000")
    limpet("kill", "stopped")
    lose(mine, "again")
    lose(mine, "once")
    remove_tree(mine.run)
    assert names(limpet) == ["again:exited", "once:exited", "stopped:exited"]
    assert limpet("system", "recover").stdout == "again: started (--restart unless-stopped)\n"
    assert names(limpet) == ["again:running", "once:exited", "stopped:exited"]


def test_recover_leaves_what_was_stopped_by_hand(limpet: Limpet, mine: Store, busybox: str) -> None:
    for name in ("one", "two", "three"):
        limpet("run", "-d", "--name", name, "--restart", "always", busybox, "sleep", "1000")
    lose(mine, "one")
    limpet("stop", "one")  # after its end
    limpet("stop", "two")
    assert limpet("system", "recover").stdout == ""
    assert names(limpet) == ["one:exited", "three:running", "two:exited"]


def test_a_try_that_fails_is_said_and_the_others_go_on(
    limpet: Limpet, mine: Store, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    limpet("run", "-d", "--name", "bad", "--restart", "always", "-v", f"{tmp_path}/source:/s", busybox, "sleep", "1000")
    limpet("run", "-d", "--name", "good", "--restart", "always", busybox, "sleep", "1000")
    lose(mine, "bad")
    lose(mine, "good")
    (tmp_path / "source").rmdir()
    result = limpet("system", "recover", check=False)
    assert result.returncode == 1
    assert result.stdout == "good: started (--restart always)\n"
    assert f"{tmp_path}/source" in result.stderr


def test_a_policy_with_a_number_counts_what_was_tried(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--name", "box", "--restart", "on-failure:1", busybox, "sleep", "1000")
    container = state.find(mine, "box")
    os.kill(state.status(mine, container).pid, signal.SIGKILL)
    until(lambda: state.status(mine, container).restarts == 1 and state.status(mine, container).state == "running")
    lose(mine, "box")
    assert not recovery.due(mine, container, state.status(mine, container))
    assert limpet("system", "recover").stdout == ""


def test_lost_while_it_waits_for_the_next_try(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--name", "box", "--restart", "always", busybox, "sh", "-c", "exit 7")
    container = state.find(mine, "box")
    until(lambda: state.status(mine, container).state == "restarting" and state.status(mine, container).restarts > 3)
    kill_monitor(container, state.status(mine, container).monitor)
    until(lambda: state.status(mine, container).lost)
    status = state.status(mine, container)
    assert (status.state, status.exit_code) == ("exited", 7)
    assert time.time() - seconds_of(status.finished_at) < 10
    assert limpet("system", "recover").stdout == "box: started (--restart always)\n"


def test_recover_removes_what_was_made_with_rm(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--rm", "--name", "box", "-v", "/anonymous", busybox, "sleep", "1000")
    lose(mine, "box")
    assert limpet("system", "recover").stdout == "box: removed (--rm)\n"
    assert names(limpet) == []
    assert os.listdir(limpet.root / "containers") == os.listdir(limpet.root / "volumes") == []


def test_a_lost_one_made_with_rm_gives_its_name_back(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--rm", "--name", "box", busybox, "sleep", "1000")
    lose(mine, "box")
    assert limpet("run", "--rm", "--name", "box", busybox, "echo", "again").stdout == "again\n"
    assert names(limpet) == []
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    lose(mine, "box")  # one without --rm is somebody's: it keeps its name
    assert limpet("run", "--rm", "--name", "box", busybox, "true", check=False).returncode == 125


def test_the_client_of_a_lost_one_made_with_rm_removes_it(limpet: Limpet, mine: Store, busybox: str) -> None:
    client = subprocess.Popen(
        [*limpet.command, "run", "--rm", "--name", "box", busybox, "sh", "-c", "echo ready; sleep 1000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=limpet.environment,
    )  # fmt: skip
    assert client.stdout is not None
    assert client.stdout.readline() == "ready\n"
    os.kill(state.status(mine, state.find(mine, "box")).monitor, signal.SIGKILL)
    _, err = client.communicate(timeout=30)
    assert (client.returncode, err) == (137, "limpet: container box: its monitor is gone, and the container with it\n")
    assert names(limpet) == []


@pytest.mark.skipif(cgroup.root() is None, reason="needs cgroup2")
def test_groups_of_containers_that_are_no_more(limpet: Limpet, mine: Store, busybox: str, tmp_path: Path) -> None:
    def orphan(owner: str) -> Path:
        place = cgroup.create(os.urandom(32).hex(), owner)
        assert place is not None
        return Path(place)

    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    others = orphan(str(tmp_path / "another store"))
    try:
        place = orphan(mine.root)
        assert recovery.orphaned_groups(mine) == [str(place)]
        assert str(place) in limpet("system", "prune", input="n\n").stdout
        assert f"deleted leftover: {place}\n" in limpet("system", "prune", "-f").stdout
        assert not place.exists()
        for words in (("container", "prune", "-f"), ("system", "recover")):
            place = orphan(mine.root)
            limpet(*words)
            assert not place.exists()
        assert others.exists()
    finally:
        cgroup.remove(str(others))
    lose(mine, "box")
    limpet("rm", "box")
    assert cgroup.owned(mine.root) == []


@pytest.mark.skipif(shutil.which("runc", path="/usr/sbin:/usr/bin") is None, reason="needs runc")
def test_a_container_of_runc_ends_with_its_monitor_too(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--runtime", "runc", "--name", "box", busybox, "sleep", "1000")
    container = lose(mine, "box")
    limpet("start", "box")  # what runc knows of the dead one does not stop it
    assert names(limpet) == ["box:running"]
    lose(mine, "box")
    limpet("rm", "box")
    left = subprocess.run(["find", "/sys/fs/cgroup", "-name", container.id], capture_output=True, text=True, check=True)
    assert left.stdout == ""


needs_guardian = pytest.mark.skipif(not hibernation.possible(), reason="no machine code for this machine")


@needs_guardian
@pytest.mark.parametrize("asleep", [False, True])
def test_a_container_survives_its_monitor(limpet: Limpet, mine: Store, busybox: str, asleep: bool) -> None:
    """Nobody has to do anything: whoever has a policy comes back, and what was lost has an end in the events."""
    limpet("run", "-d", "--name", "box", "--restart", "always", busybox, "sleep", "1000")
    container = state.find(mine, "box")
    before = state.status(mine, container)
    until(lambda: guardian_of(before.monitor))
    if asleep:
        until(
            lambda: (
                Path(f"/proc/{before.monitor}/cmdline").read_bytes() == b"limpet monitor box\0"
                and small(before.monitor)
            )
        )
    os.kill(before.monitor, signal.SIGKILL)
    until(lambda: state.status(mine, container).pid not in (0, before.pid))
    after = state.status(mine, container)
    assert (after.state, after.lost) == ("running", False)
    assert ended(before.pid)
    limpet("exec", "box", "true")
    until(lambda: guardian_of(after.monitor))  # and again
    os.kill(after.monitor, signal.SIGKILL)
    until(lambda: state.status(mine, container).pid not in (0, before.pid, after.pid))
    limpet("stop", "-t", "0", "box")
    until(
        lambda: not [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mentions(pid, container.id)]
    )
    assert names(limpet) == ["box:exited"]


def small(pid: int) -> bool:
    return (
        "VmRSS:" in (text := Path(f"/proc/{pid}/status").read_text()) and int(text.split("VmRSS:")[1].split()[0]) < 500
    )


def mentions(pid: int, text: str) -> bool:
    try:
        return text.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


@needs_guardian
def test_who_is_removed_in_the_background_goes_with_its_monitor(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--rm", "--name", "box", "-v", "/anonymous", busybox, "sleep", "1000")
    monitor = state.status(mine, state.find(mine, "box")).monitor
    until(lambda: guardian_of(monitor))
    os.kill(monitor, signal.SIGKILL)
    until(lambda: mine.db.row("SELECT 1 FROM container") is None)
    until(lambda: os.listdir(limpet.root / "containers") == os.listdir(limpet.root / "volumes") == [])


@needs_guardian
def test_a_guardian_ends_with_its_monitor_and_is_nobodys_parent(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--name", "box", "--restart", "on-failure", busybox, "sleep", "1000")
    container = state.find(mine, "box")
    monitor = state.status(mine, container).monitor
    until(lambda: guardian_of(monitor))
    guardian = guardian_of(monitor)
    assert small(guardian)
    assert sorted(os.listdir(f"/proc/{guardian}/fd")) == [
        "0",
        "1",
        "2",
        *sorted(os.listdir(f"/proc/{guardian}/fd"))[3:],
    ]
    assert len(os.listdir(f"/proc/{guardian}/fd")) <= 5
    limpet("stop", "-t", "0", "box")
    until(lambda: ended(guardian))
    limpet("run", "-d", "--name", "plain", busybox, "sleep", "1000")
    assert guardian_of(state.status(mine, state.find(mine, "plain")).monitor) == 0


def test_what_nobody_noticed_goes_with_the_next_command(limpet: Limpet, mine: Store, busybox: str) -> None:
    for command in (["ps", "-a"], ["run", "--rm", busybox, "true"], ["create", "--name", "other", busybox, "true"]):
        limpet("run", "-d", "--rm", "--name", "box", "-v", "/anonymous", busybox, "sleep", "1000")
        lose(mine, "box")
        assert "box" not in limpet(*command).stdout.split()
        assert mine.db.row("SELECT 1 FROM container WHERE name = 'box'") is None
        assert os.listdir(limpet.root / "volumes") == []
