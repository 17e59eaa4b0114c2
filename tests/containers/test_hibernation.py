"""An idle monitor becomes a page of machine code, and wakes for whatever it has to do."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers.monitor import hibernation
from limpet.kernel import machinecode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hibernation.possible(), reason="no machine code for this machine"),
]


def test_the_bytes_are_the_listing(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("objcopy")):
        pytest.skip("needs GNU as")
    lines = [line.partition(";")[2].partition("#")[0].rstrip() for line in hibernation._X86_64.splitlines()]
    (tmp_path / "code.s").write_text("\n".join(lines) + "\n")
    subprocess.run(["as", "code.s", "-o", "code.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "code.o", "code.bin"], cwd=tmp_path, check=True)
    assert (tmp_path / "code.bin").read_bytes() == machinecode.from_listing(hibernation._X86_64)


def waiting_program(fd: int, arguments: list[str], **environment: str) -> int:
    """A process that waits for `fd`."""
    pid = os.fork()
    if pid == 0:
        os.set_inheritable(fd, True)
        program = machinecode.in_memory("waiting", hibernation.image({fd: select.POLLIN}, arguments))
        os.execve(program, ["the title"], environment)
    return pid


def test_it_executes_its_arguments_at_the_first_event(tmp_path: Path) -> None:
    read, write = os.pipe()
    pid = waiting_program(read, ["/bin/sh", "-c", 'echo "$0 $1 $WORD" >"$2"', "a b", "", f"{tmp_path}/out"], WORD="x")
    time.sleep(0.2)
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"the title\0"
    assert Path(f"/proc/{pid}/comm").read_text() == "limpet-monitor\n"
    os.write(write, b"!")
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "out").read_text() == "a b  x\n"
    os.close(read)
    os.close(write)


def test_it_tries_again_where_there_is_nothing_to_execute(tmp_path: Path) -> None:
    read, write = os.pipe()
    script = tmp_path / "script"
    pid = waiting_program(read, [str(script)])
    os.write(write, b"!")
    time.sleep(0.3)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    (tmp_path / "new").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "new").chmod(0o755)
    (tmp_path / "new").rename(script)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    os.close(read)
    os.close(write)


def test_a_broken_checkout_sends_it_back_to_sleep(tmp_path: Path) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        program = machinecode.in_memory("waiting", b"")
        arguments = [sys.executable, "-S", "-I", "-c", hibernation._WAKE, str(tmp_path), str(program), "0"]
        os.write(program, hibernation.image({read: select.POLLIN}, arguments))
        for fd in (read, program):
            os.set_inheritable(fd, True)
        os.execve(program, ["the title"], {})
    (tmp_path / "limpet/containers/monitor").mkdir(parents=True)
    (tmp_path / "limpet/containers/monitor/__init__.py").write_text("half a modu")
    os.write(write, b"!")
    time.sleep(1.2)  # it was executed, and could not be imported
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    (tmp_path / "limpet/containers/monitor/__init__.py").write_text("def wake(*numbers): raise SystemExit(11)")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
    os.close(read)
    os.close(write)


def monitor(limpet: Any, name: str) -> int:
    (found,) = json.loads(limpet("inspect", name).stdout)
    status = json.loads((limpet.root / "containers" / found["Id"] / "status").read_text())
    assert status["state"] == "running"
    return int(status["monitor"])


def memory(pid: int) -> int:
    """Proportional set size in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) * 1024


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def asleep(pid: int) -> bool:
    return memory(pid) < 100_000


def test_sleeping_monitors_do_their_work(limpet: Any, busybox: str) -> None:
    """Several containers, so that the silence is waited for once."""
    limpet("run", "-d", "--name", "talks", busybox, "sh", "-c", "echo one; sleep 1000")
    limpet("run", "-dit", "--name", "terminal", busybox, "sh")
    ends = "trap 'echo last; exit 7' USR1; while :; do sleep 0.1; done"
    limpet("run", "-d", "--name", "ends", busybox, "sh", "-c", ends)
    limpet("run", "-d", "--name", "again", "--restart", "on-failure:1", busybox, "sh", "-c", "echo run; sleep 1000")
    limpet("run", "-d", "--rm", "--name", "gone", busybox, "sleep", "1000")
    pids = {name: monitor(limpet, name) for name in ("talks", "terminal", "ends", "again", "gone")}
    for pid in pids.values():
        wait_until(lambda pid=pid: asleep(pid))
    assert len(limpet("ps", "-q").stdout.split()) == 5

    limpet("exec", "talks", "sh", "-c", "echo two >/proc/1/fd/1; printf half >/proc/1/fd/1")
    wait_until(lambda: not asleep(pids["talks"]))
    wait_until(lambda: limpet("logs", "talks").stdout == "one\ntwo\n")
    wait_until(lambda: asleep(pids["talks"]))
    limpet("exec", "talks", "sh", "-c", "echo ' a line' >/proc/1/fd/1")
    wait_until(lambda: limpet("logs", "talks").stdout == "one\ntwo\nhalf a line\n")

    result = limpet("attach", "terminal", input="echo $((6 * 7))\nexit 3\n", check=False)
    assert result.returncode == 3
    assert "42" in result.stdout

    limpet("kill", "-s", "USR1", "ends")
    assert limpet("wait", "ends").stdout == "7\n"
    assert limpet("logs", "ends").stdout == "last\n"

    limpet("exec", "again", "kill", "-9", "2", check=False)  # the program, which may take `kill` along with it
    wait_until(lambda: limpet("logs", "again").stdout == "run\nrun\n")
    assert limpet("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again").stdout == "1 running\n"
    assert limpet("stop", "-t", "0", "again").stdout == "again\n"

    limpet("stop", "-t", "0", "gone")
    wait_until(lambda: "gone" not in limpet("ps", "-a", "--format", "{{.Names}}").stdout.split())


def test_a_killed_sleeper_takes_its_container_along(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "killed", busybox, "sleep", "1000")
    pid = monitor(limpet, "killed")
    container = int(limpet("inspect", "-f", "{{.State.Pid}}", "killed").stdout)
    fd = os.pidfd_open(container)
    wait_until(lambda: asleep(pid))
    os.kill(pid, signal.SIGKILL)
    assert select.select([fd], [], [], 10)[0]
    os.close(fd)
    assert limpet("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "killed").stdout == "exited 137\n"
