"""The monitor: what it records, restarts, serves and leaves; and what happens when somebody kills it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import attach, start, state
from limpet.containers.monitor import frames
from limpet.kernel import cgroup
from limpet.store.store import Store

Limpet = Any


@pytest.fixture
def mine(limpet: Limpet, busybox: str) -> Store:
    return Store(str(limpet.root), f"{limpet.root}/run")


def launch(limpet: Limpet, store: Store, *args: str) -> state.Container:
    limpet("run", "-d", "--name", "box", *args)
    return state.find(store, "box")


def directory(store: Store, container: state.Container) -> Path:
    return Path(store.container_path(container.id))


def until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_what_is_recorded(limpet: Limpet, mine: Store, busybox: str) -> None:
    container = launch(limpet, mine, busybox, "sh", "-c", "echo out; echo err >&2; read x; exit 3")
    assert attach.wait(mine, container) in (3, None)
    status = state.status(mine, container)
    assert (status.state, status.exit_code, status.pid, status.restarts) == ("exited", 3, 0, 0)
    rfc3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
    assert rfc3339.fullmatch(status.started_at)
    assert rfc3339.fullmatch(status.finished_at)
    assert status.started_at <= status.finished_at
    log = directory(mine, container) / f"{container.id}-json.log"
    assert sorted(json.loads(line)["log"] for line in log.read_text().splitlines()) == ["err\n", "out\n"]
    assert log.stat().st_mode & 0o777 == 0o640


def test_while_it_runs(limpet: Limpet, mine: Store, busybox: str) -> None:
    container = launch(limpet, mine, busybox, "sleep", "1000")
    status = state.status(mine, container)
    assert status.state == "running"
    group = cgroup.path(container.id)
    assert group is not None
    assert status.pid in cgroup.pids(group)
    title = Path(f"/proc/{status.monitor}/cmdline").read_bytes().rstrip(b"\0")
    assert title == b"limpet monitor box"
    names = set()
    for fd in os.listdir(f"/proc/{status.monitor}/fd"):
        try:
            names.add(os.readlink(f"/proc/{status.monitor}/fd/{fd}"))
        except FileNotFoundError:
            pass  # it has just told of the start, and closes what it told it by
    assert not [name for name in names if name.endswith((".db", "-wal", "-shm"))]
    until(lambda: Path(f"/proc/{status.pid}/comm").read_text() == "limpet-init\n")  # beside the program's first steps
    assert sorted(os.listdir(f"/proc/{status.pid}/fd")) == ["1", "2"]


def test_a_killed_monitor_takes_its_container_along(limpet: Limpet, mine: Store, busybox: str) -> None:
    for options in ((), ("--no-init",), ("-u", "user", "--no-init")):
        container = launch(limpet, mine, *options, busybox, "sleep", "1000")
        status = state.status(mine, container)
        os.kill(status.monitor, signal.SIGKILL)
        for _ in range(1000):
            if gone(status.pid) and state.status(mine, container).state == "exited":
                break
            time.sleep(0.005)
        assert state.status(mine, container).exit_code == 137
        limpet("start", "box")  # what the dead one left does not stop it
        assert state.status(mine, container).state == "running"
        limpet("rm", "-f", "box")


def test_rm_by_the_monitor_when_the_client_is_gone(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--rm", "--name", "box", "-v", "/anonymous", busybox, "sh", "-c", "read x < /anonymous/fifo",
           check=True)  # fmt: skip
    until(lambda: not os.listdir(limpet.root / "containers"))
    assert limpet("ps", "-aq").stdout == ""
    until(lambda: not os.listdir(limpet.root / "volumes"))
    client = subprocess.Popen(
        [*limpet.command, "run", "--rm", "-i", busybox, "sh", "-c", "echo ready; cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=limpet.environment,
    )  # fmt: skip
    assert client.stdout is not None
    assert client.stdin is not None
    assert client.stdout.readline() == b"ready\n"
    client.kill()
    client.wait()
    client.stdin.close()
    client.stdout.close()
    until(lambda: not os.listdir(limpet.root / "containers"))  # its input ended with the client, so it ended too


def test_the_death_of_a_client_is_not_the_containers(limpet: Limpet, mine: Store, busybox: str) -> None:
    client = subprocess.Popen(
        [*limpet.command, "run", "--name", "box", busybox, "sh", "-c", "echo ready; sleep 1000"],
        stdout=subprocess.PIPE, env=limpet.environment,
    )  # fmt: skip
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.kill()
    client.wait()
    client.stdout.close()
    assert state.status(mine, state.find(mine, "box")).state == "running"


def test_signals_are_passed_on(limpet: Limpet, busybox: str) -> None:
    script = "trap 'exit 44' USR1; echo ready; while :; do sleep 0.02; done"
    client = subprocess.Popen(
        [*limpet.command, "run", "--rm", busybox, "sh", "-c", script], stdout=subprocess.PIPE, env=limpet.environment
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGUSR1)
    assert client.wait(10) == 44
    client.stdout.close()


def test_restart_on_failure(limpet: Limpet, mine: Store, busybox: str) -> None:
    began = time.monotonic()
    container = launch(limpet, mine, "--restart", "on-failure:2", busybox, "sh", "-c", "echo run; exit 5")
    until(lambda: state.status(mine, container).state == "exited")
    took = time.monotonic() - began
    status = state.status(mine, container)
    assert (status.exit_code, status.restarts) == (5, 2)
    assert limpet("logs", "box").stdout == "run\n" * 3
    assert 0.3 <= took < 3  # 100 ms, then 200 ms


def test_restart_stops_at_success(limpet: Limpet, mine: Store, busybox: str) -> None:
    script = "[ -e /second ] && exit 0; touch /second; exit 1"
    container = launch(limpet, mine, "--restart", "on-failure", busybox, "sh", "-c", script)
    until(lambda: state.status(mine, container).state == "exited")
    assert state.status(mine, container).restarts == 1


def test_stop_ends_the_restarts(limpet: Limpet, mine: Store, busybox: str) -> None:
    container = launch(limpet, mine, "--restart", "always", busybox, "false")
    until(lambda: state.status(mine, container).state == "restarting" and state.status(mine, container).restarts > 2)
    began = time.monotonic()
    limpet("stop", "box")
    assert time.monotonic() - began < 3
    assert state.status(mine, container).state == "exited"
    limpet("start", "box")
    until(lambda: state.status(mine, container).state == "restarting")
    limpet("rm", "-f", "box")


def test_a_killed_container_is_restarted_unless_stopped_by_hand(limpet: Limpet, mine: Store, busybox: str) -> None:
    container = launch(limpet, mine, "--restart", "unless-stopped", busybox, "sleep", "1000")
    os.kill(state.status(mine, container).pid, signal.SIGKILL)
    until(lambda: state.status(mine, container).restarts == 1 and state.status(mine, container).state == "running")
    limpet("kill", "box")
    until(lambda: state.status(mine, container).state == "exited")
    assert state.status(mine, container).exit_code == 137


def test_several_clients_see_the_same(limpet: Limpet, mine: Store, busybox: str) -> None:
    container = launch(limpet, mine, "-i", busybox, "sh", "-c", "while read x; do echo $x; done; exit 6")
    connections = [attach.connect(mine, container) for _ in range(3)]
    for connection in connections:
        connection.sendall(frames.frame(frames.SUBSCRIBE))
    quiet = attach.connect(mine, container)  # never subscribes
    limpet("exec", "box", "true")  # by then all are accepted
    connections[0].sendall(frames.frame(frames.STDIN, b"hello\n"))
    for connection in connections:
        assert receive(connection) == (frames.STDOUT, b"hello\n")
    connections[0].sendall(frames.frame(frames.CLOSE_STDIN))
    for connection in [*connections, quiet]:
        assert receive(connection) == (frames.EXIT, frames.number_payload(6))
        connection.close()


def receive(connection: Any) -> tuple[int, bytes]:
    buffer = bytearray()
    while (found := frames.take(buffer)) is None:
        assert select.select([connection.fileno()], [], [], 10)[0]
        data = connection.recv(4096)
        assert data
        buffer += data
    return found


def test_a_slow_client_is_dropped_and_the_container_goes_on(limpet: Limpet, mine: Store, busybox: str) -> None:
    script = "read x; dd if=/dev/zero bs=1M count=12 2>/dev/null; echo end >&2"
    container = launch(limpet, mine, "-i", "--log-opt", "max-size=100k", "--log-opt", "max-file=1", busybox,
                       "sh", "-c", script)  # fmt: skip
    slow = attach.connect(mine, container)
    slow.sendall(frames.frame(frames.SUBSCRIBE))
    slow.sendall(frames.frame(frames.STDIN, b"go\n"))
    until(lambda: state.status(mine, container).state == "exited", 30)
    slow.close()


def test_rubbish_on_the_socket_harms_nobody(limpet: Limpet, mine: Store, busybox: str) -> None:
    container = launch(limpet, mine, busybox, "sleep", "1000")
    for rubbish in (b"\xff" * 100, b"\0\xff\xff\xff\xff", frames.frame(77, b"x"), frames.frame(frames.RESIZE, b"x"),
                    frames.frame(frames.SIGNAL, b"\0\0\xff\xff"), b"\0"):  # fmt: skip
        connection = attach.connect(mine, container)
        connection.sendall(rubbish)
        connection.close()
    limpet("exec", "box", "true")
    assert state.status(mine, container).state == "running"


def test_a_slow_pipe_makes_the_container_wait_and_loses_nothing(limpet: Limpet, busybox: str) -> None:
    client = subprocess.Popen(
        [*limpet.command, "run", "--rm", busybox, "sh", "-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null"],
        stdout=subprocess.PIPE, env=limpet.environment,
    )  # fmt: skip
    assert client.stdout is not None
    first = client.stdout.read(1)
    time.sleep(0.3)  # the reader is slow
    assert len(first + client.stdout.read()) == 8 << 20
    assert client.wait(10) == 0
    client.stdout.close()


def test_a_late_attach_to_a_stopped_one(limpet: Limpet, busybox: str) -> None:
    limpet("create", "--name", "box", busybox, "true")
    result = limpet("attach", "box", check=False)
    assert (result.returncode, "is not running" in result.stderr) == (1, True)


def test_an_end_of_the_starter_before_the_order_leaves_no_process(limpet: Limpet, busybox: str) -> None:
    """`run` forks its monitor first; when the image is not there, that one ends too."""
    result = limpet("run", "--pull", "never", "nosuch", check=False)
    assert result.returncode == 125
    marker = str(limpet.root).encode()

    def is_left(pid: int) -> bool:
        try:
            return marker in Path(f"/proc/{pid}/environ").read_bytes() and not gone(pid)
        except OSError:
            return False

    until(lambda: not any(is_left(int(entry)) for entry in os.listdir("/proc") if entry.isdecimal()))


def test_starting_without_a_client_from_a_long_lived_process(limpet: Limpet, mine: Store, busybox: str) -> None:
    limpet("create", "--name", "box", busybox, "sh", "-c", "exit 8")
    container = state.find(mine, "box")
    connection = start.launch(mine, container, client=True)
    assert connection is not None
    assert attach.attach(mine, container, connection=connection) == 8
    connection.close()
    assert mine.db.row("SELECT count(*) FROM container")[0] == 1


def test_a_client_that_comes_in_the_moment_of_the_end_gets_the_exit_code(
    limpet: Limpet, mine: Store, busybox: str
) -> None:
    """Its monitor closes the socket before it has accepted, or read: that is no error of anybody's."""
    assert limpet("run", "--name", "box", busybox, "sh", "-c", "exit 8", check=False).returncode == 8
    container = state.find(mine, "box")
    place = Path(mine.run_path(container.id))
    place.mkdir(exist_ok=True)
    (place / "attach.sock").unlink(missing_ok=True)
    before = os.getcwd()
    os.chdir(place)  # the whole path is too long for a socket's address
    try:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.bind("attach.sock")
            monitor.listen()
            connection = attach.connect(mine, container)
            connection.sendall(frames.frame(frames.SUBSCRIBE))
    finally:
        os.chdir(before)
    assert attach.attach(mine, container, connection=connection) == 8
    connection.close()


@pytest.mark.slow
def test_fifty_monitors_are_small(limpet: Limpet, mine: Store, busybox: str) -> None:
    for number in range(50):
        limpet("run", "-d", "--name", f"box{number}", busybox, "sleep", "1000")
    monitors = [state.status(mine, container).monitor for container in state.all_containers(mine)]
    inits = [state.status(mine, container).pid for container in state.all_containers(mine)]
    print("PSS of a monitor", pss(monitors), "KiB, of an init", pss(inits), "KiB")
    assert pss(monitors) + pss(inits) < 6500


def pss(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total // len(pids)


def test_many_starts_at_once_are_one(limpet: Any, busybox: str) -> None:
    """Whoever comes while another one starts it must not wait for its end."""
    limpet("create", "--name", "web", busybox, "sleep", "1000")
    for _ in range(3):
        words = [*limpet.command, "start", "web"]
        starters = [subprocess.Popen(words, env=limpet.environment, stdout=subprocess.PIPE) for _ in range(6)]
        for starter in starters:
            assert starter.communicate(timeout=30)[0] == b"web\n"
            assert starter.returncode == 0
        limpet("kill", "web")
