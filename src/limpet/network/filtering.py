"""The programs that see every packet of a container, whoever has the socket: they count, they keep to rules and rates.

On the parent of all containers' groups, like `programs`, for both directions (BPF_PROG_TYPE_CGROUP_SKB). What begins a
conversation is held against the rules (see `rules`): the first packet of TCP, each datagram that answers none, all that
a raw socket sends. What belongs to one that was let in passes. `connect` asks the same rules, since a packet that is
dropped only makes a program wait. A container without an entry in `meters` is left alone.

Registers: R6 the context, R7 the container's entry (see `METER`), R8 the packet's length. On the stack: the group's id
at _ID, the key of a rule at _KEY, that of a flow at _FLOW, the header's bytes at _BYTES.
"""

from __future__ import annotations

from limpet.kernel import bpf
from limpet.kernel.bpf import FRAME, R0, R1, R2, R3, R4, R6, R7, R8, R9, Assembler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.network.meters import Maps

BYTES, PACKETS, DROPPED, RATE, BURST, TOKENS, LAST = 0, 8, 16, 24, 32, 40, 48
"""Where the figures of one direction are: 64 bits each. RATE in bytes a second, 0 for no limit; LAST in nanoseconds."""
SIDE = 56
METER = 2 * SIDE + 8
"""An entry: what comes in, what goes out, and the flags of both rules."""
FLAGS = 2 * SIDE
IN, OUT = 0, 1
ADDRESS, SIX = 16, 2
RULE_KEY, RULE_BITS = 32, 224
"""Prefix length, group (64 bits), direction + SIX (32), address (128): RULE_BITS of it count for a whole address."""
RANGE, RANGES = 8, 8
"""First port, last port (16 bits each), protocol (32)."""
FLOW_KEY = 32
"""Group, address, the other's port, the own one (as in the packet), padding."""
DENIAL_KEY, DENIAL = 32, 16
"""Group, address, port (16), protocol (8), direction (8), padding → how often, when last (nanoseconds since boot)."""

SKB, SOCK_ADDR = 8, 18  # BPF_PROG_TYPE_CGROUP_SKB, …_SOCK_ADDR
HOOKS = {"skb_in": (0, SKB), "skb_out": (1, SKB), "may4": (10, SOCK_ADDR), "may6": (11, SOCK_ADDR)}
"""Where each is attached (enum bpf_attach_type), and its kind."""

_SKB_LOAD, _SKB_ANCESTOR, _KTIME, _FULL_SOCKET, _SOCKET_ANCESTOR = 26, 83, 5, 95, 123
_LEN, _PROTOCOL, _SK = 0, 16, 168  # struct __sk_buff
_SOCKET_TYPE, _RAW, _STREAM = 8, 3, 1  # struct bpf_sock
_USER4, _USER6, _PORT, _TYPE = 4, 8, 24, 32  # struct bpf_sock_addr
_IP, _IPV6 = 0x0008, 0xDD86
_TCP, _UDP = 6, 17
_SECOND = 10**9
_PERMISSION = -1  # EPERM

_ID, _BYTES, _KEY, _ADDRESS, _FLOW, _PROTO, _PORTS, _OFFSET, _DENIAL = -8, -16, -56, -40, -88, -92, -96, -100, -136
_VALUE = -152


