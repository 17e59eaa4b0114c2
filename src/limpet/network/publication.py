"""Published ports: a program on the network namespace says which socket gets a connection to them.

    published   address and port of the host → where it goes: two of `assembly.PLACE`, tried in turn
    listeners   `assembly.PLACE` → the listening socket; the kernel fills it, by the program `listen` of `programs`

The program is called once for each new connection, and never after: no proxy, no address translation, and the host's
firewall sees the packets as those of a local service. Where nothing listens it lets the kernel go on, which refuses.
It lives as long as somebody has a descriptor of its link: all who publish have one of the same.

A bound socket that doesn't listen reserves each port, so that no other program can take it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from limpet.errors import Conflict
from limpet.kernel import bpf, bpfmaps, cgroup, interfaces
from limpet.network import addresses, assembly, attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from limpet.network.loading import Maps

    Port = tuple[str, int, int, str]
    Table = Sequence[tuple[bytes, bytes]]
else:
    import _socket as socket

PROTOCOLS = {"tcp": 6, "udp": 17}
_SK_LOOKUP_KIND, _SK_LOOKUP_HOOK = 30, 36
_ENTRIES = 1 << 14
_WILDCARDS = ("0.0.0.0", "::")
_TRIES = 32  # for a port that is free in both families
_NAME = "limpet_lookup"
_MAPPED = bytes(10) + b"\xff\xff"


class Published:
    """What is published while the descriptors are open. `ports`: (address, port, the container's, protocol)."""

    __slots__ = ("descriptors", "ports")

    def __init__(self, descriptors: list[int], ports: list[Port]) -> None:
        self.descriptors = descriptors
        self.ports = ports


def publish(group: str, own4: str, own6: str, wanted: Sequence[Port]) -> Published:
    """`wanted`: a port of 0 is any that is free, the same one for all entries of one port of the container's.

    Raises Conflict for a port in use, OSError where the kernel can't do it.
    """
    parent = os.path.dirname(cgroup.outer(group))
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    descriptors: list[int] = []
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        maps = attachment.find(directory)
        if maps is None or not attachment.listens(directory):
            raise OSError(errno.EOPNOTSUPP, "the kernel did not take the programs that this needs")
        try:
            link, published = _lookup(maps)
            descriptors.append(link)
            try:
                _drop_of(published, own4)
                ports = _reserve(wanted, descriptors, maps, published, parent)
                for address, port, inner, protocol in ports:
                    bpfmaps.put(published, _key(address, port, protocol), _places(own4, own6, address, inner, protocol))
            finally:
                os.close(published)
        finally:
            maps.close()
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    finally:
        os.close(directory)
    return Published(descriptors, ports)


def reserve(wanted: Sequence[Port]) -> Published:
    """Keeps the ports for who publishes by other means, in a network that is not the host's. Raises Conflict."""
    descriptors: list[int] = []
    ports: list[Port] = []
    chosen: dict[tuple[int, str], int] = {}
    try:
        for address, port, inner, protocol in wanted:
            number = port or chosen.get((inner, protocol), 0)
            for one in _addresses(address, None) if address in _WILDCARDS else [address]:
                try:
                    holder = _hold(one, number, protocol)
                except OSError as e:
                    if e.errno == errno.EADDRNOTAVAIL and address in _WILDCARDS:
                        continue  # it is being probed for just now, or went
                    raise _conflict(e, address, number, protocol) from e
                number = holder.getsockname()[1]
                descriptors.append(holder.detach())
            chosen.setdefault((inner, protocol), number)
            ports.append((address, number, inner, protocol))
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return Published(descriptors, ports)


def withdraw(published: Published) -> None:
    """New connections are refused from here on; those that are there go on."""
    link, *reserved = published.descriptors
    try:
        table = _table(link)
        try:
            for address, port, _, protocol in published.ports:
                bpfmaps.drop(table, _key(address, port, protocol))
        finally:
            os.close(table)
    except OSError:
        pass  # the link is of another kind: nothing is there any more
    for descriptor in (*reserved, link):
        os.close(descriptor)


def _lookup(maps: Maps) -> tuple[int, int]:
    """Descriptors of the link in this network namespace and of its map `published`; both new if nobody has one."""
    cookie = struct.pack("<Q", attachment.netns_cookie())
    number = bpfmaps.get(maps.lookups, cookie, 4)
    if number is not None:
        try:
            link = bpf.link_by_id(int.from_bytes(number, "little"))
            return link, _table(link)
        except FileNotFoundError:
            pass  # the last who had it has ended
    table = bpfmaps.create(bpfmaps.HASH, assembly.PLACE, 2 * assembly.PLACE, _ENTRIES, "published", bpfmaps.NO_PREALLOC)
    try:
        program = bpf.load(_SK_LOOKUP_KIND, _program(table, maps.listeners), _NAME, _SK_LOOKUP_HOOK)
        try:
            namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                link = bpf.link(program, namespace, _SK_LOOKUP_HOOK)
            finally:
                os.close(namespace)
        finally:
            os.close(program)
        bpfmaps.put(maps.lookups, cookie, struct.pack("<I", bpf.link_info(link)[0]))
    except BaseException:
        os.close(table)
        raise
    return link, table


def _table(link: int) -> int:
    """The map `published` of a link's program."""
    program = bpf.by_id(bpf.link_info(link)[1])
    try:
        name, ids = bpf.program_info(program)
    finally:
        os.close(program)
    for number in ids:
        descriptor = bpfmaps.by_id(number)
        if name == _NAME and bpfmaps.name(descriptor) == "published":
            return descriptor
        os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "no link of limpet's")


