"""Containers on bridges: addresses, names, ways out and in, and that nothing is left of them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.network.conftest import Machine

pytestmark = pytest.mark.slow

SERVE = "while :; do echo hello | nc -l -p 80; done"


def monitor(limpet: Any, name: str) -> int:
    directory = Path(limpet("inspect", "-f", "{{.HostsPath}}", name).stdout).parent
    return int(json.loads((directory / "status").read_text())["monitor"])


def hosts(limpet: Any, name: str) -> dict[str, str]:
    """Name → address, as a look-up in the file finds it."""
    found: dict[str, str] = {}
    for line in limpet("exec", name, "cat", "/etc/hosts").stdout.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        for each in names:
            found.setdefault(each, address)
    return found


def until(true: Any, what: str) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)  # a process of nobody's tidies up, and tells nobody


def test_two_containers_know_each_other_by_name(busy: Machine) -> None:
    limpet = busy.limpet
    limpet("network", "create", "--subnet", "10.5.0.0/24", "--ipv6", "--subnet", "fd00:5::/64", "web")
    limpet("run", "-d", "--name", "one", "--network", "web", "--network-alias", "db", "bb", "sleep", "1000")
    first = limpet(
        *("run", "-d", "--name", "two", "--hostname", "box"),
        *("--network", "web:ip=10.5.0.77,mac=02:00:00:00:00:0a", "bb", "sleep", "1000"),
    ).stdout.strip()
    names = hosts(limpet, "one")
    assert (names["one"], names["two"], names[first[:12]]) == ("10.5.0.2", "10.5.0.77", "10.5.0.77")
    names = hosts(limpet, "two")
    assert (names["box"], names["one"], names["db"]) == ("10.5.0.77", "10.5.0.2", "10.5.0.2")
    assert names["host.limpet.internal"] == "10.5.0.1"
    limpet("exec", "one", "ping", "-c1", "-W2", "two")
    limpet("exec", "two", "ping", "-c1", "-W2", "db")
    limpet("exec", "two", "ping", "-6", "-c1", "-W2", "fd00:5::2")
    seen = json.loads(limpet("inspect", "two").stdout)[0]["NetworkSettings"]
    assert seen["Networks"]["web"]["IPAddress"] == seen["IPAddress"] == "10.5.0.77"
    assert seen["Networks"]["web"]["MacAddress"] == "02:00:00:00:00:0a"
    assert "02:00:00:00:00:0a" in limpet("exec", "two", "ip", "link", "show", "eth0").stdout
    members = json.loads(limpet("network", "inspect", "web").stdout)[0]["Containers"]
    assert {(each["Name"], each["IPv4Address"], each["IPv6Address"]) for each in members.values()} == {
        ("one", "10.5.0.2/24", "fd00:5::2/64"),
        ("two", "10.5.0.77/24", "fd00:5::3/64"),
    }
    # An end is known to the others at once; what a program added to the file is its own.
    limpet("exec", "one", "sh", "-c", "echo 192.0.2.9 mine >> /etc/hosts")
    limpet("rename", "one", "first")
    assert hosts(limpet, "two")["first"] == "10.5.0.2"
    assert "one" not in hosts(limpet, "two")
    assert limpet("ps", "-f", "network=web", "--format", "{{.Names}} {{.Networks}}").stdout == "two web\nfirst web\n"
    limpet("stop", "-t", "0", "two")
    until(lambda: "two" not in hosts(limpet, "first"), "a stopped container is in nobody's file")
    assert hosts(limpet, "first")["mine"] == "192.0.2.9"
    limpet("start", "two")
    assert hosts(limpet, "first")["two"] == "10.5.0.77"
    assert hosts(limpet, "two")["first"] == "10.5.0.2"


def test_the_ways_out_and_in(busy: Machine, outside: Machine) -> None:
    """What leaves has the host's address; nobody outside, and no other network, gets in; an internal one has no way."""
    limpet = busy.limpet
    limpet("network", "create", "--ipv6", "web")
    limpet("network", "create", "other")
    limpet("network", "create", "--internal", "back")
    outside.run("ip", "route", "add", "10.201.0.0/16", "via", "192.0.2.1")
    assert busy.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    before = busy.run("sysctl", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.uplink.accept_ra")
    limpet("run", "-d", "--name", "one", "--network", "web", "--network", "back", "bb", "sh", "-c", SERVE)
    limpet("run", "-d", "--name", "two", "--network", "other", "bb", "sleep", "1000")
    limpet("run", "-d", "--name", "shut", "--network", "back", "bb", "sleep", "1000")
    outside.serve(7000)
    assert limpet("exec", "one", "nc", "-w", "2", "192.0.2.2", "7000").stdout == "192.0.2.1\n"
    limpet("exec", "one", "ping", "-6", "-c1", "-W2", "2001:db8::2")
    for name in ("two", "shut"):
        address = hosts(limpet, "one")["one"]
        assert limpet("exec", name, "nc", "-w", "1", address, "80", check=False).returncode != 0, name
    assert limpet("exec", "shut", "ping", "-c1", "-W1", "192.0.2.2", check=False).returncode != 0
    limpet("exec", "shut", "ping", "-c1", "-W2", "one")
    assert outside.ask("10.201.0.2", 80) == ""
    assert busy.ask("10.201.0.2", 80) == "hello"  # the host itself is no stranger
    # The host forwards for its containers now, and for nobody else.
    assert busy.run("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert "this host forwarded nothing before" in busy.run("nft", "list", "ruleset")
    limpet("rm", "-f", "one", "two", "shut")
    until(lambda: not busy.tables(), "the table goes with the last container")
    assert busy.links() == ["uplink"]
    assert busy.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert busy.run("sysctl", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.uplink.accept_ra") == before


def test_published_ports(busy: Machine, outside: Machine) -> None:
    """On loopback unless an address is given; the client's address is the true one; a rule of the host blocks."""
    limpet = busy.limpet
    limpet("network", "create", "--ipv6", "web")
    limpet("network", "create", "four")
    show = "grep :0050 /proc/net/tcp6 /proc/net/tcp | grep -v ' 0A '"  # who is connected
    serve = f'echo "{show}" > /who; chmod +x /who; sed -i 1i#!/bin/sh /who; exec nc -ll -p 80 -e /who'
    limpet(
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "web",
        "-p",
        "8080:80",
        "-p",
        "0.0.0.0:8081:80",
        "bb",
        "sh",
        "-c",
        serve,
    )
    shown = json.loads(limpet("inspect", "one").stdout)[0]["NetworkSettings"]["Ports"]["80/tcp"]
    assert {(each["HostIp"], each["HostPort"]) for each in shown} == {
        ("127.0.0.1", "8080"),
        ("0.0.0.0", "8081"),
        ("::", "8081"),
    }
    assert limpet("port", "one").stdout.splitlines()[0].startswith("80/tcp -> 127.0.0.1:8080")
    until(lambda: busy.ask("127.0.0.1", 8080) != "", "the server listens")
    assert busy.ask("192.0.2.1", 8080) == ""
    assert outside.ask("192.0.2.1", 8080) == ""
    assert "020200C0" in outside.ask("192.0.2.1", 8081)  # 192.0.2.2, who asks, as /proc/net/tcp writes it
    assert "B80D0120000000000000000002000000" in outside.ask("2001:db8::1", 8081)
    assert busy.ask("127.0.0.1", 8081) != ""
    limpet("run", "-d", "--name", "two", "--network", "four", "bb", "sleep", "1000")
    assert (
        limpet("exec", "two", "nc", "-w", "1", "192.0.2.1", "8081").stdout != ""
    )  # from another network, as from anywhere
    # The ports are taken, whoever asks for them.
    for port, words in (("8080", "127.0.0.1:8080/tcp is in use"), ("0.0.0.0:8081", "192.0.2.1:8081/tcp is in use")):
        result = limpet("run", "--rm", "--network", "four", "-p", f"{port}:80", "bb", "true", check=False)
        assert result.returncode == 125
        assert "8080" in result.stderr or "8081" in result.stderr, words
    # The host's firewall decides, by the port that was asked for.
    busy.run("nft", "add table inet fw; add chain inet fw f { type filter hook forward priority 0; }")
    busy.run("nft", "add rule inet fw f meta l4proto tcp ct original proto-dst 8081 drop")
    assert outside.ask("192.0.2.1", 8081) == ""
    busy.run("nft", "delete table inet fw")
    assert outside.ask("192.0.2.1", 8081) != ""
    limpet("restart", "-t", "0", "one")
    until(lambda: outside.ask("192.0.2.1", 8081) != "", "the server listens again")
    limpet("rm", "-f", "one")
    until(lambda: outside.ask("192.0.2.1", 8081) == "", "nothing is published any more")
    for arguments, words in (
        (["-p", "[::1]:8080:80"], "keeps ::1 on the host"),
        (["-p", "8080:80/sctp"], "invalid published port"),
    ):
        result = limpet("run", "--rm", "--network", "four", *arguments, "bb", "true", check=False)
        assert (result.returncode, words in result.stderr) == (125, True), result.stderr
    limpet("network", "create", "--internal", "back")
    assert "internal" in limpet("run", "--rm", "--network", "back", "-p", "80", "bb", "true", check=False).stderr


def test_connect_and_disconnect_while_it_runs(busy: Machine) -> None:
    limpet = busy.limpet
    limpet("network", "create", "--internal", "web")
    limpet("network", "create", "-o", "mtu=1400", "-o", "com.docker.network.container_iface_prefix=net", "back")
    limpet("run", "-d", "--name", "one", "--network", "web", "bb", "sleep", "1000")
    limpet("run", "-d", "--name", "two", "--network", "back", "bb", "sleep", "1000")
    assert "default" not in limpet("exec", "one", "ip", "route").stdout
    limpet("network", "connect", "--alias", "db", "--ip", "10.201.1.50", "back", "one")
    assert hosts(limpet, "two")["db"] == "10.201.1.50"
    limpet("exec", "two", "ping", "-c1", "-W2", "db")
    assert "mtu 1400" in limpet("exec", "one", "ip", "link", "show", "net1").stdout
    assert "default via 10.201.1.1 dev net1" in limpet("exec", "one", "ip", "route").stdout
    assert "is in use by" in limpet("network", "rm", "back", check=False).stderr
    assert "already" in limpet("network", "connect", "back", "one", check=False).stderr
    limpet("network", "disconnect", "back", "one")
    assert "db" not in hosts(limpet, "two")
    assert "net1" not in limpet("exec", "one", "ip", "link").stdout
    assert "default" not in limpet("exec", "one", "ip", "route").stdout
    assert "is not on network back" in limpet("network", "disconnect", "back", "one", check=False).stderr
    # A container that was stopped meanwhile has what was said when it starts again.
    limpet("stop", "-t", "0", "one")
    limpet("network", "connect", "back", "one")
    limpet("start", "one")
    assert "net1" in limpet("exec", "one", "ip", "link").stdout
    assert limpet("run", "--rm", "bb", "true").returncode == 0
    limpet("run", "-d", "--name", "plain", "bb", "sleep", "1000")
    assert "--network host" in limpet("network", "connect", "back", "plain", check=False).stderr
    said = limpet("events", "--since", "1h", "--until", "0s", "-f", "type=network", "--format", "{{.Action}}").stdout
    assert said.split() == ["create", "create", "connect", "disconnect", "connect"]


def test_containers_that_must_not_talk_do_not(busy: Machine) -> None:
    limpet = busy.limpet
    limpet("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
    limpet("run", "-d", "--name", "one", "--network", "apart", "bb", "sleep", "1000")
    limpet("run", "-d", "--name", "two", "--network", "apart", "bb", "sleep", "1000")
    assert limpet("exec", "two", "ping", "-c1", "-W1", "one", check=False).returncode != 0
    limpet("exec", "two", "ping", "-c1", "-W2", "192.0.2.2")


def test_a_killed_monitor_leaves_nothing_that_stays(busy: Machine) -> None:
    """Its container ends with it, and that one's interfaces with the namespace; the next one takes bridge and rules."""
    limpet = busy.limpet
    limpet("network", "create", "web")
    limpet("network", "create", "back")
    limpet("run", "-d", "--name", "one", "--network", "web", "bb", "sleep", "1000")
    limpet("run", "-d", "--name", "two", "--network", "web", "--network", "back", "bb", "sleep", "1000")
    assert len(busy.links()) == 6  # two bridges, three ends, uplink
    os.kill(monitor(limpet, "two"), signal.SIGKILL)
    until(lambda: len(busy.links()) == 4, "its interfaces go with its namespace")
    assert "two" in hosts(limpet, "one")
    text = limpet("network", "prune", "-f").stdout
    assert "removed interface lp-" in text
    assert len(busy.links()) == 3
    assert "two" not in hosts(limpet, "one")
    limpet("start", "two")  # it has its address still
    limpet("exec", "one", "ping", "-c1", "-W2", "two")
    for name in ("one", "two"):
        os.kill(monitor(limpet, name), signal.SIGKILL)
    until(lambda: len(busy.links()) == 3, "the bridges alone are left")
    assert busy.tables() != []
    limpet("system", "recover")
    assert busy.links() == ["uplink"]
    assert busy.tables() == []


def test_what_others_made_is_left_alone(busy: Machine) -> None:
    limpet = busy.limpet
    busy.run("nft", "add table inet mine; add chain inet mine c { type filter hook forward priority 0; }")
    busy.run("ip", "link", "add", "br-mine", "type", "bridge")
    limpet("network", "create", "-o", "com.docker.network.bridge.name=shop0", "web")
    assert (
        "is there already"
        in limpet("network", "create", "-o", "com.docker.network.bridge.name=br-mine", "x", check=False).stderr
    )
    limpet("run", "--rm", "--network", "web", "bb", "ping", "-c1", "-W2", "192.0.2.2")
    until(lambda: busy.links() == ["br-mine", "uplink"], "the bridge goes")
    until(lambda: busy.tables() == ["table inet mine"], "the table goes")
    busy.run("ip", "link", "add", "shop0", "type", "bridge")
    result = limpet("run", "--rm", "--network", "web", "bb", "true", check=False)
    assert (result.returncode, "shop0 is there already, and not limpet's" in result.stderr) == (125, True)
    assert busy.links() == ["br-mine", "shop0", "uplink"]


@pytest.mark.parametrize("arguments", [["--runtime", "runc"], ["--sysctl", "net.ipv4.ip_default_ttl=65"]])
def test_other_options_beside_a_network(busy: Machine, arguments: list[str]) -> None:
    limpet = busy.limpet
    result = limpet("run", "--rm", *arguments, "--network", "bridge", "bb", "ping", "-c1", "-W2", "192.0.2.2")
    assert "1 packets received" in result.stdout
    assert limpet("network", "ls", "-qf", "name=bridge").stdout  # it is made when it is asked for


def test_an_interface_in_the_hosts_own_network(busy: Machine, outside: Machine) -> None:
    limpet = busy.limpet
    lan = ("--subnet", "192.0.2.0/24", "--gateway", "192.0.2.2", "--ip-range", "192.0.2.64/26")
    limpet("network", "create", "-d", "macvlan", "-o", "parent=uplink", *lan, "lan")
    result = limpet(
        "run",
        "--rm",
        "--network",
        "lan:alias=x",
        "bb",
        "sh",
        "-c",
        "ip -4 -o address show eth0; ip route; ping -c1 -W2 192.0.2.2",
    )
    assert "192.0.2.64/24" in result.stdout
    assert "default via 192.0.2.2" in result.stdout
    assert "1 packets received" in result.stdout
    assert busy.tables() == []  # the neighbours see it as one of them: nothing is translated
    until(lambda: busy.links() == ["uplink"], "it goes with its namespace")
    limpet("network", "create", "-d", "macvlan", "-o", "parent=nowhere0", *lan, "lost")
    result = limpet("run", "--rm", "--network", "lost", "bb", "true", check=False)
    assert (result.returncode, "parent interface nowhere0 is not there" in result.stderr) == (125, True)
    assert "-p" in limpet("run", "--rm", "-p", "80", "--network", "lan", "bb", "true", check=False).stderr


def test_ipvlan(busy: Machine, outside: Machine) -> None:
    limpet = busy.limpet
    lan = ("--subnet", "192.0.2.0/24", "--gateway", "192.0.2.2", "--ip-range", "192.0.2.64/26")
    limpet("network", "create", "-d", "ipvlan", "-o", "parent=uplink", *lan, "slim")
    result = limpet("run", "--rm", "--network", "slim", "bb", "ping", "-c1", "-W2", "192.0.2.2", check=False)
    if "kernel has not that kind of interface" in result.stderr:
        assert result.returncode == 125
        pytest.skip("needs a kernel with ipvlan; that it is missing was said")
    assert "1 packets received" in result.stdout


def test_a_copy_is_at_an_address_of_its_own(busy: Machine) -> None:
    limpet = busy.limpet
    limpet("network", "create", "web")
    limpet(
        "create",
        "--name",
        "one",
        "--network",
        "web:ip=10.201.0.9,alias=db,mac=02:00:00:00:00:0a",
        "bb",
        "ip",
        "address",
    )
    limpet("copy", "one", "two")
    text = limpet("start", "-a", "two").stdout
    assert "10.201.0.2/24" in text
    assert "02:00:00:00:00:0a" not in text
    assert json.loads(limpet("inspect", "two").stdout)[0]["NetworkSettings"]["Networks"]["web"]["Aliases"] == ["db"]


def test_what_can_not_be_together_is_refused(machine: Machine, busybox_tar: Path) -> None:
    limpet = machine.limpet
    limpet("import", busybox_tar, "bb")
    limpet("network", "create", "web")
    limpet("network", "create", "-d", "host", "plain")
    for arguments, words in (
        (["--network", "wbe"], "did you mean web?"),
        (["--network", "web", "--network", "host"], "can't be had beside other networks"),
        (["--network", "web", "--network", "web"], "twice"),
        (["--network", "web", "--network", "plain"], "can't be had together"),
        (["--network", "web:ip=10.9.9.9"], "is not within the subnet 10.201.0.0/24"),
        (["--network", "web", "--ip", "10.201.0.1"], "the network itself's"),
        (["--network", "web", "--ip6", "fd00::2"], "has no IPv6 addresses"),
        (["--ip", "10.201.0.5"], "need a network"),
        (["--network", "none", "--network-alias", "x"], "need a network"),
        (["--network", "ns:here"], "absolute"),
        (["--network", "ns:/nowhere"], "/nowhere"),
    ):
        result = limpet("run", "--rm", *arguments, "bb", "true", check=False)
        assert result.returncode == 125, arguments
        assert words in result.stderr, arguments
        assert len(result.stderr.splitlines()) <= 2
    assert limpet("ps", "-aq").stdout == ""
    assert machine.links() == ["uplink"]
    limpet("run", "--rm", "--network", "plain", "bb", "ip", "link", "show", "uplink")


def test_a_namespace_of_somebody_elses(busy: Machine, outside: Machine) -> None:
    text = busy.limpet("run", "--rm", "--network", f"ns:{outside.path}", "bb", "ip", "address", "show", "eth0").stdout
    assert "192.0.2.2/24" in text
