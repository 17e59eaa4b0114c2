"""Containers on the host's network have an address each, from their creation to their removal."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import conftest, needs
from tests.network import inside

from limpet.containers import recovery, state
from limpet.kernel import cgroup
from limpet.network import addresses, attachment, local, names
from limpet.store.store import Store

Limpet = Any


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """No other session has a port there. Before `limpet`, which removes its containers there."""
    with inside.apart():
        yield


def address(limpet: Limpet, name: str) -> str:
    settings = json.loads(limpet("inspect", name).stdout)[0]["NetworkSettings"]
    own6 = addresses.ipv6_of(settings["IPAddress"])
    assert (settings["GlobalIPv6Address"], settings["GlobalIPv6PrefixLen"]) == (own6, 128)
    return str(settings["IPAddress"])


def ask(where: str, port: int) -> str:
    """What an `nc` of `serve` says; waits until it listens."""
    end = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection((where, port), timeout=5) as client:
                return client.recv(100).decode().strip()
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.01)


def serve(limpet: Limpet, image: str, name: str, *options: str, port: int = 80) -> str:
    """A container that says its name to each client on that port, as busybox's nc does; its address."""
    limpet("run", "-d", "--name", name, *options, image, "nc", "-ll", "-p", port, "-e", "echo", name)
    return address(limpet, name)


def test_each_has_its_own_address(limpet: Limpet, busybox: str) -> None:
    there = {name: serve(limpet, busybox, name) for name in ("one", "two")}
    assert there["one"] != there["two"]
    for name, own4 in there.items():
        assert ask(own4, 80) == name
        assert addresses.ipv6_of(own4) in local.ours()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 80), timeout=5)
    rows = limpet("ps", "--format", "{{.Names}} {{.Address}} {{.Ports}}").stdout.splitlines()
    assert sorted(rows) == [f"{name} {own4} {own4}" for name, own4 in there.items()]
    seen = limpet(
        "exec", "two", "sh", "-c", f"echo $LIMPET_ADDRESS; nc {there['one']} 80 </dev/null; nc 127.0.0.1 80 </dev/null"
    ).stdout
    assert seen.split() == [there["two"], "one", "two"]
    limpet("restart", "-t", "0", "one")
    assert ask(address(limpet, "one"), 80) == "one"
    assert address(limpet, "one") == there["one"]
    limpet("stop", "-t", "0", "one")
    assert addresses.ipv6_of(there["one"]) not in local.ours()
    assert there["one"] not in attachment.collect()[0]
    assert there["two"] in attachment.collect()[0]


def test_the_plain_host(limpet: Limpet, busybox: str) -> None:
    for options in (["--address", "0.0.0.0"], ["--isolate", "none"]):
        limpet("run", "-d", "--name", "plain", *options, busybox, "nc", "-ll", "-p", "8123", "-e", "echo", "plain")
        assert ask("127.0.0.1", 8123) == "plain"
        assert json.loads(limpet("inspect", "plain").stdout)[0]["NetworkSettings"]["IPAddress"] == ""
        assert "LIMPET_ADDRESS" not in limpet("exec", "plain", "env").stdout
        limpet("rm", "-f", "plain")


def test_an_address_of_ones_choice(limpet: Limpet, busybox: str) -> None:
    own4 = "127.211.3.4"
    assert serve(limpet, busybox, "mine", "--address", own4) == own4
    assert ask(own4, 80) == "mine"
    result = limpet("create", "--address", own4, busybox, "true", check=False)
    assert result.returncode == 125
    assert f"the address {own4} is that of container mine" in result.stderr
    limpet("rm", "-f", "mine")
    limpet("create", "--address", own4, busybox, "true")


def test_an_address_of_an_interface(limpet: Limpet, busybox: str) -> None:
    """In a network namespace, which has an interface with an address for it."""
    script = 'ip link set lo up; ip address add 192.0.2.77/32 dev lo; exec "$@"'
    inner = conftest.runner(limpet.root)
    inner.command = ["unshare", "-n", "sh", "-c", script, "sh", *limpet.command]
    command = "nc -ll -p 80 -e echo far & sleep 0.3; nc 192.0.2.77 80; nc 127.0.0.1 80; echo $LIMPET_ADDRESS"
    result = inner("run", "--rm", "--address", "192.0.2.77", busybox, "sh", "-c", command)
    assert result.stdout.split() == ["far", "far", "192.0.2.77"]
    result = inner("run", "--rm", "--address", "192.0.2.78", busybox, "true", check=False)
    assert result.returncode == 125
    assert "--address 192.0.2.78: no interface of this host has it" in result.stderr


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--address", "127.0.0.1"], "127.0.0.0/16 is the host's own"),
        (["--address", "here"], "'here' is not an IP address"),
        (["--address", "127.99.0.1", "--network", "none"], "a container of --network none has none"),
    ],
)
def test_addresses_that_can_not_be(limpet: Limpet, busybox: str, options: list[str], error: str) -> None:
    result = limpet("create", *options, busybox, "true", check=False)
    assert result.returncode == 125
    assert error in result.stderr
    assert limpet("ps", "-aq").stdout == ""


