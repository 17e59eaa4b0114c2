"""What the kernel makes of binds and connections in groups that have an address of their own."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.network import inside
from tests.network.inside import Group, ask, ask_by_datagram, names

from limpet.network import addresses, attachment, loading, local, programs

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    with inside.apart():
        yield


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Group]]:
    with inside.groups(str(tmp_path)) as made:
        yield made


@pytest.fixture
def one(two: list[Group]) -> Group:
    return two[0]


@pytest.fixture
def host_port() -> Iterator[int]:
    """A server of the host's on 127.0.0.1 and its port; it answers as those of `Group.serve`."""
    code = (
        "import json, socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "while True:\n"
        "    client, peer = server.accept()\n"
        "    client.sendall(json.dumps([peer[0], 'host']).encode())\n"
        "    client.close()\n"
    )
    process = subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


# bind


@pytest.mark.parametrize(
    ("family", "address"),
    [(V4, "0.0.0.0"), (V4, "127.0.0.1"), (V6, "::"), (V6, "::ffff:0.0.0.0"), (V6, "::ffff:127.0.0.1")],
)
def test_everybody_serves_one_port(two: list[Group], family: int, address: str) -> None:
    for group in two:
        said = group.serve(family, address, 80)
        assert said == [address, 80], "getsockname shows what was asked for"
    for group in two:
        assert ask(group.own4, 80)[1] == shown(group.own4, family)
    assert ask("127.0.0.1", 80) == {"errno": errno.ECONNREFUSED}


def shown(own4: str, family: int) -> str:
    return own4 if family == V4 else f"::ffff:{own4}"


@pytest.mark.parametrize("first", ["both", "alone"])
def test_sockets_of_ipv6_alone_live_beside_those_of_ipv4(one: Group, first: str) -> None:
    """As nginx's default site does: 0.0.0.0:80 and [::]:80 with IPV6_V6ONLY."""
    if first == "both":
        assert one.serve(V4, "0.0.0.0", 80) == ["0.0.0.0", 80]
    assert one.serve(V6, "::", 80, v6only=True) == ["::", 80]
    if first == "alone":
        assert one.serve(V4, "0.0.0.0", 80) == ["0.0.0.0", 80]
    assert ask(one.own6, 80)[1] == one.own6
    assert ask(one.own4, 80)[1] == one.own4


def test_both_loopbacks_live_side_by_side(one: Group) -> None:
    """As Redis does, and PostgreSQL with listen_addresses = 'localhost'."""
    assert one.serve(V4, "127.0.0.1", 6379) == ["127.0.0.1", 6379]
    assert one.serve(V6, "::1", 6379) == ["::1", 6379]
    assert one.run(lambda: ask("127.0.0.1", 6379)) == ["127.0.0.1", one.own4]
    assert one.run(lambda: ask("::1", 6379)) == ["::1", one.own6]


def test_both_families_twice_is_a_conflict_as_on_any_host(one: Group) -> None:
    assert one.serve(V6, "::", 80, v6only=False) == ["::", 80]
    assert one.serve(V4, "0.0.0.0", 80)["errno"] == errno.EADDRINUSE


def test_without_ipv6_a_socket_of_it_alone_has_no_address(tmp_path: Path) -> None:
    group = Group("no6", str(tmp_path), "127.199.1.1")
    try:
        assert group.serve(V6, "::", 80, v6only=True)["errno"] == errno.EADDRNOTAVAIL
        assert group.serve(V6, "::1", 80) == ["::1", 80]
        assert ask("127.199.1.1", 80)[1] == "::ffff:127.199.1.1"
    finally:
        group.close()


def test_a_low_port_needs_no_capability_on_the_own_address(one: Group) -> None:
    assert one.serve(V4, "0.0.0.0", 80, uid=65534) == ["0.0.0.0", 80]
    assert one.serve(V4, one.own4, 81, uid=65534) == [one.own4, 81]
    assert one.serve(V4, "127.0.0.2", 80, uid=65534)["errno"] == errno.EACCES


def test_any_port_is_one_of_the_own_address(one: Group) -> None:
    address, port = one.serve(V4, "0.0.0.0", 0)
    assert address == "0.0.0.0"
    assert ask(one.own4, port)[1] == one.own4
    assert ask("127.0.0.1", port) == {"errno": errno.ECONNREFUSED}


