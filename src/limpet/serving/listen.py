"""Where a server listens: `HOST:PORT`, `tcp://HOST:PORT`, `unix:///PATH`, and the sockets of that."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from dataclasses import dataclass

from limpet.errors import Conflict, Invalid, Refused

BACKLOG = 1024


@dataclass(frozen=True)
class Address:
    """Of TCP `host` and `port` (0: any that is free), of a unix socket its `path`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can come in."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """`:5000` is every address of this machine, as Docker and Go have it. Raises Invalid."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path.startswith("/"):
            raise Invalid(f"{text!r} is not an address to listen on", "a unix socket is unix:///absolute/path")
        return Address(path=path)
    rest = text.removeprefix("tcp://")
    host, colon, number = rest.rpartition(":")
    if not colon or not (number.isascii() and number.isdigit() and int(number) < 65536):
        raise Invalid(f"{text!r} is not an address to listen on", "for example 127.0.0.1:5000, or unix:///run/x.sock")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if ":" in host and not _is_address(host):
        raise Invalid(f"{text!r} is not an address to listen on", "one host and one port, for example 127.0.0.1:5000")
    return Address(host=host or "0.0.0.0", port=int(number))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def sockets(address: Address, count: int) -> tuple[Address, list[socket.socket]]:
    """The address with its real port, and one listening socket for each of `count` workers.

    Workers on TCP have a socket each (SO_REUSEPORT): the kernel shares the connections out, where workers on one
    socket leave most of them to whoever wakes first. That would also let a second server join in silently, so a plain
    bind asks first whether the address is free. Raises Conflict (in use), Refused (not ours to bind).
    """
    try:
        if address.path:
            return address, [_unix(address.path)] * count
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with _tcp(family) as probe:
            probe.bind(where)
            port = probe.getsockname()[1]
        made = [_tcp(family) for _ in range(count)]
        for one in made:
            if count > 1:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind((where[0], port, *where[2:]))
            one.listen(BACKLOG)
        return Address(host=address.host, port=port), made
    except socket.gaierror as e:
        raise Invalid(f"{address}: {e.strerror}", "give an address of this machine") from None
    except OSError as e:
        if e.errno == 98:
            raise Conflict(f"{address} is in use", "choose another address, or stop what listens there") from None
        raise Refused(f"cannot listen on {address}: {e.strerror}") from None


def _tcp(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return made


def _unix(path: str) -> socket.socket:
    """A socket that only its owner and group may use. One that nobody answers on any more is replaced."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
    except FileNotFoundError:
        pass
    before = os.umask(0o117)
    try:
        made.bind(path)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def remove(path: str) -> None:
    """Takes a unix socket away when its server ends."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
