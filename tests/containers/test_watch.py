"""Whoever starts a container in the background hears when it ends at once."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from typing import Any

import pytest

from limpet.containers import state
from limpet.containers.observe import watch
from limpet.store.store import Store

pytestmark = pytest.mark.slow

Limpet = Any
DIES = ("sh", "-c", "echo one; echo 'two\x1b[31m' >&2; exit 3")


def told(start: Any) -> str:
    """Standard error of the first of several starts that is not empty: on a busy machine no program ends in 10 ms."""
    return next((text for number in range(20) if (text := start(number).stderr)), "")


@pytest.mark.parametrize("options", [(), ("--rm",), ("-t",), ("--restart", "on-failure:1"), ("-t", "--rm")])
def test_run_says_what_died(limpet: Limpet, busybox: str, options: tuple[str, ...]) -> None:
    said = told(lambda number: limpet("run", "-d", "--name", f"box{number}", *options, busybox, *DIES))
    said = said.replace("two [31m | one", "one | two [31m")  # with a pipe for each either may come first
    assert re.fullmatch(r"limpet: container box\d+ ended with exit code 3: one \| two \[31m\n", said)


def test_what_looked_on_leaves_input_and_removal_alone(limpet: Limpet, busybox: str) -> None:
    limpet("run", "-d", "-i", "--rm", "--name", "box", busybox, "cat")
    assert limpet("ps", "--format", "{{.Names}}").stdout == "box\n"
    limpet("kill", "box")
    end = time.monotonic() + 10
    while os.listdir(limpet.root / "containers"):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_start_says_what_died_and_only_of_this_run(limpet: Limpet, busybox: str) -> None:
    limpet("run", "--name", "old", busybox, *DIES, check=False)
    limpet("create", "--name", "new", busybox, "sh", "-c", "exit 4")

    def start(number: int) -> Any:
        result = limpet("start", "old", "new")
        assert result.stdout == "old\nnew\n"
        limpet("wait", "old", "new")
        return result

    said = told(start)
    assert (
        told(lambda number: limpet("restart", "new"))
        == "limpet: container new ended with exit code 4, without a word\n"
    )
    assert said.startswith(("limpet: container old ended with exit code 3: ", "limpet: container new"))
    assert said.count("one") == said.count("old")
    store = Store(str(limpet.root), f"{limpet.root}/run")
    assert (
        watch.last_words(store, state.find(store, "new"), 4) == "container new ended with exit code 4, without a word"
    )


def test_a_script_hears_nothing_of_what_went_well(limpet: Limpet, busybox: str) -> None:
    assert limpet("run", "-d", busybox, "true").stderr == ""
    began = time.monotonic()
    assert limpet("run", "-d", busybox, "sleep", "1000").stderr == ""
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(("script", "code"), [("sleep 0.05; exit 3", 3), ("exit 0", 0)])
def test_a_person_at_a_terminal_is_told_of_all(limpet: Limpet, busybox: str, script: str, code: int) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    try:
        for number in range(20):
            subprocess.run(
                [*limpet.command, "run", "-d", "--name", f"box{number}", busybox, "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave, env=limpet.environment, check=True,
            )  # fmt: skip
            try:
                said = os.read(master, 1000).decode()
                break
            except BlockingIOError:
                continue  # the machine was too busy for it to end in a quarter of a second
        assert said == f"limpet: container box{number} ended with exit code {code}, without a word\r\n"
    finally:
        os.close(master)
        os.close(slave)


def test_how_long_is_looked(limpet: Limpet, busybox: str) -> None:
    limpet("run", "-d", "-i", "--name", "box", busybox, "sleep", "1000")
    store = Store(str(limpet.root), f"{limpet.root}/run")
    container = state.find(store, "box")
    began = time.monotonic()
    assert watch.ended(store, container, 0.3) is None
    assert 0.3 <= time.monotonic() - began < 1
    limpet("kill", "box")
    assert watch.ended(store, container, 10) == 137  # nobody is there to ask: what is recorded counts
    limpet("rm", "box")
    assert watch.ended(store, container, 10) is None
