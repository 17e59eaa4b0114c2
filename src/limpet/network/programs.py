"""The programs on the parent of all containers' groups: they give each container its own address on the host's network.

A program is called by the kernel when a process binds, connects, sends, receives or asks for a name, with the address
in its context (struct bpf_sock_addr, linux/bpf.h), and may change it. Which container it is says the caller's cgroup;
who is in none of the map's, or in another network namespace, is left alone.

    bind         the wildcard and loopback become the own address; the port stays
    connect      loopback becomes the own address if something of the container's own listens there
    sendmsg      the same for datagrams without a connection; recvmsg puts the sender's address back
    getsockname  what was moved is shown as it was asked for; getpeername shows ourselves as loopback

What a socket asked for is kept with it (`sockets`), and goes with it.

Kept in registers: R6 the context, R7 the container's entry (see `ENTRY`), R8 its IPv4 address. Addresses and ports
are in the network's order, as they lie in memory; numbers here are how a little-endian processor reads them.
"""

from __future__ import annotations

from limpet.kernel import bpf
from limpet.kernel.bpf import FRAME, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Assembler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.network.attachment import Maps

OWN4, FLAGS, OWN6, NETNS, ENTRY = 0, 4, 8, 24, 32
"""Where things are in a container's entry, and its size: IPv4, flags, IPv6, cookie of the network namespace."""
HAS6, LOOPBACK = 1, 2
"""Flags: the IPv6 address is there; the IPv4 address is of 127.0.0.0/8, from which nothing leaves the machine."""
SOCKET = 8
"""Bytes kept with a socket: what its own address was asked to be, and what its peer's was (each a word, `_ANY` …)."""

_LOCALHOST = 0x0100007F  # 127.0.0.1
_ONE = 0x01000000  # the last word of ::1
_MAPPED = 0xFFFF0000  # the third word of ::ffff:a.b.c.d
_NAME, _PEER = 0, 4
_ANY, _LOOP, _MAPPED_ANY, _MAPPED_LOOP = 1, 2, 3, 4
_FAMILY4, _FAMILY6, _DATAGRAM = 2, 10, 2
_USER4, _USER6, _PORT, _TYPE, _SOURCE4, _SOURCE6, _SOCKET = 4, 8, 24, 32, 40, 44, 64  # struct bpf_sock_addr
_FOUND4, _FOUND6 = 24, 28  # struct bpf_sock: its source address
_UNAVAILABLE = -99  # EADDRNOTAVAIL
_THIS_NETNS = -1  # BPF_F_CURRENT_NETNS
_ALLOW, _ALLOW_PRIVILEGED, _DENY = 1, 3, 0  # 3 on bind: without CAP_NET_BIND_SERVICE too

BOTH = b"Dual BSD/GPL"
"""The licence that `bind6` asks for: only it may read a member of the kernel's own structure."""

SOCK_ADDR = 18
"""BPF_PROG_TYPE_CGROUP_SOCK_ADDR."""