def test_a_datagram_socket_that_only_sends_stays_everywhere(one: Group) -> None:
    """Resolvers bind 0.0.0.0:0 and ask a server far away: from loopback they could not."""

    def client() -> list[Any]:
        with socket.socket(V4, socket.SOCK_DGRAM) as channel:
            channel.bind(("0.0.0.0", 0))
            with open("/proc/net/udp") as file:
                wanted = f"{channel.getsockname()[1]:04X}"
                return [row.split()[1].split(":")[0] for row in file if f":{wanted} " in row]

    assert one.run(client) == ["00000000"]


# connect


def test_localhost_is_the_containers_own_first_then_the_hosts(one: Group, host_port: int) -> None:
    assert one.run(lambda: ask("127.0.0.1", host_port)) == ["127.0.0.1", "host"]
    assert one.run(lambda: ask("0.0.0.0", host_port)) == ["127.0.0.1", "host"]
    assert one.serve(V4, "0.0.0.0", host_port) == ["0.0.0.0", host_port]
    assert one.run(lambda: ask("127.0.0.1", host_port)) == ["127.0.0.1", one.own4]
    assert one.run(lambda: ask("0.0.0.0", host_port)) == ["127.0.0.1", one.own4]
    assert one.run(lambda: ask("::ffff:127.0.0.1", host_port)) == ["127.0.0.1", one.own4]
    assert one.run(lambda: ask("::1", host_port)) == ["127.0.0.1", one.own4]
    one.end()
    assert one.run(lambda: ask("127.0.0.1", host_port)) == ["127.0.0.1", "host"]


def test_a_neighbours_listener_is_not_our_localhost(two: list[Group]) -> None:
    two[1].serve(V4, "0.0.0.0", 80)
    assert two[0].run(lambda: ask("127.0.0.1", 80)) == {"errno": errno.ECONNREFUSED}


def test_a_wildcard_listener_of_the_host_is_not_our_own(one: Group) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        assert one.run(lambda: socket.create_connection(("127.0.0.1", port), 5).getsockname()[0]) == "127.0.0.1"
        client, peer = server.accept()
        client.close()
        assert peer[0] == "127.0.0.1"


def test_neighbours_see_who_calls(two: list[Group]) -> None:
    a, b = two
    a.serve(V6, "::", 80)
    a.serve(V6, "::", 81, v6only=True)
    a.serve(V4, "0.0.0.0", 82)
    assert b.run(lambda: ask(a.own4, 80)) == [f"::ffff:{b.own4}", f"::ffff:{a.own4}"]
    assert b.run(lambda: ask(f"::ffff:{a.own4}", 80)) == [f"::ffff:{b.own4}", f"::ffff:{a.own4}"], "as Java connects"
    assert b.run(lambda: ask(a.own6, 81)) == [b.own6, a.own6]
    assert b.run(lambda: ask(a.own4, 82)) == [b.own4, a.own4]
    assert a.run(lambda: ask(a.own4, 82)) == ["127.0.0.1", a.own4], "itself it sees as loopback"


def test_a_client_is_told_what_it_expects(two: list[Group]) -> None:
    a, b = two
    a.serve(V4, "0.0.0.0", 80)
    a.serve(V6, "::", 81)
    a.serve(V6, "::", 82, v6only=True)
    assert a.run(lambda: names("127.0.0.1", 80)) == ["127.0.0.1", "127.0.0.1"]
    assert a.run(lambda: names("::1", 81)) == ["::1", "::1"]
    assert a.run(lambda: names("::1", 82)) == ["::1", "::1"]
    assert a.run(lambda: names("::ffff:127.0.0.1", 81)) == ["::ffff:127.0.0.1", "::ffff:127.0.0.1"]
    assert b.run(lambda: names(a.own4, 80)) == [b.own4, a.own4]


def test_sockets_that_are_bound_keep_their_address(two: list[Group]) -> None:
    a, b = two
    a.serve(V4, "0.0.0.0", 80)

    def client() -> Any:
        channel = socket.socket()
        channel.bind(("0.0.0.0", 0))
        channel.connect((a.own4, 80))
        return channel.recv(100).decode()

    assert b.run(client) == f'["{b.own4}", "{a.own4}"]'


# datagrams


@pytest.mark.parametrize("connect", [False, True])
def test_datagrams_to_localhost(one: Group, connect: bool) -> None:
    assert one.serve_datagrams(V4, "0.0.0.0", 53) == ["0.0.0.0", 53]
    answer = one.run(lambda: ask_by_datagram(V4, "127.0.0.1", 53, connect=connect))
    assert answer == ["127.0.0.1", one.own4]
    assert one.serve_datagrams(V6, "::1", 53) == ["::1", 53]
    answer = one.run(lambda: ask_by_datagram(V6, "::1", 53, connect=connect))
    assert answer[0] == "::1"


