"""ps, stop, kill, restart, wait, rm, inspect, port, prune as a user types them: Docker's words, columns, exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

ID = r"[0-9a-f]{12}"


def test_ps(limpet: Any, busybox: str) -> None:
    assert limpet("ps").stdout == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    limpet("run", "--name", "done", busybox, "sh", "-c", "exit 3", check=False)
    header, line = limpet("ps").stdout.splitlines()
    assert header.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    moment = "(Less than a second|1 second|[0-9]+ seconds)"
    assert re.fullmatch(rf'{ID}   busybox:test   "sleep 1000"   {moment} ago +Up {moment} +127[.0-9]+ +web', line)
    lines = limpet("ps", "-a").stdout.splitlines()[1:]
    assert [line.split()[-1] for line in lines] == ["done", "web"]
    assert re.search(rf"Exited \(3\) {moment} ago", lines[0])
    assert limpet("container", "ls", "-a").stdout.splitlines()[0].startswith("CONTAINER ID")
    assert limpet("container", "ps", "-aq").stdout == limpet("ps", "-aq").stdout
    assert [len(text) for text in limpet("ps", "-aq", "--no-trunc").stdout.split()] == [64, 64]
    assert limpet("ps", "-l", "--format", "{{.Names}}").stdout == "done\n"
    assert limpet("ps", "-n", "1", "-q").stdout == limpet("ps", "-lq").stdout
    assert limpet("ps", "-af", "exited=3", "--format", "{{.Names}}").stdout == "done\n"


def test_ps_formats(limpet: Any, busybox: str) -> None:
    limpet(
        "create", "--name", "web", "--label", "a=1", "--label", "b=2", busybox, "sh", "-c", "echo 'a  long  command'"
    )
    assert (
        limpet("ps", "-a", "--format", "table {{.Names}}\\t{{.State}}").stdout == "NAMES     STATE\nweb       created\n"
    )
    assert limpet("ps", "-a", "--format", "{{.Names}}|{{.Labels}}|{{.Networks}}").stdout == "web|a=1,b=2|host\n"
    assert limpet("ps", "-a", "--format", '{{.Label "b"}}{{.Label "c"}}.').stdout == "2.\n"
    assert limpet("ps", "-a", "--format", 'table {{.Label "x.b-c"}}').stdout.startswith("b c\n")
    (row,) = map(json.loads, limpet("ps", "-a", "--format", "json").stdout.splitlines())
    assert row["Command"] == "\"sh -c 'echo 'a  lo…\"" or row["Command"].startswith('"sh -c ')
    assert json.loads(limpet("ps", "-a", "--format", "{{json .}}").stdout)["Names"] == "web"
    full = limpet("ps", "-a", "--no-trunc", "--format", "{{.Command}}").stdout
    assert full == "\"sh -c echo 'a  long  command'\"\n"
    assert re.fullmatch(r"0B \(virtual 2\.[0-9]+MB\)\n", limpet("ps", "-a", "--format", "{{.Size}}").stdout)
    assert limpet("ps", "-as").stdout.splitlines()[0].endswith("SIZE")
    result = limpet("ps", "-a", "--format", "{{.Nonsense}}", check=False)
    assert (result.returncode, "Nonsense" in result.stderr) == (64, True)
    result = limpet("ps", "--filter", "colour=red", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, "limpet: invalid filter 'colour=red'")


def test_ps_on_a_narrow_terminal_keeps_the_name(limpet: Any, busybox: str) -> None:
    name = "a-name-of-15-ch"
    limpet("create", "--name", name, busybox, "sleep", "1000000000000000000000")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    result = subprocess.Popen([*limpet.command, "ps", "-a"], stdout=slave, env=limpet.environment)
    os.close(slave)
    text = b""
    try:
        while piece := os.read(master, 4096):
            text += piece
    except OSError:  # EIO: the other side is closed
        pass
    assert result.wait(20) == 0
    os.close(master)
    lines = text.decode().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].endswith(f" {name}")
    assert "…" in lines[1]
    assert "…" not in limpet("ps", "-a", "--format", "table {{.ID}}\\t{{.Status}}\\t{{.Names}}").stdout


def test_a_container_under_its_group(limpet: Any, busybox: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}\n", limpet("container", "create", "--name", "web", busybox, "sleep", "9").stdout)
    assert limpet("container", "start", "web").stdout == "web\n"
    assert limpet("container", "restart", "-t", "0", "web").stdout == "web\n"
    assert limpet("container", "kill", "web").stdout == "web\n"
    assert limpet("container", "wait", "web").stdout == "137\n"
    assert limpet("container", "rename", "web", "old").stdout == ""
    assert limpet("container", "logs", "old").stdout == ""
    assert limpet("container", "rm", "old").stdout == "old\n"


def test_restart(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", "echo begin; exec sleep 1000")
    first = limpet("inspect", "-f", "{{.State.Pid}}", "web").stdout
    assert limpet("restart", "web").stdout == "web\n"
    assert limpet("inspect", "-f", "{{.State.Pid}}", "web").stdout not in (first, "0\n")
    assert limpet("logs", "web").stdout == "begin\nbegin\n"
    limpet("run", "-d", "--rm", "--name", "brief", busybox, "sleep", "1000")
    result = limpet("restart", "brief", check=False)
    assert (result.returncode, "would remove it" in result.stderr) == (1, True)
    assert limpet("ps", "-qf", "name=brief").stdout
    result = limpet("restart", "nothing", check=False)
    assert (result.returncode, result.stderr) == (1, "limpet: No such container: nothing\n")


def test_rm(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    result = limpet("rm", "web", "nothing", check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "limpet: No such container: nothing",
        'limpet: cannot remove container "/web": container is running;'
        " stop the container before removing or force remove",
    ]
    assert limpet("rm", "-f", "web").stdout == "web\n"
    result = limpet("rm", "-f", "web")
    assert (result.returncode, result.stdout) == (0, "")


def test_stop_says_why_it_is_slow(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", "--no-init", busybox, "sleep", "1000")
    result = limpet("stop", "-t", "2", "web")
    assert result.stdout == "web\n"
    assert result.stderr == (
        "limpet: web: PID 1 does not handle SIGTERM, so it is killed after 2 s;"
        " run it with --init, or set --stop-signal\n"
    )


def test_wait_for_several(limpet: Any, busybox: str) -> None:
    for name, code in (("one", 1), ("two", 2)):
        limpet("run", "--name", name, busybox, "sh", "-c", f"exit {code}", check=False)
    limpet("create", "--name", "new", busybox, "true")
    assert limpet("wait", "one", "two", "new").stdout == "1\n2\n0\n"
    result = limpet("wait", "one", "none", check=False)
    assert (result.returncode, result.stdout) == (1, "1\n")


def test_inspect(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet(
        "create", "--name", "web", "-e", "A=1", "-w", "/tmp", "-u", "33:33", "--label", "a=b", "--hostname", "here",
        "-v", f"{tmp_path}:/host:ro", "-v", "vol:/vol", "--restart", "on-failure:3", "--cap-add", "NET_ADMIN",
        "--stop-signal", "QUIT", busybox, "sleep", "1000",
    )  # fmt: skip
    (found,) = json.loads(limpet("inspect", "web").stdout)
    assert found["Name"] == "/web"
    assert (found["Path"], found["Args"]) == ("sleep", ["1000"])
    assert found["State"] == {
        "Status": "created",
        "Running": False,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 0,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "0001-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    config = found["Config"]
    assert (config["Hostname"], config["User"], config["WorkingDir"]) == ("here", "33:33", "/tmp")
    assert (config["Env"], config["Labels"], config["StopSignal"]) == (["A=1"], {"a": "b"}, "QUIT")
    assert (config["Cmd"], config["Entrypoint"], config["Image"]) == (["sleep", "1000"], None, busybox)
    assert found["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert found["HostConfig"]["NetworkMode"] == "host"
    assert found["HostConfig"]["Binds"] == [f"{tmp_path}:/host:ro", "vol:/vol"]
    mounts = {mount["Destination"]: mount for mount in found["Mounts"]}
    assert (mounts["/host"]["Type"], mounts["/host"]["Source"], mounts["/host"]["RW"]) == ("bind", str(tmp_path), False)
    assert (mounts["/vol"]["Type"], mounts["/vol"]["Name"], mounts["/vol"]["RW"]) == ("volume", "vol", True)
    assert found["Image"] == json.loads(limpet("image", "inspect", busybox).stdout)[0]["Id"]
    limpet("start", "web")
    format = "{{.State.Running}} {{.State.Status}} {{len .Mounts}} {{.HostConfig.NetworkMode}} {{index .Config.Env 0}}"
    assert limpet("inspect", "-f", format, "web").stdout == "true running 2 host A=1\n"
    pid = int(limpet("inspect", "-f", "{{.State.Pid}}", "web").stdout)
    assert Path(f"/proc/{pid}").exists()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z\n", limpet("inspect", "-f", "{{.State.StartedAt}}", "web").stdout
    )
    (found,) = json.loads(limpet("inspect", "--size", "web").stdout)
    assert (found["SizeRw"] >= 0, found["SizeRootFs"] > 1 << 20) == (True, True)


def test_inspect_finds_all_kinds(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "web", "-v", "vol:/x", busybox, "true")
    found = json.loads(limpet("inspect", "web", busybox, "vol").stdout)
    assert [one.get("Name") or one["RepoTags"] for one in found] == ["/web", [busybox], "vol"]
    for kind, name in (("image", "web"), ("container", busybox), ("volume", "web")):
        result = limpet("inspect", "--type", kind, name, check=False)
        assert (result.returncode, result.stdout) == (1, "[]\n")
        what = {"web": "a container", busybox: "an image"}[name]
        assert result.stderr.endswith(f"; {name} is {what}: `limpet inspect {name}` shows it\n")
    result = limpet("image", "inspect", "vol", check=False)
    assert result.stderr == "limpet: No such image: vol; vol is a volume: `limpet inspect vol` shows it\n"
    result = limpet("inspect", "web", "wbe", check=False)
    assert result.returncode == 1
    assert len(json.loads(result.stdout)) == 1
    assert result.stderr == "limpet: No such object: wbe; did you mean web?\n"
    assert limpet("inspect", "Nothing", check=False).stderr == "limpet: No such object: Nothing\n"
    result = limpet("container", "inspect", busybox, check=False)
    assert (result.returncode, result.stdout) == (1, "[]\n")


def test_prune_shows_before_it_takes(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "up", busybox, "sleep", "1000")
    limpet("run", "--name", "done", busybox, "true")
    limpet("create", "--name", "new", "--label", "keep=1", busybox, "true")
    for answer in ("n\n", "", "what?\n"):
        result = limpet("container", "prune", input=answer)
        assert "This removes 2 stopped containers" in result.stdout
        assert re.search(r"^  done  \(Exited \(0\) .* ago, [0-9.]+kB\)$", result.stdout, re.MULTILINE)
        assert re.search(r"^  new  \(Created, [0-9.]+kB\)$", result.stdout, re.MULTILINE)
        assert "Are you sure you want to continue? [y/N]" in result.stdout
    assert len(limpet("ps", "-aq").stdout.split()) == 3
    result = limpet("container", "prune", "-f", "--filter", "label!=keep")
    assert re.fullmatch(r"Deleted Containers:\n[0-9a-f]{64}\n\nTotal reclaimed space: [0-9.]+kB\n", result.stdout)
    assert limpet("container", "prune", "-f", "--filter", "until=1h").stdout == "Total reclaimed space: 0B\n"
    assert "Deleted" in limpet("container", "prune", input="y\n").stdout
    assert limpet("ps", "-a", "--format", "{{.Names}}").stdout == "up\n"
    assert limpet("container", "prune", "-f", "--filter", "nonsense=1", check=False).returncode == 1


def test_volumes(limpet: Any, busybox: str) -> None:
    assert limpet("volume", "ls").stdout == "DRIVER    VOLUME NAME\n"
    assert limpet("volume", "create", "--label", "a=b", "data").stdout == "data\n"
    assert re.fullmatch(r"[0-9a-f]{64}\n", limpet("volume", "create").stdout)
    limpet("create", "--name", "web", "-v", "data:/data", "-v", "/anonymous", busybox, "true")
    assert limpet("volume", "ls", "-qf", "name=data").stdout == "data\n"
    assert limpet("volume", "ls", "-qf", "label=a=b").stdout == "data\n"
    assert len(limpet("volume", "ls", "-qf", "dangling=true").stdout.split()) == 1
    (found,) = json.loads(limpet("volume", "inspect", "data").stdout)
    assert (found["Name"], found["Driver"], found["Labels"]) == ("data", "local", {"a": "b"})
    assert Path(found["Mountpoint"]).is_dir()
    assert limpet("volume", "inspect", "-f", "{{.Mountpoint}}", "data").stdout == found["Mountpoint"] + "\n"
    web = limpet("ps", "-aq", "--no-trunc").stdout.strip()
    result = limpet("volume", "rm", "data", "nothing", check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[0].startswith(f"limpet: remove data: volume is in use - [{web}]")
    assert "nothing: no such volume" in result.stderr
    limpet("rm", "web")
    assert "This removes 2 unused volumes" in limpet("volume", "prune", input="n\n").stdout
    assert "Deleted Volumes:" in limpet("volume", "prune", "-f").stdout
    names = limpet("volume", "ls", "-q").stdout.split()
    assert "data" in names
    assert limpet("volume", "rm", "data").stdout == "data\n"
    assert limpet("volume", "rm", "-f", "data").stdout == ""
    limpet("volume", "prune", "-af")
    assert limpet("volume", "ls", "-q").stdout == ""
    assert os.listdir(Path(limpet.root) / "volumes") == []


@pytest.mark.parametrize(
    "words",
    [
        ["stop"],
        ["rm"],
        ["rename", "one"],
        ["ps", "extra"],
        ["cp", "one"],
        ["volume", "rm"],
        ["inspect"],
        ["port"],
    ],
)
def test_too_few_or_too_many_arguments(limpet: Any, words: list[str]) -> None:
    result = limpet(*words, check=False)
    assert result.returncode == 1
    assert re.search(r'"limpet .*" (requires (exactly|at least) \d |accepts no arguments)', result.stderr)
