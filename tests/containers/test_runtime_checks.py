"""What a bundle's config.json says is what the container sees: the checks of opencontainers/runtime-tools.

Its suite starts a runtime by the command line of runc; limpet is none, so here each check of `cmd/runtimetest/main.go`
and each group of `validation/` is made of a container that limpet started, against the config.json that it wrote. The
container is looked at from the host, by /proc, and by what it can do.

    runtimetest                               here
    validatePosixUser, validateProcess        test_user, test_process
    validateLinuxProcess, -Capabilities       test_capabilities_and_privileges
    validateHostname, -Sysctls                test_names_and_sysctls
    validateRlimits, -OOMScoreAdj             test_limits_of_the_process
    validateRootFS, -RootfsPropagation        test_root
    validateDefaultFS, -PosixMounts           test_mounts
    validateLinuxDevices, -DefaultDevices,    test_devices
      -DefaultSymlinks
    validateMaskedPaths, -ROPaths             test_hidden_and_read_only_paths
    validateSeccomp                           test_seccomp
    validateUIDMappings, -GIDMappings         test_id_mappings
    validation/linux_ns_*                     test_namespaces
    validation/linux_cgroups_*                test_control_groups (memory, cpus, pids, blkio, devices)
    validation/{create,start,state,kill*,     test_life
      killsig,delete*,config_updates_*}

Left out: AppArmor, mount labels (no LSM of that kind is used), hugetlb and network classes (no option sets them), the
pid file (runc's own option), hooks (`test_cdi` has them).
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import runner

from limpet.containers.options import parse_size
from limpet.kernel import capabilities, cgroup, controllers

pytestmark = pytest.mark.slow

OPTIONS: dict[str, tuple[str, ...]] = {
    "default": (),
    "rich": (
        "-u", "1000:33", "--group-add", "2001", "-w", "/home/user", "-e", "WORD=a b", "-e", "EMPTY=",
        "--hostname", "named", "--domainname", "domain", "--sysctl", "kernel.msgmax=9000",
        "--ulimit", "nofile=100:200", "--ulimit", "core=0",
        "--oom-score-adj", "300", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt", "no-new-privileges",
        "--device", "/dev/loop-control:/dev/given:r", "--tmpfs", "/scratch:size=1m,mode=700", "--shm-size", "1m",
        "--memory", "64m", "--pids-limit", "77", "--cpus", "1.5", "--cpu-shares", "512", "--network", "none",
    ),
    "read-only": ("--read-only", "-v", "data:/data:ro", "--init"),
    "user namespace": ("--userns", "auto", "-v", "data:/data"),
    "privileged": ("--privileged", "--no-init"),
}  # fmt: skip


class Seen:
    """A running container: `config` is what was written, `pid` its program as the host sees it."""

    def __init__(self, limpet: Any, name: str, options: tuple[str, ...]) -> None:
        self.limpet = limpet
        self.name = name.replace(" ", "-")
        limpet("run", "-d", "--name", self.name, *options, "busybox:test", "sleep", "1000")
        self.id = limpet("inspect", "-f", "{{.Id}}", self.name).stdout.strip()
        self.config = json.loads((limpet.root / f"containers/{self.id}/config.json").read_text())
        self.process, self.linux = self.config["process"], self.config["linux"]
        first = int(limpet("inspect", "-f", "{{.State.Pid}}", self.name).stdout)
        end = time.monotonic() + 10
        self.pid = 0
        while not self.pid:  # PID 1 is the init, or the program itself
            children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
            for pid in (first, *map(int, children)):
                if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\0":
                    self.pid = pid
            assert time.monotonic() < end

    def read(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def status(self) -> dict[str, str]:
        return {
            key: value.strip() for key, _, value in (line.partition(":") for line in self.read("status").splitlines())
        }

    def inside(self, *command: str) -> Any:
        return self.limpet("exec", "-u", "0", self.name, *command, check=False)

    def at(self, path: str) -> str:
        return f"/proc/{self.pid}/root{path}"

    def mounts(self) -> list[tuple[str, set[str], str, list[str]]]:
        """Place, options (of the mount and of its file system), type, optional fields."""
        found = []
        for line in self.read("mountinfo").splitlines():
            left, _, right = line.partition(" - ")
            fields, (kind, _, more) = left.split(), right.split(" ", 2)
            found.append((fields[4], {*fields[5].split(","), *more.split(",")}, kind, fields[6:]))
        return found

    def host_id(self, number: int, kind: str = "uidMappings") -> int:
        return next((one["hostID"] + number - one["containerID"] for one in self.linux.get(kind, ())), number)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, busybox_tar: Path) -> Iterator[Any]:
    """All of them in one store, each made when it is first asked for."""
    limpet = runner(tmp_path_factory.mktemp("checks") / "limpet")
    limpet("import", "-q", busybox_tar, "busybox:test")
    made: dict[str, Seen] = {}

    def get(name: str) -> Seen:
        if name not in made:
            made[name] = Seen(limpet, name, OPTIONS[name])
        return made[name]

    yield get
    ids = limpet("ps", "-aq").stdout.split()
    if ids:
        limpet("rm", "-f", "-v", *ids)


@pytest.fixture(params=list(OPTIONS))
def seen(request: pytest.FixtureRequest, started: Any) -> Any:
    return started(request.param)


def test_user(seen: Seen) -> None:
    user, status = seen.process["user"], seen.status()
    assert {int(text) for text in status["Uid"].split()} == {seen.host_id(user["uid"])}
    assert {int(text) for text in status["Gid"].split()} == {seen.host_id(user["gid"])}
    assert {int(text) for text in status["Groups"].split()} == {seen.host_id(one) for one in user["additionalGids"]}
    assert int(status["Umask"], 8) == user["umask"]


def test_process(seen: Seen) -> None:
    assert seen.read("cmdline").split("\0")[:-1] == seen.process["args"]
    assert sorted(seen.read("environ").split("\0")[:-1]) == sorted(seen.process["env"])
    assert os.path.samefile(f"/proc/{seen.pid}/cwd", seen.at(seen.process["cwd"]))
    assert not seen.process["terminal"]
    assert sorted(os.listdir(f"/proc/{seen.pid}/fd")) == ["0", "1", "2"]


def test_capabilities_and_privileges(seen: Seen) -> None:
    status = seen.status()
    for key, field in (
        ("bounding", "CapBnd"),
        ("effective", "CapEff"),
        ("permitted", "CapPrm"),
        ("inheritable", "CapInh"),
        ("ambient", "CapAmb"),
    ):
        mask = int(status[field], 16)
        found = {name for bit, name in enumerate(capabilities.NAMES) if mask >> bit & 1}
        assert found == set(seen.process["capabilities"][key]), key
    assert status["NoNewPrivs"] == str(int(seen.process["noNewPrivileges"]))


def test_names_and_sysctls(seen: Seen) -> None:
    assert seen.inside("hostname").stdout.strip() == seen.config["hostname"]
    if "domainname" in seen.config:
        assert seen.inside("cat", "/proc/sys/kernel/domainname").stdout.strip() == seen.config["domainname"]
    for name, value in seen.linux.get("sysctl", {}).items():
        assert seen.inside("cat", f"/proc/sys/{name.replace('.', '/')}").stdout.strip() == value


def test_limits_of_the_process(seen: Seen) -> None:
    lines = seen.read("limits").splitlines()
    titles = {"RLIMIT_NOFILE": "Max open files", "RLIMIT_CORE": "Max core file size"}
    for limit in seen.process.get("rlimits", ()):
        (line,) = (line for line in lines if line.startswith(titles[limit["type"]]))
        assert line[25:].split()[:2] == [str(limit["soft"]), str(limit["hard"])]
    ours = Path("/proc/self/oom_score_adj").read_text()
    assert seen.read("oom_score_adj").strip() == str(seen.process.get("oomScoreAdj", ours.strip()))


def test_root(seen: Seen) -> None:
    read_only = seen.config["root"]["readonly"]
    assert (seen.inside("touch", "/new").returncode != 0) == read_only
    (root, *_) = [mount for mount in seen.mounts() if mount[0] == "/"]
    assert ("ro" in root[1]) == read_only
    assert not any(field.startswith(("shared:", "unbindable")) for field in root[3])


def test_mounts(seen: Seen) -> None:
    """All that config.json lists is there, with its type and options; so are the default file systems.

    In which order they were mounted, mountinfo does not say of mounts that were made elsewhere and moved.
    """
    found = seen.mounts()
    places = [place for place, *_ in found]
    wanted = [mount for mount in seen.config["mounts"] if mount["destination"] in places]
    assert [mount["destination"] for mount in seen.config["mounts"]] == [mount["destination"] for mount in wanted]
    flags = {"ro", "rw", "nosuid", "nodev", "noexec"}
    for mount in wanted:
        _, options, kind, _ = found[places.index(mount["destination"])]
        if mount["type"] not in ("bind", "cgroup"):
            assert kind == mount["type"]
        words = set(mount.get("options", ()))
        assert words & (flags - {"rw"}) <= options, mount
        for size in (word.removeprefix("size=") for word in words if word.startswith("size=")):
            found_size = os.statvfs(seen.at(mount["destination"]))
            assert found_size.f_blocks * found_size.f_frsize == parse_size(size, "size"), mount
    kinds = {place: kind for place, _, kind, _ in found}
    assert [kinds[place] for place in ("/proc", "/dev/pts", "/dev/shm")] == ["proc", "devpts", "tmpfs"]
    assert kinds["/sys"] == "sysfs"


def test_devices(seen: Seen) -> None:
    default = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    expected = [{"path": f"/dev/{name}", "type": "c", "major": a, "minor": b} for name, a, b in default]
    for device in (*expected, *seen.linux["devices"]):
        info = os.stat(seen.at(device["path"]))
        assert (stat.S_ISCHR if device["type"] in "cu" else stat.S_ISBLK)(info.st_mode), device
        assert (os.major(info.st_rdev), os.minor(info.st_rdev)) == (device["major"], device["minor"])
        if "uidMappings" not in seen.linux:  # else they are the host's, bound there
            assert stat.S_IMODE(info.st_mode) == device.get("fileMode", 0o666)
            assert (info.st_uid, info.st_gid) == (device.get("uid", 0), device.get("gid", 0))
    links = {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
    }
    for name, target in links.items():
        assert os.readlink(seen.at(f"/dev/{name}")) == target
    assert os.readlink(seen.at("/dev/ptmx")) == "pts/ptmx"


def test_hidden_and_read_only_paths(seen: Seen) -> None:
    hidden = seen.linux.get("maskedPaths", [])
    assert bool(hidden) == (seen.name != "privileged")
    for path in hidden:
        script = f'[ ! -e {path} ] || [ -z "$(if [ -d {path} ]; then ls -A {path}; else cat {path}; fi 2>/dev/null)" ]'
        assert seen.inside("sh", "-c", script).returncode == 0, path
    places = {place: options for place, options, *_ in seen.mounts()}
    for path in seen.linux.get("readonlyPaths", []):
        if os.path.exists(seen.at(path)):
            assert "ro" in places[path], path
            script = f"f=$(find {path} -type f | head -n 1); : >>${{f:-{path}/new}}"
            assert seen.inside("sh", "-c", script).returncode != 0, path


def test_seccomp(seen: Seen) -> None:
    assert seen.status()["Seccomp"] == ("2" if "seccomp" in seen.linux else "0")
    if "seccomp" in seen.linux:
        assert "SCMP_ACT_ERRNO" in json.dumps(seen.linux["seccomp"]["defaultAction"])


def test_id_mappings(seen: Seen) -> None:
    for key, name in (("uidMappings", "uid_map"), ("gidMappings", "gid_map")):
        mapped = [tuple(map(int, line.split())) for line in seen.read(name).splitlines()]
        wanted = [(one["containerID"], one["hostID"], one["size"]) for one in seen.linux.get(key, ())]
        assert mapped == (
            wanted or [tuple(map(int, line.split())) for line in Path(f"/proc/self/{name}").read_text().splitlines()]
        )


def test_namespaces(seen: Seen) -> None:
    """A namespace without a path is a new one; one that is not listed is the caller's."""
    names = {"mount": "mnt", "network": "net"}
    listed = {names.get(one["type"], one["type"]): one.get("path") for one in seen.linux["namespaces"]}
    for kind in ("mnt", "pid", "ipc", "uts", "net", "user", "cgroup"):
        theirs, ours = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (seen.pid, "self"))
        if kind not in listed:
            assert theirs == ours, kind
        elif listed[kind] is None:
            assert theirs != ours, kind


