"""A newer limpet takes over what an older one runs, and an older one refuses a newer one's store in one line.

The older one is a commit of the project's own history, in a directory by whose link it is "installed", as a checkout
is: a monitor that sleeps wakes by the code that is there then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
OLD = "9f86fcd6f88dc9b8241760df638dcc872b836d57"
"""24 November 2026: schema 1 of the database, monitors that say no version, logs as two values of a sleeper's state."""


class Installed:
    """limpet at a link that `upgrade` turns from the old code to this checkout's."""

    def __init__(self, place: Path) -> None:
        self.root = place / "store"
        self._link = place / "limpet"
        old = place / "old"
        old.mkdir()
        archive = subprocess.run(["git", "-C", ROOT, "archive", OLD, "src"], capture_output=True)
        if archive.returncode:
            pytest.skip(f"needs the history of the project: commit {OLD} is not in this clone")
        subprocess.run(["tar", "-x", "-C", old], input=archive.stdout, check=True)
        self._old = old / "src"
        self._link.symlink_to(self._old)
        start = f"import sys; sys.path.insert(0, {str(self._link)!r}); from limpet.cli.main import entry; entry()"
        self.command = [sys.executable, "-I", "-B", "-c", start]
        self.environment = {**os.environ, "LIMPET_ROOT": str(self.root), "LIMPET_RUN": f"{self.root}/run"}
        self.environment |= {"NO_COLOR": "1", "LIMPET_SETTLE": "off"}

    def upgrade(self, target: Path = ROOT / "src") -> None:
        new = self._link.with_suffix(".new")
        new.symlink_to(target)
        new.rename(self._link)

    def downgrade(self) -> None:
        self.upgrade(self._old)

    def __call__(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        result = subprocess.run(
            [*self.command, *words], capture_output=True, text=True, env=self.environment, timeout=60, **options
        )
        assert result.returncode == 0 or not check, (
            f"limpet {words}: {result.returncode}\n{result.stdout}{result.stderr}"
        )
        return result

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("inspect", name).stdout)[0]["State"]
        return found


@pytest.fixture
def limpet(tmp_path: Path, busybox_tar: Path) -> Iterator[Installed]:
    installed = Installed(tmp_path)
    installed("import", str(busybox_tar), "busybox:test")
    yield installed
    installed.upgrade()
    ids = installed("ps", "-aq", check=False).stdout.split()
    if ids:
        installed("rm", "-f", "-v", *ids)


def sleeps(limpet: Installed, name: str) -> bool:
    """Whether the container's monitor has become the program that only waits."""
    status = json.loads((next(limpet.root.glob("containers/" + limpet("inspect", "-f", "{{.Id}}", name).stdout.strip()))
                         / "status").read_text())  # fmt: skip
    return "python" not in os.readlink(f"/proc/{status['monitor']}/exe")


TICK = "trap 'echo gently; exit 7' TERM; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done"
ASK = "while read x; do echo got $x; done; sleep 1000"


