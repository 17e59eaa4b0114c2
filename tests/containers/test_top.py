"""top: whose processes, and what `ps -ef` would say of them."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest

from limpet.containers import state
from limpet.containers.observe import top
from limpet.errors import Conflict, LimpetError
from limpet.store.store import Store


@pytest.fixture
def mine(limpet: Any, busybox: str) -> Store:
    limpet("run", "-d", "--name", "web", "-u", "33", busybox, "sh", "-c", "sleep 1000 & exec sleep 2000")
    store = Store(str(limpet.root), f"{limpet.root}/run")
    while {"sleep 2000", "sleep 1000"} - {row[-1] for row in top.processes(store, state.find(store, "web"))}:
        os.sched_yield()
    return store


def test_rows(mine: Store) -> None:
    container = state.find(mine, "web")
    rows = top.processes(mine, container)
    assert {row[-1] for row in rows} >= {"sleep 2000", "sleep 1000"}
    main = next(row for row in rows if row[-1] == "sleep 2000")
    assert re.fullmatch(r"\d\d:\d\d", main[4])
    assert (main[3], main[5], main[6]) == ("0", "?", "00:00:00")
    listed = subprocess.run(
        ["ps", "-o", "user=,pid=,ppid=,tty=,time=,args=", "-p", main[1]], capture_output=True, text=True, check=True
    ).stdout.split(None, 5)
    assert [main[0], main[1], main[2], main[5], main[6], main[7]] == [*listed[:5], listed[5].rstrip()]
    assert set(top.pids(mine, container)) == {int(row[1]) for row in rows}
    assert os.getpid() not in top.pids(mine, container)


def test_processes_of_exec_are_there_too(limpet: Any, mine: Store) -> None:
    limpet("exec", "-d", "web", "sleep", "3000")
    assert "sleep 3000" in {row[-1] for row in top.processes(mine, state.find(mine, "web"))}


def test_options_go_to_the_hosts_ps(limpet: Any, mine: Store) -> None:
    container = state.find(mine, "web")
    header, *lines = top.with_ps(mine, container, ["-eo", "pid,args"]).splitlines()
    assert header.split()[0] == "PID"
    assert {int(line.split()[0]) for line in lines} == set(top.pids(mine, container))
    with pytest.raises(LimpetError, match="must print the column PID"):
        top.with_ps(mine, container, ["-eo", "args"])
    with pytest.raises(LimpetError, match="ps --nonsense"):
        top.with_ps(mine, container, ["--nonsense"])
    header, *lines = limpet("top", "web").stdout.splitlines()
    assert header.split() == list(top.HEADERS)
    assert lines[-1].startswith("www")
    assert "sleep 2000" in limpet("top", "web", "aux").stdout


def test_one_that_does_not_run(limpet: Any, mine: Store) -> None:
    limpet("kill", "web")
    with pytest.raises(Conflict, match="is not running"):
        top.processes(mine, state.find(mine, "web"))
    assert limpet("top", "web", check=False).returncode == 1
