"""What the programs of this room are written in: an assembler that knows the maps, and in what they are alike.

Kept in registers: R6 the context, R7 the container's entry (see `ENTRY`), R8 its IPv4 address. Addresses and ports
are in the network's order, as they lie in memory; numbers here are how a little-endian processor reads them.
"""

from __future__ import annotations

from limpet.kernel import bpf
from limpet.kernel.bpf import FRAME, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Assembler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.network.loading import Maps

OWN4, FLAGS, OWN6, NETNS, ENTRY = 0, 4, 8, 24, 32
"""Where things are in a container's entry, and its size: IPv4, flags, IPv6, cookie of the network namespace."""
HAS6, LOOPBACK, PUBLISHED = 1, 2, 4
"""Flags: the IPv6 address is there; the IPv4 address is of 127.0.0.0/8, from which nothing leaves the machine; some
ports are published."""
KEPT = 8
"""Bytes kept with a socket: what its own address was asked to be, and what its peer's was (each a word, `ANY` …)."""

PLACE = 20
"""Bytes of where something listens: an address of 16 bytes, the port in the host's order, the protocol's number."""

LOCALHOST = 0x0100007F  # 127.0.0.1
ONE = 0x01000000  # the last word of ::1
MAPPED = 0xFFFF0000  # the third word of ::ffff:a.b.c.d
NAME, PEER = 0, 4
ANY, LOOP, MAPPED_ANY, MAPPED_LOOP = 1, 2, 3, 4
FAMILY4, FAMILY6, DATAGRAM = 2, 10, 2
USER4, USER6, PORT, TYPE, SOURCE4, SOURCE6, CONTEXT_SOCKET = 4, 8, 24, 32, 40, 44, 64  # struct bpf_sock_addr
FOUND4, FOUND6 = 24, 28  # struct bpf_sock: its source address
UNAVAILABLE = -99  # EADDRNOTAVAIL
THIS_NETNS = -1  # BPF_F_CURRENT_NETNS
ALLOW, ALLOW_PRIVILEGED, DENY = 1, 3, 0  # 3 on bind: without CAP_NET_BIND_SERVICE too

BOTH = b"Dual BSD/GPL"
"""The licence that `bind6` asks for: only it may read a member of the kernel's own structure."""


class Program(Assembler):
    """`level`: of containers' groups in the hierarchy; `prefix`: of their IPv6 addresses, 8 bytes.

    `v6only`: byte and mask of sock_common.skc_ipv6only; None: a socket of [::] is taken for one of both families.
    """

    __slots__ = ("_count", "level", "maps", "prefix", "v6only")

    def __init__(self, maps: Maps, level: int, prefix: bytes, v6only: tuple[int, int] | None) -> None:
        super().__init__()
        self.maps = maps
        self.level = level
        self.prefix = prefix
        self.v6only = v6only
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
        self.number(R1, UNAVAILABLE)
        self.call(bpf.SET_RETVAL)
        self.leave(DENY)

    def remember(self, *, name: int = 0, peer: int = 0) -> None:
        """Keeps with the socket what it asked for (bpf_sk_storage_get)."""
        over = self.fresh()
        self.map(R1, self.maps.sockets)
        self.load(8, R2, R6, CONTEXT_SOCKET)
        self.number(R3, 0)
        self.number(R4, 1)  # BPF_SK_STORAGE_GET_F_CREATE
        self.call(bpf.SK_STORAGE_GET)
        self.if_null(R0, over)
        for which, kind in ((NAME, name), (PEER, peer)):
            if kind:
                self.store_number(4, R0, which, kind)
        self.label(over)

    def recall(self, which: int, none: str) -> None:
        """R9 = what the socket asked for; to `none` if it asked for nothing."""
        self.map(R1, self.maps.sockets)
        self.load(8, R2, R6, CONTEXT_SOCKET)
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
            self.number_at(USER6 + 4 * place, word)
        if fourth is None:
            self.store(4, R6, USER6 + 12, R8)
        else:
            self.number_at(USER6 + 12, fourth)

    def set_own6(self, at: int = USER6) -> None:
        for place in range(0, 16, 4):
            self.load_word(R1, R7, OWN6 + place)
            self.store(4, R6, at + place, R1)

    def unless_own6(self, label: str) -> None:
        """To `label` if the context's IPv6 address is not the container's."""
        for place in range(0, 16, 4):
            self.load_word(R1, R6, USER6 + place)
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
        self.load_word(R1, R6, TYPE)
        self.if_not_equal(R1, DATAGRAM, over)
        self.load_word(R1, R6, PORT)
        self.if_not_equal(R1, 0, over)
        self.unless_flag(LOOPBACK, over)
        self.jump(label)
        self.label(over)

    def sort6(self, any_: str, loop: str, mapped: str, other: str) -> None:
        """By the context's IPv6 address: ::, ::1, ::ffff:0:0/96 (R9 = its IPv4), another."""
        self.load_word(R1, R6, USER6)
        self.if_not_equal(R1, 0, other)
        self.load_word(R1, R6, USER6 + 4)
        self.if_not_equal(R1, 0, other)
        self.load_word(R1, R6, USER6 + 8)
        self.load_word(R9, R6, USER6 + 12)
        self.if_equal(R1, MAPPED, mapped)
        self.if_not_equal(R1, 0, other)
        self.if_equal(R9, 0, any_)
        self.if_equal(R9, ONE, loop)
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
        self.load_word(R1, R6, PORT)
        self.store_number(2, FRAME, -24, 0)
        self.store(2, FRAME, -22, R1)
        self._lookup(12, datagram, looked)
        self.if_null(R0, none)
        self.load_word(R9, R0, FOUND4)
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
        self.load_word(R1, R6, PORT)
        self.store_number(2, FRAME, -24, 0)
        self.store(2, FRAME, -22, R1)
        self._lookup(36, datagram, looked)
        self.if_null(R0, none)
        self.load_word(R9, R0, FOUND6)
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
                self.load_word(R1, R6, TYPE)
                self.if_equal(R1, DATAGRAM, datagram)
            self.move(R1, R6)
            self.address(R2, -20 - size)
            self.number(R3, size)
            self.number(R4, THIS_NETNS)
            self.number(R5, 0)
            self.call(kind)
            if not label:
                self.jump(looked)
        self.label(looked)

    def source4(self) -> None:
        """Binds the socket to the own address, a port to be chosen later; without effect if it is bound already."""
        self.store_number(8, FRAME, -48, FAMILY4)
        self.store_number(8, FRAME, -40, 0)
        self.store(4, FRAME, -44, R8)
        self.move(R1, R6)
        self.address(R2, -48)
        self.number(R3, 16)
        self.call(bpf.BIND)

    def source6(self, *, mapped: bool = False) -> None:
        """The same for a socket of IPv6; `mapped`: to the own IPv4 address."""
        self.store_number(8, FRAME, -80, FAMILY6)
        if mapped:
            self.store_number(8, FRAME, -72, 0)
            self.store_number(4, FRAME, -64, MAPPED)
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
        self.store_number(4, FRAME, -24, MAPPED)
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
            self.load_word(R1, R6, USER6 + place)
            self.if_not_equal(R1, int.from_bytes(self.prefix[place : place + 4], "little"), over)
        self.jump(label)
        self.label(over)