def test_a_newer_limpet_takes_over_running_containers(limpet: Installed) -> None:
    limpet("run", "-d", "--name", "busy", "-v", "data:/data", "busybox:test", "sh", "-c", TICK)
    limpet("run", "-d", "-i", "--name", "quiet", "busybox:test", "sh", "-c", ASK)
    limpet("run", "-d", "--name", "again", "--restart", "always", "busybox:test", "sh", "-c", "echo up; sleep 1000")
    limpet("run", "-d", "--name", "short", "--log-opt", "max-size=1m", "busybox:test", "sh", "-c", "echo one; exit 3")
    limpet("run", "-d", "-t", "--name", "screen", "busybox:test", "sh", "-c", "printf part; sleep 1000")
    end = time.monotonic() + 20
    while not (sleeps(limpet, "quiet") and sleeps(limpet, "screen")):
        assert time.monotonic() < end
        time.sleep(0.1)
    limpet.upgrade()

    shown = limpet("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout.split("\n")
    assert sorted(filter(None, shown)) == [
        "again running", "busy running", "quiet running", "screen running", "short exited",
    ]  # fmt: skip
    # A monitor that is awake is the old one; the new command talks to it.
    assert limpet("exec", "-e", "A=b", "-w", "/tmp", "busy", "sh", "-c", "echo $A $PWD").stdout == "b /tmp\n"
    assert limpet("logs", "--tail", "1", "busy").stdout.startswith("tick ")
    limpet("rename", "busy", "renamed")
    limpet("stop", "renamed")
    assert limpet.status("renamed")["ExitCode"] == 7
    assert limpet("logs", "--tail", "1", "renamed").stdout == "gently\n"
    limpet("start", "renamed")
    assert limpet.status("renamed")["Running"]
    assert limpet("volume", "inspect", "-f", "{{.Driver}}", "data").stdout == "local\n"
    # Those that slept wake as the new one, with what they remembered.
    assert sleeps(limpet, "quiet")
    with subprocess.Popen([*limpet.command, "attach", "quiet"], env=limpet.environment, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as client:  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"got hello\n"
        client.kill()
    assert limpet("logs", "quiet").stdout == "got hello\n"
    limpet("restart", "-t", "0", "quiet")
    limpet("restart", "-t", "0", "screen")
    assert limpet("logs", "--tail", "2", "screen").stdout.startswith("part\n")
    before = limpet.status("again")["Pid"]
    os.kill(before, 9)
    end = time.monotonic() + 20
    while (status := limpet.status("again"))["Pid"] in (0, before):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert limpet("inspect", "-f", "{{.RestartCount}}", "again").stdout == "1\n"
    assert limpet.status("short")["ExitCode"] == 3
    assert limpet("logs", "short").stdout == "one\n"
    limpet("rm", "-f", "renamed", "quiet", "again", "short", "screen")
    assert limpet("ps", "-aq").stdout == ""
    assert not list(limpet.root.glob("containers/*"))
    assert status["Running"]


def test_an_older_limpet_refuses_a_newer_store(limpet: Installed) -> None:
    limpet("create", "--name", "one", "busybox:test", "true")
    limpet.upgrade()
    limpet("ps")
    limpet.downgrade()
    for words in (["ps"], ["run", "--rm", "busybox:test", "true"], ["rm", "one"], ["images"]):
        result = limpet(*words, check=False)
        assert result.returncode != 0
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("limpet: the store was written by a newer limpet (schema ")
    limpet.upgrade()
    limpet("rm", "one")


def test_an_older_limpet_lets_a_newer_monitor_sleep(limpet: Installed) -> None:
    """Of this code, which can't be older than itself: a state and a protocol that are said to be newer."""
    limpet.upgrade()
    limpet("run", "-d", "--name", "web", "busybox:test", "sleep", "1000")
    path = limpet.root / "containers" / limpet("inspect", "-f", "{{.Id}}", "web").stdout.strip() / "status"
    written = path.read_text()
    path.write_text(json.dumps({**json.loads(written), "protocol": 99}))
    result = limpet("attach", "--no-stdin", "web", check=False)
    assert result.stderr.splitlines()[0].startswith(
        "limpet: container web: its monitor speaks version 99 of a protocol"
    )
    path.write_text(written)
    code = (
        "import os, sys; from limpet.containers.monitor import hibernation; from limpet.kernel import machinecode;"
        "state = machinecode.in_memory('s', b'{\"version\": 99}');"
        "program = machinecode.in_memory('p', b'#!/bin/echo slept');"
        "hibernation._PATIENCE = 0.1; hibernation.wait_for_newer(program, state); print('woke')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20,
                            env={**os.environ, "PYTHONPATH": str(ROOT / "src")})  # fmt: skip
    assert result.stdout.startswith("slept"), result.stderr
    known = code.replace("99", "1")
    result = subprocess.run([sys.executable, "-c", known], capture_output=True, text=True, timeout=20,
                            env={**os.environ, "PYTHONPATH": str(ROOT / "src")})  # fmt: skip
    assert result.stdout == "woke\n"