def _drop_of(published: int, own4: str) -> None:
    """Entries that lead to this address are of a container that was killed: nobody else has it."""
    mine = _packed(own4)
    for key, value in bpfmaps.items(published, assembly.PLACE, 2 * assembly.PLACE, _ENTRIES):
        if mine in (value[:16], value[assembly.PLACE : assembly.PLACE + 16]):
            bpfmaps.drop(published, key)


# Ports of the host


def _reserve(wanted: Sequence[Port], descriptors: list[int], maps: Maps, published: int, parent: str) -> list[Port]:
    """The ports as they came to be; their sockets are added to `descriptors`."""
    found: list[Port] = []
    table = bpfmaps.items(published, assembly.PLACE, 2 * assembly.PLACE, _ENTRIES)
    for attempt in range(_TRIES):
        chosen: dict[tuple[int, str], int] = {}
        held: list[int] = []
        found = []
        try:
            for address, port, inner, protocol in wanted:
                number = port or chosen.get((inner, protocol), 0)
                other = _container(address, number, protocol, table, maps, parent) if number else ""
                try:
                    if other:
                        raise OSError(errno.EADDRINUSE, "")
                    number = _hold_all(address, number, protocol, maps, held)
                except OSError as e:
                    if e.errno == errno.EADDRINUSE and not port and attempt < _TRIES - 1:
                        raise _Taken from None
                    raise _conflict(e, address, number, protocol, other) from e
                if not port:
                    chosen[inner, protocol] = number
                found.append((address, number, inner, protocol))
        except _Taken:
            for descriptor in held:
                os.close(descriptor)
            continue
        except BaseException:
            for descriptor in held:
                os.close(descriptor)
            raise
        descriptors += held
        break
    return found


class _Taken(Exception):
    """A port that was free in one family is not in the other."""


def _hold_all(address: str, port: int, protocol: str, maps: Maps, held: list[int]) -> int:
    """Adds to `held` sockets that are bound to it; the port.

    For the wildcard one for each address of the host: the wildcard itself would keep containers from the port, too.
    """
    wanted = [address] if address not in _WILDCARDS else _addresses(address, maps)
    for one in wanted:
        holder = _hold(one, port, protocol)
        port = holder.getsockname()[1]
        held.append(holder.detach())
    return port


def _addresses(wildcard: str, maps: Maps | None) -> list[str]:
    """The host's of that family, without those that are containers'; of these `maps` knows more."""
    if wildcard == "::":
        found = [
            f"{text}%{name}" if text.startswith("fe80:") else text
            for name, packed in interfaces.addresses6()
            if not packed.startswith(addresses.PREFIX6)
            for text in [socket.inet_ntop(socket.AF_INET6, packed)]
        ]
    else:
        found = [text for text in interfaces.addresses4() if not addresses.is_loopback(text)]
    if maps is None:
        return found
    return [text for text in found if bpfmaps.get(maps.owners, _packed(text.partition("%")[0]), 8) is None]


def _hold(address: str, port: int, protocol: str) -> socket.socket:
    """A socket bound to it. Connections that a container had there before don't count, listeners do. Raises OSError."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for reuse in (False, True):
        holder = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if reuse:
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bare, _, scope = address.partition("%")
            if scope:
                holder.bind((bare, port, 0, socket.if_nametoindex(scope)))
            else:
                holder.bind((bare, port))
            return holder
        except OSError as e:
            holder.close()
            if reuse or e.errno != errno.EADDRINUSE or protocol != "tcp":
                raise
            from limpet.network import holders

            if holders.find(address, port, protocol):
                raise
    raise AssertionError


def _conflict(error: OSError, address: str, port: int, protocol: str, container: str = "") -> Conflict:
    """What to say of a port that can't be had: who has it, and which one is free."""
    from limpet.network import holders

    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    if error.errno != errno.EADDRINUSE:
        return Conflict(f"the port {where}/{protocol} can't be published: {os.strerror(error.errno or 0)}")
    who = f"container {container}" if container else holders.find(address, port, protocol)
    free = holders.free(address, port, protocol)
    return Conflict(
        f"the port {where}/{protocol} is in use{f' by {who}' if who else ''}", f"port {free} is free" if free else ""
    )


