"""Processes in namespaces and groups, and what a process sets about itself: asked back from the kernel."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limpet.kernel import cgroup, process

Alone = Callable[..., Any]


def test_clone3_is_a_fork_into_new_namespaces(alone: Alone) -> None:
    def body():
        read, write = os.pipe()
        flags = process.CLONE_NEWPID | process.CLONE_NEWUTS | process.CLONE_NEWIPC | process.CLONE_NEWNET
        pid = process.clone3(flags)
        if pid == 0:
            os.write(write, f"{os.getpid()} {os.getppid()}".encode())
            os._exit(7)
        os.close(write)
        seen = os.read(read, 100).decode()
        _, status = os.waitpid(pid, 0)
        return seen, os.waitstatus_to_exitcode(status), pid > 1

    assert alone(body) == ["1 0", 7, True]


def test_clone3_into_a_group(alone: Alone) -> None:
    path = cgroup.create(f"test-process-{os.getpid()}")
    if path is None:
        pytest.skip("needs cgroup2")

    def body(path):
        group = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        read, write = os.pipe()
        pid = process.clone3(0, cgroup_fd=group)
        if pid == 0:
            os.write(write, open("/proc/self/cgroup", "rb").read())
            os._exit(0)
        os.waitpid(pid, 0)
        return os.read(read, 4096).decode(), open("/proc/self/cgroup").read()

    try:
        child, parent = alone(body, path)
    finally:
        cgroup.remove(path)
    assert path.endswith(next(line[3:] for line in child.splitlines() if line.startswith("0::")))
    assert os.path.basename(path) not in parent


def test_refusals_name_the_call() -> None:
    for attempt, message in (
        (lambda: process.clone3(process.CLONE_NEWNS | 0x200), "clone3: Invalid"),  # with CLONE_FS
        (lambda: process.unshare(1), "unshare: Invalid"),
        (lambda: process.setns(0, process.CLONE_NEWNS), "setns: "),
        (lambda: process.set_limit("RLIMIT_NOFILE", 10, 5), "RLIMIT_NOFILE=10:5: Invalid"),
    ):
        with pytest.raises(OSError, match=message):
            attempt()


def test_namespaces_by_unshare_and_setns(alone: Alone) -> None:
    def body():
        def name():
            return os.uname().nodename, open("/proc/sys/kernel/domainname").read().strip()

        before = name()
        old = os.open("/proc/self/ns/uts", os.O_RDONLY)
        process.unshare(process.CLONE_NEWUTS)
        process.sethostname(b"inside")
        process.setdomainname(b"domain")
        inside = name()
        process.setns(old, process.CLONE_NEWUTS)
        back = name() == before
        # By pidfd, several kinds at once.
        read, write = os.pipe()
        pid = process.clone3(process.CLONE_NEWUTS | process.CLONE_NEWIPC)
        if pid == 0:
            process.sethostname(b"other")
            os.write(write, b"x")
            os.read(os.pipe()[0], 1)
        os.read(read, 1)
        fd = os.pidfd_open(pid)
        process.setns(fd, process.CLONE_NEWUTS | process.CLONE_NEWIPC)
        other = os.uname().nodename
        same = os.readlink("/proc/self/ns/ipc") == os.readlink(f"/proc/{pid}/ns/ipc")
        process.pidfd_send_signal(fd, 9)
        os.waitpid(pid, 0)
        return inside, back, other, same

    assert alone(body) == [["inside", "domain"], True, "other", True]


def test_signals_by_pidfd() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-I", "-c", "import sys; sys.stdin.read()"], stdin=-1)
    fd = os.pidfd_open(child.pid)
    try:
        process.pidfd_send_signal(fd, 0)
        process.pidfd_send_signal(fd, 9)
        assert child.wait() == -9
        with pytest.raises(ProcessLookupError):
            process.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)
        child.stdin.close()


def test_the_death_signal(alone: Alone) -> None:
    def body():
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:
            ready, say = os.pipe()
            if os.fork() == 0:
                process.set_death_signal(9)
                os.write(say, b"x")
                os.read(os.pipe()[0], 1)  # for ever
            os.read(ready, 1)
            os._exit(0)
        os.close(write)
        os.waitpid(middle, 0)
        return len(os.read(read, 1))  # ends when the last copy of `write` is closed: when the grandchild has died

    assert alone(body) == 0


def test_orphans_come_to_the_subreaper(alone: Alone) -> None:
    def body():
        process.set_child_subreaper()
        ours = os.getpid()
        if os.fork() == 0:
            if os.fork() == 0:
                while os.getppid() != ours:
                    os.sched_yield()
                os._exit(9)
            os._exit(0)
        found = []
        while True:
            try:
                found.append(os.waitstatus_to_exitcode(os.wait()[1]))
            except ChildProcessError:
                return sorted(found)

    assert alone(body) == [0, 9]


def test_own_attributes(alone: Alone) -> None:
    def body():
        def status(key):
            return next(line.split()[1] for line in open("/proc/self/status") if line.startswith(f"{key}:"))

        before = status("NoNewPrivs")
        process.set_no_new_privileges()
        names = []
        for name in (b"short", b"a name that is too long", b"odd) R 1 2 ("):
            process.set_name(name)
            names.append(open("/proc/self/comm").read().rstrip("\n"))
        dumpable = []
        for value in (False, True):
            process.set_dumpable(value)
            dumpable.append(process.prctl(3))  # PR_GET_DUMPABLE
        return before, status("NoNewPrivs"), names, dumpable

    assert alone(body) == ["0", "1", ["short", "a name that is ", "odd) R 1 2 ("], [0, 1]]


def test_limits(alone: Alone) -> None:
    def body():
        import resource

        process.set_limit("RLIMIT_NOFILE", 100, 200)
        process.set_limit("RLIMIT_CORE", 0, (1 << 64) - 1)
        process.set_limit("RLIMIT_FSIZE", (1 << 40) + 1, (1 << 41) + 1)
        process.set_limit("RLIMIT_CPU", -1, -1)
        return [resource.getrlimit(getattr(resource, f"RLIMIT_{n}")) for n in ("NOFILE", "CORE", "FSIZE", "CPU")]

    assert alone(body) == [[100, 200], [0, -1], [(1 << 40) + 1, (1 << 41) + 1], [-1, -1]]


def test_limits_are_numbered_as_the_kernel_does() -> None:
    for number, name in enumerate(process.LIMITS):
        if hasattr(resource, name):
            assert getattr(resource, name) == number, name
    assert len(process.LIMITS) == 16


def test_close_range(alone: Alone) -> None:
    def body():
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(6)]
        for fd in fds:
            os.set_inheritable(fd, True)
        process.close_range(fds[0], fds[1])
        process.close_range(fds[2], fds[3], process.CLOSE_RANGE_CLOEXEC)
        there = [os.path.exists(f"/proc/self/fd/{fd}") for fd in fds]
        inherited = [os.get_inheritable(fd) for fd in fds[2:]]
        process.close_range(fds[2], (1 << 32) - 1)
        return there, inherited, any(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds)

    assert alone(body) == [[False, False, True, True, True, True], [False, False, True, True], False]


def test_the_start_time_names_a_process(alone: Alone) -> None:
    assert process.start_time(os.getpid()) == process.start_time(os.getpid()) > 0
    first = int(Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19])
    assert process.start_time(os.getpid()) == first
    child = subprocess.Popen([sys.executable, "-S", "-I", "-c", "pass"])
    fd = os.pidfd_open(child.pid)
    os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT)  # a zombie now
    os.close(fd)
    assert process.start_time(child.pid) >= first
    child.wait()
    assert process.start_time(child.pid) == 0
    assert process.start_time(1 << 30) == 0
    assert process.start_time(-1) == 0

    def body():
        before = process.start_time(os.getpid())
        process.set_name(b"x) S 1 1 1 1 (")
        return process.start_time(os.getpid()) == before > 0

    assert alone(body) is True


WAITING = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
print("ready", flush=True)
while True:
    signal.sigtimedwait([signal.SIGTERM, signal.SIGUSR1], 0.001)
"""


def test_who_waits_for_a_signal_now_and_then_hears_it_all_the_time() -> None:
    """The kernel unblocks it while it is waited for, and a look at the process is not one moment."""
    waiting = subprocess.Popen([sys.executable, "-I", "-c", WAITING], stdout=subprocess.PIPE, text=True)
    try:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "ready\n"
        deaf = sum(not process.hears(waiting.pid, signal.SIGTERM) for _ in range(2000))
    finally:
        waiting.kill()
        waiting.communicate()
    assert deaf < 10  # one look finds up to 1400 of them on a busy machine
