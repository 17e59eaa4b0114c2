"""What a RUN may have by the command line's leave, and under which limits it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import cdi_files
from tests.build.builder import Builder

pytestmark = pytest.mark.slow


@pytest.fixture
def build(limpet: Any, busybox: str, tmp_path: Path) -> Builder:
    return Builder(limpet, tmp_path / "context", busybox)


def test_insecure_steps_need_leave(build: Builder) -> None:
    line = "RUN --security=insecure mount -t tmpfs none /mnt && touch /mnt/x && grep CapEff /proc/self/status >/out"
    result = build("RUN mkdir /mnt", line, check=False)
    assert "Dockerfile:3:1: RUN --security=insecure wants all rights on this machine >>> " in result.stderr
    assert "--allow security.insecure gives them" in result.stderr
    assert "[1/2]" not in result.stderr  # nothing ran before
    build("RUN mkdir /mnt", line, options=("--allow", "security.insecure"))
    insecure = build.limpet("run", "--rm", "made", "cat", "/out").stdout
    result = build("RUN mkdir /mnt", line.replace("--security=insecure ", ""), check=False)
    assert "mount: " in result.stderr
    assert int(insecure.split()[1], 16) & 1 << 21  # CAP_SYS_ADMIN
    build(
        "RUN --security=insecure grep CapEff /proc/self/status >/a",
        "RUN grep CapEff /proc/self/status >/b",
        options=("--allow", "security.insecure", "--no-cache"),
    )
    sandbox = build.limpet("run", "--rm", "made", "cat", "/b").stdout
    assert sandbox != insecure
    assert "Check complete" in build.limpet("build", "--check", build.directory).stdout


def test_network(build: Builder) -> None:
    devices = "ls /sys/class/net"
    assert build.output(devices, "--network", "none").split() == ["lo"]
    assert set(build.output(devices, "--network", "host").split()) == set(os.listdir("/sys/class/net"))
    assert build.output(devices, "--network", "default") == build.output(devices)
    line = f"RUN --network=host {devices} >/out"
    result = build(line, options=("--network", "none"), check=False)
    assert "RUN --network=host, and --network none was given" in result.stderr
    build(line, options=("--network", "none", "--allow", "network.host"))
    build("RUN --network=none ls /sys/class/net >/out", options=("--network", "host"))
    assert build.limpet("run", "--rm", "made", "cat", "/out").stdout.split() == ["lo"]
    result = build(line, options=("--network", "mynet"), check=False)
    assert "invalid network 'mynet'" in result.stderr


def test_what_counts_for_the_key_and_what_does_not(build: Builder) -> None:
    assert "10.1.2.3\tdb" in build.output("cat /etc/hosts", "--add-host", "db:10.1.2.3")
    assert build.output("ulimit -n", "--ulimit", "nofile=321:321") == "321\n"
    assert "size=3072k" in build.output("grep /dev/shm /proc/mounts", "--shm-size", "3m")
    plain = "RUN ulimit -n >/out"
    assert "cached" not in build(plain).stderr
    assert "cached" not in build(plain, options=("--ulimit", "nofile=77:77")).stderr
    assert "cached" in build(plain, options=("--memory", "400m", "--cpus", "1.5")).stderr
    line = "RUN head -c 200m /dev/zero | tail >/dev/null; echo survived"
    assert "survived" in build(line).stderr
    line = line.replace("; echo", " && echo")
    result = build(line, options=("--no-cache", "-m", "32m", "--memory-swap", "32m"), check=False)
    assert result.returncode != 0
    assert "survived\n" not in result.stderr.replace("echo survived\n", "")


@pytest.fixture
def specification() -> Iterator[Path]:
    with cdi_files.directory() as place:
        yield place / "limpet-test.json"


def test_devices(build: Builder, specification: Path, tmp_path: Path) -> None:
    line = "RUN --device=/dev/null:/dev/nothing test -c /dev/nothing"
    result = build(line, check=False)
    assert "RUN --device=/dev/null:/dev/nothing wants a device of this machine" in result.stderr
    build(line, options=("--allow", "device"))
    build(line.replace("test", "true && test"), options=("--allow", "device=/dev/null:/dev/nothing"))
    (tmp_path / "library").write_text("of the device\n")
    device = {
        "name": "one",
        "containerEdits": {
            "deviceNodes": [{"path": "/dev/toy", "hostPath": "/dev/zero"}],
            "mounts": [{"hostPath": str(tmp_path / "library"), "containerPath": "/lib/toy", "options": ["ro"]}],
        },
    }
    whole: dict[str, Any] = {"cdiVersion": "0.6.0", "kind": "example.org/toy", "devices": [device]}
    specification.write_text(json.dumps({**whole, "containerEdits": {"env": ["TOY=here"]}}))
    allow = ("--allow", "device")
    build("RUN --device=example.org/toy=one cat /lib/toy >/out && echo $TOY >>/out && test -c /dev/toy", options=allow)
    assert build.limpet("run", "--rm", "made", "cat", "/out").stdout == "of the device\nhere\n"
    assert "toy" not in build.limpet("run", "--rm", "made", "ls", "/lib", check=False).stdout
    result = build("RUN --device=example.org/toy=two ls /dev/toy || true", options=allow)
    assert (
        "device example.org/toy=two: no file of /etc/cdi and /var/run/cdi has it: the step runs without it"
        in result.stderr
    )
    result = build("RUN --device=example.org/toy=two,required true", options=allow, check=False)
    assert "device example.org/toy=two: no file of " in result.stderr
    device["containerEdits"] = {"hooks": [{"path": "/bin/true", "hookName": "createContainer"}]}
    specification.write_text(json.dumps(whole))
    result = build("RUN --device=example.org/toy=one true", options=allow, check=False)
    assert "its specification has hooks" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--squash",), "COPY --from=STAGE / /"),
        (("--cgroup-parent", "x"), "groups of their own"),
        (("--rm=false",), "what a step ran in is always removed"),
        (("--allow", "security.insecur"), "did you mean security.insecure?"),
        (("--ulimit", "files=3"), "invalid ulimit 'files=3'"),
        (("--add-host", "x:y"), "'y' is not an IP address"),
        (("--shm-size", "big"), "big"),
        (("--memory", "1k"), "emory"),
    ],
)
def test_what_is_refused_says_why(build: Builder, options: tuple[str, ...], message: str) -> None:
    result = build("RUN true", options=options, check=False)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_what_changes_nothing(build: Builder) -> None:
    build("RUN true", options=("--rm", "--force-rm", "--network", "default"))
