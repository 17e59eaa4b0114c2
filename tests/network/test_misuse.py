"""What a container tries against others' addresses, and what comes of it: each row of the table in docs/network.md."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.network import inside
from tests.network.inside import Group, ask

from limpet.network import addresses

V4, V6 = socket.AF_INET, socket.AF_INET6
UNAVAILABLE = {"errno": errno.EADDRNOTAVAIL}


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    with inside.apart():
        yield


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Group]]:
    with inside.groups(str(tmp_path)) as made:
        yield made


def bound(family: int, address: str, port: int, kind: int = socket.SOCK_STREAM, *options: tuple[int, int, Any]) -> Any:
    with socket.socket(family, kind) as channel:
        for level, option, value in options:
            channel.setsockopt(level, option, value)
        channel.bind((address, port))
        return list(channel.getsockname()[:2])


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_anothers_address_can_not_be_bound(two: list[Group], kind: int) -> None:
    a, b = two
    for family, address in ((V4, a.own4), (V6, a.own6), (V6, f"::ffff:{a.own4}")):
        found = b.run(lambda family=family, address=address: bound(family, address, 8080, kind))
        assert found["errno"] == errno.EADDRNOTAVAIL, address
    assert b.run(lambda: bound(V4, b.own4, 8080, kind)) == [b.own4, 8080]


def test_nor_one_that_nobody_has_yet(two: list[Group]) -> None:
    """A container that is to come would find its port taken."""
    assert two[0].run(lambda: bound(V4, "127.77.1.2", 80))["errno"] == errno.EADDRNOTAVAIL
    assert two[0].run(lambda: bound(V6, addresses.ipv6_of("127.77.1.2"), 80))["errno"] == errno.EADDRNOTAVAIL


def test_the_hosts_own_loopback_can_be_bound_by_number(two: list[Group]) -> None:
    """But for 127.0.0.1: who names another address of the host means it."""
    assert two[0].run(lambda: bound(V4, "127.0.0.9", 0))[0] == "127.0.0.9"


def test_a_port_that_is_shared_is_shared_with_oneself(two: list[Group]) -> None:
    """SO_REUSEPORT takes no connections from a neighbour: the addresses differ."""
    a, b = two
    a.serve(V4, "0.0.0.0", 80)
    share = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    assert b.run(lambda: bound(V4, "0.0.0.0", 80, socket.SOCK_STREAM, share)) == ["0.0.0.0", 80]
    assert b.run(lambda: bound(V4, a.own4, 80, socket.SOCK_STREAM, share))["errno"] == errno.EADDRNOTAVAIL


# IP_FREEBIND, IP_TRANSPARENT
@pytest.mark.parametrize("option", [(socket.IPPROTO_IP, 15, 1), (socket.IPPROTO_IP, 19, 1)])
def test_options_that_allow_any_address_do_not_allow_anothers(two: list[Group], option: tuple[int, int, int]) -> None:
    a, b = two
    found = b.run(lambda: bound(V4, a.own4, 80, socket.SOCK_STREAM, option))
    assert found["errno"] == errno.EADDRNOTAVAIL


def test_a_socket_of_one_device_is_moved_all_the_same(two: list[Group]) -> None:
    device = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")

    def serve(send: Any) -> None:
        channel = socket.socket()
        channel.setsockopt(*device)
        channel.bind(("0.0.0.0", 80))
        channel.listen()
        send("ok")
        while True:
            channel.accept()[0].close()

    assert two[0].keep(serve) == "ok"
    socket.create_connection((two[0].own4, 80), 5).close()
    assert ask("127.0.0.1", 80) == {"errno": errno.ECONNREFUSED}


def test_datagrams_reach_neighbours_under_ones_own_address_only(two: list[Group]) -> None:
    """IP_PKTINFO names a source for one datagram; a neighbour's is not to be had."""
    a, b = two

    def send_as(source: str, *, connect: bool = False) -> Any:
        with socket.socket(V4, socket.SOCK_DGRAM) as channel:
            if connect:
                channel.connect((a.own4, 53))
            info = struct.pack("=i4s4s", 0, socket.inet_aton(source), bytes(4))
            channel.sendmsg([b"?"], [(socket.IPPROTO_IP, 8, info)], 0, *([] if connect else [(a.own4, 53)]))
        return "sent"

    def receive(send: Any) -> None:
        channel = socket.socket(V4, socket.SOCK_DGRAM)
        channel.bind(("0.0.0.0", 53))
        send("ok")
        while True:
            send(channel.recvfrom(10)[1][0])

    pid, read = a.fork(receive)
    try:
        assert inside.line(read) == "ok"
        assert b.run(lambda: send_as(b.own4)) == "sent"
        assert inside.line(read) == b.own4
        assert b.run(lambda: send_as(a.own4)) == "sent"
        assert inside.line(read) == b.own4, "the program puts the own address there"
        assert b.run(lambda: send_as(a.own4, connect=True)) == "sent"
        assert inside.line(read) == b.own4
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(read)


