"""Programs that take all there is, and commands that meet while something ends.

Beside these: fork bombs and memory bombs in `containers/test_limits`, a full disk in `system/test_full_disk`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import state
from limpet.store.store import Store

pytestmark = pytest.mark.slow

Limpet = Any


@pytest.fixture
def mine(limpet: Limpet, busybox: str) -> Iterator[Store]:
    with_store = Store(str(limpet.root), f"{limpet.root}/run")
    yield with_store
    with_store.close()


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_flood_of_output_has_a_bound(limpet: Limpet, busybox: str) -> None:
    limits = ("--log-opt", "max-size=100k", "--log-opt", "max-file=3")
    limpet("run", "-d", "--name", "box", *limits, busybox, "sh", "-c", "yes & yes >&2 & wait")
    (directory,) = (limpet.root / "containers").iterdir()
    until(lambda: len(list(directory.glob("*-json.log*"))) == 3)
    for _ in range(20):
        sizes = [path.stat().st_size for path in directory.glob("*-json.log*") if path.exists()]
        assert len(sizes) <= 3
        assert max(sizes, default=0) < 100_000 + 200  # a line beyond it
        time.sleep(0.01)
    assert limpet("exec", "box", "echo", "on", timeout=20).stdout == "on\n"
    assert set(limpet("logs", "--tail", "5", "box", timeout=20).stdout.split()) <= {"y"}
    limpet("rm", "-f", "box", timeout=20)


def test_a_flood_of_descriptors_is_the_programs_own_trouble(limpet: Limpet, busybox: str) -> None:
    script = "many=$(yes /etc/passwd | head -n 590); tail -f $many >/dev/null & exec tail -f $many >/dev/null"
    limpet("run", "-d", "--name", "box", "--ulimit", "nofile=600:600", busybox, "sh", "-c", script)
    count = "ls /proc/[0-9]*/fd | grep -c ."
    until(lambda: int(limpet("exec", "box", "sh", "-c", count, check=False).stdout) > 1100)
    assert limpet("exec", "box", "echo", "on").stdout == "on\n"
    assert limpet("ps", "-q").stdout.count("\n") == 1
    limpet("stop", "-t", "0", "box")


def test_a_monitor_that_many_look_at(limpet: Limpet, mine: Store, busybox: str) -> None:
    """More connections than it has descriptors for: it goes on, and does not run hot."""
    limpet("run", "-d", "--name", "box", busybox, "sh", "-c", "while :; do echo line; sleep 0.05; done")
    container = state.find(mine, "box")
    monitor = state.status(mine, container).monitor
    limit = int(Path(f"/proc/{monitor}/limits").read_text().partition("Max open files")[2].split()[0])
    count = min(limit + 50, 1500)
    sockets = []
    place = os.open(f"{limpet.root}/run/{container.id}", os.O_PATH)  # its path is longer than an address may be
    try:
        for _ in range(count):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            one.setblocking(False)
            sockets.append(one)
            try:
                one.connect(f"/proc/self/fd/{place}/attach.sock")
            except BlockingIOError:
                break  # its queue is full: nobody takes them any more
        until(lambda: limpet("logs", "--tail", "1", "box").stdout == "line\n")
        assert limpet("exec", "box", "echo", "on", timeout=20).stdout == "on\n"
        before = ticks(monitor)
        time.sleep(1)
        assert ticks(monitor) - before < 0.8 * os.sysconf("SC_CLK_TCK")
    finally:
        for one in sockets:
            one.close()
        os.close(place)
    until(lambda: len(os.listdir(f"/proc/{monitor}/fd")) < 30)
    assert state.status(mine, container).state == "running"
    limpet("stop", "-t", "0", "box")


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("init", ["--init", "--no-init"])
def test_thousands_of_zombies(limpet: Limpet, mine: Store, busybox: str, init: str) -> None:
    """An init reaps orphans; without one they stay, and go with the container."""
    script = "(sleep 0.3; for i in $(seq 2000); do (true &); done; echo done) & exec sleep 1000"
    limpet("run", "-d", "--name", "box", init, busybox, "sh", "-c", script)
    until(lambda: "done" in limpet("logs", "box").stdout)
    container = state.find(mine, "box")
    count = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '"
    if init == "--init":
        until(lambda: int(limpet("exec", "box", "sh", "-c", count, check=False).stdout) <= 1)  # sleep's own child
    else:
        assert int(limpet("exec", "box", "sh", "-c", count).stdout) > 1000
    pid = state.status(mine, container).pid
    limpet("rm", "-f", "box", timeout=20)
    assert not Path(f"/proc/{pid}").exists()


def test_exec_into_a_container_that_is_ending(limpet: Limpet, busybox: str) -> None:
    """It runs, or is told that the container does not; it never hangs and never fails in another way."""
    for attempt in range(8):
        limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
        executors = [
            subprocess.Popen(
                [*limpet.command, "exec", "box", "sh", "-c", "echo in; sleep 0.1"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=limpet.environment,
            )
            for _ in range(4)
        ]  # fmt: skip
        time.sleep(0.03 * attempt)
        limpet("rm", "-f", "box")
        for executor in executors:
            out, err = executor.communicate(timeout=30)
            assert out in ("", "in\n")
            assert executor.returncode in (0, 1, 126, 137), err
            for word in ("internal error", "Traceback", "Errno"):
                assert word not in err
            assert err.count("limpet: ") <= 1


@pytest.mark.parametrize("kind", [(), ("--rm",), ("--restart", "always"), ("-v", "/anonymous")])
def test_two_that_remove_the_same_one(limpet: Limpet, busybox: str, kind: tuple[str, ...]) -> None:
    for _ in range(3):
        limpet("run", "-d", "--name", "box", *kind, busybox, "sleep", "1000")
        removers = [
            subprocess.Popen(
                [*limpet.command, "rm", "-f", "-v", "box"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=limpet.environment,
            )
            for _ in range(3)
        ]  # fmt: skip
        for remover in removers:
            out, err = remover.communicate(timeout=30)
            assert (remover.returncode == 0 and out in ("box\n", "")) or "No such container" in err, (out, err)
        assert limpet("ps", "-aq").stdout == ""
    assert os.listdir(limpet.root / "containers") == os.listdir(limpet.root / "volumes") == []