class _Program(Assembler):
    """An assembler that knows the maps, and in what the programs are alike."""

    __slots__ = ("_count", "level", "maps", "prefix")

    def __init__(self, maps: Maps, level: int, prefix: bytes) -> None:
        super().__init__()
        self.maps = maps
        self.level = level
        self.prefix = prefix
        self._count = 0

    def begin(self, miss: str) -> None:
        """R6 context, R7 entry, R8 own IPv4; to `miss` when the caller is of no container of this namespace."""
        self.move(R6, R1)
        self.number(R1, self.level)
        self.call(bpf.ANCESTOR_CGROUP_ID)
        self.store(8, FRAME, -8, R0)
        self.map(R1, self.maps.containers)
        self.address(R2, -8)
        self.call(bpf.MAP_LOOKUP)
        self.if_null(R0, miss)
        self.move(R7, R0)
        self.move(R1, R6)
        self.call(bpf.NETNS_COOKIE)
        self.load(8, R1, R7, NETNS)
        self.if_other(R0, R1, miss)
        self.load_word(R8, R7, OWN4)

    def fresh(self) -> str:
        """A label that is nowhere yet."""
        self._count += 1
        return f"_{self._count}"

    def refuse(self) -> None:
        """EADDRNOTAVAIL, as for an address that this machine doesn't have."""
        self.number(R1, _UNAVAILABLE)
        self.call(bpf.SET_RETVAL)
        self.leave(_DENY)

    def remember(self, *, name: int = 0, peer: int = 0) -> None:
        """Keeps with the socket what it asked for (bpf_sk_storage_get)."""
        over = self.fresh()
        self.map(R1, self.maps.sockets)
        self.load(8, R2, R6, _SOCKET)
        self.number(R3, 0)
        self.number(R4, 1)  # BPF_SK_STORAGE_GET_F_CREATE
        self.call(bpf.SK_STORAGE_GET)
        self.if_null(R0, over)
        for which, kind in ((_NAME, name), (_PEER, peer)):
            if kind:
                self.store_number(4, R0, which, kind)
        self.label(over)

    def recall(self, which: int, none: str) -> None:
        """R9 = what the socket asked for; to `none` if it asked for nothing."""
        self.map(R1, self.maps.sockets)
        self.load(8, R2, R6, _SOCKET)
        self.number(R3, 0)
        self.number(R4, 0)
        self.call(bpf.SK_STORAGE_GET)
        self.if_null(R0, none)
        self.load_word(R9, R0, which)
        self.if_equal(R9, 0, none)

    def number_at(self, offset: int, value: int) -> None:
        """The context's word = a number."""
        self.number(R1, value)
        self.store(4, R6, offset, R1)

    def set6(self, first: int, second: int, third: int, fourth: int | None) -> None:
        """The context's IPv6 address; None: the last word is the own IPv4."""
        for place, word in enumerate((first, second, third)):
            self.number_at(_USER6 + 4 * place, word)
        if fourth is None:
            self.store(4, R6, _USER6 + 12, R8)
        else:
            self.number_at(_USER6 + 12, fourth)

    def set_own6(self, at: int = _USER6) -> None:
        for place in range(0, 16, 4):
            self.load_word(R1, R7, OWN6 + place)
            self.store(4, R6, at + place, R1)

    def unless_own6(self, label: str) -> None:
        """To `label` if the context's IPv6 address is not the container's."""
        for place in range(0, 16, 4):
            self.load_word(R1, R6, _USER6 + place)
            self.load_word(R2, R7, OWN6 + place)
            self.if_other(R1, R2, label)

    def unless_flag(self, flag: int, label: str) -> None:
        over = self.fresh()
        self.load_word(R1, R7, FLAGS)
        self.if_any_bit(R1, flag, over)
        self.jump(label)
        self.label(over)

    def if_client(self, label: str) -> None:
        """To `label` for a datagram socket that is bound to the wildcard and any port: it is going to send."""
        over = self.fresh()
        self.load_word(R1, R6, _TYPE)
        self.if_not_equal(R1, _DATAGRAM, over)
        self.load_word(R1, R6, _PORT)
        self.if_not_equal(R1, 0, over)
        self.unless_flag(LOOPBACK, over)
        self.jump(label)
        self.label(over)

    def sort6(self, any_: str, loop: str, mapped: str, other: str) -> None:
        """By the context's IPv6 address: ::, ::1, ::ffff:0:0/96 (R9 = its IPv4), another."""
        self.load_word(R1, R6, _USER6)
        self.if_not_equal(R1, 0, other)
        self.load_word(R1, R6, _USER6 + 4)
        self.if_not_equal(R1, 0, other)
        self.load_word(R1, R6, _USER6 + 8)
        self.load_word(R9, R6, _USER6 + 12)
        self.if_equal(R1, _MAPPED, mapped)
        self.if_not_equal(R1, 0, other)
        self.if_equal(R9, 0, any_)
        self.if_equal(R9, _ONE, loop)
        self.jump(other)

    def refuse_foreign(self, allowed: str) -> None:
        """Binding by number: an address that is another's can't be had; else on to `allowed`.

        R9 is an IPv4 address, and the 16 bytes below FRAME - 16 are the key of `owners`. Of 127.0.0.0/8 the host has
        127.0.0.0/16; the rest is of containers, running or not.
        """
        theirs = self.fresh()
        asked = self.fresh()
        self.move(R1, R9)
        self.bits_and(R1, 0xFF)
        self.if_not_equal(R1, 127, asked)
        self.move(R1, R9)
        self.bits_and(R1, 0xFF00)
        self.if_not_equal(R1, 0, theirs)
        self.label(asked)
        self.map(R1, self.maps.owners)
        self.address(R2, -32)
        self.call(bpf.MAP_LOOKUP)
        self.if_null(R0, allowed)
        self.label(theirs)
        self.refuse()

    def listener4(self, none: str) -> None:
        """To `none` unless a socket is bound to the own IPv4 address and the context's port, of the socket's type.

        The lookup finds sockets of the wildcard too: those are the host's.
        """
        datagram, looked = self.fresh(), self.fresh()
        self.store_number(4, FRAME, -32, 0)  # struct bpf_sock_tuple: source, destination, their ports
        self.store(4, FRAME, -28, R8)
        self.load_word(R1, R6, _PORT)
        self.store_number(2, FRAME, -24, 0)
        self.store(2, FRAME, -22, R1)
        self._lookup(12, datagram, looked)
        self.if_null(R0, none)
        self.load_word(R9, R0, _FOUND4)
        self.move(R1, R0)
        self.call(bpf.SK_RELEASE)
        self.if_other(R9, R8, none)

    def listener6(self, none: str) -> None:
        """The same for the own IPv6 address."""
        datagram, looked, foreign, over = (self.fresh() for _ in range(4))
        self.unless_flag(HAS6, none)
        self.store_number(8, FRAME, -56, 0)
        self.store_number(8, FRAME, -48, 0)
        self.load(8, R1, R7, OWN6)
        self.store(8, FRAME, -40, R1)
        self.load(8, R1, R7, OWN6 + 8)
        self.store(8, FRAME, -32, R1)
        self.load_word(R1, R6, _PORT)
        self.store_number(2, FRAME, -24, 0)
        self.store(2, FRAME, -22, R1)
        self._lookup(36, datagram, looked)
        self.if_null(R0, none)
        self.load_word(R9, R0, _FOUND6)
        self.move(R1, R0)
        self.call(bpf.SK_RELEASE)
        self.load_word(R1, R7, OWN6)  # the wildcard's first word is 0
        self.if_other(R9, R1, foreign)
        self.jump(over)
        self.label(foreign)
        self.jump(none)
        self.label(over)

    def _lookup(self, size: int, datagram: str, looked: str) -> None:
        """R0 = the socket of the tuple that ends below FRAME - 20."""
        for kind, label in ((bpf.SK_LOOKUP_TCP, ""), (bpf.SK_LOOKUP_UDP, datagram)):
            if label:
                self.label(label)
            else:
                self.load_word(R1, R6, _TYPE)
                self.if_equal(R1, _DATAGRAM, datagram)
            self.move(R1, R6)
            self.address(R2, -20 - size)
            self.number(R3, size)
            self.number(R4, _THIS_NETNS)
            self.number(R5, 0)
            self.call(kind)
            if not label:
                self.jump(looked)
        self.label(looked)

    def source4(self) -> None:
        """Binds the socket to the own address, a port to be chosen later; without effect if it is bound already."""
        self.store_number(8, FRAME, -48, _FAMILY4)
        self.store_number(8, FRAME, -40, 0)
        self.store(4, FRAME, -44, R8)
        self.move(R1, R6)
        self.address(R2, -48)
        self.number(R3, 16)
        self.call(bpf.BIND)

    def source6(self, *, mapped: bool = False) -> None:
        """The same for a socket of IPv6; `mapped`: to the own IPv4 address."""
        self.store_number(8, FRAME, -80, _FAMILY6)
        if mapped:
            self.store_number(8, FRAME, -72, 0)
            self.store_number(4, FRAME, -64, _MAPPED)
            self.store(4, FRAME, -60, R8)
        else:
            self.load(8, R1, R7, OWN6)
            self.store(8, FRAME, -72, R1)
            self.load(8, R1, R7, OWN6 + 8)
            self.store(8, FRAME, -64, R1)
        self.store_number(4, FRAME, -56, 0)
        self.move(R1, R6)
        self.address(R2, -80)
        self.number(R3, 28)
        self.call(bpf.BIND)

    def mapped_key(self) -> None:
        """The key of `owners` for the IPv4 address in R9."""
        self.store_number(8, FRAME, -32, 0)
        self.store_number(4, FRAME, -24, _MAPPED)
        self.store(4, FRAME, -20, R9)

    def if_neighbour4(self, label: str) -> None:
        """To `label` if the IPv4 address in R9 is of a container: of 127.0.0.0/8, but not of the host's part."""
        over = self.fresh()
        self.move(R1, R9)
        self.bits_and(R1, 0xFF)
        self.if_not_equal(R1, 127, over)
        self.move(R1, R9)
        self.bits_and(R1, 0xFF00)
        self.if_not_equal(R1, 0, label)
        self.label(over)

    def unless_from_here4(self, label: str) -> None:
        """To `label` unless a connection to the IPv4 address in R9 is to come from the own address.

        From loopback to the containers' addresses; from an interface's address to everything but loopback too.
        """
        here = self.fresh()
        self.if_neighbour4(here)
        self.load_word(R1, R7, FLAGS)
        self.if_any_bit(R1, LOOPBACK, label)
        self.move(R1, R9)
        self.bits_and(R1, 0xFF)
        self.if_equal(R1, 127, label)
        self.label(here)

    def if_neighbour6(self, label: str) -> None:
        """To `label` if the context's IPv6 address is of the containers' range."""
        over = self.fresh()
        for place in range(0, 8, 4):
            self.load_word(R1, R6, _USER6 + place)
            self.if_not_equal(R1, int.from_bytes(self.prefix[place : place + 4], "little"), over)
        self.jump(label)
        self.label(over)