def test_a_socket_that_is_handed_on_is_bound_to_whom_binds_it(two: list[Group]) -> None:
    a, b = two
    left, right = socket.socketpair()

    def give(send: Any) -> None:
        socket.send_fds(left, [b"x"], [socket.socket().detach()])
        send("given")

    def take() -> Any:
        _, descriptors, _, _ = socket.recv_fds(right, 1, 1)
        channel = socket.socket(fileno=descriptors[0])
        channel.bind(("0.0.0.0", 80))
        channel.listen()
        return real_address(80)

    assert a.keep(give) == "given"
    assert b.run(take) == [b.own4]
    left.close()
    right.close()


def real_address(port: int) -> list[str]:
    """Where this process's network namespace has listeners on a port, below 127.0.0.0/8, as the kernel has it."""
    with open("/proc/net/tcp") as file:
        rows = [row.split() for row in file.readlines()[1:]]
    found = []
    for row in rows:
        where, _, number = row[1].partition(":")
        if row[3] == "0A" and int(number, 16) == port:
            found.append(socket.inet_ntoa(int(where, 16).to_bytes(4, "little")))
    return [address for address in found if address.startswith("127.2")]


def test_connections_by_sendto_are_connections(two: list[Group]) -> None:
    """TCP fast open connects without connect(2)."""
    a, b = two
    a.serve(V4, "0.0.0.0", 80)

    def client() -> Any:
        with socket.socket() as channel:
            channel.sendto(b"?", 0x20000000, (a.own4, 80))  # MSG_FASTOPEN
            return channel.recv(100).decode()

    assert b.run(client) == f'["{b.own4}", "{a.own4}"]'


def test_io_uring_makes_no_difference(two: list[Group]) -> None:
    """IORING_OP_BIND (Linux 6.11), with no system call for it."""
    a, b = two

    def bind(address: str) -> Any:
        with socket.socket() as channel:
            result = uring_bind(channel.fileno(), address, 80)
            return [result, channel.getsockname()[0]]

    found = b.run(lambda: bind("0.0.0.0"))
    if isinstance(found, dict) or found[0] == -errno.EINVAL:
        pytest.skip(f"io_uring has no bind here: {found}")
    assert found == [0, "0.0.0.0"]
    assert b.run(lambda: bind(a.own4))[0] == -errno.EADDRNOTAVAIL


def uring_bind(descriptor: int, address: str, port: int) -> int:
    """One submission, its result."""
    import mmap

    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 4, params)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    words = struct.unpack_from("<30I", params.raw)
    sq, cq = words[10:20], words[20:30]  # offsets: head, tail, ring_mask, ...
    size = max(sq[6] + 4 * words[0], cq[5] + 16 * words[1])
    rings = mmap.mmap(ring, size, offset=0)
    entries = mmap.mmap(ring, 64 * words[0], offset=0x10000000)
    where = struct.pack("<H", V4) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)
    name = ctypes.create_string_buffer(where)
    # struct io_uring_sqe: opcode, flags, ioprio, fd, addr2 (the length), addr, …
    entry = struct.pack("<BBHiQQ", 56, 0, 0, descriptor, 16, ctypes.addressof(name))
    entries[0:64] = entry.ljust(64, b"\0")
    rings[sq[6] : sq[6] + 4] = struct.pack("<I", 0)
    rings[sq[1] : sq[1] + 4] = struct.pack("<I", 1)
    if libc.syscall(426, ring, 1, 1, 1, None, 0) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_enter")
    return int(struct.unpack_from("<i", rings, cq[5] + 8)[0])


def test_raw_sockets_go_past_the_programs(two: list[Group]) -> None:
    """CAP_NET_RAW, which a container has by default, makes packets by hand: --cap-drop NET_RAW takes it."""
    a, b = two

    def forge() -> Any:
        with socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_UDP) as channel:
            channel.bind((a.own4, 0))
            return channel.getsockname()[0]

    assert b.run(forge) == a.own4
    assert b.run(forge, uid=65534)["errno"] == errno.EPERM


def test_a_socket_of_the_hosts_stays_the_hosts(two: list[Group]) -> None:
    """One that was made outside and handed in: no program is asked, it is no socket of a container's."""
    outside = socket.socket()

    def use() -> Any:
        outside.bind(("127.0.0.1", 0))
        return outside.getsockname()[0]

    assert two[0].run(use) == "127.0.0.1"
    outside.close()


def test_abstract_sockets_of_unix_are_the_network_namespaces(two: list[Group]) -> None:
    name = f"\0limpet-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()

        def client() -> str:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.connect(name)
            return "reached"

        assert two[0].run(client) == "reached"
