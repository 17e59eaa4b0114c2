"""The programs on the parent of all containers' groups: they give each container its own address on the host's network.

A program is called by the kernel when a process binds, connects, sends, receives or asks for a name, with the address
in its context (struct bpf_sock_addr, linux/bpf.h), and may change it. Which container it is says the caller's cgroup;
who is in none of the map's, or in another network namespace, is left alone.

    bind         the wildcard and loopback become the own address; the port stays
    connect      loopback becomes the own address if something of the container's own listens there
    sendmsg      the same for datagrams without a connection; recvmsg puts the sender's address back
    getsockname  what was moved is shown as it was asked for; getpeername shows ourselves as loopback
    listen       a listener is put where `lookup` finds it, if ports of the container are published

What a socket asked for is kept with it (`sockets`), and goes with it.
"""

from __future__ import annotations

from limpet.kernel import bpf
from limpet.kernel.bpf import FRAME, R0, R1, R2, R3, R4, R6, R7, R8, R9
from limpet.network.assembly import (
    ALLOW,
    ALLOW_PRIVILEGED,
    ANY,
    CONTEXT_SOCKET,
    FAMILY6,
    FLAGS,
    HAS6,
    LOCALHOST,
    LOOP,
    LOOPBACK,
    MAPPED,
    MAPPED_ANY,
    MAPPED_LOOP,
    NAME,
    ONE,
    OWN6,
    PEER,
    PUBLISHED,
    SOURCE4,
    SOURCE6,
    USER4,
    USER6,
    Program,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.network.loading import Maps


def bind4(asm: Program) -> None:
    asm.begin("plain")
    asm.load_word(R9, R6, USER4)
    asm.if_equal(R9, 0, "any")
    asm.if_equal(R9, LOCALHOST, "loop")
    asm.if_same(R9, R8, "own")
    asm.mapped_key()
    asm.refuse_foreign("plain")
    asm.label("any")
    asm.if_client("plain")
    asm.remember(name=ANY)
    asm.jump("move")
    asm.label("loop")
    asm.remember(name=LOOP)
    asm.label("move")
    asm.store(4, R6, USER4, R8)
    asm.label("own")
    asm.leave(ALLOW_PRIVILEGED)
    asm.label("plain")
    asm.leave(ALLOW)


def bind6(asm: Program) -> None:
    """A socket of both families gets the mapped IPv4 address, one of IPv6 alone the IPv6 address: so that nginx, which
    binds 0.0.0.0:80 and [::]:80 side by side, can do so here.
    """
    asm.begin("plain")
    asm.sort6("any", "loop", "mapped", "other")
    asm.label("other")
    asm.unless_own6("foreign")
    asm.jump("own")
    asm.label("foreign")
    for place in range(0, 16, 4):
        asm.load_word(R1, R6, USER6 + place)
        asm.store(4, FRAME, -32 + place, R1)
    asm.if_neighbour6("theirs")
    asm.map(R1, asm.maps.owners)
    asm.address(R2, -32)
    asm.call(bpf.MAP_LOOKUP)
    asm.if_null(R0, "plain")
    asm.label("theirs")
    asm.refuse()
    asm.label("mapped")
    asm.if_equal(R9, 0, "mapped any")
    asm.if_equal(R9, LOCALHOST, "mapped loop")
    asm.if_same(R9, R8, "own")
    asm.mapped_key()
    asm.refuse_foreign("plain")
    asm.label("mapped any")
    asm.if_client("plain")
    asm.remember(name=MAPPED_ANY)
    asm.jump("map")
    asm.label("mapped loop")
    asm.remember(name=MAPPED_LOOP)
    asm.label("map")
    asm.set6(0, 0, MAPPED, None)
    asm.jump("own")
    asm.label("any")
    asm.if_client("plain")
    asm.remember(name=ANY)
    if asm.v6only is not None:
        place, mask = asm.v6only
        size = place + 8 & ~7  # "pointer arithmetic on sock prohibited": from its beginning
        for at in range(0, size, 8):
            asm.store_number(8, FRAME, at - size, 0)
        asm.address(R1, -size)
        asm.number(R2, size)
        asm.load(8, R3, R6, CONTEXT_SOCKET)
        asm.call(bpf.PROBE_READ_KERNEL)
        asm.load(1, R1, FRAME, place - size)
        asm.if_any_bit(R1, mask, "six")
    asm.jump("map")
    asm.label("loop")
    asm.remember(name=LOOP)
    asm.unless_flag(HAS6, "map")
    asm.label("six")
    asm.unless_flag(HAS6, "none")
    asm.set_own6()
    asm.label("own")
    asm.leave(ALLOW_PRIVILEGED)
    asm.label("none")
    asm.refuse()
    asm.label("plain")
    asm.leave(ALLOW)


def connect4(asm: Program) -> None:
    asm.begin("out")
    asm.load_word(R9, R6, USER4)
    asm.if_equal(R9, 0, "local")
    asm.if_equal(R9, LOCALHOST, "local")
    asm.unless_from_here4("out")
    asm.source4()
    asm.jump("out")
    asm.label("local")
    asm.listener4("out")
    asm.store(4, R6, USER4, R8)
    asm.source4()
    asm.remember(name=LOOP, peer=LOOP)
    asm.label("out")
    asm.leave(ALLOW)


def connect6(asm: Program) -> None:
    """A mapped address makes the kernel go on with IPv4. A socket of IPv6 alone then gets ENETUNREACH."""
    asm.begin("out")
    asm.sort6("local", "local", "mapped", "other")
    asm.label("mapped")
    asm.if_equal(R9, 0, "local4")
    asm.if_equal(R9, LOCALHOST, "local4")
    asm.unless_from_here4("out")
    asm.source6(mapped=True)
    asm.jump("out")
    asm.label("other")
    asm.if_neighbour6("neighbour")
    asm.load_word(R1, R7, FLAGS)
    asm.if_any_bit(R1, LOOPBACK, "out")
    asm.load(1, R1, R6, USER6)
    asm.if_equal(R1, 0xFE, "out")  # of one link
    asm.jump("neighbour")
    asm.label("local")
    asm.listener6("dual")
    asm.set_own6()
    asm.remember(name=LOOP, peer=LOOP)
    asm.label("neighbour")
    asm.unless_flag(HAS6, "out")
    asm.source6()
    asm.jump("out")
    asm.label("dual")
    asm.listener4("out")
    asm.remember(name=LOOP, peer=LOOP)
    asm.jump("map")
    asm.label("local4")
    asm.listener4("out")
    asm.remember(name=MAPPED_LOOP, peer=MAPPED_LOOP)
    asm.label("map")
    asm.set6(0, 0, MAPPED, None)
    asm.source6(mapped=True)
    asm.label("out")
    asm.leave(ALLOW)


def sendmsg4(asm: Program) -> None:
    asm.begin("out")
    # A source that the program chose for this datagram (IP_PKTINFO) may be the host's, but not another container's.
    asm.load_word(R9, R6, SOURCE4)
    asm.if_neighbour4("chosen")
    asm.jump("destination")
    asm.label("chosen")
    asm.store(4, R6, SOURCE4, R8)
    asm.label("destination")
    asm.load_word(R9, R6, USER4)
    asm.if_equal(R9, 0, "local")
    asm.if_equal(R9, LOCALHOST, "local")
    asm.if_neighbour4("source")
    # Out of the machine: a socket that was moved to loopback could not send there at all.
    asm.load_word(R1, R6, SOURCE4)
    asm.if_other(R1, R8, "out")
    asm.unless_flag(LOOPBACK, "out")
    asm.number_at(SOURCE4, 0)
    asm.jump("out")
    asm.label("local")
    asm.listener4("out")
    asm.store(4, R6, USER4, R8)
    asm.remember(peer=LOOP)
    asm.label("source")
    asm.store(4, R6, SOURCE4, R8)
    asm.label("out")
    asm.leave(ALLOW)


def sendmsg6(asm: Program) -> None:
    """To a mapped address the kernel can't be made to go from here: [::1] reaches sockets of IPv6 alone."""
    asm.begin("out")
    for place, word in enumerate((0, 4)):
        asm.load_word(R1, R6, SOURCE6 + word)
        asm.if_not_equal(R1, int.from_bytes(asm.prefix[word : word + 4], "little"), "destination")
        if place:
            asm.unless_flag(HAS6, "out")
            asm.set_own6(SOURCE6)
    asm.label("destination")
    asm.sort6("local", "local", "out", "other")
    asm.label("other")
    asm.if_neighbour6("source")
    asm.jump("out")
    asm.label("local")
    asm.listener6("out")
    asm.set_own6()
    asm.remember(peer=LOOP)
    asm.label("source")
    asm.unless_flag(HAS6, "out")
    asm.set_own6(SOURCE6)
    asm.label("out")
    asm.leave(ALLOW)


def recvmsg4(asm: Program) -> None:
    asm.begin("out")
    asm.load_word(R1, R6, USER4)
    asm.if_other(R1, R8, "out")
    asm.recall(PEER, "out")
    asm.number_at(USER4, LOCALHOST)
    asm.label("out")
    asm.leave(ALLOW)


def recvmsg6(asm: Program) -> None:
    asm.begin("out")
    asm.recall(PEER, "out")
    _loopback6(asm)


def getsockname4(asm: Program) -> None:
    asm.begin("out")
    asm.load_word(R1, R6, USER4)
    asm.if_other(R1, R8, "out")
    asm.recall(NAME, "out")
    asm.if_equal(R9, ANY, "any")
    asm.number_at(USER4, LOCALHOST)
    asm.jump("out")
    asm.label("any")
    asm.number_at(USER4, 0)
    asm.label("out")
    asm.leave(ALLOW)


def getsockname6(asm: Program) -> None:
    asm.begin("out")
    asm.sort6("out", "out", "mapped", "other")
    asm.label("mapped")
    asm.if_same(R9, R8, "ours")
    asm.jump("out")
    asm.label("other")
    asm.unless_own6("out")
    asm.label("ours")
    asm.recall(NAME, "out")
    for kind, third, fourth in ((ANY, 0, 0), (LOOP, 0, ONE), (MAPPED_ANY, MAPPED, 0)):
        following = asm.fresh()
        asm.if_not_equal(R9, kind, following)
        asm.set6(0, 0, third, fourth)
        asm.jump("out")
        asm.label(following)
    asm.set6(0, 0, MAPPED, LOCALHOST)
    asm.label("out")
    asm.leave(ALLOW)


def getpeername4(asm: Program) -> None:
    """accept(2) asks here too: a server sees its own container's clients as it would elsewhere, at 127.0.0.1."""
    asm.begin("out")
    asm.load_word(R1, R6, USER4)
    asm.if_other(R1, R8, "out")
    asm.number_at(USER4, LOCALHOST)
    asm.label("out")
    asm.leave(ALLOW)


def getpeername6(asm: Program) -> None:
    asm.begin("out")
    _loopback6(asm)


def _loopback6(asm: Program) -> None:
    """The own address as ::1; the mapped one as ::1 where that was asked for, else as ::ffff:127.0.0.1."""
    asm.sort6("out", "out", "mapped", "other")
    asm.label("mapped")
    asm.if_other(R9, R8, "out")
    asm.recall(PEER, "mapped loop")
    asm.if_equal(R9, LOOP, "loop")
    asm.label("mapped loop")
    asm.number_at(USER6 + 12, LOCALHOST)
    asm.jump("out")
    asm.label("other")
    asm.unless_own6("out")
    asm.label("loop")
    asm.set6(0, 0, 0, ONE)
    asm.label("out")
    asm.leave(ALLOW)


def listen(asm: Program) -> None:
    """A listener of a container of which ports are published is put where `lookup` finds it, by its address and port.

    The kernel takes it out when it closes. Nothing else of TCP's parameters is changed: the reply stays -1.
    """
    asm.move(R6, R1)
    asm.number(R2, -1)
    asm.store(4, R6, _REPLY, R2)
    asm.load_word(R2, R6, _OPERATION)
    asm.if_not_equal(R2, _LISTEN, "out")
    asm.begin("out")
    asm.unless_flag(PUBLISHED, "out")
    asm.load_word(R1, R6, _LOCAL4)
    asm.if_other(R1, R8, "six")
    asm.store_number(8, FRAME, -32, 0)
    asm.store_number(4, FRAME, -24, MAPPED)
    asm.store(4, FRAME, -20, R8)
    asm.jump("put")
    asm.label("six")
    asm.load_word(R1, R6, _FAMILY)
    asm.if_not_equal(R1, FAMILY6, "out")
    for place in range(0, 16, 4):
        asm.load_word(R1, R6, _LOCAL6 + place)
        asm.load_word(R2, R7, OWN6 + place)
        asm.if_other(R1, R2, "out")
        asm.store(4, FRAME, -32 + place, R1)
    asm.label("put")
    asm.load_word(R1, R6, _LOCAL_PORT)
    asm.store(2, FRAME, -16, R1)
    asm.store_number(2, FRAME, -14, _TCP)
    asm.move(R1, R6)
    asm.map(R2, asm.maps.listeners)
    asm.address(R3, -32)
    asm.number(R4, 0)  # BPF_ANY: of several on one port (SO_REUSEPORT) the latest
    asm.call(bpf.SOCK_HASH_UPDATE)
    asm.label("out")
    asm.leave(ALLOW)


_OPERATION, _REPLY, _FAMILY, _LOCAL4, _LOCAL6, _LOCAL_PORT = 0, 4, 20, 28, 48, 68  # struct bpf_sock_ops
_LISTEN = 11  # BPF_SOCK_OPS_TCP_LISTEN_CB
_TCP = 6

_SOCK_OPS, _SOCK_ADDR = 13, 18  # BPF_PROG_TYPE_*
# By the hook's name, which is the program's too: where it is attached (enum bpf_attach_type), its kind, what writes it.
HOOKS: dict[str, tuple[int, int, Callable[[Program], None]]] = {
    "bind4": (8, _SOCK_ADDR, bind4),
    "bind6": (9, _SOCK_ADDR, bind6),
    "connect4": (10, _SOCK_ADDR, connect4),
    "connect6": (11, _SOCK_ADDR, connect6),
    "sendmsg4": (14, _SOCK_ADDR, sendmsg4),
    "sendmsg6": (15, _SOCK_ADDR, sendmsg6),
    "recvmsg4": (19, _SOCK_ADDR, recvmsg4),
    "recvmsg6": (20, _SOCK_ADDR, recvmsg6),
    "getpeername4": (29, _SOCK_ADDR, getpeername4),
    "getpeername6": (30, _SOCK_ADDR, getpeername6),
    "getsockname4": (31, _SOCK_ADDR, getsockname4),
    "getsockname6": (32, _SOCK_ADDR, getsockname6),
    "listen": (3, _SOCK_OPS, listen),
}


def assemble(hook: str, maps: Maps, level: int, prefix: bytes, v6only: tuple[int, int] | None) -> bytes:
    """The program's instructions; see `Program`."""
    asm = Program(maps, level, prefix, v6only)
    HOOKS[hook][2](asm)
    return asm.assemble()