def test_another_stores_container_keeps_its_address(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    own4 = serve(limpet, busybox, "first")
    other = conftest.runner(tmp_path / "other")
    limpet("save", "-o", tmp_path / "image.tar", busybox)
    other("load", "-i", tmp_path / "image.tar")
    result = other("run", "--name", "second", "--address", own4, busybox, "true", check=False)
    assert result.returncode == 125
    assert (
        f"container second: the address {own4} is that of container {limpet('ps', '-q').stdout.strip()}"
        in result.stderr
    )
    assert ask(own4, 80) == "first"
    other("rm", "-f", "second")


def test_a_copy_of_a_container_has_an_address_of_its_own(limpet: Limpet, busybox: str) -> None:
    limpet("create", "--name", "one", busybox, "true")
    limpet("snapshot", "create", "one", "then", check=False)
    limpet("create", "--name", "two", busybox, "true")
    assert address(limpet, "one") != address(limpet, "two")


def test_one_that_joins_anothers_network_is_at_its_address(limpet: Limpet, busybox: str) -> None:
    own4 = serve(limpet, busybox, "one")
    joined = ("--network", "container:one")
    seen = limpet("run", "--rm", *joined, busybox, "nc", "127.0.0.1", "80").stdout
    assert seen.strip() == "one"
    limpet("run", "-d", "--name", "two", *joined, busybox, "nc", "-ll", "-p", "81", "-e", "echo", "two")
    assert ask(own4, 81) == "two"
    limpet("rm", "-f", "two")
    assert ask(own4, 80) == "one"


@pytest.mark.slow
def test_nothing_of_a_killed_container_stays(limpet: Limpet, busybox: str) -> None:
    own4 = serve(limpet, busybox, "lost")
    store = Store(str(limpet.root), f"{limpet.root}/run")
    container = state.find(store, "lost")
    before = state.status(store, container)
    group = cgroup.path(container.id)
    assert group is not None
    for pid in (before.monitor, *cgroup.pids(group)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended with its monitor
    end = time.monotonic() + 10
    while not any("lost" in line for line in names.lines(store.run)):
        assert time.monotonic() < end
    limpet("rm", "lost")
    assert recovery.recover(store, lambda text: None) == []
    assert own4 not in attachment.collect()[0]
    assert addresses.ipv6_of(own4) not in local.ours()
    assert not any("lost" in line for line in names.lines(store.run))


@needs.ways_out_of_a_cgroup_namespace
def test_where_the_kernel_can_not_do_it_that_is_said(limpet: Limpet, busybox: str) -> None:
    """In a namespace of control groups nobody can tell where in the hierarchy the containers' groups are."""
    inner = conftest.runner(limpet.root)
    inner.command = ["unshare", "-C", *limpet.command]
    result = inner("run", "--rm", busybox, "sh", "-c", "echo $LIMPET_ADDRESS")
    assert result.stdout.startswith("127.")
    if "WARNING" in result.stderr:  # not where another container made the kernel load the programs
        assert "has the host's addresses" in result.stderr


def test_the_runtime_runc(limpet: Limpet, busybox: str) -> None:
    own4 = serve(limpet, busybox, "one", "--runtime", "runc")
    assert ask(own4, 80) == "one"


def test_info_says_what_there_is(limpet: Limpet) -> None:
    found = {f["Name"]: f["State"] for f in json.loads(limpet("info", "--format", "json").stdout)["Features"]}
    assert found["BPF addresses"] == found["BPF published ports"] == found["IPv6 on lo"] == "used"


def test_containers_know_each_other_by_name(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    there = {name: serve(limpet, busybox, name, *more) for name, more in (("one", ()), ("two", ("-h", "deux")))}
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost\n")
    assert "has the containers' names" in limpet("network", "hosts", "--install", "--file", file).stdout

    def seen(where: str) -> dict[str, str]:
        text = limpet("exec", where, "cat", "/etc/hosts").stdout
        return {name: line.split()[0] for line in text.splitlines() if line for name in line.split()[1:]}

    end = time.monotonic() + 10
    while "two" not in seen("one"):  # a container runs before all others have heard of it
        assert time.monotonic() < end
    assert seen("one")["two"] == seen("one")["deux"] == seen("two")["deux"] == there["two"]
    assert seen("two")["one"] == there["one"]
    assert seen("one")["host.limpet.internal"] == "127.0.0.1"
    assert limpet("exec", "one", "nc", "two", "80").stdout == "two\n"
    assert limpet("run", "--rm", busybox, "nc", "one", "80").stdout == "one\n"
    assert f"{there['two']}\ttwo.limpet\n" in file.read_text()
    limpet("rm", "-f", "two")
    assert "two" not in seen("one")
    assert "two.limpet" not in file.read_text()
    assert limpet("network", "hosts").stdout == f"{there['one']}\tone.limpet\n"
    limpet("network", "hosts", "--remove")
    assert file.read_text() == "127.0.0.1 localhost\n"