def test_a_namespace_with_a_path_is_joined(started: Any) -> None:
    first = started("default")
    joined = Seen(first.limpet, "joined", ("--pid", f"container:{first.name}", "--network", f"container:{first.name}"))
    paths = {one["type"]: one["path"] for one in joined.linux["namespaces"] if "path" in one}
    assert "pid" in paths
    for kind, path in paths.items():
        name = {"network": "net", "mount": "mnt"}.get(kind, kind)
        assert os.readlink(f"/proc/{joined.pid}/ns/{name}") == os.readlink(path)


def test_control_groups(started: Any) -> None:
    seen = started("rich")
    resources = seen.linux["resources"]
    assert os.path.basename(seen.linux["cgroupsPath"]) == seen.id
    files = {
        "memory": ("memory.max", "memory.limit_in_bytes", str(resources["memory"]["limit"])),
        "pids": ("pids.max", "pids.max", str(resources["pids"]["limit"])),
        "cpu": ("cpu.max", "cpu.cfs_quota_us", str(resources["cpu"]["quota"])),
    }
    for controller, (new, old, value) in files.items():
        place = controllers.path(seen.id, controller)
        if place is None:
            continue
        name = new if controllers.version(controller) == 2 else old
        assert Path(place, name).read_text().split()[0] == value
    group = cgroup.path(seen.id)
    assert group is None or seen.pid in cgroup.pids(group)
    # By the rules for devices, as root
    for device in ("/dev/null", "/dev/given"):
        assert seen.inside("sh", "-c", f": <{device}").returncode == 0
    assert seen.inside("sh", "-c", ": >/dev/null").returncode == 0
    assert seen.inside("sh", "-c", ": >/dev/given").returncode != 0


