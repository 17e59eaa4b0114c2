"""Options that Podman's users type, each seen in a running container."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_environment(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "base", busybox, "true")
    limpet("commit", "-c", "ENV A=image", "-c", "ENV B=image", "base", "env:1")
    limpet.environment |= {"HERE": "caller", "http_proxy": "http://proxy:1", "A": "caller"}

    def shown(*options: str) -> set[str]:
        return set(limpet("run", "--rm", *options, "env:1", "env").stdout.splitlines())

    assert {"A=image", "B=image"} <= shown()
    assert not {"HERE=caller", "http_proxy=http://proxy:1"} & shown()
    assert {"A=caller", "HERE=caller", "B=image"} <= shown("--env-host")
    assert {"A=said", "HERE=caller"} <= shown("--env-host", "-e", "A=said")
    assert "http_proxy=http://proxy:1" in shown("--http-proxy")
    assert "HERE=caller" not in shown("--http-proxy")
    assert {"B=image"} <= shown("--unsetenv", "A")
    assert not any(line.startswith("A=") for line in shown("--unsetenv", "A"))
    assert not {"A=image", "B=image"} & shown("--unsetenv-all")
    assert {"A=image-more", "C=[image-more]$", "D="} <= shown(
        *("--env-merge", "A=${A}-more", "--env-merge", "C=[$A]$$", "--env-merge", "D=${nobody}")
    )
    for bad in (["--unsetenv", "A=1"], ["--env-merge", "A"], ["--env-merge", "=x"]):
        assert limpet("create", *bad, busybox, "true", check=False).returncode == 125


def test_files_and_modes(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("create", "--name", "base", busybox, "true")
    limpet("commit", "-c", "VOLUME /data", "base", "volume:1")
    script = "touch /x; stat -c %a /x; cat /etc/hosts; mount | grep -c ' /data '; date +%Z"
    options = ["--umask", "027", "--no-hosts", "--image-volume", "tmpfs"]
    if Path("/usr/share/zoneinfo/Asia/Tokyo").exists():
        options += ["--tz", "Asia/Tokyo"]
    result = limpet("run", "--rm", *options, "volume:1", "sh", "-c", script)
    assert result.stdout.splitlines()[:2] == ["640", "1"]
    assert "No such file" in result.stderr
    assert "--tz" not in options or result.stdout.splitlines()[2] == "JST"
    limpet("create", "--name", "none", "--image-volume", "ignore", "volume:1", "true")
    assert json.loads(limpet("inspect", "none").stdout)[0]["Mounts"] == []
    wanted = "touch /run/x /tmp/x /var/tmp/x && echo ok; touch /x"
    result = limpet("run", "--rm", "--read-only", "--read-only-tmpfs", busybox, "sh", "-c", wanted, check=False)
    assert result.stdout == "ok\n"
    assert "Read-only" in result.stderr
    for bad, said in (
        (["--umask", "9"], "no mask of modes"), (["--tz", "../../etc/passwd"], "has no such zone"),
        (["--no-hosts", "--add-host", "a:1.1.1.1"], "leave out one of the two"), (["--timeout", "-1"], "--timeout -1"),
        (["--annotation", "org.limpet.init=false"], "limpet's own"), (["--replace"], "--replace without a name"),
    ):  # fmt: skip
        result = limpet("create", *bad, busybox, "true", check=False)
        assert (result.returncode, said in result.stderr) == (125, True), result.stderr


def test_what_is_started_first_and_what_ends_it(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("create", "--name", "first", busybox, "sleep", "1000")
    limpet("create", "--name", "second", "--requires", "first", busybox, "sleep", "1000")
    pidfile = tmp_path / "pid"
    options = ["--requires", "second", "--timeout", "1", "--pidfile", pidfile, "--annotation", "a=b"]
    began = time.monotonic()
    limpet("run", "-d", "--name", "third", *options, busybox, "sleep", "1000")
    shown = json.loads(limpet("inspect", "third").stdout)[0]
    assert pidfile.read_text() == str(shown["State"]["Pid"])
    config = Path(shown["HostsPath"]).with_name("config.json")
    assert json.loads(config.read_text())["annotations"]["a"] == "b"
    assert {"first", "second"} <= set(limpet("ps", "--format", "{{.Names}}").stdout.split())
    assert limpet("wait", "third").stdout == "137\n"
    assert time.monotonic() - began > 1
    assert not os.path.exists(f"/proc/{pidfile.read_text()}")
    limpet("run", "-d", "--replace", "--name", "first", busybox, "sleep", "1001")
    assert "1001" in limpet("ps", "--no-trunc", "-f", "name=first").stdout
    assert limpet("run", "--requires", "nosuch", busybox, "true", check=False).returncode == 125
