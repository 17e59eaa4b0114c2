"""RUN: what a step leaves behind is killed, what it writes is heard to the end, and nothing outlives the builder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.kernel import cgroup

pytestmark = pytest.mark.slow


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def write(context: Path, base: str, *lines: str) -> None:
    (context / "Dockerfile").write_text("\n".join((f"FROM {base}", *lines)) + "\n")


def processes(mark: str) -> list[int]:
    """Those that have `mark` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def gone(limpet: Any, mark: str) -> bool:
    """Within two seconds: no process, no group, no temporary file."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        left = [name for name in os.listdir(limpet.root / "tmp") if name.startswith("step-")]
        if not processes(mark) and not cgroup.owned(str(limpet.root)) and not left:
            return True
        time.sleep(0.02)
    return False


def test_what_a_step_leaves_running_is_killed(limpet: Any, busybox: str, context: Path) -> None:
    write(context, busybox, "RUN sleep 98761 & setsid sleep 98761 & echo started")
    result = limpet("build", "-t", "made", context)
    assert "started\n" in result.stderr
    assert gone(limpet, "98761")


def test_all_that_a_step_writes_is_heard(limpet: Any, busybox: str, context: Path) -> None:
    """More than a pipe holds, on either stream, and without a line's end."""
    write(context, busybox, "RUN seq 100000; printf end", "RUN seq 100000 >&2; printf end >&2")
    result = limpet("build", "-t", "made", context)
    numbers = [line for line in result.stderr.splitlines() if line.isdigit()]
    assert len(numbers) == 200000
    assert result.stderr.count("\nend") == 2


def test_a_step_sees_no_more_than_a_container_does(limpet: Any, busybox: str, context: Path) -> None:
    write(
        context,
        busybox,
        "RUN echo pids $(ls /proc | grep -c '^[0-9]') fds $(ls /proc/self/fd) caps $(grep CapEff /proc/self/status)",
        "RUN hostname; cat /proc/self/cgroup; mount | grep -c overlay; ! ls /sys/fs/cgroup/limpet",
    )
    lines = limpet("build", "-t", "made", context).stderr.splitlines()
    seen = next(line for line in lines if line.startswith("pids "))
    assert seen.split()[1] in ("4", "5", "6")  # the init, the shell, and what it runs
    assert seen.split("fds ")[1].split(" caps")[0].split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
    assert "00000000a80425fb" in seen  # Docker's default set
    assert "limpet-build" in lines
    assert all("build" not in line for line in lines if line.startswith("0::"))


def test_a_program_that_is_not_there(limpet: Any, busybox: str, context: Path) -> None:
    write(context, busybox, 'RUN ["nothing-like-this"]')
    result = limpet("build", "-t", "made", context, check=False)
    assert result.returncode == 127
    assert 'Dockerfile:2:1: exec: "nothing-like-this": executable file not found in $PATH' in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_builder_that_is_ended_leaves_nothing_running(
    limpet: Any, busybox: str, context: Path, number: signal.Signals
) -> None:
    mark = f"9876{int(number)}"
    write(context, busybox, f"RUN trap '' TERM INT; echo going; sleep {mark}; sleep {mark}")
    command = [*limpet.command, "build", "-t", "made", str(context)]
    with subprocess.Popen(command, env=limpet.environment, stderr=subprocess.PIPE, text=True) as builder:
        assert builder.stderr is not None
        while "going" not in builder.stderr.readline():
            pass
        begun = time.monotonic()
        builder.send_signal(number)
        builder.wait()
        assert time.monotonic() - begun < 1
    assert builder.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert gone(limpet, mark)


def test_a_killed_runner_ends_the_step_and_the_build(limpet: Any, busybox: str, context: Path) -> None:
    write(context, busybox, "RUN echo going; sleep 98764")
    command = [*limpet.command, "build", "-t", "made", str(context)]
    with subprocess.Popen(command, env=limpet.environment, stderr=subprocess.PIPE, text=True) as builder:
        assert builder.stderr is not None
        while builder.stderr.readline() != "going\n":
            pass
        (sleeper,) = processes("98764\0")
        status = Path(f"/proc/{sleeper}/status").read_text()
        while "Name:\tlimpet-steps" not in status:  # from the program upwards: its shell, the init, the runner
            runner = int(status.partition("PPid:\t")[2].partition("\n")[0])
            status = Path(f"/proc/{runner}/status").read_text()
        os.kill(runner, signal.SIGKILL)
        said = builder.communicate()[1]
    assert builder.returncode == 1
    assert "the process that runs the build's steps was killed, and the step with it" in said
    assert processes("98764") == []
    assert list((limpet.root / "tmp").iterdir()) == []
    limpet("system", "recover")
    assert cgroup.owned(str(limpet.root)) == []


def test_a_fork_bomb_meets_the_limit(limpet: Any, busybox: str, context: Path) -> None:
    """And what ran of it is gone. A limit that is asked for counts, and is named."""
    write(context, busybox, "RUN cat /sys/fs/cgroup/pids.max; for i in $(seq 200); do sleep 98763 & done; echo through")
    result = limpet("build", "--pids-limit", "50", "-t", "made", context, check=False)
    assert result.returncode == 1
    assert "through" not in result.stderr.split("Dockerfile:2")[0].replace("echo through", "")
    assert "--pids-limit allows more" in result.stderr
    assert gone(limpet, "98763")


def test_the_limit_of_processes_by_default(limpet: Any, busybox: str, context: Path) -> None:
    group = next(
        (f"{place}/pids.max" for place in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if os.path.isdir(place)), ""
    )
    write(
        context, busybox, "RUN --mount=type=cache,id=x,target=/x echo going; while [ ! -e /x/go ]; do sleep 0.05; done"
    )
    command = [*limpet.command, "build", "-t", "made", str(context)]
    with subprocess.Popen(command, env=limpet.environment, stderr=subprocess.PIPE, text=True) as builder:
        assert builder.stderr is not None
        while builder.stderr.readline() != "going\n":
            pass
        (place,) = cgroup.owned(str(limpet.root))
        group = os.path.join(os.path.dirname(group), cgroup.PARENT, os.path.basename(place), "pids.max")
        assert Path(group).read_text() == "4096\n"
        (cache,) = (limpet.root / "caches").glob("*/data")
        (cache / "go").touch()
        builder.communicate()
    assert builder.returncode == 0
