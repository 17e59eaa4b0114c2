"""Groups on the real hierarchy: made, entered, frozen, killed, taken away, by many at once."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.kernel import cgroup

pytestmark = pytest.mark.skipif(cgroup.root() is None, reason="needs cgroup2")
SLEEPER = [sys.executable, "-S", "-I", "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def group() -> Iterator[str]:
    path = cgroup.create(f"test-cgroup-{os.getpid()}")
    assert path is not None
    yield path
    cgroup.remove(path)


@pytest.fixture
def sleeper(group: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the group."""
    child = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)
    cgroup.enter(group, child.pid)
    yield child
    child.kill()
    child.communicate()


def events(path: str) -> dict[str, str]:
    return dict(line.split() for line in Path(path, "cgroup.events").read_text().splitlines())


def wait_for(path: str, key: str, value: str) -> None:
    """cgroup.events reports its changes by POLLPRI."""
    with open(f"{path}/cgroup.events") as file:
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        while events(path)[key] != value:
            assert poll.poll(10_000), f"{key} is not {value} after ten seconds"


def test_create_and_remove() -> None:
    name = f"test-cgroup-new-{os.getpid()}"
    path = cgroup.create(name)
    assert path == cgroup.path(name)
    assert path is not None
    assert os.path.exists(f"{path}/cgroup.procs")
    assert cgroup.create(name) == path  # that of a dead container is taken over
    os.makedirs(f"{path}/a/b")
    os.mkdir(f"{path}/c")
    cgroup.remove(path)
    assert not os.path.exists(path)
    cgroup.remove(path)
    assert cgroup.pids(path) == []


def test_a_busy_group_stays(group: str, sleeper: subprocess.Popen[bytes]) -> None:
    assert not cgroup.remove(group)
    assert cgroup.pids(group) == [sleeper.pid]


def test_pids_of_groups_below_too(group: str, sleeper: subprocess.Popen[bytes]) -> None:
    other = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)
    try:
        os.makedirs(f"{group}/a/b")
        cgroup.enter(f"{group}/a/b", other.pid)
        assert sorted(cgroup.pids(group)) == sorted([sleeper.pid, other.pid])
    finally:
        other.kill()
        other.communicate()


def test_kill_reaches_everything(group: str, sleeper: subprocess.Popen[bytes]) -> None:
    os.mkdir(f"{group}/below")
    # It forks without end: a list of pids would always be too old.
    # It starts only when it is in the group, so that none of its line is born outside.
    program = "import os, sys\nsys.stdin.readline()\nwhile True:\n  if os.fork(): os._exit(0)"
    forker = subprocess.Popen([sys.executable, "-S", "-I", "-c", program], stdin=subprocess.PIPE)
    cgroup.enter(f"{group}/below", forker.pid)
    forker.communicate(b"\n")
    cgroup.kill(group)
    forker.wait()
    assert sleeper.wait() == -9
    wait_for(group, "populated", "0")
    assert cgroup.pids(group) == []


def test_freeze_and_thaw(group: str, sleeper: subprocess.Popen[bytes]) -> None:
    cgroup.freeze(group)
    wait_for(group, "frozen", "1")
    assert sleeper.stdin is not None
    sleeper.stdin.close()  # it would end now
    fd = os.pidfd_open(sleeper.pid)
    try:
        assert select.select([fd], [], [], 0)[0] == []
        cgroup.thaw(group)
        wait_for(group, "frozen", "0")
        assert sleeper.wait() == 0
    finally:
        os.close(fd)


def test_the_killed_need_no_thawing(group: str, sleeper: subprocess.Popen[bytes]) -> None:
    cgroup.freeze(group)
    wait_for(group, "frozen", "1")
    cgroup.kill(group)
    assert sleeper.wait() == -9


def test_refusals(group: str) -> None:
    with pytest.raises(ProcessLookupError):
        cgroup.enter(group, 1 << 21)
    for attempt in (cgroup.kill, cgroup.freeze, cgroup.thaw):
        with pytest.raises(FileNotFoundError):
            attempt(f"{group}/nowhere")


def test_many_at_once() -> None:
    """The first one makes the parent, the last one takes it away, whoever that is."""
    problems: list[BaseException] = []

    def live(number: int) -> None:
        try:
            for _ in range(30):
                path = cgroup.create(f"test-cgroup-{os.getpid()}-{number}")
                assert path is not None
                assert os.path.exists(f"{path}/cgroup.procs")
                cgroup.remove(path)
        except BaseException as e:
            problems.append(e)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