def bind4(asm: _Program) -> None:
    asm.begin("plain")
    asm.load_word(R9, R6, _USER4)
    asm.if_equal(R9, 0, "any")
    asm.if_equal(R9, _LOCALHOST, "loop")
    asm.if_same(R9, R8, "own")
    asm.mapped_key()
    asm.refuse_foreign("plain")
    asm.label("any")
    asm.if_client("plain")
    asm.remember(name=_ANY)
    asm.jump("move")
    asm.label("loop")
    asm.remember(name=_LOOP)
    asm.label("move")
    asm.store(4, R6, _USER4, R8)
    asm.label("own")
    asm.leave(_ALLOW_PRIVILEGED)
    asm.label("plain")
    asm.leave(_ALLOW)


def bind6(asm: _Program, v6only: tuple[int, int] | None) -> None:
    """`v6only`: byte and mask of sock_common.skc_ipv6only; without it every [::] is taken for one of both families.

    A socket of both families gets the mapped IPv4 address, one of IPv6 alone the IPv6 address: so that nginx, which
    binds 0.0.0.0:80 and [::]:80 side by side, can do so here.
    """
    asm.begin("plain")
    asm.sort6("any", "loop", "mapped", "other")
    asm.label("other")
    asm.unless_own6("foreign")
    asm.jump("own")
    asm.label("foreign")
    for place in range(0, 16, 4):
        asm.load_word(R1, R6, _USER6 + place)
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
    asm.if_equal(R9, _LOCALHOST, "mapped loop")
    asm.if_same(R9, R8, "own")
    asm.mapped_key()
    asm.refuse_foreign("plain")
    asm.label("mapped any")
    asm.if_client("plain")
    asm.remember(name=_MAPPED_ANY)
    asm.jump("map")
    asm.label("mapped loop")
    asm.remember(name=_MAPPED_LOOP)
    asm.label("map")
    asm.set6(0, 0, _MAPPED, None)
    asm.jump("own")
    asm.label("any")
    asm.if_client("plain")
    asm.remember(name=_ANY)
    if v6only is not None:
        place, mask = v6only
        size = place + 8 & ~7  # "pointer arithmetic on sock prohibited": from its beginning
        for at in range(0, size, 8):
            asm.store_number(8, FRAME, at - size, 0)
        asm.address(R1, -size)
        asm.number(R2, size)
        asm.load(8, R3, R6, _SOCKET)
        asm.call(bpf.PROBE_READ_KERNEL)
        asm.load(1, R1, FRAME, place - size)
        asm.if_any_bit(R1, mask, "six")
    asm.jump("map")
    asm.label("loop")
    asm.remember(name=_LOOP)
    asm.unless_flag(HAS6, "map")
    asm.label("six")
    asm.unless_flag(HAS6, "none")
    asm.set_own6()
    asm.label("own")
    asm.leave(_ALLOW_PRIVILEGED)
    asm.label("none")
    asm.refuse()
    asm.label("plain")
    asm.leave(_ALLOW)


