"""run, exec, logs, stop, restart, volumes, cp, commit, prune: what root's containers do, a user's do."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import START
from tests.rootless.conftest import end

from limpet.kernel import process

if TYPE_CHECKING:
    from tests.rootless.conftest import User

pytestmark = pytest.mark.slow

SERVE = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"


def named(user: User, *names: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(user("inspect", *names).stdout)[0]
    return found


def test_a_container_runs_and_its_root_is_the_user(user: User) -> None:
    assert user("run", "--rm", "busybox:test", "id", "-u").stdout == "0\n"
    user("run", "-d", "--name", "who", "busybox:test", "sleep", "100")
    assert os.stat(f"/proc/{named(user, 'who')['State']['Pid']}").st_uid == 54_321
    status = user("exec", "who", "cat", "/proc/self/uid_map").stdout.split()
    assert status[:3] == ["0", "54321", "1"]
    assert (len(status) > 3) == (user.kind == "ranges")
    user("rm", "-f", "who")


def test_the_store_is_where_the_user_keeps_data(user: User) -> None:
    info = json.loads(user("info", "--format", "json").stdout)
    assert info["DockerRootDir"] == str(user.root)
    assert info["RunDir"] == str(user.home / "run/limpet")
    assert user.root.stat().st_mode & 0o777 == 0o700
    assert (user.home / "run/limpet").stat().st_mode & 0o777 == 0o700
    assert (user.root / "ids").read_text() == f"{user.kind}\n"


def test_exec_logs_and_stop(user: User) -> None:
    user("run", "-d", "--name", "web", "busybox:test", "sh", "-c", SERVE)
    assert user("exec", "web", "sh", "-c", "echo $((6 * 7))").stdout == "42\n"
    assert user("exec", "-i", "web", "cat", input="to and fro").stdout == "to and fro"
    assert user("exec", "web", "sh", "-c", "exit 3", check=False).returncode == 3
    assert "sleep" in user("top", "web").stdout
    user("stop", "web")
    assert user("logs", "web").stdout == "up\nbye\n"
    assert named(user, "web")["State"]["ExitCode"] == 7
    user("restart", "web")
    assert user("exec", "web", "echo", "again").stdout == "again\n"
    user("rm", "-f", "web")


def test_a_terminal(user: User) -> None:
    command = user.limpet("run", "--rm", "-t", "busybox:test", "tty")
    assert user._run(command).stdout.split() == ["/dev/pts/0"]


def test_a_restart_policy_and_a_health_check(user: User) -> None:
    user("run", "-d", "--name", "again", "--restart", "always", "busybox:test", "sh", "-c", "sleep 0.1; exit 3")
    checks = ("--health-cmd", "true", "--health-interval", "100ms")
    user("run", "-d", "--name", "well", *checks, "busybox:test", "sleep", "100")
    deadline = time.monotonic() + 20
    while not (named(user, "again")["RestartCount"] and named(user, "well")["State"]["Health"]["Status"] == "healthy"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    user("rm", "-f", "again", "well")


def test_volumes(user: User) -> None:
    user("run", "--rm", "-v", "data:/data", "busybox:test", "sh", "-c", "echo kept > /data/file")
    assert user("run", "--rm", "-v", "data:/data:ro", "busybox:test", "cat", "/data/file").stdout == "kept\n"
    (user.work / "mine").mkdir()
    os.chown(user.work / "mine", 54_321, 54_321)
    script = "echo theirs > /mine/file; ls -ln /mine"
    listed = user("run", "--rm", "-v", f"{user.work}/mine:/mine", "busybox:test", "sh", "-c", script).stdout
    assert listed.split()[-7:-5] == ["0", "0"]
    found = (user.work / "mine/file").stat()
    assert (found.st_uid, found.st_gid) == (54_321, 54_321)
    user("volume", "rm", "data")
    assert "data" not in user("volume", "ls", "-q").stdout.split()


def test_what_a_user_may_not_read_a_container_of_his_does_not_either(user: User) -> None:
    shown = user("run", "--rm", "-v", "/etc:/host:ro", "busybox:test", "cat", "/host/shadow", check=False)
    assert shown.returncode == 1
    assert "Permission denied" in shown.stderr


def test_files_go_in_and_out(user: User) -> None:
    (user.work / "in").write_text("a file\n")
    user(
        "create",
        "--name",
        "box",
        "busybox:test",
        "sh",
        "-c",
        "ls -ln /tmp/in; cp /tmp/in /tmp/out; chmod 4750 /tmp/out",
    )
    user("cp", "in", "box:/tmp/in")
    assert user("start", "-a", "box").stdout.split()[2:4] == ["0", "0"]
    user("cp", "box:/tmp/out", "out")
    found = (user.work / "out").stat()
    assert (found.st_uid, (user.work / "out").read_text()) == (54_321, "a file\n")
    assert user("diff", "box").stdout == "C /tmp\nA /tmp/in\nA /tmp/out\n"
    user("commit", "box", "kept:test")
    assert user("run", "--rm", "kept:test", "ls", "-l", "/tmp/out").stdout.startswith("-rwsr-x---")
    user("rm", "box")
    user("rmi", "kept:test")


def test_the_levels_of_isolation(user: User) -> None:
    found = {}
    for level in ("none", "light", "default", "strict"):
        user("run", "-d", "--name", level, "--isolate", level, "busybox:test", "sleep", "100")
        lines = user("inspect", "--isolation", level).stdout
        found[level] = re.search(r"namespaces of its own +(.*)", lines)[1].split()  # type: ignore[index]
        assert "0 in it is 54321 on the host" in lines
        assert re.search(r"can't +be root for the host", lines)
        user("rm", "-f", level)
    assert found["none"] == ["mnt", "user"]
    assert found["light"] == ["mnt", "pid", "user"]
    assert found["default"] == ["mnt", "pid", "ipc", "uts", "cgroup", "user"]
    assert found["strict"] == ["mnt", "pid", "ipc", "uts", "cgroup", "net", "user"]


def test_a_killed_monitor_and_a_killed_keeper_of_the_namespace(user: User) -> None:
    """Nothing depends on one process: whoever is in the namespace shows the way in."""
    for name in ("one", "two"):
        user("run", "-d", "--name", name, "busybox:test", "sleep", "100")
    before = os.stat(f"/proc/{named(user, 'two')['State']['Pid']}/ns/user").st_ino
    monitors = {named(user, name)["State"]["Pid"] for name in ("one", "two")}
    while (pid := user.holders()) and "userns" in Path(f"/proc/{pid}/cmdline").read_text():
        end(pid)
    assert user("exec", "two", "echo", "reached").stdout == "reached\n"
    with open(f"/proc/{min(monitors)}/status") as file:
        end(int(next(line.split()[1] for line in file if line.startswith("PPid:"))))
    states = {user("ps", "-a", "--filter", f"name={name}", "--format", "{{.State}}").stdout for name in ("one", "two")}
    assert states == {"exited\n", "running\n"}
    user("start", "one", "two")
    for name in ("one", "two"):
        assert user("exec", name, "echo", "reached").stdout == "reached\n"
        assert os.stat(f"/proc/{named(user, name)['State']['Pid']}/ns/user").st_ino == before
    user("rm", "-f", "one", "two")


def test_a_sleeping_monitor_keeps_the_namespace(user: User) -> None:
    user("run", "-d", "--name", "quiet", "busybox:test", "sleep", "100")
    with open(f"/proc/{named(user, 'quiet')['State']['Pid']}/status") as file:
        monitor = int(next(line.split()[1] for line in file if line.startswith("PPid:")))
    began = process.start_time(monitor)
    deadline = time.monotonic() + 20
    while "python" in os.readlink(f"/proc/{monitor}/exe"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while (pid := user.holders()) and pid != monitor:
        end(pid)
    assert user.holders() == monitor
    assert user("exec", "quiet", "echo", "reached").stdout == "reached\n"
    assert process.start_time(monitor) == began
    user("rm", "-f", "quiet")


def test_what_needs_root_is_refused_in_one_line(user: User) -> None:
    for words, what in (
        (("--userns", "auto"), "--userns auto needs root\nleave it out:"),
        (("--runtime", "runc"), "the runtime runc needs root\n"),
        (("--ulimit", "nofile=10:1999999999"), "only root may raise it above your own limit"),
        (("--oom-score-adj", "-900"), "only root may go below"),
        (("--memory", "64m"), "--memory needs a control group of yours with the controller 'memory'\nwith systemd, "),
        (("--network", "private"), "--network private needs root\n"),
        (("--device-cgroup-rule", "c 1:3 r"), "--device-cgroup-rule 'c 1:3 r' needs root\n"),
        (("--cgroup-parent", "here"), "--cgroup-parent here needs a control group of yours\n"),
        (("--address", "127.64.1.1"), "--address 127.64.1.1 needs root\n"),
    ):
        refused = user("run", "--rm", *words, "busybox:test", "true", check=False)
        assert (refused.returncode, refused.stdout) == (125, ""), words
        assert what in refused.stderr
        assert refused.stderr.count("\n") <= 2
    assert user("ps", "-aq").stdout == ""


def test_a_store_is_its_users_alone(user: User) -> None:
    """Root's files in it would be in the way."""
    command = [sys.executable, "-I", "-c", START, "--root", user.root, "ps"]
    root = subprocess.run(command, capture_output=True, text=True)
    assert root.returncode == 1
    assert root.stderr.startswith(f"limpet: {user.root} is the store of user 54321\nrun limpet as that user:")
    nowhere = user("--root", "/proc/limpet", "run", "--rm", "busybox:test", "true", check=False)
    assert nowhere.returncode == 125
    assert nowhere.stderr.startswith("limpet: /proc/limpet")


