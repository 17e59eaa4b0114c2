"""That the session's last check finds what a test leaves behind, and blames nobody else's things on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.kernel import bpf, cgroup, mounts
from tests import host

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SLEEPER = [sys.executable, "-S", "-I", "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[host.Session]:
    """A session in the session that runs this test, alone by a lock of its own; impatient."""
    monkeypatch.setenv(host.MARK, os.environ[host.MARK])  # to put it back afterwards
    monkeypatch.setattr(host, "_PATIENCE", 0.0)
    (tmp_path / "temporary").mkdir()
    session = host.Session(tmp_path / "temporary", str(tmp_path / "lock"))
    yield session
    session.close()


def found(session: host.Session, kind: str, name: str) -> host.Thing | None:
    """That thing among the leftovers. Other tests and sessions may run at the same time, so there may be others."""
    return next((thing for thing in session.leftovers() if (thing.kind, thing.name) == (kind, name)), None)


def sleeper(**options: object) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE, start_new_session=True, **options)
    while not Path(f"/proc/{child.pid}/cmdline").read_bytes():  # it has none for a moment within execve
        time.sleep(0.001)
    return child


@pytest.mark.parametrize("trace", ["mark", "path in the environment", "directory"])
def test_a_process(watched: host.Session, trace: str) -> None:
    inside = watched.temporary
    child = sleeper(
        env={"mark": None, "path in the environment": {"ROOT": f"{inside}x"}, "directory": {}}[trace],
        cwd=inside if trace == "directory" else "/",
    )
    try:
        left = found(watched, "process", str(child.pid))
        assert left is not None
        assert left.ours
        assert "sys.stdin.read" in str(left)
    finally:
        child.communicate()
    assert found(watched, "process", str(child.pid)) is None


def test_a_process_of_somebody_else(watched: host.Session) -> None:
    child = sleeper(env={host.MARK: "1.2"}, cwd="/")
    try:
        assert found(watched, "process", str(child.pid)) is None
    finally:
        child.communicate()


LINE = """
import os, time
end = time.monotonic() + 20
while time.monotonic() < end:
    time.sleep({pause})
    if os.fork():
        os._exit(0)
"""


@pytest.mark.parametrize("pause", [0, 0.002])
def test_a_line_of_processes_that_fork_and_end(watched: host.Session, pause: float) -> None:
    """No list of processes shows one for long enough to read what it is; together they eat a processor."""
    program = [sys.executable, "-S", "-I", "-c", LINE.format(pause=pause)]
    first = subprocess.Popen(program, cwd="/", start_new_session=True)
    try:
        first.wait()
        left = found(watched, "process", f"line of group {first.pid}")
    finally:
        os.killpg(first.pid, signal.SIGKILL)
    assert left is not None
    assert left.ours
    assert found(watched, "process", f"line of group {first.pid}") is None


def test_a_line_of_somebody_else(watched: host.Session) -> None:
    program = [sys.executable, "-S", "-I", "-c", LINE.format(pause=0.001)]
    first = subprocess.Popen(program, cwd="/", start_new_session=True, env={host.MARK: "1.2"})
    try:
        first.wait()
        assert found(watched, "process", f"line of group {first.pid}") is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)


def test_a_mount(watched: host.Session) -> None:
    place = f"{watched.temporary}mounted"
    os.mkdir(place)
    fd = mounts.tmpfs()
    mounts.attach(fd, place)
    os.close(fd)
    try:
        left = found(watched, "mount", place)
        assert left is not None
        assert left.ours
    finally:
        mounts.umount(place)
    assert found(watched, "mount", place) is None


@pytest.fixture
def group() -> Iterator[str]:
    path = cgroup.create(f"test-clean-{os.getpid()}")
    if path is None:
        pytest.skip("needs cgroup2")
    yield path
    cgroup.remove(path)


def test_an_empty_group_if_no_other_session_is_running(watched: host.Session, group: str, tmp_path: Path) -> None:
    left = found(watched, "group", group)
    assert left is not None
    assert not left.ours
    other = host.Session(tmp_path / "other", str(tmp_path / "lock"))
    try:
        assert found(watched, "group", group) is None
    finally:
        other.close()
    assert found(watched, "group", group)


def test_a_group_of_version_1(watched: host.Session) -> None:
    """runc makes one in each hierarchy of a hybrid host."""
    base = Path("/sys/fs/cgroup/pids")
    if not base.is_dir() or (base / "cgroup.controllers").exists():
        pytest.skip("needs the pids hierarchy of cgroup version 1")
    place = base / cgroup.PARENT / f"test-clean-{os.getpid()}"
    place.mkdir(parents=True)
    child = sleeper()
    try:
        assert found(watched, "group", str(place))
        cgroup.enter(str(place), child.pid)
        left = found(watched, "group", str(place))
        assert left is not None
        assert left.ours
    finally:
        child.communicate()
        cgroup.remove(str(place))
    assert found(watched, "group", str(place)) is None


def test_a_group_with_a_process_of_ours(watched: host.Session, group: str, tmp_path: Path) -> None:
    child = sleeper()
    other = host.Session(tmp_path / "other", str(tmp_path / "lock"))
    try:
        cgroup.enter(group, child.pid)
        assert found(watched, "group", group)
        assert found(watched, "process", str(child.pid))
    finally:
        other.close()
        child.communicate()


def test_a_group_that_somebody_else_watches_over(watched: host.Session, group: str) -> None:
    # Its parent, the process of this test, does not bear the mark of the inner session: it is older.
    child = sleeper(env={}, cwd="/")
    try:
        cgroup.enter(group, child.pid)
        assert found(watched, "group", group) is None
    finally:
        child.communicate()


def test_a_program(watched: host.Session) -> None:
    code = bpf.Assembler()
    code.leave(1)
    try:
        fd = bpf.load(15, code.assemble(), "limpet_left")
    except OSError:
        pytest.skip("needs BPF programs on control groups")
    try:
        assert "limpet_left" in [thing.detail for thing in watched.leftovers()]
    finally:
        os.close(fd)


INNER = """
import subprocess
def test_that_leaves_a_process_behind():
    subprocess.Popen({sleeper}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                     start_new_session=True).returncode = 0
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("leaves", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_session_fails_for_what_it_leaves(tmp_path: Path, workers: int, leaves: bool) -> None:
    wait = ["sh", "-c", f"until [ -e {tmp_path}/end ]; do sleep 0.05; done"]
    (tmp_path / "test_inner.py").write_text(INNER.format(sleeper=wait) if leaves else "def test_nothing(): pass\n")
    report = tmp_path / "report.xml"
    # The inner session's temporary directory is not that of this test, so that only its mark betrays the process.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-n",
        str(workers),
    ]
    result = subprocess.run(
        [*command, f"--basetemp={tmp_path}/inner", f"--junit-xml={report}", "test_inner.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    (tmp_path / "end").touch()
    output = result.stdout + result.stderr
    assert result.returncode == int(leaves), output
    assert ("1 failed, 1 passed" if leaves else "1 passed") in output
    assert ("what_the_session_left_on_the_host" in output) == leaves
    assert (f"{tmp_path}/end" in output) == leaves
    assert ('failures="1"' in report.read_text()) == leaves
