"""`exec`: into the same container, under the same rules, with its own exit code."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from limpet.kernel import capabilities

Limpet = Any


@pytest.fixture
def box(limpet: Limpet, busybox: str) -> str:
    limpet("run", "-d", "--name", "box", "-e", "A=1", "-w", "/tmp", "-h", "inside", busybox, "sleep", "1000")
    return "box"


def test_it_is_inside(limpet: Limpet, box: str) -> None:
    script = (
        "hostname; pwd; echo $A $B; cat /proc/1/comm; tail -1 /proc/self/cgroup;"
        " for n in mnt pid ipc uts cgroup; do readlink /proc/self/ns/$n; done"
    )
    out = limpet("exec", "-e", "B=2", box, "sh", "-c", script).stdout.splitlines()
    assert out[:5] == ["inside", "/tmp", "1 2", "limpet-init", "0::/"]
    ours = {os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "ipc", "uts", "cgroup")}
    assert not ours & set(out[5:])


def test_it_is_confined_as_the_container(limpet: Limpet, box: str) -> None:
    out = limpet("exec", box, "grep", "-E", "CapEff|Seccomp:", "/proc/self/status").stdout.split()
    assert out[1::2] == [f"{capabilities.mask(capabilities.DEFAULT):016x}", "2"]
    assert limpet("exec", box, "unshare", "-m", "true", check=False).returncode == 1
    privileged = limpet("exec", "--privileged", box, "grep", "CapEff", "/proc/self/status").stdout.split()[1]
    assert int(privileged, 16) & 1 << 21


def test_user_and_directory(limpet: Limpet, box: str) -> None:
    out = limpet("exec", "-u", "user:extra", "-w", "/var", box, "sh", "-c", "id; pwd; echo $HOME").stdout.splitlines()
    assert out == ["uid=1000(user) gid=2000(extra) groups=2000(extra)", "/var", "/home/user"]


@pytest.mark.parametrize(
    ("command", "code"),
    [(["sh", "-c", "exit 9"], 9), (["nosuch"], 127), (["/etc"], 126), (["sh", "-c", "kill -9 $$"], 137)],
)
def test_exit_codes(limpet: Limpet, box: str, command: list[str], code: int) -> None:
    assert limpet("exec", box, *command, check=False).returncode == code


def test_standard_input(limpet: Limpet, box: str) -> None:
    assert limpet("exec", "-i", box, "cat", input="abc").stdout == "abc"
    assert limpet("exec", box, "cat", input="abc").stdout == ""


def test_descriptors_of_the_caller_stay_outside(limpet: Limpet, box: str) -> None:
    fd = os.open("/", os.O_RDONLY)
    os.set_inheritable(fd, True)
    out = limpet("exec", box, "ls", "/proc/self/fd", pass_fds=(fd,)).stdout.split()
    os.close(fd)
    assert set(out) == {"0", "1", "2", "3"}  # 3 is the directory that ls itself opened


def test_in_the_background(limpet: Limpet, box: str) -> None:
    assert limpet("exec", "-d", box, "sh", "-c", "echo done > /tmp/mark; sleep 1000").stdout == ""
    out = limpet("exec", box, "sh", "-c", "until [ -s /tmp/mark ]; do sleep 0.01; done; cat /tmp/mark; ps").stdout
    assert out.startswith("done\n")
    assert "sleep 1000" in out


def test_it_ends_with_its_client(limpet: Limpet, box: str) -> None:
    command = [*limpet.command, "exec", box, "sh", "-c", "echo ready; exec sleep 4321"]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, env=limpet.environment)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.kill()
    client.wait()
    assert client.stdout.read() == b""  # ends when the last holder of the pipe is gone
    client.stdout.close()
    assert "4321" not in limpet("exec", box, "ps").stdout


def test_signals_reach_it(limpet: Limpet, box: str) -> None:
    command = [
        *limpet.command,
        "exec",
        box,
        "sh",
        "-c",
        "trap 'exit 33' TERM; echo ready; while :; do sleep 0.02; done",
    ]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, env=limpet.environment)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGTERM)
    assert client.wait(10) == 33
    client.stdout.close()


NEVER_STARTED = [
    (("-u", "nouser"), "true", 126, "unable to find user nouser: no matching entries in passwd file"),
    (("-u", "0:nogroup"), "true", 126, "unable to find group nogroup: no matching entries in group file"),
    (("-u", "99999999999"), "true", 126, "99999999999"),
    (("-w", "/nope"), "true", 127, 'chdir to cwd "/nope": no such file or directory'),
    (("-w", "/etc/passwd"), "true", 127, 'chdir to cwd "/etc/passwd": not a directory'),
    (("-w", "tmp"), "true", 126, "the working directory 'tmp' is invalid"),
    (("-w", "/closed", "-u", "user"), "true", 126, 'chdir to cwd "/closed": permission denied'),
    ((), "nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
    ((), "/nope/nosuch", 127, 'exec: "/nope/nosuch": no such file or directory'),
    ((), "/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ((), "/etc", 126, 'exec: "/etc": permission denied'),
]


@pytest.mark.parametrize("how", [(), ("-td",)])
def test_a_program_that_never_started(limpet: Limpet, box: str, how: tuple[str, ...]) -> None:
    """126 or 127: 1 would be the program's own."""
    limpet("exec", box, "mkdir", "-m", "700", "/closed")
    for options, command, code, said in NEVER_STARTED:
        result = limpet("exec", *how, *options, box, command, check=False)
        assert (result.returncode, result.stdout) == (code, ""), said
        assert said in result.stderr