class _Filter(Assembler):
    __slots__ = ("_count", "level", "maps", "side")

    def __init__(self, maps: Maps, level: int, side: int) -> None:
        super().__init__()
        self.maps = maps
        self.level = level
        self.side = side
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        return f"_{self._count}"

    # Instructions that the assembler has not

    def add_to(self, base: int, offset: int, source: int) -> None:
        """The 64 bits there += `source`, atomically."""
        self._code.append((0xDB, base | source << 4 | (offset & 0xFFFF) << 8, 0))

    def plus(self, to: int, source: int) -> None:
        self._code.append((0x0F, to | source << 4, 0))

    def minus(self, to: int, source: int) -> None:
        self._code.append((0x1F, to | source << 4, 0))

    def times(self, to: int, source: int) -> None:
        self._code.append((0x2F, to | source << 4, 0))

    def divide(self, to: int, value: int) -> None:
        self._code.append((0x37, to, value))

    def if_less(self, register: int, other: int, label: str) -> None:
        """Unsigned, of 64 bits, as the next."""
        self._jump(0xAD, register | other << 4, 0, label)

    def if_more(self, register: int, other: int, label: str) -> None:
        self._jump(0x2D, register | other << 4, 0, label)

    # What the programs share

    def meter(self, helper: int, miss: str) -> None:
        """R7 = the container's entry; to `miss` if it has none."""
        self.store(8, FRAME, _ID, R0)
        self.if_null(R0, miss)
        self.lookup(self.maps.meters, _ID)
        self.if_null(R0, miss)
        self.move(R7, R0)

    def lookup(self, map: int, key: int) -> None:
        self.map(R1, map)
        self.address(R2, key)
        self.call(bpf.MAP_LOOKUP)

    def update(self, map: int, key: int, value: int) -> None:
        self.map(R1, map)
        self.address(R2, key)
        self.address(R3, value)
        self.number(R4, 0)
        self.call(bpf.MAP_UPDATE)

    def key(self, six: bool) -> None:
        """The head of a rule's key; the address is there already."""
        self.store_number(4, FRAME, _KEY, RULE_BITS)
        self.load_word(R1, FRAME, _ID)
        self.store(4, FRAME, _KEY + 4, R1)
        self.load_word(R1, FRAME, _ID + 4)
        self.store(4, FRAME, _KEY + 8, R1)
        self.store_number(4, FRAME, _KEY + 12, self.side + (SIX if six else 0))

    def mapped(self) -> None:
        """What comes before an IPv4 address."""
        self.number(R1, 0)
        self.store(8, FRAME, _ADDRESS, R1)
        self.store_number(4, FRAME, _ADDRESS + 8, 0xFFFF0000)

    def rules(self, allow: str, deny: str) -> None:
        """Jumps to one of them. R9: the port, in the host's order; the protocol is on the stack."""
        self.lookup(self.maps.rules, _KEY)
        self.if_null(R0, deny)
        self.load_word(R4, FRAME, _PROTO)
        for at in range(0, RANGES * RANGE, RANGE):
            following = self.fresh()
            self.load(2, R1, R0, at)
            self.if_less(R9, R1, following)
            self.load(2, R1, R0, at + 2)
            self.if_more(R9, R1, following)
            self.load_word(R1, R0, at + 4)
            self.if_equal(R1, 0, allow)
            self.if_same(R1, R4, allow)
            self.label(following)
        self.jump(deny)

    def tell_denial(self) -> None:
        """Counts it, by who and what. R9: the port."""
        self.load(8, R1, FRAME, _ID)
        self.store(8, FRAME, _DENIAL, R1)
        for at in (0, 8):
            self.load(8, R1, FRAME, _ADDRESS + at)
            self.store(8, FRAME, _DENIAL + 8 + at, R1)
        self.number(R1, 0)
        self.store(8, FRAME, _DENIAL + 24, R1)
        self.store(2, FRAME, _DENIAL + 24, R9)
        self.load_word(R1, FRAME, _PROTO)
        self.store(1, FRAME, _DENIAL + 26, R1)
        self.store_number(1, FRAME, _DENIAL + 27, self.side)
        first, done = self.fresh(), self.fresh()
        self.call(_KTIME)
        self.store(8, FRAME, _VALUE + 8, R0)
        self.lookup(self.maps.denials, _DENIAL)
        self.if_null(R0, first)
        self.number(R1, 1)
        self.add_to(R0, 0, R1)
        self.load(8, R1, FRAME, _VALUE + 8)
        self.store(8, R0, 8, R1)
        self.jump(done)
        self.label(first)
        self.number(R1, 1)
        self.store(8, FRAME, _VALUE, R1)
        self.update(self.maps.denials, _DENIAL, _VALUE)
        self.label(done)


def assemble(hook: str, maps: Maps, level: int) -> bytes:
    side = IN if hook == "skb_in" else OUT
    code = _Filter(maps, level, side)
    if hook.startswith("skb"):
        _packet(code, side * SIDE)
    else:
        _connect(code, six=hook == "may6")
    return code.assemble()