@pytest.mark.parametrize("connect", [False, True])
def test_datagrams_between_neighbours(two: list[Group], connect: bool) -> None:
    a, b = two
    a.serve_datagrams(V4, "0.0.0.0", 53)
    a.serve_datagrams(V6, "::1", 53)
    assert b.run(lambda: ask_by_datagram(V4, a.own4, 53, connect=connect)) == [a.own4, b.own4]
    assert b.run(lambda: ask_by_datagram(V6, a.own6, 53, connect=connect)) == [a.own6, b.own6]


@pytest.mark.parametrize("connect", [False, True])
def test_datagrams_to_the_hosts_localhost(one: Group, connect: bool) -> None:
    with socket.socket(V4, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        port = server.getsockname()[1]
        pid, read = one.fork(lambda send: send(ask_by_datagram(V4, "127.0.0.1", port, connect=connect)))
        _, peer = server.recvfrom(100)
        server.sendto(b'"host"', peer)
        assert peer[0] == "127.0.0.1"
        assert inside.line(read) == ["127.0.0.1", "host"]
        os.close(read)
        os.waitpid(pid, 0)


# who is meant


def test_nobody_else_is_touched(two: list[Group]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert server.getsockname()[0] == "0.0.0.0"
        with socket.create_connection(("127.0.0.1", server.getsockname()[1])) as client:
            assert client.getsockname()[0] == "127.0.0.1"


def test_groups_below_a_container_are_the_containers(one: Group) -> None:
    below = f"{one.place}/below"
    os.mkdir(below)
    inner = Group.__new__(Group)
    inner.place = below
    assert inner.run(lambda: inside.listen(V4, "0.0.0.0", 80).getsockname()[0]) == "0.0.0.0"
    one.serve(V4, "0.0.0.0", 80)
    assert inner.run(lambda: ask("127.0.0.1", 80)) == ["127.0.0.1", one.own4]


def test_another_network_namespace_is_left_alone(one: Group) -> None:
    """A privileged container may make networks: its own containers are not at its address."""

    def apart() -> Any:
        from limpet.kernel import interfaces, process

        process.unshare(process.CLONE_NEWNET)
        interfaces.bring_up("lo")
        server = inside.listen(V4, "0.0.0.0", 80)
        with socket.create_connection(("127.0.0.5", 80), 5) as client:
            return [server.getsockname()[0], client.getpeername()[0]]

    assert one.run(apart) == ["0.0.0.0", "127.0.0.5"]


# entries


def test_an_address_is_owned_once(two: list[Group], tmp_path: Path) -> None:
    a, b = two
    with pytest.raises(Exception, match=f"the address {a.own4} is that of container limpet-test-"):
        attachment.give(b.place, str(tmp_path), a.own4, "")


def test_what_a_dead_container_owned_can_be_had(tmp_path: Path) -> None:
    from limpet.kernel import cgroup

    dead = Group("dead", str(tmp_path), "127.199.2.1")
    with inside.groups(str(tmp_path), 1) as (other,):
        assert cgroup.remove(dead.place)  # without `take`
        attachment.give(other.place, str(tmp_path), "127.199.2.1", "")
        assert other.serve(V4, "0.0.0.0", 80) == ["0.0.0.0", 80]
        assert ask("127.199.2.1", 80)[1] == "127.199.2.1"


def test_what_is_dead_is_collected(tmp_path: Path) -> None:
    from limpet.kernel import cgroup

    dead = Group("dead", str(tmp_path), "127.199.3.1", addresses.ipv6_of("127.199.3.1"))
    with inside.groups(str(tmp_path), 1) as (living,):
        assert cgroup.remove(dead.place)
        there, gone = attachment.collect()
        assert living.own4 in there
        assert "127.199.3.1" not in there
        assert dead.own6 in gone or dead.own6 not in local.ours(), "perhaps another session was first"
        assert living.own6 in local.ours()


def test_the_generation_changes_with_the_programs() -> None:
    """Containers that run go on with the programs that they began with: other programs need another number."""
    from types import SimpleNamespace

    maps: Any = SimpleNamespace(containers=1, owners=2, sockets=3, listeners=4, lookups=5)
    whole = hashlib.sha256()
    for hook in programs.HOOKS:
        whole.update(programs.assemble(hook, maps, 2, addresses.PREFIX6, (19, 32)))
    assert (loading.GENERATION, whole.hexdigest()[:16]) == (3, "7c0c910268b57ebe")
