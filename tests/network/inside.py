"""Processes in a control group that has an address, as a container's: without images, mounts and monitors."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from limpet.kernel import cgroup
from limpet.network import addresses, attachment, local


class Group:
    """A group with an own address. `run` and `keep` execute functions in processes of it."""

    def __init__(self, name: str, run: str, own4: str, own6: str = "") -> None:
        place = cgroup.create(f"limpet-test-{os.getpid()}-{name}")
        assert place is not None
        self.place = place
        self.own4 = own4
        self.own6 = own6
        self._kept: list[int] = []
        attachment.give(place, run, own4, own6)

    def fork(self, function: Callable[[Callable[[Any], None]], object], *, uid: int = 0) -> tuple[int, int]:
        """(pid, read end): the child enters the group, calls `function(send)`, and `send`s lines of JSON."""
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(write)
            return pid, read

        def send(value: Any) -> None:
            os.write(write, json.dumps(value).encode() + b"\n")

        try:
            signal.alarm(20)
            cgroup.enter(self.place)
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            function(send)
        except OSError as e:
            send({"errno": e.errno, "text": str(e)})
        except BaseException as e:
            send({"errno": 0, "text": repr(e)})
        finally:
            os._exit(0)

    def run(self, function: Callable[[], Any], *, uid: int = 0) -> Any:
        """The function's result; {"errno": …} if it raised."""
        pid, read = self.fork(lambda send: send(function()), uid=uid)
        result = line(read)
        os.close(read)
        os.waitpid(pid, 0)
        return result

    def keep(self, function: Callable[[Callable[[Any], None]], object], *, uid: int = 0) -> Any:
        """Starts a process that goes on; what it sent first."""
        pid, read = self.fork(function, uid=uid)
        self._kept.append(pid)
        return line(read)

    def serve(self, family: int, address: str, port: int, *, v6only: bool | None = None, uid: int = 0) -> Any:
        """A server that answers each client with [whom it sees, at which address]. Its own name, or an error."""

        def body(send: Callable[[Any], None]) -> None:
            server = listen(family, address, port, v6only=v6only)
            send(server.getsockname()[:2])
            while True:
                client, peer = server.accept()
                client.sendall(json.dumps([peer[0], client.getsockname()[0]]).encode())
                client.close()

        return self.keep(body, uid=uid)

    def serve_datagrams(self, family: int, address: str, port: int) -> Any:
        def body(send: Callable[[Any], None]) -> None:
            server = socket.socket(family, socket.SOCK_DGRAM)
            server.bind((address, port))
            send(server.getsockname()[:2])
            while True:
                _, peer = server.recvfrom(100)
                server.sendto(json.dumps(peer[0]).encode(), peer)

        return self.keep(body)

    def end(self) -> None:
        for pid in self._kept:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._kept = []

    def close(self) -> None:
        self.end()
        attachment.take(self.place)
        if self.own6:
            local.remove(self.own6)
        assert cgroup.remove(self.place)


def listen(family: int, address: str, port: int, *, v6only: bool | None = None) -> socket.socket:
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6only is not None:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    server.bind((address, port))
    server.listen(64)
    return server


def ask(address: str, port: int) -> Any:
    """What a server of `Group.serve` answers; {"errno": …} if it can't be reached."""
    try:
        with socket.create_connection((address, port), timeout=5) as client:
            return json.loads(client.recv(1000))
    except OSError as e:
        return {"errno": e.errno}


def names(address: str, port: int) -> list[str]:
    """What a client is told of both ends of its connection."""
    with socket.create_connection((address, port), timeout=5) as client:
        client.recv(1000)
        return [client.getsockname()[0], client.getpeername()[0]]


def ask_by_datagram(family: int, address: str, port: int, *, connect: bool) -> list[str]:
    """[who answered, whom the server saw]."""
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        if connect:
            client.connect((address, port))
            client.send(b"?")
        else:
            client.sendto(b"?", (address, port))
        answer, peer = client.recvfrom(1000)
        return [peer[0], json.loads(answer)]


def line(descriptor: int) -> Any:
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(descriptor, 1)
        if not more:
            return None
        data += more
    return json.loads(data)


@contextmanager
def apart() -> Iterator[None]:
    """This process, and those that it starts, in a network namespace in which nobody else has a port."""
    from limpet.kernel import interfaces, process

    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    process.unshare(process.CLONE_NEWNET)
    try:
        interfaces.bring_up("lo")
        yield
    finally:
        process.setns(home, process.CLONE_NEWNET)
        os.close(home)


@contextmanager
def groups(run: str, count: int = 2) -> Iterator[list[Group]]:
    """Some, with addresses that no container has by chance."""
    made: list[Group] = []
    try:
        for number in range(count):
            own4 = f"127.{200 + os.getpid() % 50}.{os.getpid() >> 8 & 255}.{number + 1}"
            made.append(Group(str(number), run, own4, addresses.ipv6_of(own4)))
        yield made
    finally:
        for group in made:
            group.close()