def _packet(code: _Filter, at: int) -> None:
    code.move(R6, R1)
    code.number(R2, code.level)
    code.call(_SKB_ANCESTOR)
    code.meter(_SKB_ANCESTOR, "pass")
    code.load_word(R8, R6, _LEN)
    code.load_word(R1, R7, FLAGS)
    code.if_any_bit(R1, 1 << IN | 1 << OUT, "judge")  # what one side lets in the other must know
    code.label("meter")
    _keep_to_rate(code, at)
    code.label("count")
    code.add_to(R7, at + BYTES, R8)
    code.number(R1, 1)
    code.add_to(R7, at + PACKETS, R1)
    code.label("pass")
    code.leave(1)
    code.label("judge")
    _judge(code)
    code.label("deny")
    code.tell_denial()
    code.label("drop")
    code.number(R1, 1)
    code.add_to(R7, at + DROPPED, R1)
    code.leave(0)


def _keep_to_rate(code: _Filter, at: int) -> None:
    """A bucket of tokens: what does not fit is dropped, and TCP sends slower (no queue, no timer)."""
    code.load(8, R9, R7, at + RATE)
    code.if_null(R9, "count")
    code.call(_KTIME)
    code.load(8, R2, R7, at + LAST)
    code.store(8, R7, at + LAST, R0)
    code.minus(R0, R2)
    code.number(R1, _SECOND)
    code.if_less(R0, R1, "elapsed")
    code.move(R0, R1)
    code.label("elapsed")
    code.times(R0, R9)
    code.divide(R0, _SECOND)
    code.load(8, R2, R7, at + TOKENS)
    code.plus(R0, R2)
    code.load(8, R2, R7, at + BURST)
    code.if_less(R0, R2, "filled")
    code.move(R0, R2)
    code.label("filled")
    code.if_less(R0, R8, "empty")
    code.minus(R0, R8)
    code.store(8, R7, at + TOKENS, R0)
    code.jump("count")
    code.label("empty")
    code.store(8, R7, at + TOKENS, R0)
    code.jump("drop")


def _load(code: _Filter, offset: int, to: int, size: int) -> None:
    """`size` bytes of the packet; what has no such bytes is not let through."""
    code.move(R1, R6)
    code.number(R2, offset)
    code.address(R3, to)
    code.number(R4, size)
    code.call(_SKB_LOAD)
    code.if_not_equal(R0, 0, "drop")


def _judge(code: _Filter) -> None:
    other = 8 if code.side == IN else 24  # in IPv6's header; the address of the other side
    code.load_word(R1, R6, _PROTOCOL)
    code.if_equal(R1, _IP, "four")
    code.if_not_equal(R1, _IPV6, "drop")
    _load(code, other, _ADDRESS, ADDRESS)
    _load(code, 6, _BYTES, 1)
    code.load(1, R9, FRAME, _BYTES)
    code.store_number(4, FRAME, _OFFSET, 40)
    code.key(six=True)
    code.jump("transport")
    code.label("four")
    code.mapped()
    _load(code, 12 if code.side == IN else 16, _ADDRESS + 12, 4)
    _load(code, 0, _BYTES, 1)
    code.load(1, R1, FRAME, _BYTES)
    code.bits_and(R1, 0xF)
    code.add(R1, 0)
    code.plus(R1, R1)
    code.plus(R1, R1)
    code.store(4, FRAME, _OFFSET, R1)
    _load(code, 9, _BYTES, 1)
    code.load(1, R9, FRAME, _BYTES)
    code.key(six=False)
    code.label("transport")
    code.store(4, FRAME, _PROTO, R9)
    code.if_equal(R9, _TCP, "ports")
    code.if_equal(R9, _UDP, "ports")
    code.number(R9, 0)  # a protocol without ports: only a rule for all of them allows it
    code.jump("rules")
    code.label("ports")
    code.move(R1, R6)
    code.load_word(R2, FRAME, _OFFSET)
    code.address(R3, _PORTS)
    code.number(R4, 4)
    code.call(_SKB_LOAD)
    code.if_not_equal(R0, 0, "drop")
    _unless_raw(code)
    code.load_word(R1, FRAME, _PROTO)
    code.if_equal(R1, _UDP, "datagram")
    # Of TCP the first packet counts: SYN without ACK.
    code.move(R1, R6)
    code.load_word(R2, FRAME, _OFFSET)
    code.add(R2, 13)
    code.address(R3, _BYTES)
    code.number(R4, 1)
    code.call(_SKB_LOAD)
    code.if_not_equal(R0, 0, "drop")
    code.load(1, R1, FRAME, _BYTES)
    code.bits_and(R1, 0x12)
    code.if_not_equal(R1, 0x02, "meter")
    code.jump("port")
    code.label("datagram")
    _flow(code)
    code.lookup(code.maps.flows, _FLOW)
    code.if_null(R0, "port")
    code.jump("meter")
    code.label("port")
    code.load(2, R9, FRAME, _PORTS + 2)
    code.swap16(R9)
    code.label("rules")
    code.load_word(R1, R7, FLAGS)
    code.if_any_bit(R1, 1 << code.side, "strict")
    code.jump("allowed")
    code.label("strict")
    code.rules("allowed", "deny")
    code.label("allowed")
    code.load_word(R1, FRAME, _PROTO)
    code.if_not_equal(R1, _UDP, "meter")
    _flow(code)
    code.number(R1, 0)
    code.store(8, FRAME, _VALUE, R1)
    code.update(code.maps.flows, _FLOW, _VALUE)
    code.jump("meter")