def connect4(asm: _Program) -> None:
    asm.begin("out")
    asm.load_word(R9, R6, _USER4)
    asm.if_equal(R9, 0, "local")
    asm.if_equal(R9, _LOCALHOST, "local")
    asm.unless_from_here4("out")
    asm.source4()
    asm.jump("out")
    asm.label("local")
    asm.listener4("out")
    asm.store(4, R6, _USER4, R8)
    asm.source4()
    asm.remember(name=_LOOP, peer=_LOOP)
    asm.label("out")
    asm.leave(_ALLOW)


def connect6(asm: _Program) -> None:
    """A mapped address makes the kernel go on with IPv4. A socket of IPv6 alone then gets ENETUNREACH."""
    asm.begin("out")
    asm.sort6("local", "local", "mapped", "other")
    asm.label("mapped")
    asm.if_equal(R9, 0, "local4")
    asm.if_equal(R9, _LOCALHOST, "local4")
    asm.unless_from_here4("out")
    asm.source6(mapped=True)
    asm.jump("out")
    asm.label("other")
    asm.if_neighbour6("neighbour")
    asm.load_word(R1, R7, FLAGS)
    asm.if_any_bit(R1, LOOPBACK, "out")
    asm.load(1, R1, R6, _USER6)
    asm.if_equal(R1, 0xFE, "out")  # of one link
    asm.jump("neighbour")
    asm.label("local")
    asm.listener6("dual")
    asm.set_own6()
    asm.remember(name=_LOOP, peer=_LOOP)
    asm.label("neighbour")
    asm.unless_flag(HAS6, "out")
    asm.source6()
    asm.jump("out")
    asm.label("dual")
    asm.listener4("out")
    asm.remember(name=_LOOP, peer=_LOOP)
    asm.jump("map")
    asm.label("local4")
    asm.listener4("out")
    asm.remember(name=_MAPPED_LOOP, peer=_MAPPED_LOOP)
    asm.label("map")
    asm.set6(0, 0, _MAPPED, None)
    asm.source6(mapped=True)
    asm.label("out")
    asm.leave(_ALLOW)


