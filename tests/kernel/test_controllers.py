"""Groups with limits on this host's own hierarchies: made, entered, changed under a running process, taken away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.kernel import cgroup, controllers, mounts, process

pytestmark = pytest.mark.skipif(
    cgroup.root() is None or not controllers.version("pids"), reason="needs cgroup2, and the controller pids somewhere"
)
NAME = f"test-controllers-{os.getpid()}"
SLEEPER = [sys.executable, "-S", "-I", "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def group() -> Iterator[str]:
    place = cgroup.create(NAME)
    assert place is not None
    yield place
    controllers.remove(NAME)
    cgroup.remove(place)
    for controller in controllers.NAMES:
        directory = controllers.path(NAME, controller)
        assert directory is not None
        assert not os.path.exists(directory)


def value(controller: str, *names: str) -> str:
    """Of the file of either version."""
    directory = Path(str(controllers.path(NAME, controller)))
    return next((directory / name).read_text().strip() for name in names if (directory / name).exists())


def test_a_process_joins_and_is_counted(group: str) -> None:
    entrances = controllers.create(NAME, {"pids": {"limit": 7}, "memory": {"limit": 64 << 20, "swap": 64 << 20}})
    pid = os.fork()
    if pid == 0:
        controllers.join(entrances)
        cgroup.enter(group)
        os.execv(sys.executable, [*SLEEPER[:-1], "import time; time.sleep(100)"])
    try:
        for fd in entrances:
            os.close(fd)
        while pid not in cgroup.pids(str(controllers.path(NAME, "pids"))) or pid not in cgroup.pids(group):
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert value("pids", "pids.max") == "7"
        assert value("pids", "pids.current") == "1"
        assert value("memory", "memory.max", "memory.limit_in_bytes") == str(64 << 20)
        assert controllers.oom_kills(NAME) == 0
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_more_and_less_memory_in_any_order(group: str) -> None:
    """Version 1 refuses a limit above that of memory and swap together, and the other way round."""
    for fd in controllers.create(NAME, {}):
        os.close(fd)
    for size in (64 << 20, 512 << 20, 32 << 20):
        controllers.update(NAME, {"memory": {"limit": size, "swap": 2 * size}})
        assert value("memory", "memory.max", "memory.limit_in_bytes") == str(size)


def test_a_running_process_is_moved_into_what_it_lacks(group: str) -> None:
    for fd in controllers.create(NAME, {}):
        os.close(fd)
    child = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)
    try:
        cgroup.enter(group, child.pid)
        controllers.update(NAME, {"cpu": {"quota": 20_000, "period": 100_000, "cpus": "0", "mems": "0"}})
        assert os.sched_getaffinity(child.pid) == {0}
        assert child.pid in cgroup.pids(str(controllers.path(NAME, "cpu")))
        assert not cgroup.frozen(group)
        assert value("cpu", "cpu.max", "cpu.cfs_quota_us").split()[0] == "20000"
    finally:
        child.kill()
        child.communicate()


def test_what_the_kernel_refuses_is_named(group: str) -> None:
    for fd in controllers.create(NAME, {}):
        os.close(fd)
    with pytest.raises(controllers.LimitError) as caught:
        controllers.update(NAME, {"blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 9, "rate": 1}]}})
    assert "4000:9" in caught.value.what


def test_where_no_group_can_be_made_only_limits_fail(group: str) -> None:
    """As inside another container: a hierarchy that can't be written to."""
    hierarchy = os.path.dirname(os.path.dirname(str(controllers.path(NAME, "memory"))))
    if controllers.version("memory") != 1:
        pytest.skip("needs the controller memory in a hierarchy of version 1")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            process.unshare(process.CLONE_NEWNS)
            mounts.mount(None, "/", flags=mounts.MS_REC | mounts.MS_PRIVATE)
            mounts.mount(hierarchy, hierarchy, flags=mounts.MS_BIND)
            mounts.mount(None, hierarchy, flags=mounts.MS_BIND | mounts.MS_REMOUNT | mounts.MS_RDONLY)
            assert controllers.create(NAME, {"devices": []}) != []
            assert not os.path.exists(str(controllers.path(NAME, "memory")))
            try:
                controllers.create(NAME, {"memory": {"limit": 1 << 30}})
            except controllers.LimitError as e:
                code = 0 if "memory" in e.what else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_controller_is_in_one_hierarchy_or_nowhere() -> None:
    for name in controllers.NAMES:
        place = controllers.path("x", name)
        assert (place is None) == (controllers.version(name) == 0)
        assert place is None or place.endswith(f"/{cgroup.PARENT}/x")
    assert controllers.version("nonsense") == 0
