"""config.json: valid against the published schema, and what Docker would decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from limpet.containers.mounts.mountplan import Mount
from limpet.containers.options import Options
from limpet.containers.plan import hostfiles, spec
from limpet.containers.plan.users import User
from limpet.containers.state import Container
from limpet.errors import Invalid, LimpetError
from limpet.kernel import capabilities

if TYPE_CHECKING:
    from limpet.store.store import Store

SCHEMA = json.loads((Path(__file__).parent / "runtime-spec.schema.json").read_text())
IMAGE = {"config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv"}}


def make(store: Store, image: dict[str, Any] | None = None, user: User | None = None, **options: Any) -> dict[str, Any]:
    container = Container("ab" * 32, "c1", "sha256:0", "image", [], 0.0, Options(**options))
    mounts = [Mount("bind", "/data", "/srv", options=["rbind", "ro"]), Mount("tmpfs", "/run", options=["nosuid"])]
    return spec.make(store, container, image or IMAGE, user or User(0, 0, (0,), "/root"), mounts, (24, 80))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"privileged": True},
        {"tty": True, "interactive": True, "read_only": True, "network": "none", "domainname": "example"},
        {"ulimits": ["nofile=1024:2048", "core=-1"], "sysctls": {"kernel.shmmax": "1"}, "oom_score_adj": 5},
        {"devices": ["/dev/null:/dev/other:r"], "cap_add": ["ALL"], "security_opt": ["no-new-privileges"]},
    ],
)
def test_valid_against_the_published_schema(store: Store, options: dict[str, Any]) -> None:
    config = make(store, **options)
    jsonschema.validate(config, SCHEMA, cls=jsonschema.Draft4Validator)
    assert config["ociVersion"] == "1.0.2"
    assert list(config)[-1] == "linux"  # `start.prepare` adds the seccomp section to the text's end


def test_process_of_image_and_user(store: Store) -> None:
    process = make(store, command=["-x"], env=["A", "B=2=3"], tty=True)["process"]
    assert process["args"] == ["-x"]
    assert process["cwd"] == "/srv"
    env = dict(text.split("=", 1) for text in process["env"])
    assert env["PATH"] == "/bin"
    assert env["B"] == "2=3"
    assert env["TERM"] == "xterm"
    assert env["HOME"] == "/root"
    assert "A" not in env
    assert process["consoleSize"] == {"height": 24, "width": 80}


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "options", "expected"),
    [
        (["/e"], ["c"], {}, ["/e", "c"]),
        (["/e"], ["c"], {"command": ["x"]}, ["/e", "x"]),
        (["/e"], ["c"], {"entrypoint": ["/n"]}, ["/n"]),
        (["/e"], ["c"], {"entrypoint": ["/n"], "command": ["x"]}, ["/n", "x"]),
        (["/e"], ["c"], {"entrypoint": [], "command": ["x"]}, ["x"]),
        (None, ["c"], {}, ["c"]),
    ],
)
def test_command(entrypoint: list[str], cmd: list[str], options: dict[str, Any], expected: list[str]) -> None:
    assert spec.command(Options(**options), {"config": {"Entrypoint": entrypoint, "Cmd": cmd}}) == expected


def test_no_command_is_an_error() -> None:
    for image in ({}, {"config": None}, {"config": {"Cmd": None}}):
        with pytest.raises(Invalid, match="no command specified"):
            spec.command(Options(), image)


def test_capabilities_are_dockers(store: Store) -> None:
    caps = make(store)["process"]["capabilities"]
    assert sorted(caps["bounding"]) == sorted(capabilities.DEFAULT)
    assert caps["effective"] == caps["permitted"] == caps["bounding"]
    assert caps["inheritable"] == caps["ambient"] == []


def test_a_user_other_than_root_has_none_effective(store: Store) -> None:
    caps = make(store, user=User(1000, 1000, (), "/"))["process"]["capabilities"]
    assert len(caps["bounding"]) == 14
    assert caps["effective"] == caps["permitted"] == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cap_drop": ["all"]}, set()),
        ({"cap_drop": ["ALL"], "cap_add": ["chown", "CAP_KILL"]}, {"CAP_CHOWN", "CAP_KILL"}),
        ({"cap_drop": ["MKNOD"]}, set(capabilities.DEFAULT) - {"CAP_MKNOD"}),
        ({"cap_add": ["SYS_PTRACE"]}, {*capabilities.DEFAULT, "CAP_SYS_PTRACE"}),
    ],
)
def test_cap_add_and_drop(options: dict[str, Any], expected: set[str]) -> None:
    assert set(spec.bounding(Options(**options))) == expected


def test_cap_add_all_and_privileged() -> None:
    everything = spec.all_capabilities()
    assert spec.bounding(Options(cap_add=["ALL"])) == everything
    assert spec.bounding(Options(privileged=True)) == everything
    assert "CAP_CHOWN" not in spec.bounding(Options(cap_add=["ALL"], cap_drop=["CHOWN"]))


def test_privileged_hides_nothing(store: Store) -> None:
    linux = make(store, privileged=True)["linux"]
    assert "maskedPaths" not in linux
    assert "readonlyPaths" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "/dev/null" not in [device["path"] for device in linux["devices"]]


def test_masked_paths(store: Store) -> None:
    linux = make(store)["linux"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/sys/firmware" in linux["maskedPaths"]
    assert linux["readonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    assert "maskedPaths" not in make(store, security_opt=["systempaths=unconfined"])["linux"]


def test_mounts_of_the_engine_come_before_the_users(store: Store) -> None:
    mounts = make(store)["mounts"]
    targets = [mount["destination"] for mount in mounts]
    assert targets[:3] == ["/proc", "/dev", "/dev/pts"]
    assert targets[-5:] == ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/data", "/run"]
    assert mounts[-2]["options"] == ["rbind", "ro", "rro", "rprivate"]


def test_host_name(store: Store) -> None:
    assert make(store, network="none")["hostname"] == "ab" * 6
    assert make(store, hostname="web")["hostname"] == "web"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("no-new-privileges", ("no-new-privileges", True)),
        ("no-new-privileges=true", ("no-new-privileges", True)),
        ("no-new-privileges:false", ("no-new-privileges", False)),
        ("seccomp=unconfined", ("seccomp", "unconfined")),
        ('seccomp={"a": "b=c"}', ("seccomp", '{"a": "b=c"}')),
        ("seccomp:unconfined", ("seccomp", "unconfined")),
        ("apparmor=unconfined", ("seccomp", "")),
    ],
)
def test_security_opt(text: str, field: tuple[str, Any]) -> None:
    assert spec.security(Options(security_opt=[text]))[field[0]] == field[1]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (spec.rlimit, "nofile"),
        (spec.rlimit, "nofile=a"),
        (spec.rlimit, "nofile=5:1"),
        (spec.rlimit, "files=1"),
        (spec.device_parts, "null"),
        (spec.device_parts, "/dev/a:/dev/b:rwx"),
        (hostfiles.host_entry, "noaddress"),
        (hostfiles.host_entry, "a:999.1.1.1"),
        (hostfiles.host_entry, ":1.1.1.1"),
    ],
)
def test_wrong_values(function: Any, text: str) -> None:
    with pytest.raises(LimpetError):
        function(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:10.0.0.1", ("db", "10.0.0.1")),
        ("db=10.0.0.1", ("db", "10.0.0.1")),
        ("six:::1", ("six", "::1")),
        ("six=[fe80::1]", ("six", "fe80::1")),
        ("host.docker.internal:host-gateway", ("host.docker.internal", "127.0.0.1")),
    ],
)
def test_host_entries(text: str, expected: tuple[str, str]) -> None:
    assert hostfiles.host_entry(text) == expected


def test_init_by_default_but_not_for_inits() -> None:
    assert spec.wants_init(Options(), ["/bin/sh"])
    assert not spec.wants_init(Options(), ["/sbin/init"])
    assert not spec.wants_init(Options(), ["tini", "--", "x"])
    assert spec.wants_init(Options(init=True), ["/sbin/init"])
    assert not spec.wants_init(Options(init=False), ["/bin/sh"])
