"""`wait --condition`: Docker's and Podman's words, on real containers."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from limpet.containers.observe import waiting
from limpet.errors import Invalid


def waiting_for(limpet: Any, *args: str) -> subprocess.Popen[str]:
    """A `wait` that has begun to wait: its inotify descriptor is there."""
    process = subprocess.Popen(
        [*limpet.command, "wait", *args],
        env=limpet.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        maps = subprocess.run(["ls", "-l", f"/proc/{process.pid}/fd"], capture_output=True, text=True, check=False)
        if "inotify" in maps.stdout:
            break
        time.sleep(0.01)
    return process


def answer(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def test_what_holds_already_is_not_waited_for(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "new", busybox, "true")
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    limpet("run", "--name", "job", busybox, "sh", "-c", "exit 3", check=False)
    for name, word, code in (
        ("new", "created", "-1"), ("new", "configured", "-1"), ("new", "not-running", "-1"),
        ("web", "running", "-1"), ("job", "exited", "3"), ("job", "stopped", "3"), ("job", "not-running", "3"),
    ):  # fmt: skip
        assert limpet("wait", "--condition", word, name).stdout == f"{code}\n", (name, word)
    assert limpet("wait", "--condition=paused,running", "--condition", "exited", "web", "job").stdout == "-1\n3\n"
    limpet("pause", "web")
    assert limpet("wait", "--condition", "paused", "web").stdout == "-1\n"


def test_next_exit_and_removed_of_several(limpet: Any, busybox: str) -> None:
    """Ends in another order than the names': nobody's end is missed."""
    for name in ("one", "two"):
        limpet("run", "-d", "--name", name, busybox, "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done")
    ends = waiting_for(limpet, "--condition", "next-exit", "one", "two")
    gone = waiting_for(limpet, "--condition", "removed", "two", "one", "nobody")
    limpet("kill", "two")
    assert ends.poll() is None
    limpet("start", "two")  # it runs again when its turn comes
    limpet("kill", "-s", "TERM", "one")
    assert answer(ends) == (0, "4\n137\n", "")
    limpet("rm", "-f", "two")
    assert gone.poll() is None
    limpet("rm", "-f", "one")
    assert answer(gone) == (0, "137\n4\n-1\n", "")


def test_it_runs_at_last(limpet: Any, busybox: str) -> None:
    """A run of a moment counts, and --rm takes nothing away from it."""
    limpet("create", "--name", "new", "--rm", busybox, "sh", "-c", "exit 6")
    runs = waiting_for(limpet, "--condition", "running", "new")
    ends = waiting_for(limpet, "--condition", "exited", "new")
    gone = waiting_for(limpet, "--condition", "removed", "new")
    limpet("start", "new")
    assert answer(runs) == (0, "-1\n", "")
    assert answer(ends) == (0, "6\n", "")
    assert answer(gone) == (0, "6\n", "")


def test_health(limpet: Any, busybox: str) -> None:
    limpet(
        *("run", "-d", "--name", "web", "--health-cmd", "test -e /ok", "--health-interval", "100ms"),
        *("--health-retries", "2", busybox, "sleep", "1000"),
    )
    assert limpet("wait", "--condition", "unhealthy", "web").stdout == "-1\n"
    healthy = waiting_for(limpet, "--condition", "healthy", "web")
    limpet("exec", "web", "touch", "/ok")
    assert answer(healthy) == (0, "-1\n", "")
    sick = waiting_for(limpet, "--condition", "unhealthy", "web")
    limpet("kill", "web")
    code, out, err = answer(sick)
    assert (code, out) == (1, "")
    assert "container web ended with exit code 137, and was to be unhealthy" in err


def test_what_can_never_come_is_an_error(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    limpet("create", "--name", "new", busybox, "true")
    result = limpet("wait", "--condition", "healthy", "web", "nobody", check=False)
    assert result.returncode == 1
    assert "container web has no health check" in result.stderr
    assert "No such container: nobody" in result.stderr
    runs = waiting_for(limpet, "--condition", "running", "new")
    limpet("rm", "new")
    code, _, err = answer(runs)
    assert code == 1
    assert "container new was removed, and was to be running" in err
    result = limpet("wait", "--condition", "sleeping", "web", check=False)
    assert result.returncode == 1
    assert "unknown condition 'sleeping'" in result.stderr
    assert "next-exit" in result.stderr
    assert limpet("wait", "--ignore", "nobody").stdout == "-1\n"
    assert limpet("wait", "--ignore", "--condition", "running", "web", "nobody").stdout == "-1\n-1\n"


def test_words_are_checked() -> None:
    assert waiting.check(["Running, paused", "exited"]) == ["running", "paused", "exited"]
    with pytest.raises(Invalid):
        waiting.check([""])
