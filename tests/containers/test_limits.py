"""Limits hold: against programs that want more than they may have, at start, by `update`, in `exec`, under runc too."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import state
from limpet.containers.options import Options
from limpet.containers.plan import limits
from limpet.errors import Invalid, Refused
from limpet.kernel import cgroup, controllers
from limpet.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        cgroup.root() is None or not all(map(controllers.version, controllers.NAMES)),
        reason="needs the controllers memory, pids, io, cpu and cpuset",
    ),
]
HOG = "tail /dev/zero"  # keeps the last line, which never ends
RUNTIMES = [
    "limpet",
    pytest.param("runc", marks=pytest.mark.skipif(not os.path.exists("/usr/sbin/runc"), reason="runc")),
]


def inspected(limpet: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(limpet("inspect", name).stdout)[0]
    return found


def read(limpet: Any, name: str, controller: str, *files: str) -> str:
    """A file of the container's group, under its name in either version."""
    container = state.find(Store(str(limpet.root), f"{limpet.root}/run"), name)
    directory = Path(str(controllers.path(container.id, controller)))
    return next((directory / file).read_text().strip() for file in files if (directory / file).exists())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_memory_hog_is_killed(limpet: Any, busybox: str, runtime: str) -> None:
    result = limpet("run", "--runtime", runtime, "--name", "hog", "-m", "20m", busybox, "sh", "-c", HOG, check=False)
    assert result.returncode == 137
    assert "was out of memory, and the kernel killed it" in result.stderr
    gone = limpet("run", "--rm", "--memory", "20m", busybox, "sh", "-c", HOG, check=False)
    assert "was out of memory, and the kernel killed it" in gone.stderr
    found = inspected(limpet, "hog")
    assert (found["State"]["ExitCode"], found["State"]["OOMKilled"]) == (137, True)
    assert found["HostConfig"]["Memory"] == 20 << 20
    assert found["HostConfig"]["MemorySwap"] == 40 << 20
    assert limpet("ps", "-a", "--format", "{{.Status}}").stdout.endswith("ago (out of memory)\n")
    limpet("run", "--runtime", runtime, "--name", "other", "-m", "20m", busybox, "true")
    assert inspected(limpet, "other")["State"]["OOMKilled"] is False


