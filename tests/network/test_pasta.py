"""`--network private`: out by pasta, in by what is published, and nothing is left of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.network.conftest import Machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("pasta") is None, reason="needs pasta (Debian: passt)"),
]

SERVE = "echo 'echo hello' > /s; chmod +x /s; sed -i '1i#!/bin/sh' /s; exec nc -ll -p 80 -e /s"


def helper(limpet: Any, name: str) -> tuple[int, list[int]]:
    """The container's monitor, and the processes of pasta that are its children."""
    directory = Path(limpet("inspect", "-f", "{{.HostsPath}}", name).stdout).parent
    monitor = int(json.loads((directory / "status").read_text())["monitor"])
    children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()
    return monitor, [int(pid) for pid in children if b"--netns-only" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def until(true: Any, what: str) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # another process's doing


def test_out_and_in_by_pasta(busy: Machine, outside: Machine) -> None:
    limpet = busy.limpet
    outside.serve(7000)
    busy.serve(9000)
    text = limpet(
        "run", "--rm", "--network", "private", "bb", "sh", "-c", "sleep 1 | nc 192.0.2.2 7000; ip -o link"
    ).stdout
    assert text.splitlines()[0] == "192.0.2.1"
    assert "uplink" in text  # as the host's interface is called, and another one
    result = limpet("run", "--rm", "--network", "private", "bb", "nc", "-w", "1", "127.0.0.1", "9000", check=False)
    assert result.stdout == ""  # the host's loopback is not its own
    limpet("run", "-d", "--name", "one", "--network", "private", "-p", "8080:80", "bb", "sh", "-c", SERVE)
    until(lambda: ask(busy, "127.0.0.1") == "hello", "what is published is served")
    assert ask(outside, "192.0.2.1") == ""
    assert limpet("port", "one").stdout == "80/tcp -> 127.0.0.1:8080\n"
    result = limpet("run", "--rm", "--network", "private", "-p", "8080:80", "bb", "true", check=False)
    assert (result.returncode, "127.0.0.1:8080/tcp is in use" in result.stderr) == (125, True)
    monitor, pastas = helper(limpet, "one")
    assert len(pastas) == 1
    os.kill(monitor, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (monitor, *pastas)), "it dies with the monitor")
    assert busy.links() == ["uplink"]
    limpet("start", "one")
    limpet("restart", "-t", "0", "one")
    monitor, pastas = helper(limpet, "one")
    assert len(pastas) == 1
    limpet("stop", "-t", "0", "one")
    until(lambda: not Path(f"/proc/{pastas[0]}").exists(), "it ends with the container")


def ask(machine: Machine, address: str) -> str:
    return machine.run("sh", "-c", f"sleep 1 | timeout 5 busybox nc -w 1 {address} 8080", check=False).strip()


def test_what_it_needs_is_said(busy: Machine) -> None:
    busy.run("ip", "route", "del", "default")
    result = busy.limpet("run", "--rm", "--network", "private", "bb", "true", check=False)
    assert result.returncode == 125
    assert "pasta ended: " in result.stderr
    assert "default route" in result.stderr
