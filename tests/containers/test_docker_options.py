"""Options that Docker's users type daily, each seen in a running container."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from limpet.containers.network import ports
from limpet.containers.options import Options
from limpet.containers.plan import hostfiles, sharing
from limpet.errors import Invalid

if TYPE_CHECKING:
    from tests.conftest import Runner

pytestmark = pytest.mark.slow


def test_expose(limpet: Runner, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", "--expose", "80", "--expose", "8000-8002/udp", busybox, "sleep", "1000")
    limpet("create", "--name", "other", busybox, "true")
    own = limpet("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").stdout.strip()
    shown = ", ".join(f"{own}:{port}" for port in ("80/tcp", "8000/udp", "8001/udp", "8002/udp")) + "\n"
    assert limpet("ps", "--format", "{{.Ports}}").stdout == shown
    assert limpet("ps", "-a", "-f", "expose=8001/udp", "--format", "{{.Names}}").stdout == "web\n"
    assert limpet("ps", "-a", "-f", "expose=79-81", "--format", "{{.Names}}").stdout == "web\n"
    assert limpet("ps", "-a", "-f", "expose=8001", "--format", "{{.Names}}").stdout == ""
    limpet("commit", "web", "made:1")
    found = json.loads(limpet("image", "inspect", "made:1").stdout)[0]["Config"]["ExposedPorts"]
    assert sorted(found) == ["80/tcp", "8000/udp", "8001/udp", "8002/udp"]
    for bad in ("x", "80/icmp", "9-8", "70000", "", "80/"):
        assert limpet("create", "--expose", bad, busybox, "true", check=False).returncode == 125


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80", ["80/tcp"]), ("80/UDP", ["80/udp"]), ("8-9/sctp", ["8/sctp", "9/sctp"]), ("0-1", ["0/tcp", "1/tcp"])],
)
def test_ports_are_parsed(text: str, expected: list[str]) -> None:
    assert ports.parse(text) == expected


def test_filters_that_nothing_here_has(limpet: Runner, busybox: str) -> None:
    limpet("create", "--name", "one", busybox, "true")
    for value, expected in (
        ("health=none", "one\n"),
        ("health=healthy", ""),
        ("publish=80", ""),
        ("is-task=false", "one\n"),
        ("is-task=true", ""),
    ):
        assert limpet("ps", "-a", "-f", value, "--format", "{{.Names}}").stdout == expected, value
    for bad in ("health=well", "is-task=perhaps", "publish=web", "expose=1/2"):
        assert limpet("ps", "-f", bad, check=False).returncode in (1, 125), bad


def test_ps_as_json_has_size_and_platform(limpet: Runner, busybox: str) -> None:
    limpet("create", "--name", "one", busybox, "true")
    found = json.loads(limpet("ps", "-a", "--format", "json").stdout)
    image = json.loads(limpet("image", "inspect", busybox).stdout)[0]
    assert found["Platform"] == {"architecture": image["Architecture"], "os": "linux"}
    assert found["Size"] == "0B"
    assert json.loads(limpet("ps", "-as", "--format", "json").stdout)["Size"].startswith("0B (virtual ")
    assert limpet("ps", "-a", "--format", "{{.Platform}}").stdout == f"linux/{image['Architecture']}\n"


def test_port_tells_where_it_listens(limpet: Runner, busybox: str) -> None:
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
        loopback, everywhere = one.getsockname()[1], two.getsockname()[1]
    script = f"httpd -p 127.0.0.1:{loopback}; httpd -p 0.0.0.0:{everywhere}; echo up; sleep 1000"
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", script)
    deadline = time.monotonic() + 10
    while "up" not in limpet("logs", "web").stdout and time.monotonic() < deadline:
        time.sleep(0.05)
    own = limpet("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").stdout.strip()
    lines = [f"{port}/tcp -> {own}:{port}\n" for port in sorted((loopback, everywhere))]
    assert limpet("port", "web").stdout == "".join(lines)
    assert limpet("port", "web", str(loopback)).stdout == f"{own}:{loopback}\n"
    result = limpet("port", "web", "1/udp", check=False)
    assert result.returncode == 1
    assert result.stderr == "limpet: No public port '1/udp' published for web\nnothing in it listens there\n"
    limpet("stop", "-t", "0", "web")
    assert limpet("port", "web").stdout == ""


def test_log_driver_none(limpet: Runner, busybox: str) -> None:
    result = limpet("run", "--name", "quiet", "--log-driver", "none", busybox, "echo", "hi")
    assert result.stdout == "hi\n"
    assert not list(limpet.root.glob("containers/*/*-json.log*"))
    result = limpet("logs", "quiet", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (
        1,
        "limpet: configured logging driver does not support reading",
    )
    assert limpet("inspect", "-f", "{{.HostConfig.LogConfig.Type}} [{{.LogPath}}]", "quiet").stdout == "none []\n"
    limpet("run", "--rm", "--log-driver", "json-file", "--log-opt", "max-size=1m", busybox, "true")
    result = limpet("run", "--log-driver", "fluentd", busybox, "true", check=False)
    assert (result.returncode, "there are json-file, local" in result.stderr) == (125, True)


def test_dns(limpet: Runner, busybox: str) -> None:
    options = ["--dns", "192.0.2.1", "--dns", "2001:db8::1", "--dns-search", "example.org", "--dns-option", "ndots:3"]
    text = limpet("run", "--rm", *options, busybox, "cat", "/etc/resolv.conf").stdout
    lines = [line for line in text.splitlines() if line.split()[:1] in (["nameserver"], ["search"], ["options"])]
    assert lines == ["nameserver 192.0.2.1", "nameserver 2001:db8::1", "search example.org", "options ndots:3"]
    for bad in (["--dns", "example.org"], ["--dns-search", "a b"], ["--dns-option", ""]):
        assert limpet("create", *bad, busybox, "true", check=False).returncode == 125
    host = b"# a comment\nnameserver 10.0.0.1\nsearch home\noptions edns0\n"
    assert hostfiles.resolver(host, Options()) == host
    assert hostfiles.resolver(host, Options(dns_search=["."])) == b"# a comment\nnameserver 10.0.0.1\noptions edns0\n"


@pytest.mark.parametrize(
    ("streams", "out", "err"),
    [(["stdout"], "out\n", ""), (["STDERR"], "", "err\n"), (["stdout", "stderr"], "out\n", "err\n")],
)
def test_attach_to_some_streams(limpet: Runner, busybox: str, streams: list[str], out: str, err: str) -> None:
    words = [word for stream in streams for word in ("-a", stream)]
    result = limpet("run", "--rm", *words, busybox, "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, out, err)


def test_attach_to_standard_input_only(limpet: Runner, busybox: str) -> None:
    result = limpet("run", "--name", "one", "-i", "-a", "stdin", busybox, "cat", input="typed\n")
    assert len(result.stdout) == 65  # the id
    assert limpet("logs", "one").stdout == "typed\n"
    assert limpet("run", "-a", "stdio", busybox, "true", check=False).returncode == 125
    assert limpet("run", "-d", "-a", "stdout", busybox, "true", check=False).returncode == 125


def test_namespaces_of_the_host(limpet: Runner, busybox: str) -> None:
    script = "for kind in ipc uts cgroup; do readlink /proc/self/ns/$kind; done; hostname"
    options = ["--ipc", "host", "--uts", "host", "--cgroupns", "host", "--userns", "host"]
    host = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("ipc", "uts", "cgroup")]
    assert limpet("run", "--rm", *options, busybox, "sh", "-c", script).stdout.split() == [*host, os.uname().nodename]
    own = limpet("run", "--rm", "--ipc", "private", busybox, "sh", "-c", script).stdout.split()
    assert set(own[:3]).isdisjoint(host)
    mark = Path(f"/dev/shm/limpet-test-{os.getpid()}")
    mark.touch()
    try:
        limpet("run", "--rm", "--ipc", "host", busybox, "ls", str(mark))
        assert limpet("run", "--rm", busybox, "ls", str(mark), check=False).returncode == 1
    finally:
        mark.unlink()
    assert "/dev/shm" not in limpet("run", "--rm", "--ipc", "none", busybox, "cat", "/proc/mounts").stdout
    limpet("run", "-d", "--name", "shared", *options, busybox, "sleep", "1000")
    assert limpet("exec", "shared", "sh", "-c", script).stdout.split()[:3] == host
    assert os.uname().nodename == subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    for bad in (["--uts", "host", "-h", "name"], ["--ipc", "sharable"], ["--userns", "keep-id"]):
        assert limpet("create", *bad, busybox, "true", check=False).returncode == 125


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("net.ipv4.ip_forward", {}, "host's network namespace"),
        ("net.ipv4.ip_forward", {"network": "none"}, ""),
        ("kernel.shmmax", {}, ""),
        ("fs.mqueue.msg_max", {}, ""),
        ("kernel.shmmax", {"ipc": "host"}, "host's ipc namespace"),
        ("vm.swappiness", {}, "is the host's"),
        ("kernel.core_pattern", {"network": "none"}, "is the host's"),
        ("net.ipv4/../../kernel/core_pattern", {"network": "none"}, "is the host's"),
    ],
)
def test_a_sysctl_of_the_host_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    wanted = Options(sysctls={name: "1"}, **options)
    if not said:
        sharing.check(wanted)
        return
    with pytest.raises(Invalid, match=said):
        sharing.check(wanted)


def test_volumes_from(limpet: Runner, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    script = "echo kept > /data/x; echo anonymous > /anonymous/y"
    first = ["-v", "data:/data", "-v", "/anonymous", "-v", f"{tmp_path}:/host", "--tmpfs", "/scratch"]
    limpet("run", "--name", "first", *first, busybox, "sh", "-c", script)
    shown = limpet("run", "--rm", "--volumes-from", "first", busybox, "cat", "/data/x", "/anonymous/y", "/host/file")
    assert shown.stdout == "kept\nanonymous\nof the host\n"
    assert limpet("run", "--rm", "--volumes-from", "first", busybox, "ls", "/scratch", check=False).returncode == 1
    result = limpet("run", "--rm", "--volumes-from", "first:ro", busybox, "touch", "/data/z", check=False)
    assert "Read-only file system" in result.stderr
    limpet("run", "--name", "second", "--volumes-from", "first", "-v", "other:/data", busybox, "ls", "/data")
    limpet("rm", "-v", "first")
    assert limpet("start", "-a", "second").stdout == ""  # its own /data; and the anonymous volume is still there
    assert len(limpet("volume", "ls", "-q").stdout.split()) == 3
    limpet("rm", "-v", "second")
    assert sorted(limpet("volume", "ls", "-q").stdout.split()) == ["data", "other"]
    for bad in ("nobody", "", "first:rx"):
        assert limpet("create", "--volumes-from", bad, busybox, "true", check=False).returncode in (1, 125)


def test_what_was_there_before(limpet: Runner, busybox: str) -> None:
    words = ["--group-add", "more", "--shm-size", "2m", "--ulimit", "nofile=99", "--sysctl", "kernel.msgmax=4096"]
    script = "id -G; df -k /dev/shm | tail -n 1; ulimit -n; cat /proc/sys/kernel/msgmax; cat /proc/1/comm; true"
    out = limpet("run", "--rm", "--init=false", *words, busybox, "sh", "-c", script).stdout.splitlines()
    assert "2001" in out[0].split()
    assert out[1].split()[1] == "2048"
    assert out[2:] == ["99", "4096", "sh"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--oom-score-adj", "1001"), "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        (("--oom-score-adj", "-1001"), "Invalid value -1001, range for oom score adj is [-1000, 1000]"),
        (
            ("--ulimit", "nofile=9999999999"),
            "preparing the process: RLIMIT_NOFILE=9999999999:9999999999: Operation not permitted",
        ),
        (
            ("--no-init", "--ulimit", "nofile=9999999999"),
            "preparing the process: RLIMIT_NOFILE=9999999999:9999999999: Operation not permitted",
        ),
        (("--volume-driver", "nosuch", "-v", "far:/x"), "volume driver 'nosuch': no such plugin"),
        (("--isolation", "strict"), "unknown flag: --isolation"),
    ],
)
def test_what_can_not_be_is_said(limpet: Runner, busybox: str, options: tuple[str, ...], said: str) -> None:
    result = limpet("run", "--rm", *options, busybox, "true", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (125, f"limpet: {said}")