def sendmsg4(asm: _Program) -> None:
    asm.begin("out")
    asm.load_word(R9, R6, _USER4)
    asm.if_equal(R9, 0, "local")
    asm.if_equal(R9, _LOCALHOST, "local")
    asm.if_neighbour4("source")
    # Out of the machine: a socket that was moved to loopback could not send there at all.
    asm.load_word(R1, R6, _SOURCE4)
    asm.if_other(R1, R8, "out")
    asm.unless_flag(LOOPBACK, "out")
    asm.number_at(_SOURCE4, 0)
    asm.jump("out")
    asm.label("local")
    asm.listener4("out")
    asm.store(4, R6, _USER4, R8)
    asm.remember(peer=_LOOP)
    asm.label("source")
    asm.load_word(R1, R6, _SOURCE4)
    asm.if_not_equal(R1, 0, "out")
    asm.store(4, R6, _SOURCE4, R8)
    asm.label("out")
    asm.leave(_ALLOW)


def sendmsg6(asm: _Program) -> None:
    """To a mapped address the kernel can't be made to go from here: [::1] reaches sockets of IPv6 alone."""
    asm.begin("out")
    asm.sort6("local", "local", "out", "other")
    asm.label("other")
    asm.if_neighbour6("source")
    asm.jump("out")
    asm.label("local")
    asm.listener6("out")
    asm.set_own6()
    asm.remember(peer=_LOOP)
    asm.label("source")
    asm.unless_flag(HAS6, "out")
    for place in range(0, 16, 4):
        asm.load_word(R1, R6, _SOURCE6 + place)
        asm.if_not_equal(R1, 0, "out")
    asm.set_own6(_SOURCE6)
    asm.label("out")
    asm.leave(_ALLOW)