def test_only_in_a_running_one(limpet: Limpet, busybox: str) -> None:
    limpet("create", "--name", "box", busybox, "true")
    result = limpet("exec", "box", "true", check=False)
    assert result.returncode == 1
    assert "container box is not running" in result.stderr


def test_several_from_one_process(limpet: Limpet, box: str) -> None:
    """An engine that goes on living must stay in its own namespaces."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from limpet.containers import state\n"
        "from limpet.containers.execution import exec as executing\n"
        "from limpet.store.store import Store\n"
        "store = Store()\n"
        "box = state.find(store, 'box')\n"
        "print([executing.exec_(store, box, ['sh', '-c', f'exit {n}']) for n in range(4)])\n"
    )
    source = str(limpet.command[-1]).split("'")[1]
    out = subprocess.run(
        [limpet.command[0], "-c", code, source], env=limpet.environment, capture_output=True, text=True, check=True
    )
    assert out.stdout == "[0, 1, 2, 3]\n"


def test_no_file_of_the_host_is_handed_over(limpet: Any, busybox: str, tmp_path: Path) -> None:
    """By /proc/self/fd a program could open it again, with other rights than the caller's descriptor has."""
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    secret = tmp_path / "secret"
    secret.write_text("host-secret\n")
    script = "stat -Lc %F /proc/self/fd/0 /proc/self/fd/1; cat; echo err >&2"
    command = [*limpet.command, "exec", "-i", "web", "sh", "-c", script]
    with open(secret) as stdin, open(tmp_path / "out", "a") as out, open(tmp_path / "err", "a") as err:
        subprocess.run(command, stdin=stdin, stdout=out, stderr=err, env=limpet.environment, check=True)
    assert (tmp_path / "out").read_text() == "fifo\nfifo\nhost-secret\n"
    assert (tmp_path / "err").read_text() == "err\n"
    left = [*limpet.command, "exec", "web", "sh", "-c", "sleep 1000 & echo started"]
    with open(tmp_path / "out", "w") as out:
        subprocess.run(left, stdout=out, env=limpet.environment, check=True, timeout=60)
    assert (tmp_path / "out").read_text() == "started\n"
    big = [*limpet.command, "exec", "-i", "web", "cat"]
    (tmp_path / "big").write_bytes(os.urandom(5_000_000))
    with open(tmp_path / "big", "rb") as stdin, open(tmp_path / "copy", "wb") as out:
        subprocess.run(big, stdin=stdin, stdout=out, env=limpet.environment, check=True)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "big").read_bytes()
