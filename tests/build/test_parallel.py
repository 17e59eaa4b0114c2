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
    wrong = limpet("build", "--parallel", "-2", context, check=False)
    assert wrong.stderr.startswith("limpet: --parallel -2: no step could be done\n")


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


def test_mounts_of_steps_at_the_same_time_are_each_step_s_own(limpet: Any, busybox: str, context: Path) -> None:
    """Each is mounted in a namespace of its thread's, while the other one is in its own."""
    (context / "token").write_text("t0p")
    stages = ""
    for mine, other in (("one", "two"), ("two", "one")):
        (context / mine).mkdir()
        (context / mine / "name").write_text(mine)
        stages += (
            f"FROM {busybox} AS {mine}\n"
            f"RUN {MEET} --mount=type=bind,source={mine},target=/src,rw --mount=type=secret,id=token \\\n"
            f"  touch /meet/{mine} /src/{mine}; while [ ! -e /meet/{other} ]; do sleep 0.05; done; "
            f"echo $(cat /src/name) $(ls /src) $(cat /run/secrets/token | wc -c) > /{mine}\n"
        )
    write(context, f"{stages}FROM {busybox}\nCOPY --from=one /one /\nCOPY --from=two /two /\n")
    limpet("build", "-t", "made", "--secret", f"id=token,src={context}/token", context)
    found = limpet("run", "--rm", "made", "cat", "/one", "/two").stdout
    assert found == "one name one 3\ntwo name two 3\n"
    assert str(limpet.root) not in Path("/proc/self/mountinfo").read_text()


def test_ctrl_c_in_a_copy_leaves_no_half_layer(limpet: Any, busybox: str, context: Path) -> None:
    """While another stage copies much."""
    with (context / "data").open("wb") as file:
        file.truncate(3 << 30)  # zeros take no space here, but time to hash
    write(
        context,
        f"FROM {busybox} AS one\nCOPY data /\nFROM {busybox} AS two\nRUN echo here; sleep 98753\n"
        f"FROM {busybox}\nCOPY --from=one /x /\nCOPY --from=two /y /\n",
    )
    with start(limpet, context, "made") as builder:
        until(builder, "here")
        builder.send_signal(signal.SIGINT)
        assert builder.wait(timeout=10) == 130
    assert gone(limpet, "98753")
    assert list((limpet.root / "tmp").iterdir()) == []


COUNT = "--mount=type=cache,id=count,target=/count"


def counting(base: str, context: Path) -> None:
    """A step that notes each time it is done, and goes on when /count/go is there."""
    wait = "for i in $(seq 400); do [ -e /count/go ] && break; sleep 0.05; done"
    write(context, f"FROM {base}\nRUN {COUNT} echo begun; echo x >> /count/times; {wait}; cat /count/times > /times\n")


def start(limpet: Any, context: Path, name: str) -> subprocess.Popen[str]:
    command = [*limpet.command, "build", "-t", name, str(context)]
    return subprocess.Popen(command, env=limpet.environment, stderr=subprocess.PIPE, text=True)


def until(builder: subprocess.Popen[str], text: str) -> None:
    assert builder.stderr is not None
    for line in builder.stderr:
        if text in line and "RUN" not in line:
            return
    pytest.fail(f"the builder did not say: {text}")


def go(limpet: Any) -> None:
    (place,) = [path.parent for path in (limpet.root / "caches").glob("*/name") if path.read_text() == "count"]
    (place / "data/go").touch()


def test_equal_steps_of_two_builds_are_done_once(limpet: Any, busybox: str, context: Path) -> None:
    counting(busybox, context)
    with start(limpet, context, "one") as first:
        until(first, "begun")
        with start(limpet, context, "two") as second:
            until(second, "waiting for what comes of it")
            go(limpet)
            assert second.communicate()[1].count(": cached") == 1
        first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert limpet("run", "--rm", "two", "cat", "/times").stdout == "x\n"
    assert list((limpet.root / "cache/doing").iterdir()) == []


def test_who_waited_does_a_step_of_one_that_was_killed(limpet: Any, busybox: str, context: Path) -> None:
    counting(busybox, context)
    with start(limpet, context, "one") as first:
        until(first, "begun")
        with start(limpet, context, "two") as second:
            until(second, "waiting for what comes of it")
            first.kill()
            until(second, "begun")
            go(limpet)
            second.communicate()
    assert second.returncode == 0
    assert limpet("run", "--rm", "two", "cat", "/times").stdout == "x\nx\n"


def test_equal_steps_of_two_stages_are_done_once(limpet: Any, busybox: str, context: Path) -> None:
    run = f"RUN {COUNT} echo x >> /count/times; sleep 0.2; cp /count/times /times\n"
    stages = f"FROM {busybox} AS one\n{run}FROM {busybox} AS two\n{run}"
    write(context, f"{stages}FROM {busybox}\nCOPY --from=one /times /1\nCOPY --from=two /times /2\n")
    result = limpet("build", "-t", "made", context)
    assert result.stderr.count(": cached") == 1
    assert limpet("run", "--rm", "made", "cat", "/1", "/2").stdout == "x\nx\n"
