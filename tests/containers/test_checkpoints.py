"""Checkpoints by a real CRIU: memory, files and pipes go on where they were, here or in another store."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import runner

from limpet.containers.copies import criu
from limpet.errors import LimpetError

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = "i=0; while :; do i=$((i+1)); echo tick $i $(cat /made 2>/dev/null); sleep 0.1; done"


def problem() -> str:
    """Why this host's CRIU can't do it, or ""."""
    try:
        words = [criu.program(), "check"]
    except LimpetError as e:
        return e.message
    result = subprocess.run(words, capture_output=True, text=True)
    return f"criu check: {(result.stdout + result.stderr).strip().splitlines()[0]}" if result.returncode else ""


needs_criu = pytest.mark.skipif(bool(problem()), reason=f"needs a CRIU that works here: {problem()}")


def until(true: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def ticks(limpet: Any, name: str) -> list[int]:
    return [int(line.split()[1]) for line in limpet("logs", name).stdout.splitlines() if line.startswith("tick ")]


def test_without_criu(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    limpet.environment["LIMPET_CRIU"] = "/nowhere/criu"
    result = limpet("checkpoint", "create", "web", check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == "limpet: checkpoints need CRIU, and there is no /nowhere/criu on this host"
    assert limpet("ps", "-q").stdout
    for words, message in (
        (("checkpoint", "rm", "web", "one"), "container web has no checkpoint"),
        (("start", "--checkpoint", "one", "web"), "container web has no checkpoint"),
        (("checkpoint", "restore"), "needs the name of a container, or --import FILE"),
        (("checkpoint", "restore", "--name", "x", "web"), "--name is for --import"),
    ):
        result = limpet(*words, check=False)
        assert (result.returncode, message in result.stderr) == (1, True), result.stderr
    assert limpet("checkpoint", "ls", "-q", "web").stdout == ""


@needs_criu
def test_what_runs_goes_on(limpet: Any, busybox: str) -> None:
    """Its variables, its place in the script, its files; the log goes on; stop, exec and restart are as ever."""
    limpet("run", "-d", "--name", "web", "--restart", "always", busybox, "sh", "-c", COUNT)
    until(lambda: len(ticks(limpet, "web")) > 2)
    limpet("exec", "web", "sh", "-c", "echo x >/made; echo y >/tmp/made")
    assert limpet("checkpoint", "create", "web", "one").stdout == "one\n"
    assert limpet("ps", "-a", "--format", "{{.State}}").stdout == "exited\n"  # no policy brings it back
    before = ticks(limpet, "web")
    assert limpet("checkpoint", "ls", "-q", "web").stdout == "one\n"
    assert limpet("start", "--checkpoint", "one", "web").stdout == "web\n"
    until(lambda: len(ticks(limpet, "web")) > len(before) + 2)
    after = ticks(limpet, "web")
    # One that was read from the pipe by nobody yet is lost or comes; none comes twice, and it began at 1 only once.
    assert after == sorted(set(after))
    assert after[len(before)] - before[-1] in (1, 2)
    assert limpet("exec", "web", "cat", "/made", "/tmp/made").stdout == "x\ny\n"
    refused = limpet("start", "--checkpoint", "one", "web", check=False)
    assert (refused.returncode, "is already running" in refused.stderr) == (1, True)
    limpet("restart", "-t", "0", "web")  # an ordinary start
    until(lambda: ticks(limpet, "web").count(1) == 2)
    limpet("stop", "-t", "0", "web")
    assert limpet("checkpoint", "restore", "web").stdout == "web\n"  # any number of times
    until(lambda: ticks(limpet, "web")[-1] > before[-1])
    limpet("checkpoint", "rm", "web", "one")
    assert limpet("checkpoint", "ls", "-q", "web").stdout == ""
    limpet("rm", "-f", "web")
    assert not list(limpet.root.glob("containers/*"))


@needs_criu
def test_input_and_an_init_of_ones_own(limpet: Any, busybox: str) -> None:
    script = "x=1; while read line; do echo $x $line; x=$((x+1)); done; echo over"
    limpet("run", "-d", "-i", "--no-init", "--name", "web", busybox, "sh", "-c", script)

    def say(text: str) -> None:
        with subprocess.Popen([*limpet.command, "attach", "web"], env=limpet.environment, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as client:  # fmt: skip
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(text)
            client.stdin.flush()
            assert client.stdout.readline().endswith(text)
            client.kill()

    say("hello\n")
    limpet("container", "checkpoint", "web")
    limpet("container", "restore", "web")
    say("again\n")
    assert limpet("logs", "web").stdout == "1 hello\n2 again\n"


@needs_criu
def test_a_checkpoint_of_one_that_goes_on(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", COUNT)
    until(lambda: ticks(limpet, "web"))
    assert limpet("checkpoint", "create", "--leave-running", "web").stdout == "checkpoint0\n"
    assert limpet("checkpoint", "create", "--leave-running", "web").stdout == "checkpoint1\n"
    count = len(ticks(limpet, "web"))
    until(lambda: len(ticks(limpet, "web")) > count + 2)
    assert limpet("checkpoint", "create", "web", "checkpoint1", check=False).returncode == 1
    assert limpet("ps", "-q").stdout


@needs_criu
@pytest.mark.slow
def test_an_export_goes_on_in_another_store(limpet: Any, busybox: str, tmp_path: Path) -> None:
    # fmt: off
    limpet("run", "-d", "--name", "web", "--label", "a=b", "-e", "X=1", "-v", "data:/data", busybox, "sh", "-c",
           f"echo x >/made; {COUNT}")
    # fmt: on
    until(lambda: ticks(limpet, "web"))
    archive = tmp_path / "web.tar"
    limpet("checkpoint", "create", "--export", archive, "web")
    count = ticks(limpet, "web")[-1]
    assert limpet("checkpoint", "ls", "-q", "web").stdout == ""
    assert len(limpet("images", "-aq").stdout.split()) == 1
    other = runner(tmp_path / "other")
    try:
        other("checkpoint", "restore", "--import", archive, "--name", "web2")
        until(lambda: ticks(other, "web2"))
        first = other("logs", "web2").stdout.splitlines()[0].split()
        assert int(first[1]) > count
        assert first[2] == "x"
        assert other("inspect", "-f", '{{index .Config.Labels "a"}}', "web2").stdout == "b\n"
        assert other("exec", "web2", "sh", "-c", "echo $X; ls -d /data").stdout == "1\n/data\n"
    finally:
        other("rm", "-f", "web2", check=False)
    damaged = tmp_path / "plain.tar"
    limpet("save", "--format", "oci-archive", "-o", damaged, busybox)
    result = other("checkpoint", "restore", "--import", damaged, check=False)
    assert result.stderr.splitlines()[0] == f"limpet: {damaged} is no export of a checkpoint"


@needs_criu
def test_open_connections_are_refused_without_the_option(limpet: Any, busybox: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        port = server.getsockname()[1]
        script = f"while :; do echo x; sleep 0.1; done | nc 127.0.0.1 {port}"
        limpet("run", "-d", "--name", "web", busybox, "sh", "-c", script)
        with server.accept()[0] as connection:
            assert connection.recv(2) == b"x\n"
            refused = limpet("checkpoint", "create", "web", check=False)
            assert (refused.returncode, "CRIU can't keep it: " in refused.stderr) == (1, True)
            while not connection.recv(1 << 16).endswith(b"x\n"):  # it goes on
                pass
            assert limpet("ps", "-q").stdout


@needs_criu
def test_what_can_not_be_kept(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "-t", "--name", "screen", busybox, "sleep", "1000")
    limpet("run", "-d", "--rm", "--name", "gone", busybox, "sleep", "1000")
    limpet("create", "--name", "never", busybox, "true")
    for name, message in (
        ("screen", "container screen can't be checkpointed: it has a terminal"),
        ("gone", "container gone can't be checkpointed: it and its checkpoint would go, by --rm"),
        ("never", "container never is not running"),
    ):
        result = limpet("checkpoint", "create", name, check=False)
        assert result.returncode == 1
        assert result.stderr.startswith(f"limpet: {message}")


@needs_criu
def test_a_damaged_checkpoint(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", COUNT)
    limpet("checkpoint", "create", "web", "one")
    (path,) = limpet.root.glob("containers/*/checkpoints/one/pages-1.img")
    size = path.stat().st_size
    os.truncate(path, 4096)
    result = limpet("start", "--checkpoint", "one", "web", check=False)
    assert result.returncode == 1
    assert "checkpoint one is damaged: pages-1.img has not the " in result.stderr.splitlines()[0]
    path.write_bytes(os.urandom(size))  # as long as it was
    limpet("start", "--checkpoint", "one", "web", check=False)
    limpet("start", "web")  # nothing stays of the attempt
    assert limpet("ps", "--format", "{{.State}}").stdout == "running\n"