def _unless_raw(code: _Filter) -> None:
    """To "port" for what a raw socket sends: it has no conversation that the kernel knows."""
    code.load(8, R1, R6, _SK)
    code.if_null(R1, "known")
    code.call(_FULL_SOCKET)
    code.if_null(R0, "known")
    code.load_word(R1, R0, _SOCKET_TYPE)
    code.if_equal(R1, _RAW, "port")
    code.label("known")


def _flow(code: _Filter) -> None:
    code.load(8, R1, FRAME, _ID)
    code.store(8, FRAME, _FLOW, R1)
    for at in (0, 8):
        code.load(8, R1, FRAME, _ADDRESS + at)
        code.store(8, FRAME, _FLOW + 8 + at, R1)
    code.number(R1, 0)
    code.store(8, FRAME, _FLOW + 24, R1)
    theirs, ours = (0, 2) if code.side == IN else (2, 0)
    code.load(2, R1, FRAME, _PORTS + theirs)
    code.store(2, FRAME, _FLOW + 24, R1)
    code.load(2, R1, FRAME, _PORTS + ours)
    code.store(2, FRAME, _FLOW + 26, R1)


def _connect(code: _Filter, *, six: bool) -> None:
    code.move(R6, R1)
    code.number(R1, code.level)
    code.call(_SOCKET_ANCESTOR)
    code.meter(_SOCKET_ANCESTOR, "pass")
    code.load_word(R1, R7, FLAGS)
    code.if_any_bit(R1, 1 << OUT, "judge")
    code.label("pass")
    code.leave(1)
    code.label("judge")
    code.load_word(R1, R6, _TYPE)
    code.if_not_equal(R1, _STREAM, "pass")
    code.store_number(4, FRAME, _PROTO, _TCP)
    if six:
        for at in range(0, ADDRESS, 4):
            code.load_word(R1, R6, _USER6 + at)
            code.store(4, FRAME, _ADDRESS + at, R1)
        # ::ffff:a.b.c.d is IPv4, by an IPv6 socket.
        code.load(8, R1, FRAME, _ADDRESS)
        code.if_null(R1, "perhaps")
        code.jump("six")
        code.label("perhaps")
        code.load_word(R1, FRAME, _ADDRESS + 8)
        code.if_not_equal(R1, 0xFFFF0000, "six")
        code.key(six=False)
        code.jump("port")
        code.label("six")
        code.key(six=True)
        code.label("port")
    else:
        code.mapped()
        code.load_word(R1, R6, _USER4)
        code.store(4, FRAME, _ADDRESS + 12, R1)
        code.key(six=False)
    code.load_word(R9, R6, _PORT)
    code.swap16(R9)
    code.rules("pass", "deny")
    code.label("deny")
    code.tell_denial()
    code.number(R1, _PERMISSION)
    code.call(bpf.SET_RETVAL)
    code.leave(0)
