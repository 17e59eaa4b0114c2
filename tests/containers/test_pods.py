"""Pods: containers that share namespaces and live together, in Podman's manner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers.pod import infra, pods
from limpet.store.store import Store

LOOP = "while :; do sleep 0.05; done"


@pytest.fixture
def pod_limpet(limpet: Any, busybox: str) -> Any:
    """With the image, and without pods at the end."""
    yield limpet
    limpet("pod", "rm", "-f", "-a", check=False)


def namespace(limpet: Any, name: str, kind: str) -> str:
    pid = limpet("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def state(limpet: Any, pod: str) -> str:
    return str(limpet("pod", "inspect", "-f", "{{.State}}", pod).stdout.strip())


def wait_for(check: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_program_is_its_listing(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("objcopy")) or os.uname().machine != "x86_64":
        pytest.skip("needs GNU as for x86-64")
    lines = [line.partition(";")[2].partition("#")[0].rstrip() for line in infra._X86_64.splitlines()]
    (tmp_path / "pause.s").write_text("\n".join(lines) + "\n")
    subprocess.run(["as", "pause.s", "-o", "pause.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "pause.o", "pause.bin"], cwd=tmp_path, check=True)
    image = infra.program("x86_64")
    assert image is not None
    assert image.endswith((tmp_path / "pause.bin").read_bytes())
    assert infra.program("aarch64") is None


def test_what_is_shared(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    pod = limpet("pod", "create", "--share", "+pid", "--network", "none", "--infra-name", "hub", "web").stdout.strip()
    assert len(pod) == 64
    assert state(limpet, "web") == "Created"
    for name in ("one", "two"):
        limpet("run", "-d", "--pod", "web", "--name", name, busybox, "sleep", "1000")
    assert state(limpet, pod[:12]) == "Running"
    for kind in ("net", "ipc", "uts", "pid"):
        assert namespace(limpet, "one", kind) == namespace(limpet, "two", kind) == namespace(limpet, "hub", kind)
        assert namespace(limpet, "one", kind) != os.readlink(f"/proc/self/ns/{kind}")
    assert namespace(limpet, "one", "mnt") != namespace(limpet, "two", "mnt")
    assert limpet("exec", "one", "hostname").stdout == "web\n"
    limpet("exec", "one", "sh", "-c", "echo x > /dev/shm/from-one")
    assert limpet("exec", "two", "cat", "/dev/shm/from-one").stdout == "x\n"
    limpet("run", "-d", "--pod", "web", "--name", "server", busybox, "nc", "-l", "-p", "80")
    wait_for(lambda: ":0050 " in limpet("exec", "two", "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout)
    assert limpet("exec", "two", "cat", "/proc/1/comm").stdout == "limpet-init\n"
    found = json.loads(limpet("inspect", "one").stdout)[0]
    assert (found["Pod"], found["IsInfra"]) == (pod, False)
    # Nothing in the pod's idle part costs an interpreter.
    first = int(limpet("inspect", "-f", "{{.State.Pid}}", "hub").stdout)
    rss = next(line for line in Path(f"/proc/{first}/status").read_text().splitlines() if line.startswith("VmRSS"))
    assert int(rss.split()[1]) < 300
    # Without the infra container's namespaces a container can't start: it is started first.
    limpet("pod", "stop", "-t", "0", "web")
    assert state(limpet, "web") == "Exited"
    limpet("start", "two")
    assert state(limpet, "web") == "Degraded"
    assert namespace(limpet, "two", "net") == namespace(limpet, "hub", "net")


def test_a_user_has_the_last_word_but_for_the_network(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    limpet("pod", "create", "--hostname", "other", "--add-host", "db:10.0.0.1", "--dns", "10.0.0.2", "web")
    script = "hostname; readlink /proc/self/ns/ipc; readlink /proc/self/ns/net; cat /etc/hosts /etc/resolv.conf"
    options = ["--pod", "web", "--ipc", "private", "--uts", "private", "-h", "mine"]
    own = limpet("run", "--rm", *options, busybox, "sh", "-c", script)
    name, ipc, net, *rest = own.stdout.splitlines()
    assert name == "mine"
    holder = limpet("pod", "inspect", "-f", "{{.InfraContainerID}}", "web").stdout.strip()
    assert ipc != namespace(limpet, holder, "ipc")
    assert net == os.readlink("/proc/self/ns/net")  # the host's is the pod's
    assert "10.0.0.1\tdb" in rest
    assert "nameserver 10.0.0.2" in rest
    more = ["--add-host", "cache:10.0.0.3", "--pod", "web"]
    shown = limpet("run", "--rm", *more, busybox, "sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf").stdout
    assert {"other", "10.0.0.1\tdb", "10.0.0.3\tcache", "nameserver 10.0.0.2"} <= set(shown.splitlines())
    for options, said in (
        (["--network", "none"], "the network of a container in a pod is that of pod web"),
        (["-h", "x"], "the name is the other container's"),
        (["--pod-id-file", "/nonexistent"], "--pod and --pod-id-file"),
    ):
        result = limpet("create", "--pod", "web", *options, busybox, "true", check=False)
        assert (result.returncode, said in result.stderr) == (125, True), result.stderr
    result = limpet("run", "--pod", "wbe", busybox, "true", check=False)
    assert (result.returncode, result.stderr) == (125, "limpet: No such pod: wbe\ndid you mean web?\n")


def test_a_pod_on_the_hosts_network_has_one_address(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    limpet("pod", "create", "--infra-name", "hub", "web")
    limpet("run", "-d", "--pod", "web", "--name", "server", busybox, "nc", "-l", "-p", "80")
    address = limpet("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "hub").stdout.strip()
    if not address.startswith("127."):
        pytest.skip("needs a kernel that gives containers addresses of their own")
    bound = b"".join(int(part).to_bytes(1, "little") for part in reversed(address.split("."))).hex().upper()
    wait_for(lambda: f"{bound}:0050 " in Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text())


def test_limits_hold_for_all_together(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    limpet("pod", "create", "--pids-limit", "20", "-m", "64m", "--cpus", "0.5", "--infra-name", "hub", "web")
    limpet("run", "-d", "--pod", "web", "--name", "one", busybox, "sleep", "1000")
    grow = "for i in $(seq 12); do sleep 3 & done; wait"
    limpet("exec", "-d", "one", "sh", "-c", grow)
    limpet("run", "-d", "--pod", "web", "--name", "two", busybox, "sh", "-c", grow)
    wait_for(lambda: "fork" in limpet("logs", "two").stderr)
    found = json.loads(limpet("pod", "inspect", "web").stdout)[0]
    assert (found["PidsLimit"], found["Memory"], found["NanoCpus"]) == (20, 64 << 20, 5 * 10**8)
    process = int(limpet("inspect", "-f", "{{.State.Pid}}", "one").stdout)
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        number, names, place = line.split(":", 2)
        if {"cpu", "memory", "pids"} & set(names.split(",")) or number == "0":
            assert found["CgroupParent"] in place, line
    assert groups(f"pod-{found['Id'][:12]}")
    limpet("pod", "rm", "-f", "web")
    assert not groups(f"pod-{found['Id'][:12]}")


def groups(name: str) -> set[str]:
    return {str(path) for path in Path("/sys/fs/cgroup").glob(f"**/limpet/{name}*") if path.is_dir()}


def test_published_ports_are_the_pods(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    limpet("pod", "create", "-p", "127.0.0.1::80", "--infra-name", "hub", "web")
    serve = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nserved' | nc -l -p 80; done"
    limpet("run", "-d", "--pod", "web", busybox, "sh", "-c", serve)
    port = limpet("port", "hub", "80").stdout.strip()
    command = ["curl", "-s", "-m", "5", f"http://{port}/"]
    wait_for(lambda: subprocess.run(command, capture_output=True, text=True).stdout == "served")
    result = limpet("create", "--pod", "web", "-p", "81:81", busybox, "true", check=False)
    assert (result.returncode, "limpet pod create -p" in result.stderr) == (125, True)


def test_the_pods_volumes_and_devices_are_everyones(pod_limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet = pod_limpet
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown/file").touch()
    limpet(
        "pod",
        "create",
        "-v",
        "data:/data",
        "-v",
        f"{tmp_path}/shown:/host:ro",
        "--device",
        "/dev/zero:/dev/nothing",
        "web",
    )
    limpet("run", "--rm", "--pod", "web", busybox, "sh", "-c", "echo kept > /data/x; test -c /dev/nothing")
    shown = limpet(
        "run", "--rm", "--pod", "web", busybox, "sh", "-c", "cat /data/x; ls /host; touch /host/y", check=False
    )
    assert shown.stdout == "kept\nfile\n"
    assert "Read-only" in shown.stderr
    limpet("pod", "rm", "-f", "web")
    assert limpet("volume", "ls", "-q").stdout == "data\n"


def test_the_life_of_a_pod(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    limpet("pod", "create", "--label", "stage=test", "web")
    script = f"trap 'echo usr1' USR1; echo up; {LOOP}"
    for name in ("one", "two"):
        limpet("run", "-d", "--pod", "web", "--name", name, busybox, "sh", "-c", script)
        wait_for(lambda name=name: "up" in limpet("logs", name).stdout)
    identity = limpet("pod", "ls", "-q", "--no-trunc").stdout
    assert limpet("pod", "pause", "web").stdout == identity
    assert state(limpet, "web") == "Paused"
    assert limpet("pod", "unpause", "web").stdout == identity
    assert limpet("pod", "unpause", "web", check=False).returncode == 1
    limpet("pod", "kill", "-s", "USR1", "web")
    wait_for(lambda: limpet("pod", "logs", "--names", "web").stdout.count(" usr1\n") == 2)
    assert sorted(limpet("pod", "logs", "-n", "web").stdout.split("\n"))[1:] == [
        "one up", "one usr1", "two up", "two usr1",
    ]  # fmt: skip
    assert limpet("pod", "logs", "-c", "one", "web").stdout == "up\nusr1\n"
    assert state(limpet, "web") == "Running"  # the infra container did not get it
    top = limpet("pod", "top", "web").stdout
    assert "CONTAINER" in top.splitlines()[0]
    assert {line.split()[7] for line in top.splitlines()[1:]} >= {"one", "two"}
    assert " /pause" in top
    assert "PID" in limpet("pod", "top", "web", "-o", "pid,comm").stdout
    stats = limpet("pod", "stats", "--no-stream", "--format", "{{.PodName}} {{.Name}}", "web").stdout.splitlines()
    assert len(stats) == 3
    assert "web one" in stats
    began = limpet("inspect", "-f", "{{.State.StartedAt}}", "one").stdout
    assert limpet("pod", "restart", "-t", "0", "web").stdout == identity
    assert limpet("inspect", "-f", "{{.State.StartedAt}}", "one").stdout > began
    for text, shown in (
        ("status=running", "web\n"), ("status=exited", ""), ("label=stage=test", "web\n"), ("label=other", ""),
        ("ctr-names=two", "web\n"), ("ctr-number=3", "web\n"), ("name=we", "web\n"), ("ctr-status=exited", ""),
    ):  # fmt: skip
        assert limpet("pod", "ps", "-f", text, "--format", "{{.Name}}").stdout == shown, text
    assert limpet("pod", "ls", "-f", "x=y", check=False).returncode == 1
    assert limpet("ps", "--pod", "-f", "pod=web", "--format", "{{.Names}} {{.PodName}}").stdout.count(" web\n") == 3
    assert "PODNAME" in limpet("ps", "--pod").stdout
    assert limpet("pod", "exists", "web").returncode == 0
    assert limpet("pod", "exists", "nosuch", check=False).returncode == 1
    assert limpet("pod", "prune", "-f").stdout == ""
    limpet("pod", "stop", "-t", "0", "--all")
    assert state(limpet, "web") == "Exited"
    assert limpet("pod", "kill", "web", check=False).returncode == 1
    actions = limpet("events", "--since", "1h", "--until", "0s", "-f", "pod=web", "--format", "{{.Action}}").stdout
    assert actions.split() == ["create", "pause", "unpause", "kill", "stop", "start", "stop"]
    assert limpet("pod", "prune", "-f").stdout == identity
    assert limpet("ps", "-aq").stdout == ""


@pytest.mark.parametrize("remove", [(), ("--rm",)])
def test_a_pod_that_ends_with_its_last_container(pod_limpet: Any, busybox: str, remove: tuple[str, ...]) -> None:
    limpet = pod_limpet
    limpet("pod", "create", "--exit-policy", "stop", "--infra-name", "hub", "job")
    for name in ("one", "two", "three"):
        limpet("run", "-d", *remove, "--pod", "job", "--name", name, busybox, "sleep", "1000")
    limpet("kill", "one")
    time.sleep(0.5)
    assert limpet("inspect", "-f", "{{.State.Status}}", "hub").stdout == "running\n"
    limpet("kill", "two", "three")  # both at once: the later one sees that it is the last
    wait_for(lambda: limpet("inspect", "-f", "{{.State.Status}}", "hub").stdout == "exited\n")
    assert state(limpet, "job") == "Exited"


def test_a_container_that_brings_its_pod_along(pod_limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet = pod_limpet
    limpet("run", "-d", "--pod", "new:web", "-h", "front", "--name", "one", busybox, "sleep", "1000")
    assert limpet("exec", "one", "hostname").stdout == "front\n"
    assert limpet("pod", "ls", "--format", "{{.Name}} {{.Status}} {{.NumberOfContainers}}").stdout == "web Running 2\n"
    result = limpet("run", "-d", "--pod", "new:other", "-v", "/nonexistent:/x", busybox, "true", check=False)
    assert result.returncode == 125
    result = limpet("run", "-d", "--pod", "new:web", busybox, "true", check=False)
    assert (result.returncode, "the name web is already in use" in result.stderr) == (125, True)
    assert limpet("pod", "ls", "--format", "{{.Name}}").stdout == "web\n"
    file = tmp_path / "id"
    limpet("pod", "create", "--pod-id-file", file, "--name", "third")
    assert limpet("run", "--rm", "--pod-id-file", file, busybox, "hostname").stdout == "third\n"
    assert limpet("pod", "create", "--pod-id-file", file, check=False).returncode == 1
    before = file.read_text()
    assert limpet("pod", "create", "--replace", "third").stdout.strip() != before
    assert limpet("pod", "create", "one", check=False).returncode != 0  # a container has the name
    limpet("pod", "rm", "-f", "-i", "third", "nosuch", "--pod-id-file", "/dev/null", check=False)
    assert limpet("pod", "exists", "third", check=False).returncode == 1


def test_what_runs_is_not_removed_unasked(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    limpet("run", "-d", "--pod", "new:web", "--name", "one", busybox, "sleep", "1000")
    holder = limpet("pod", "inspect", "-f", "{{.InfraContainerID}}", "web").stdout.strip()
    result = limpet("pod", "rm", "web", check=False)
    assert (result.returncode, "pod web has containers that run: one" in result.stderr) == (1, True)
    limpet("stop", "-t", "0", holder, "one")
    result = limpet("rm", holder, check=False)
    assert result.returncode == 1
    assert "is the infra container of pod web: it goes with the pod" in result.stderr
    for what in ("container", "system"):
        result = limpet(what, "prune", "-f")
        assert "infra" not in result.stdout + result.stderr
    assert limpet("pod", "inspect", "-f", "{{.NumContainers}}", "web").stdout == "1\n"  # as ordinary ones go
    limpet("pod", "start", "web")
    limpet("rm", "-f", holder)  # so that `rm -f $(limpet ps -aq)` leaves nothing
    assert limpet("pod", "exists", "web", check=False).returncode == 1
    assert limpet("ps", "-aq").stdout == ""


def test_pods_that_share_nothing(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    limpet("pod", "create", "--infra=false", "plain")
    limpet("run", "-d", "--pod", "plain", "--name", "one", busybox, "sleep", "1000")
    assert namespace(limpet, "one", "uts") != os.readlink("/proc/self/ns/uts")
    assert limpet("pod", "inspect", "-f", "{{.NumContainers}} {{.State}}", "plain").stdout == "1 Running\n"
    limpet("pod", "create", "--share", "none", "--infra-image", busybox, "--infra-command", "sleep 1000", "image")
    limpet("pod", "start", "image")
    assert state(limpet, "image") == "Running"
    for bad, said in (
        (["--share", "net,time"], "a pod can't share 'time'"),
        (["--infra=false", "--share", "net"], "shares nothing"),
        (["--restart", "often"], "invalid restart policy"),
        (["--network", "moon"], "moon"),
        (["--name", "x/y"], "invalid pod name"),
        (["--infra-image", "nosuch"], "No such image"),
        (["--exit-policy", "leave"], "one of continue, stop"),
    ):
        result = limpet("pod", "create", *bad, check=False)
        assert result.returncode != 0
        assert said in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
    assert limpet("pod", "ls", "-q").stdout.count("\n") == 2


@pytest.mark.parametrize("point", ["pod-row", "container-row", "container-directory"])
def test_a_kill_while_a_pod_is_made_leaves_one_that_works(pod_limpet: Any, busybox: str, point: str) -> None:
    limpet = pod_limpet
    environment = {**limpet.environment, "LIMPET_FAULT": f"kill:{point}:1"}
    result = subprocess.run([*limpet.command, "pod", "create", "web"], env=environment, capture_output=True)
    assert result.returncode == -9
    assert limpet("run", "--rm", "--pod", "web", busybox, "hostname").stdout == "web\n"
    assert limpet("pod", "inspect", "-f", "{{.NumContainers}}", "web").stdout == "1\n"
    environment = {**limpet.environment, "LIMPET_FAULT": "kill:pod-members-gone:1"}
    subprocess.run([*limpet.command, "pod", "rm", "-f", "web"], env=environment, capture_output=True)
    limpet("pod", "rm", "-f", "web")
    assert limpet("pod", "ls", "-q").stdout == ""


def test_a_copy_of_a_container_is_in_the_pod_too(pod_limpet: Any, busybox: str) -> None:
    limpet = pod_limpet
    limpet("pod", "create", "--network", "none", "-v", "data:/data", "--add-host", "db:10.0.0.1", "web")
    limpet(
        "create", "--pod", "web", "--name", "one", busybox, "sh", "-c", "hostname; grep -c db /etc/hosts; ls -d /data"
    )
    limpet("copy", "one", "two")
    assert limpet("start", "-a", "two").stdout == "web\n1\n/data\n"


def test_statuses() -> None:
    class Fake:
        def __init__(self, state: str) -> None:
            self.status = self
            self.state = state

    for states, expected in (
        ("", "Created"), ("created created", "Created"), ("running running", "Running"), ("running exited", "Degraded"),
        ("exited exited", "Exited"), ("exited created", "Stopped"), ("paused paused", "Paused"),
        ("running restarting", "Running"),
    ):  # fmt: skip
        assert pods.status([Fake(each) for each in states.split()]) == expected  # type: ignore[arg-type]


def test_a_store_of_before_gets_the_table(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), str(tmp_path / "run"))
    with store.db.transaction():
        store.db.run("DROP TABLE pod")
        store.db.run("PRAGMA user_version=3")
    store.db.close()
    assert pods.all_pods(Store(str(tmp_path / "store"), str(tmp_path / "run"))) == []