def test_a_child_that_is_killed_for_memory_does_not_end_the_container(limpet: Any, busybox: str) -> None:
    limpet("run", "-m", "20m", "--name", "two", busybox, "sh", "-c", f"{HOG}; exit 3", check=False)
    assert inspected(limpet, "two")["State"] | {"ExitCode": 3, "OOMKilled": True} == inspected(limpet, "two")["State"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_fork_bomb_stays_small(limpet: Any, busybox: str, runtime: str) -> None:
    script = "sh -c 'for i in $(seq 50); do sleep 100 & done'; sleep 1000"
    limpet("run", "-d", "--runtime", runtime, "--name", "bomb", "--pids-limit", "12", busybox, "sh", "-c", script)
    end = time.monotonic() + 10
    while "can't fork" not in limpet("logs", "bomb").stderr:
        assert time.monotonic() < end
    assert int(read(limpet, "bomb", "pids", "pids.current")) <= 12
    assert read(limpet, "bomb", "pids", "pids.events").startswith("max ")
    limpet("rm", "-f", "bomb")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_burner_gets_its_share(limpet: Any, busybox: str, runtime: str) -> None:
    """By what the kernel counted: periods in which it was stopped, and time that it had of each."""
    burn = "while :; do :; done"
    limpet("run", "-d", "--runtime", runtime, "--name", "burn", "--cpus", "0.2", busybox, "sh", "-c", burn)
    statistics: dict[str, int] = {}
    end = time.monotonic() + 20
    while statistics.get("nr_throttled", 0) < 8:
        assert time.monotonic() < end
        statistics = {k: int(v) for k, v in map(str.split, read(limpet, "burn", "cpu", "cpu.stat").splitlines())}
    used = {
        k: int(v) for k, v in map(str.split, (Path(str(group(limpet, "burn"))) / "cpu.stat").read_text().splitlines())
    }
    # 20 ms of each period of 100; the first one or two are those of the start.
    assert used["usage_usec"] <= 20_000 * (statistics["nr_periods"] + 4)


def group(limpet: Any, name: str) -> str | None:
    return cgroup.path(state.find(Store(str(limpet.root), f"{limpet.root}/run"), name).id)


def test_exec_is_inside_the_limits(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", "-m", "20m", "--pids-limit", "9", busybox, "sleep", "1000")
    assert limpet("exec", "web", "sh", "-c", HOG, check=False).returncode == 137
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done; wait"
    assert "can't fork" in limpet("exec", "web", "sh", "-c", script, check=False).stderr
    assert inspected(limpet, "web")["State"]["Running"] is True


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_update_of_a_running_container(limpet: Any, busybox: str, runtime: str) -> None:
    limpet("run", "-d", "--runtime", runtime, "--name", "web", busybox, "sleep", "1000")
    options = ("-m", "30m", "--cpus", "0.5", "--pids-limit", "44", "--cpuset-cpus", "0", "--cpu-shares", "512")
    assert limpet("update", *options, "web").stdout == "web\n"
    assert read(limpet, "web", "memory", "memory.max", "memory.limit_in_bytes") == str(30 << 20)
    assert read(limpet, "web", "pids", "pids.max") == "44"
    assert read(limpet, "web", "cpu", "cpu.max", "cpu.cfs_quota_us").split()[0] == "50000"
    assert read(limpet, "web", "cpuset", "cpuset.cpus") == "0"
    assert limpet("exec", "web", "nproc").stdout == "1\n"
    pid = inspected(limpet, "web")["State"]["Pid"]
    assert os.sched_getaffinity(pid) == {0}
    assert limpet("exec", "web", "sh", "-c", HOG, check=False).returncode == 137
    limpet("update", "-m", "200m", "web")
    assert read(limpet, "web", "memory", "memory.max", "memory.limit_in_bytes") == str(200 << 20)
    limpet("restart", "-t", "2", "web")
    assert read(limpet, "web", "memory", "memory.max", "memory.limit_in_bytes") == str(200 << 20)
    found = inspected(limpet, "web")["HostConfig"]
    assert (found["NanoCpus"], found["PidsLimit"], found["CpusetCpus"]) == (5 * 10**8, 44, "0")


def test_update_takes_limits_away(limpet: Any, busybox: str) -> None:
    limits = (
        "-m",
        "64m",
        "--memory-swap",
        "80m",
        "--memory-reservation",
        "32m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
    )
    limpet("run", "-d", "--name", "web", *limits, "--pids-limit", "44", busybox, "sleep", "1000")
    limpet("update", "--memory", "0", "--cpus", "0", "--pids-limit", "0", "--cpu-shares", "0", "web")
    assert read(limpet, "web", "memory", "memory.max", "memory.limit_in_bytes") in ("max", str((1 << 63) - 4096))
    if controllers.version("memory") == 1 and controllers.counts_swap():
        assert read(limpet, "web", "memory", "memory.memsw.limit_in_bytes") == str((1 << 63) - 4096)
    assert read(limpet, "web", "cpu", "cpu.max", "cpu.cfs_quota_us").split()[0] in ("max", "-1")
    assert read(limpet, "web", "pids", "pids.max") == "max"
    if controllers.version("cpu") == 1:
        assert read(limpet, "web", "cpu", "cpu.shares") == "1024"
    found = inspected(limpet, "web")["HostConfig"]
    assert (found["Memory"], found["MemorySwap"], found["NanoCpus"], found["CpuShares"]) == (0, 0, 0, 0)
    assert found["MemoryReservation"] == 32 << 20  # nothing was said of it
    limpet("update", "--memory-reservation", "0", "--cpu-quota", "30000", "web")  # --cpus is no more in its way
    limpet("restart", "-t", "0", "web")
    assert read(limpet, "web", "memory", "memory.max", "memory.limit_in_bytes") in ("max", str((1 << 63) - 4096))
    assert read(limpet, "web", "cpu", "cpu.max", "cpu.cfs_quota_us").split()[0] == "30000"


def test_update_holds_when_the_monitor_restarts_the_container(limpet: Any, busybox: str) -> None:
    script = "while [ ! -e /go ]; do sleep 0.02; done; rm /go; exit 1"
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", script)
    assert limpet("update", "--restart", "on-failure:1", "-m", "64m", "web").stdout == "web\n"
    limpet("exec", "web", "touch", "/go")
    end = time.monotonic() + 10
    while inspected(limpet, "web")["RestartCount"] != 1 or not inspected(limpet, "web")["State"]["Running"]:
        assert time.monotonic() < end
    assert read(limpet, "web", "memory", "memory.max", "memory.limit_in_bytes") == str(64 << 20)
    limpet("exec", "web", "touch", "/go")
    assert limpet("wait", "web").stdout == "1\n"


def test_update_of_one_that_does_not_run_is_kept(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "job", "-m", "50m", busybox, "sh", "-c", HOG)
    limpet("update", "--memory", "20m", "job")
    assert limpet("start", "-a", "job", check=False).returncode == 137
    assert inspected(limpet, "job")["HostConfig"]["Memory"] == 20 << 20


def test_what_update_refuses(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "web", "--cpus", "0.5", "-m", "50m", "--memory-swap", "60m", busybox, "true")
    for options, words in (
        (("--cpu-quota", "20000"), "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"),
        (("-m", "70m"), "Memory limit should be smaller than already set memoryswap limit"),
        (("-m", "1m"), "Minimum memory limit allowed is 6MB"),
        ((), "You must provide one or more flags when using this command."),
    ):
        result = limpet("update", *options, "web", check=False)
        assert result.returncode == 1
        assert result.stderr.startswith(f"limpet: {words}")
    limpet("run", "--rm", "-d", "--name", "gone", busybox, "sleep", "100")
    assert "AutoRemove is enabled" in limpet("update", "--restart", "always", "gone", check=False).stderr


def test_a_limit_below_what_is_used_is_refused_and_not_kept(limpet: Any, busybox: str) -> None:
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=30 2>/dev/null; echo full; sleep 1000"
    limpet("run", "-d", "--name", "web", "-m", "60m", "--memory-swap", "60m", busybox, "sh", "-c", script)
    end = time.monotonic() + 10
    while "full" not in limpet("logs", "web").stdout:
        assert time.monotonic() < end
    result = limpet("update", "-m", "10m", "--memory-swap", "10m", "web", check=False)
    if controllers.version("memory") == 1:  # version 2 takes it, and kills
        assert (result.returncode, "memory.limit_in_bytes" in result.stderr) == (1, True)
        assert inspected(limpet, "web")["HostConfig"]["Memory"] == 60 << 20
        assert read(limpet, "web", "memory", "memory.limit_in_bytes") == str(60 << 20)


def test_block_devices(limpet: Any, busybox: str) -> None:
    device = next((f"/dev/{name}" for name in os.listdir("/sys/block") if os.path.exists(f"/dev/{name}")), None)
    if device is None:
        pytest.skip("needs a block device")
    number = os.stat(device).st_rdev
    options = ("--device-read-bps", f"{device}:1mb", "--device-write-iops", f"{device}:70")
    limpet("run", "-d", "--name", "web", *options, busybox, "sleep", "1000")
    which = f"{os.major(number)}:{os.minor(number)}"
    if controllers.version("io") == 1:
        assert read(limpet, "web", "io", "blkio.throttle.read_bps_device") == f"{which} {1 << 20}"
        assert read(limpet, "web", "io", "blkio.throttle.write_iops_device") == f"{which} 70"
    else:
        assert f"{which} rbps={1 << 20}" in read(limpet, "web", "io", "io.max")
    assert inspected(limpet, "web")["HostConfig"]["BlkioDeviceReadBps"] == [{"Path": device, "Rate": 1 << 20}]
    limpet("update", "--device-read-bps", f"{device}:2mb", "--device-write-iops", f"{device}:0", "web")
    if controllers.version("io") == 1:
        assert read(limpet, "web", "io", "blkio.throttle.read_bps_device") == f"{which} {2 << 20}"
        assert read(limpet, "web", "io", "blkio.throttle.write_iops_device") == ""
    else:
        assert read(limpet, "web", "io", "io.max").split() == [
            which,
            f"rbps={2 << 20}",
            "wbps=max",
            "riops=max",
            "wiops=max",
        ]
    assert inspected(limpet, "web")["HostConfig"]["BlkioDeviceReadBps"] == [{"Path": device, "Rate": 2 << 20}]
    assert inspected(limpet, "web")["HostConfig"]["BlkioDeviceWriteIOps"] == []
    result = limpet("run", "--rm", "--device-read-bps", "/dev/null:1mb", busybox, "true", check=False)
    assert (result.returncode, result.stderr) == (125, "limpet: --device-read-bps /dev/null: not a block device\n")


def test_no_group_is_left_and_those_of_others_stay(limpet: Any, busybox: str) -> None:
    hierarchy = Path("/sys/fs/cgroup/memory")
    if not hierarchy.is_dir():
        pytest.skip("needs the memory hierarchy of version 1")
    other = hierarchy / f"limpet-test-{os.getpid()}"
    other.mkdir()
    try:
        limpet("run", "--name", "web", "-m", "30m", "--cpus", "0.5", "--cpuset-cpus", "0", busybox, "true")
        container = inspected(limpet, "web")["Id"]
        assert list(Path("/sys/fs/cgroup").glob(f"**/limpet/{container}")) == []
        assert other.is_dir()
    finally:
        other.rmdir()


def test_the_plan_has_the_resources(limpet: Any, busybox: str) -> None:
    limpet("run", "--name", "web", "-m", "30m", "--cpus", "1.5", "--pids-limit", "100", busybox, "true")
    container = inspected(limpet, "web")["Id"]
    plan = json.loads((Path(limpet.root) / "containers" / container / "config.json").read_text())
    resources = {name: section for name, section in plan["linux"]["resources"].items() if name != "devices"}
    assert resources == {
        "memory": {"limit": 30 << 20, "swap": 60 << 20},
        "cpu": {"quota": 150_000, "period": 100_000},
        "pids": {"limit": 100},
    }


def given(**said: Any) -> limits.Limits:
    return limits.parse(lambda name: said.get(name.replace("-", "_")))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"memory": "5m"}, "Minimum memory limit allowed is 6MB"),
        ({"memory_reservation": "5m"}, "Minimum memory reservation allowed is 6MB"),
        ({"memory": "9m", "memory_swap": "8m"}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"memory_swap": "8m"}, "You should always set the Memory limit when using Memoryswap limit"),
        ({"memory": "9m", "memory_reservation": "10m"}, "Minimum memory limit can not be less than memory reservation"),
        ({"memory_swappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"cpus": "10000"}, "Range of CPUs is from 0.01 to"),
        ({"cpus": "0.001"}, "Range of CPUs is from 0.01 to"),
        ({"cpus": "-1"}, "invalid value '-1' for --cpus"),
        ({"cpus": "0.1234567891"}, "value '0.1234567891' for --cpus is too precise"),
        ({"cpus": "1", "cpu_period": 9000}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        ({"cpu_period": 999}, "CPU cfs period can not be less than 1ms"),
        ({"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms"),
        ({"cpu_shares": -1}, "invalid CPU shares (-1)"),
        ({"cpuset_cpus": "0,x"}, "Invalid value 0,x for cpuset cpus"),
        ({"cpuset_cpus": "0-99999999999"}, "Invalid value"),
        ({"cpuset_cpus": "4095"}, "Requested CPUs are not available - requested 4095, available: "),
        ({"cpuset_mems": "77"}, "Requested memory nodes are not available - requested 77"),
        ({"blkio_weight": 9}, "Range of blkio weight is from 10 to 1000"),
        ({"pids_limit": -2}, "invalid pids limit -2"),
        ({"device_read_bps": ["/dev/vda"]}, "bad format: /dev/vda"),
        ({"device_read_bps": ["sda:1mb"]}, "bad format for device path: sda:1mb"),
        ({"device_read_bps": ["/dev/sda:x"]}, "invalid rate for device: /dev/sda:x"),
        ({"device_read_iops": ["/dev/sda:1mb"]}, "invalid IO/s rate for device: /dev/sda:1mb"),
        ({"blkio_weight_device": ["/dev/sda:5"]}, "invalid weight for device: /dev/sda:5"),
    ],
)
def test_dockers_checks(said: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        limits.check(given(**said))
    assert caught.value.message.startswith(words)


def test_a_weight_that_nothing_acts_by_is_refused() -> None:
    schedulers = [path.read_text() for path in Path("/sys/block").glob("*/queue/scheduler")]
    costs = Path("/sys/fs/cgroup/io.cost.qos")  # there with version 2, and empty until somebody sets a model
    if any("[bfq]" in text for text in schedulers) or (costs.exists() and "enable=1" in costs.read_text()):
        limits.check(given(blkio_weight=300))
    else:
        with pytest.raises(Refused, match="bfq"):
            limits.check(given(blkio_weight=300))


def test_nothing_said_is_nothing_kept() -> None:
    assert given(memory="0", cpus="0", pids_limit=0, cpuset_cpus="", device_read_bps=[]) == {}
    found = given(memory="1g", memory_swap="-1", memory_swappiness=0, cpus="1.5", cpu_shares=2)
    assert found == {"memory": 1 << 30, "memory-swap": -1, "memory-swappiness": 0, "cpus": 15 * 10**8, "cpu-shares": 2}
    assert Options.from_json(Options(limits=found).to_json()).limits == found
    assert limits.resources(found)["memory"] == {"limit": 1 << 30, "swap": -1, "swappiness": 0}


def test_what_a_killed_monitor_left_goes(limpet: Any, busybox: str) -> None:
    """Its groups, in all hierarchies, at the next start, by `rm`, and of a container that is no more by `prune`."""
    store = Store(str(limpet.root), f"{limpet.root}/run")
    ids = {}
    for name in ("again", "removed", "lost"):
        limpet("run", "-d", "--name", name, "-m", "30m", "--cpus", "0.5", busybox, "sleep", "1000")
        container = state.find(store, name)
        ids[name] = container.id
        os.kill(state.status(store, container).monitor, signal.SIGKILL)
        while state.monitored(store, container.id):
            time.sleep(0.005)
        assert groups(container.id)
    limpet("start", "again")
    assert read(limpet, "again", "memory", "memory.max", "memory.limit_in_bytes") == str(30 << 20)
    limpet("rm", "-f", "again", "removed")
    assert groups(ids["again"]) == groups(ids["removed"]) == []
    with store.db.transaction():
        store.db.run("DELETE FROM container WHERE id = ?", ids["lost"])
    store.close()
    limpet("container", "prune", "-f")
    assert groups(ids["lost"]) == []


def groups(container_id: str) -> list[Path]:
    places = (f"**/limpet/{container_id}", f"limpet.slice/limpet-{container_id}.scope")
    return [found for place in places for found in Path("/sys/fs/cgroup").glob(place)]
