"""stats: what programs of a known appetite are said to use, in Docker's columns, once and live."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import termios
import time
from typing import Any

import pytest

from limpet.containers import state
from limpet.containers.observe import stats
from limpet.kernel import cgroup, controllers, usage
from limpet.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        cgroup.root() is None or not all(map(controllers.version, controllers.NAMES)),
        reason="needs the controllers memory, pids, io and cpu",
    ),
]
HEADERS = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]


def wait_for_log(limpet: Any, name: str, text: str) -> None:
    end = time.monotonic() + 10
    while text not in limpet("logs", name).stdout:
        assert time.monotonic() < end


@pytest.mark.parametrize("runtime", ["limpet", "runc"])
def test_what_is_counted(limpet: Any, busybox: str, runtime: str) -> None:
    if runtime == "runc" and not os.path.exists("/usr/sbin/runc"):
        pytest.skip("needs runc")
    script = (
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null;"
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 1000 & sleep 1000 & echo up; wait"
    )
    options = ("-m", "100m", "--pids-limit", "50", "--network", "none")
    limpet("run", "-d", "--runtime", runtime, "--name", "web", *options, busybox, "sh", "-c", script)
    wait_for_log(limpet, "web", "up")
    found = usage.read(state.find(Store(str(limpet.root), f"{limpet.root}/run"), "web").id)
    assert found is not None
    assert 20 << 20 <= found.memory < 40 << 20
    assert found.memory_peak >= found.memory
    assert found.memory_limit == 100 << 20
    assert found.pids == len(limpet("top", "web").stdout.splitlines()) - 1
    assert found.pids_limit == 50
    assert 0 < found.cpu < 10 * 10**6
    assert found.oom_kills == 0
    if os.path.exists("/proc/pressure/cpu"):
        assert set(found.pressure) == {"cpu", "memory", "io"}


def test_bytes_that_reach_the_disk(limpet: Any, busybox: str) -> None:
    script = "dd if=/dev/zero of=/x bs=1M count=8 conv=fsync 2>/dev/null; echo up; sleep 1000"
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", script)
    wait_for_log(limpet, "web", "up")
    found = usage.read(state.find(Store(str(limpet.root), f"{limpet.root}/run"), "web").id)
    assert found is not None
    assert 8 << 20 <= found.written < 16 << 20


def test_columns_and_forms(limpet: Any, busybox: str) -> None:
    assert re.split(r"  +", limpet("stats", "--no-stream").stdout.strip()) == HEADERS
    limpet("run", "-d", "--name", "web", "-m", "64m", busybox, "sleep", "1000")
    limpet("create", "--name", "other", busybox, "true")
    header, line = limpet("container", "stats", "--no-stream").stdout.splitlines()
    assert re.split(r"  +", header) == HEADERS
    size = r"[0-9.]+[kKM]?i?B"
    row = rf"[0-9a-f]{{12}} +web +[0-9.]+% +{size} / 64MiB +[0-9.]+% +0B / 0B +{size} / {size} +2"
    assert re.fullmatch(row, line)
    assert [line.split()[1] for line in limpet("stats", "-a", "--no-stream").stdout.splitlines()[1:]] == [
        "other",
        "web",
    ]
    (text,) = limpet("stats", "--no-stream", "--format", "json", "other").stdout.splitlines()
    found = json.loads(text)
    docker = {"BlockIO": "0B / 0B", "CPUPerc": "0.00%", "MemPerc": "0.00%", "MemUsage": "0B / 0B", "NetIO": "0B / 0B"}
    assert found | docker == found
    assert (found["Name"], found["PIDs"], found["Container"]) == ("other", "0", found["ID"])
    assert limpet("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}").stdout == "web 2\n"
    assert (
        limpet("stats", "--no-stream", "--no-trunc", "--format", "{{.ID}}").stdout
        == limpet("ps", "-q", "--no-trunc").stdout
    )
    assert (
        limpet("stats", "--no-stream", "--pressure").stdout.splitlines()[0].endswith("CPU WAIT   MEM WAIT   I/O WAIT")
    )
    assert limpet("stats", "--no-stream", "nobody", check=False).returncode == 1


def test_a_live_table_on_a_terminal(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    child = subprocess.Popen([*limpet.command, "stats"], stdin=slave, stdout=slave, env=limpet.environment)
    os.close(slave)
    text = b""
    while text.count(b"\x1b[H") < 2 or not text.endswith(b"\x1b[J"):
        text += os.read(master, 4096)
    child.send_signal(2)
    assert child.wait(20) == 130
    os.close(master)
    assert text.count(b" web ") == 2
    assert text.startswith(b"\x1b[2J")


def test_a_stream_for_programs(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    command = [*limpet.command, "stats", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=limpet.environment, text=True) as child:
        assert child.stdout is not None
        names = [json.loads(child.stdout.readline())["Name"] for _ in range(2)]
        child.send_signal(2)
    assert names == ["web", "web"]


def test_a_share_is_that_between_two_looks_at_one_run(store: Store) -> None:
    container = state.Container("a" * 64, "web", None, "x", [], 0.0, state.Options())

    def look(cpu: int, moment: float, started: str = "1") -> stats.Sample:
        status = state.Status({"state": "running", "started_at": started})
        found = usage.Usage(cpu, 0, 0, 0, -1, 1, -1, 0, 0, 0, {})
        return stats.Sample(container, status, found, (0, 0), moment)

    assert stats.cpu_percent(look(1_500_000, 11.0), look(0, 10.0)) == 150
    assert stats.cpu_percent(look(1_500_000, 11.0), None) == 0
    assert stats.cpu_percent(look(500, 11.0), look(900, 10.0)) == 0
    assert stats.cpu_percent(look(1_500_000, 11.0, "2"), look(0, 10.0)) == 0  # it was restarted in between


def test_no_groups_no_figures() -> None:
    assert usage.read("no-such-container") is None