def test_many_that_begin_at_once_share_one_namespace(user: User) -> None:
    while pid := user.holders():
        end(pid)
    names = [f"many{number}" for number in range(4)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    started = [
        subprocess.Popen(
            user.limpet("run", "-d", "--name", name, "busybox:test", "sleep", "100"), env=user.environment, **quiet
        )
        for name in names
    ]
    assert [each.wait() for each in started] == [0] * len(names)
    assert len({os.stat(f"/proc/{named(user, name)['State']['Pid']}/ns/user").st_ino for name in names}) == 1
    user("rm", "-f", *names)


def test_a_port_that_only_root_may_bind_is_named(user: User) -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 80:
            pytest.skip("every user may listen on port 80 here")
    said = user("run", "--rm", "--expose", "80", "busybox:test", "true").stderr
    assert said.startswith("WARNING: port 80: only root may listen below port")
    assert "sysctl net.ipv4.ip_unprivileged_port_start=80" in said
    assert user("run", "--rm", "--expose", "8080", "busybox:test", "true").stderr == ""


def test_usage_is_measured_without_a_group(user: User) -> None:
    user("run", "-d", "--name", "busy", "busybox:test", "sh", "-c", "while :; do :; done")
    time.sleep(0.3)
    row = json.loads(user("stats", "--no-stream", "--format", "json", "busy").stdout)
    assert float(row["CPUPerc"].rstrip("%")) > 1
    assert not row["MemUsage"].startswith("0B")
    assert int(row["PIDs"]) >= 1
    refused = user("pause", "busy", check=False)
    assert "pausing needs a control group of yours" in refused.stderr
    user("rm", "-f", "busy")


def test_of_ranges_every_id_is_there(ranges: User) -> None:
    assert ranges("run", "--rm", "--user", "1000", "busybox:test", "id", "-u").stdout == "1000\n"
    script = "chown 33:33 /tmp/a && ls -ln /tmp"
    listed = ranges("run", "--rm", "busybox:test", "sh", "-c", f"touch /tmp/a && {script}").stdout
    assert listed.split()[-7:-5] == ["33", "33"]
    refused = ranges("run", "--rm", "--user", "70000", "busybox:test", "true", check=False)
    assert "user 70000:0: your user namespace has no such id" in refused.stderr


def test_of_a_single_id_another_user_is_the_only_one(single: User) -> None:
    """The image's USER, or --user: the one id has that number in the container, and there is no root."""
    single("run", "-d", "--name", "other", "--user", "user:2000", "busybox:test", "sleep", "100")
    ids = ("sh", "-c", "echo $(id -u):$(id -g) $(cat /proc/self/uid_map)")
    for words in ((), ("--user", "1000:2000")):
        assert single("exec", *words, "other", *ids).stdout == "1000:2000 1000 0 1\n"
    refused = single("exec", "--user", "root", "other", "true", check=False)
    assert refused.returncode == 126
    assert "user 0:0: this container has user 1000:2000 alone\nmake it with --user root" in refused.stderr
    assert "1000 in it is 54321 on the host" in single("inspect", "--isolation", "other").stdout
    joining = single("run", "--rm", "--user", "7", "--pid", "container:other", "busybox:test", "true", check=False)
    assert "user 7:0 in namespaces of another container: you have one id" in joining.stderr
    single("rm", "-f", "other")
    sealed = ("--network", "none", "--read-only", "--user", "33", "-t")
    assert single("run", "--rm", *sealed, "busybox:test", "id", "-u").stdout.strip() == "33"


def test_of_a_single_id_no_step_of_a_build_is_another_user(single: User) -> None:
    """What it made would be root's in the image, and nobody would notice."""
    place = single.work / "as-user"
    place.mkdir(exist_ok=True)
    (place / "Dockerfile").write_text("FROM busybox:test\nUSER 1000\nRUN true\n")
    refused = single("build", "-q", "as-user", check=False)
    assert refused.returncode != 0
    assert "user 1000:1000: your user namespace has no such id" in refused.stderr
    assert "--add-subuids" in refused.stderr


def owned(members: dict[str, tuple[int, int, bytes]]) -> bytes:
    """A tar of (owner, group, type) by name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (uid, gid, kind) in members.items():
            member = tarfile.TarInfo(name)
            member.uid, member.gid, member.type, member.mode = uid, gid, kind, 0o640
            member.devmajor, member.devminor = 1, 3
            tar.addfile(member)
    return out.getvalue()


def listed(data: bytes) -> dict[str, tuple[int, int, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: (member.uid, member.gid, member.type) for member in tar if member.name.startswith("x/")}


def test_owners_and_devices_that_a_user_can_t_make_are_written_down(user: User, tmp_path: Path) -> None:
    """…and what leaves the store has them: export, commit, another build."""
    members = {
        "x/file": (33, 42, tarfile.REGTYPE),
        "x/far": (4_000_000, 5, tarfile.REGTYPE),
        "x/null": (0, 6, tarfile.CHRTYPE),
        "x/dir": (1000, 1000, tarfile.DIRTYPE),
    }
    (tmp_path / "x.tar").write_bytes(owned(members))
    with open(tmp_path / "x.tar", "rb") as tar:
        user("import", "-", "owned:test", stdin=tar)
    assert "nothing is wrong" in user("system", "check").stdout
    user("create", "--name", "exported", "owned:test", "/x")
    command = user.limpet("export", "exported")
    assert listed(subprocess_output(user, command)) == members
    (user.work / "Dockerfile").write_text(
        "FROM busybox:test\nCOPY --from=owned:test /x /x\nRUN chmod 600 /x/file /x/null\n"
    )
    user("build", "-q", "-t", "copied:test", ".")
    user("create", "--name", "copied", "copied:test", "true")
    assert listed(subprocess_output(user, user.limpet("export", "copied"))) == members
    user("rm", "exported", "copied")
    user("rmi", "owned:test", "copied:test")


def subprocess_output(user: User, command: list[str]) -> bytes:
    return subprocess.run(command, stdout=subprocess.PIPE, env=user.environment, check=True).stdout
