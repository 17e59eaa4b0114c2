"""Stages at once: what is independent runs at the same time, what is not waits, and an error ends all of it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.build.steps.test_runner import gone

pytestmark = pytest.mark.slow

MEET = "--mount=type=cache,id=meet,target=/meet"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def write(context: Path, text: str) -> None:
    (context / "Dockerfile").write_text(text)


def meeting(base: str, mine: str, other: str) -> str:
    """A stage that ends well only if the other one runs at the same time."""
    wait = f"for i in $(seq 200); do [ -e /meet/{other} ] && exit 0; sleep 0.05; done; exit 1"
    return f"FROM {base} AS {mine}\nRUN {MEET} touch /meet/{mine} /{mine}; {wait}\n"


def test_independent_stages_run_at_the_same_time(limpet: Any, busybox: str, context: Path) -> None:
    last = f"FROM {busybox}\nCOPY --from=one /one /\nCOPY --from=two /two /\nRUN ls /one /two\n"
    write(context, meeting(busybox, "one", "two") + meeting(busybox, "two", "one") + last)
    first = limpet("build", "-t", "made", context)
    assert "/one\n" in first.stderr
    assert "/two\n" in first.stderr
    again = limpet("build", "-t", "made", context)
    assert again.stderr.count(": cached") == 5
    assert again.stdout == first.stdout


def test_a_step_waits_for_the_stage_that_it_copies_from(limpet: Any, busybox: str, context: Path) -> None:
    """But those before it don't: `early` is run while `slow` is."""
    write(
        context,
        meeting(busybox, "slow", "early")
        + f"FROM {busybox} AS early\nRUN {MEET} touch /meet/early; while [ ! -e /meet/slow ]; do sleep 0.05; done\n"
        + "COPY --from=slow /slow /copied\nRUN ls /copied\n",
    )
    assert "/copied\n" in limpet("build", "-t", "made", context).stderr


def test_parallel_one_is_one_after_another(limpet: Any, busybox: str, context: Path) -> None:
    alone = f"RUN {MEET} mkdir /meet/busy && sleep 0.3 && rmdir /meet/busy\n"
    stages = "".join(f"FROM {busybox} AS s{number}\nRUN echo {number}\n{alone}" for number in range(3))
    copies = "".join(f"COPY --from=s{number} /etc/passwd /{number}\n" for number in range(3))
    write(context, f"{stages}FROM {busybox}\n{copies}")
    limpet("build", "--parallel", "1", "-t", "made", context)


def test_an_error_ends_the_other_stages_and_is_said_once(limpet: Any, busybox: str, context: Path) -> None:
    write(
        context,
        f"FROM {busybox} AS one\nRUN {MEET} touch /meet/here; sleep 98751\n"
        f"FROM {busybox} AS two\nRUN {MEET} while [ ! -e /meet/here ]; do sleep 0.05; done; exit 7\n"
        f"FROM {busybox}\nCOPY --from=one /x /\nCOPY --from=two /y /\n",
    )
    result = limpet("build", "-t", "made", context, check=False)
    assert result.returncode == 1
    assert result.stderr.count("the command failed with exit code 7") >= 1
    assert "exit code 137" not in result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("limpet: ")][-1].count(":4:1: ") == 1
    assert gone(limpet, "98751")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_by_a_signal_ends_all_stages(limpet: Any, busybox: str, context: Path, number: signal.Signals) -> None:
    write(
        context,
        f"FROM {busybox} AS one\nRUN trap '' TERM INT; sleep 98752; sleep 98752\n"
        f"FROM {busybox} AS two\nRUN echo here; sleep 98752\n"
        f"FROM {busybox}\nCOPY --from=one /x /\nCOPY --from=two /y /\n",
    )
    command = [*limpet.command, "build", "-t", "made", str(context)]
    with subprocess.Popen(command, env=limpet.environment, stderr=subprocess.PIPE, text=True) as builder:
        assert builder.stderr is not None
        while "here" not in builder.stderr.readline().split("echo here")[0]:
            pass
        builder.send_signal(number)
        assert builder.wait(timeout=3) == 128 + number
    assert gone(limpet, "98752")
    assert limpet("system", "check").returncode == 0
