"""--isolate, namespaces of others, and what `inspect --isolation` measures."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers.options import Options
from limpet.containers.plan import isolation
from limpet.kernel import landlock

pytestmark = pytest.mark.slow


def measured(limpet: Any, name: str) -> dict[str, bool]:
    rows = json.loads(limpet("inspect", "--isolation", "-f", "json", name).stdout)[name]
    return {what: how == "can" for how, what in rows if how in ("can", "can't")}


def test_levels_are_measured(limpet: Any, busybox: str) -> None:
    found = {}
    for level in isolation.LEVELS:
        limpet("run", "-d", "--name", level, "--isolate", level, busybox, "sleep", "60")
        found[level] = measured(limpet, level)
    assert all(found["none"].values())
    assert not any(found["strict"].values())
    assert [what for what, can in found["default"].items() if can] == [
        "use the host's addresses and ports",
        "connect to abstract Unix sockets of the host",
        "see all traffic on the network that it has",
        "get the rights of set-user-ID programs",
        "write to its root",
        "be root for the host, if it breaks out",
    ]
    assert found["light"] == found["default"]
    facts = json.loads(limpet("inspect", "--isolation", "-f", "json", "light").stdout)["light"]
    assert ["system calls", "all"] in facts
    assert ["namespaces of its own", "mnt pid"] in facts
    limpet("stop", "-t", "0", "light")
    assert "is not running" in limpet("inspect", "--isolation", "light", check=False).stderr
    assert "no template" in limpet("inspect", "--isolation", "-f", "{{.Name}}", "light", check=False).stderr


def test_strict_leaves_places_to_write_to(limpet: Any, busybox: str, tmp_path: Path) -> None:
    script = "touch /x; for d in /tmp /run /var/tmp; do touch $d/x && echo $d; done"
    result = limpet("run", "--rm", "--isolate", "strict", busybox, "sh", "-c", script)
    assert result.stdout.split() == ["/tmp", "/run", "/var/tmp"]
    assert "Read-only file system" in result.stderr
    script = "touch /x && readlink /proc/self/ns/net"
    options = ["--isolate", "strict", "--network", "host", "--read-only=false"]
    assert limpet("run", "--rm", *options, busybox, "sh", "-c", script).stdout.strip() == os.readlink(
        "/proc/self/ns/net"
    )


def test_what_is_said_wins() -> None:
    options = Options(
        isolate="strict",
        security_opt=["no-new-privileges=false", "landlock=unconfined"],
        tmpfs=["/tmp:size=1m"],
        userns="host",
    )
    isolation.apply(options, {"userns"})
    assert options.security_opt == ["no-new-privileges=false", "landlock=unconfined"]
    assert options.tmpfs == ["/run:mode=755", "/var/tmp:mode=1777", "/tmp:size=1m"]
    assert options.userns == "host"
    assert options.read_only
    assert options.network == "none"


def test_processes_of_the_host(limpet: Any, busybox: str) -> None:
    script = "setsid sleep 77 & echo $! $$; exec sleep 60"
    limpet("run", "-d", "--name", "open", "--pid", "host", busybox, "sh", "-c", script)
    end = time.monotonic() + 20
    while not (said := limpet("logs", "open").stdout):
        assert time.monotonic() < end
    left, first = said.split()
    assert limpet("inspect", "-f", "{{.State.Pid}} {{.HostConfig.PidMode}}", "open").stdout == f"{first} host\n"
    assert os.path.exists(f"/proc/{left}")
    limpet("stop", "open")
    while os.path.exists(f"/proc/{left}"):  # it has no PID 1 to die with, and the host's reaps it
        assert time.monotonic() < end
    assert limpet("inspect", "-f", "{{.State.ExitCode}}", "open").stdout == "143\n"


def test_namespaces_of_another_container(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "first", "--network", "none", busybox, "sleep", "60")
    options = ["--pid", "container:first", "--network", "container:first"]
    script = "readlink /proc/self/ns/net; cat /proc/1/comm"
    net, name = limpet("run", "--rm", *options, busybox, "sh", "-c", script).stdout.split()
    pid = limpet("inspect", "-f", "{{.State.Pid}}", "first").stdout.strip()
    assert net == os.readlink(f"/proc/{pid}/ns/net")
    assert name == "limpet-init"
    limpet("stop", "-t", "0", "first")
    result = limpet("run", "--rm", *options, busybox, "true", check=False)
    assert result.returncode == 125
    assert "it is not running" in result.stderr
    assert "limpet start" in result.stderr
    result = limpet("run", "--pid", "container:nosuch", busybox, "true", check=False)
    assert (result.returncode, result.stderr) == (125, "limpet: No such container: nosuch\n")
    assert "container:NAME" in limpet("run", "--pid", "foo", busybox, "true", check=False).stderr


def test_a_restart_joins_what_the_other_container_is_by_then(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "first", "--network", "none", busybox, "sleep", "60")
    script = "readlink /proc/self/ns/net; exec sleep 60"
    options = ["--network", "container:first", "--restart", "always"]
    limpet("run", "-d", "--name", "second", *options, busybox, "sh", "-c", script)
    limpet("restart", "-t", "0", "first")
    limpet("exec", "second", "kill", "-9", "-1", check=False)
    pid = limpet("inspect", "-f", "{{.State.Pid}}", "first").stdout.strip()
    end = time.monotonic() + 20
    while len(seen := limpet("logs", "second").stdout.split()) < 2:
        assert time.monotonic() < end
    assert seen[0] != seen[1] == os.readlink(f"/proc/{pid}/ns/net")


def test_abstract_sockets_of_the_host(limpet: Any, tmp_path: Path) -> None:
    """CVE-2020-15257: they are in the host's network, and Landlock keeps them from whom it was asked to."""
    if landlock.version() < landlock.SCOPES:
        pytest.skip("needs Linux 6.12 with Landlock")
    name = f"limpet-test-{os.getpid()}"
    script = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}'); print('reached')"
    own = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0own'); s.listen()\n"
    own += "socket.socket(socket.AF_UNIX).connect('\\0own'); print('own')"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        assert limpet("run", "--rm", "limpet/host", "python3", "-c", script).stdout == "reached\n"
        option = ("--security-opt", "landlock=sockets")
        for words in (option, ("--isolate", "strict", "--network", "host")):
            result = limpet("run", "--rm", *words, "limpet/host", "python3", "-c", script, check=False)
            assert (result.stdout, "PermissionError" in result.stderr) == ("", True), result.stderr
        assert limpet("run", "--rm", *option, "limpet/host", "python3", "-c", own).stdout == "own\n"
        limpet("run", "-d", "--name", "box", *option, "limpet/host", "sleep", "1000")
        result = limpet("exec", "box", "python3", "-c", script, check=False)
        assert "PermissionError" in result.stderr
        assert "can't                      connect to abstract Unix" in limpet("inspect", "--isolation", "box").stdout
        assert limpet("exec", "box", "kill", "-0", "1", check=False).returncode == 0