def recvmsg4(asm: _Program) -> None:
    asm.begin("out")
    asm.load_word(R1, R6, _USER4)
    asm.if_other(R1, R8, "out")
    asm.recall(_PEER, "out")
    asm.number_at(_USER4, _LOCALHOST)
    asm.label("out")
    asm.leave(_ALLOW)


def recvmsg6(asm: _Program) -> None:
    asm.begin("out")
    asm.recall(_PEER, "out")
    _loopback6(asm)


def getsockname4(asm: _Program) -> None:
    asm.begin("out")
    asm.load_word(R1, R6, _USER4)
    asm.if_other(R1, R8, "out")
    asm.recall(_NAME, "out")
    asm.if_equal(R9, _ANY, "any")
    asm.number_at(_USER4, _LOCALHOST)
    asm.jump("out")
    asm.label("any")
    asm.number_at(_USER4, 0)
    asm.label("out")
    asm.leave(_ALLOW)


def getsockname6(asm: _Program) -> None:
    asm.begin("out")
    asm.sort6("out", "out", "mapped", "other")
    asm.label("mapped")
    asm.if_same(R9, R8, "ours")
    asm.jump("out")
    asm.label("other")
    asm.unless_own6("out")
    asm.label("ours")
    asm.recall(_NAME, "out")
    for kind, third, fourth in ((_ANY, 0, 0), (_LOOP, 0, _ONE), (_MAPPED_ANY, _MAPPED, 0)):
        following = asm.fresh()
        asm.if_not_equal(R9, kind, following)
        asm.set6(0, 0, third, fourth)
        asm.jump("out")
        asm.label(following)
    asm.set6(0, 0, _MAPPED, _LOCALHOST)
    asm.label("out")
    asm.leave(_ALLOW)


def getpeername4(asm: _Program) -> None:
    """accept(2) asks here too: a server sees its own container's clients as it would elsewhere, at 127.0.0.1."""
    asm.begin("out")
    asm.load_word(R1, R6, _USER4)
    asm.if_other(R1, R8, "out")
    asm.number_at(_USER4, _LOCALHOST)
    asm.label("out")
    asm.leave(_ALLOW)


def getpeername6(asm: _Program) -> None:
    asm.begin("out")
    _loopback6(asm)


def _loopback6(asm: _Program) -> None:
    """The own address as ::1; the mapped one as ::1 where that was asked for, else as ::ffff:127.0.0.1."""
    asm.sort6("out", "out", "mapped", "other")
    asm.label("mapped")
    asm.if_other(R9, R8, "out")
    asm.recall(_PEER, "mapped loop")
    asm.if_equal(R9, _LOOP, "loop")
    asm.label("mapped loop")
    asm.number_at(_USER6 + 12, _LOCALHOST)
    asm.jump("out")
    asm.label("other")
    asm.unless_own6("out")
    asm.label("loop")
    asm.set6(0, 0, 0, _ONE)
    asm.label("out")
    asm.leave(_ALLOW)


# By the hook's name, which is the program's too: its number (enum bpf_attach_type).
HOOKS: dict[str, tuple[int, Callable[[_Program], None] | None]] = {
    "bind4": (8, bind4),
    "bind6": (9, None),
    "connect4": (10, connect4),
    "connect6": (11, connect6),
    "sendmsg4": (14, sendmsg4),
    "sendmsg6": (15, sendmsg6),
    "recvmsg4": (19, recvmsg4),
    "recvmsg6": (20, recvmsg6),
    "getpeername4": (29, getpeername4),
    "getpeername6": (30, getpeername6),
    "getsockname4": (31, getsockname4),
    "getsockname6": (32, getsockname6),
}


def assemble(hook: str, maps: Maps, level: int, prefix: bytes, v6only: tuple[int, int] | None) -> bytes:
    """The program's instructions. `level`: of the containers' groups in the hierarchy; `prefix`: see `addresses`."""
    asm = _Program(maps, level, prefix)
    build = HOOKS[hook][1]
    if build is None:
        bind6(asm, v6only)
    else:
        build(asm)
    return asm.assemble()
