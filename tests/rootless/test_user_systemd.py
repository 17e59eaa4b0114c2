"""A user whose systemd runs: scopes with limits, from whatever session, and an end that is gentle. Only in a guest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rootless.conftest import end

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (os.environ.get("LIMPET_GUEST") and os.path.isdir("/run/systemd/system")),
        reason="needs a machine of its own with systemd, as it makes an account: ./check --vm trixie",
    ),
]
LIMPET = Path(__file__).resolve().parent.parent.parent / "limpet"
NAME = "scoped"


class Login:
    """`login("ps")`: limpet as the user calls it, in a group that is root's, as that of a session over SSH is."""

    def __init__(self, uid: int, home: str) -> None:
        self._uid = uid
        self.environment = {
            "HOME": home,
            "XDG_RUNTIME_DIR": f"/run/user/{uid}",
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "NO_COLOR": "1",
            "LIMPET_SETTLE": "off",
        }
        self.base = Path(f"/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service")

    def run(self, *words: str | Path, **options: Any) -> str:
        command = ["setpriv", f"--reuid={self._uid}", f"--regid={self._uid}", "--clear-groups", *map(str, words)]
        result = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=300, cwd="/", **options
        )
        assert result.returncode == 0, f"{words}: {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout

    def __call__(self, *words: str, **options: Any) -> str:
        return self.run(LIMPET, *words, **options)


@pytest.fixture(scope="module")
def login(busybox_tar: Path) -> Iterator[Login]:
    if shutil.which("useradd") is None or not Path("/lib/systemd/system/user@.service").exists():
        pytest.skip("needs Debian's passwd and systemd")
    subprocess.run(["useradd", "-m", NAME], check=True)
    uid = int(subprocess.run(["id", "-u", NAME], check=True, capture_output=True, text=True).stdout)
    unit = f"user@{uid}.service"
    try:
        subprocess.run(["systemctl", "start", unit], check=True)
        person = Login(uid, f"/home/{NAME}")
        with open(busybox_tar, "rb") as tar:
            person("import", "-", "busybox:test", stdin=tar)
        yield person
        ids = person("ps", "-aq").split()
        if ids:
            person("rm", "-f", *ids)
    finally:
        subprocess.run(["systemctl", "stop", unit], check=True)
        # What keeps the user's namespace for a few minutes is in root's group here, and ends with nobody's session.
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and entry.stat().st_uid == uid:
                end(int(entry.name))
        subprocess.run(["userdel", "-r", NAME], check=True, capture_output=True)


def test_limits_hold_from_any_session_and_a_stop_of_the_scope_is_gentle(login: Login) -> None:
    script = "trap 'echo gently; exit 3' QUIT; echo began; while sleep 0.1; do :; done"
    limits = ["--memory", "64m", "--cpu-shares", "512"]
    login("run", "-d", "--name", "web", "--stop-signal", "QUIT", *limits, "busybox:test", "sh", "-c", script)
    found = json.loads(login("inspect", "web"))[0]
    unit = f"limpet-{found['Id']}.scope"
    scope = login.base / "limpet.slice" / unit
    assert Path(f"/proc/{found['State']['Pid']}/cgroup").read_text().endswith(f"/limpet.slice/{unit}/container\n")
    assert (scope / "container/memory.max").read_text() == f"{64 << 20}\n"
    assert (scope / "cpu.weight").read_text() == "20\n"
    login("update", "--memory", "70m", "--cpu-shares", "2048", "web")
    assert (scope / "container/memory.max").read_text() == f"{70 << 20}\n"
    assert (scope / "cpu.weight").read_text() == "79\n"
    assert login("exec", "web", "cat", "/proc/self/cgroup") == "0::/\n"
    login("pause", "web")
    assert "Paused" in login("ps")
    login("unpause", "web")
    while "began" not in login("logs", "web"):
        time.sleep(0.1)
    login.run("systemctl", "--user", "stop", unit)
    assert login("logs", "web") == "began\ngently\n"
    assert json.loads(login("inspect", "web"))[0]["State"]["ExitCode"] == 3
    assert "Cgroup driver: systemd\nCgroup version: 2\n" in login("info")


def test_the_steps_of_a_build_have_groups(login: Login) -> None:
    """The process that starts them leaves its session first, as `exec` does."""
    dockerfile = "FROM busybox:test\nRUN cat /proc/self/cgroup >/group && ulimit -a >/dev/null\n"
    login("build", "-q", "--memory", "64m", "-t", "grouped:test", "-", input=dockerfile)
    assert login("run", "--rm", "grouped:test", "cat", "/group").startswith("0::/")
    login("rmi", "grouped:test")