def _container(address: str, port: int, protocol: str, table: Table, maps: Maps, parent: str) -> str:
    """The short id of the container that publishes it, or the same port of every address; "" if none does."""
    mine = _key(address, port, protocol)
    any_ = {_packed(one) for one in _WILDCARDS}
    for key, value in table:
        same_family = (key[:12] == _MAPPED) == (mine[:12] == _MAPPED)
        if key[16:] != mine[16:] or not same_family or not (key == mine or {key[:16], mine[:16]} & any_):
            continue
        owner = bpfmaps.get(maps.owners, value[assembly.PLACE :][:16], 8)  # of IPv6: the IPv4 address comes second
        owner = owner or bpfmaps.get(maps.owners, value[:16], 8)
        name = attachment.groups(parent).get(int.from_bytes(owner or b"", "little"))
        if name:
            return cgroup.name_of(name)[:12]
    return ""


def _packed(address: str) -> bytes:
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return _MAPPED + socket.inet_aton(address)


def _key(address: str, port: int, protocol: str) -> bytes:
    return _packed(address) + struct.pack("<HH", port, PROTOCOLS[protocol])


def _places(own4: str, own6: str, address: str, port: int, protocol: str) -> bytes:
    """For IPv6 the own IPv6 address first, then the mapped one: it is that of sockets of both families."""
    four = _key(own4, port, protocol)
    if ":" not in address:
        return four + bytes(assembly.PLACE)
    return (_key(own6, port, protocol) if own6 else bytes(assembly.PLACE)) + four


# The program (struct bpf_sk_lookup, linux/bpf.h)


def _program(published: int, listeners: int) -> bytes:
    from limpet.kernel.bpf import FRAME, R0, R1, R2, R3, R6, R7, R8, Assembler

    family, protocol, local4, local6, local_port = 8, 12, 40, 44, 60
    asm = Assembler()
    asm.move(R6, R1)
    asm.load_word(R1, R6, local_port)
    asm.store(2, FRAME, -8, R1)
    asm.load_word(R1, R6, protocol)
    asm.store(2, FRAME, -6, R1)
    asm.load_word(R1, R6, family)
    asm.if_equal(R1, assembly.FAMILY6, "six")
    asm.store_number(8, FRAME, -24, 0)
    asm.store_number(4, FRAME, -16, assembly.MAPPED)
    asm.load_word(R1, R6, local4)
    asm.store(4, FRAME, -12, R1)
    asm.jump("exact")
    asm.label("six")
    for place in range(0, 16, 4):
        asm.load_word(R1, R6, local6 + place)
        asm.store(4, FRAME, -24 + place, R1)
    asm.label("exact")
    for again in (False, True):
        asm.map(R1, published)
        asm.address(R2, -24)
        asm.call(bpf.MAP_LOOKUP)
        asm.if_not_null(R0, "found")
        if again:
            break
        # Once more by the wildcard; what the containers' own addresses serve is not everybody's.
        asm.load_word(R1, R6, family)
        asm.if_equal(R1, assembly.FAMILY6, "any six")
        asm.load_word(R1, R6, local4)
        asm.move(R2, R1)
        asm.bits_and(R1, 0xFF)
        asm.if_not_equal(R1, 127, "any")
        asm.bits_and(R2, 0xFF00)
        asm.if_not_equal(R2, 0, "pass")
        asm.jump("any")
        asm.label("any six")
        asm.load_word(R1, R6, local6)
        asm.if_not_equal(R1, int.from_bytes(addresses.PREFIX6[:4], "little"), "other six")
        asm.load_word(R1, R6, local6 + 4)
        asm.if_equal(R1, int.from_bytes(addresses.PREFIX6[4:], "little"), "pass")
        asm.label("other six")
        asm.store_number(8, FRAME, -24, 0)
        asm.store_number(8, FRAME, -16, 0)
        asm.jump("look")
        asm.label("any")
        asm.store_number(4, FRAME, -12, 0)
        asm.label("look")
    asm.jump("pass")
    asm.label("found")
    asm.move(R8, R0)
    for number, at in enumerate((0, assembly.PLACE)):
        asm.move(R2, R8)
        asm.add(R2, at)
        asm.map(R1, listeners)
        asm.call(bpf.MAP_LOOKUP)
        asm.if_null(R0, f"none {number}")
        asm.move(R7, R0)
        asm.move(R1, R6)
        asm.move(R2, R7)
        asm.number(R3, 0)
        asm.call(bpf.SK_ASSIGN)  # not a socket of IPv4 to a packet of IPv6: EAFNOSUPPORT
        asm.move(R1, R7)
        asm.move(R7, R0)
        asm.call(bpf.SK_RELEASE)
        asm.if_equal(R7, 0, "pass")
        asm.label(f"none {number}")
    asm.label("pass")
    asm.leave(1)
    return asm.assemble()