def test_life(started: Any) -> None:
    """create, start, state, kill, killsig, kill_no_effect, delete, delete_resources, config_updates_without_affect."""
    limpet = started("default").limpet
    script = "trap 'echo got usr1' USR1; trap 'exit 9' TERM; echo begun; while :; do sleep 0.05; done"
    limpet("create", "--name", "life", "busybox:test", "sh", "-c", script)
    container_id = limpet("inspect", "-f", "{{.Id}}", "life").stdout.strip()

    def state() -> str:
        return str(limpet("inspect", "-f", "{{.State.Status}}", "life").stdout.strip())

    def heard(text: str) -> None:
        end = time.monotonic() + 10
        while text not in limpet("logs", "life").stdout:
            assert time.monotonic() < end

    assert state() == "created"
    assert limpet("create", "--name", "life", "busybox:test", "true", check=False).returncode == 125  # an id is unique
    assert limpet("kill", "life", check=False).returncode == 1
    assert limpet("start", "nobody", check=False).returncode == 1
    limpet("start", "life")
    heard("begun")
    assert state() == "running"
    assert limpet("rm", "life", check=False).returncode == 1  # it is not stopped
    assert state() == "running"
    path = limpet.root / f"containers/{container_id}/config.json"
    config = json.loads(path.read_text())
    config["process"]["args"] = ["false"]
    path.write_text(json.dumps(config))  # a change after the creation has no effect
    limpet("kill", "-s", "USR1", "life")
    heard("got usr1")
    assert state() == "running"
    limpet("kill", "-s", "TERM", "life")
    assert limpet("wait", "life").stdout == "9\n"
    assert state() == "exited"
    assert limpet("kill", "life", check=False).returncode == 1
    limpet("start", "life")
    heard("begun\ngot usr1\nbegun")
    limpet("stop", "-t", "0", "life")
    limpet("rm", "life")
    assert limpet("inspect", "life", check=False).returncode == 1
    assert limpet("rm", "life", check=False).returncode == 1
    left = subprocess.run(["find", "/sys/fs/cgroup", "-name", container_id], capture_output=True, text=True, check=True)
    assert left.stdout == ""
