"""eBPF: an assembler for the few instructions that our programs need, and the commands of bpf(2) that carry them.

A program that is attached (not linked) to a cgroup lives as long as the cgroup: no descriptor has to stay open, and
whoever comes later finds it again by `attached`. Maps are in `bpfmaps`.
Instructions are those of the kernel's Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import os
import struct

from limpet.kernel.sys import Buffer, by_machine, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = range(11)
"""R0 is a call's result, R1 to R5 its arguments; R6 to R9 survive it. 512 bytes lie below FRAME."""

F_ALLOW_MULTI = 2
"""Groups below may attach programs of their own, and all must agree."""

BPF = by_machine(321, 280)
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _INFO_BY_FD, _PROG_QUERY = 5, 8, 9, 13, 15, 16
_LINK_CREATE, _LINK_GET_FD_BY_ID, _ENABLE_STATS, _PROG_BIND_MAP = 28, 30, 32, 35
LICENSE = b"Apache-2.0"
"""Only helpers that the kernel marks as GPL's ask for another."""
_MOST_MAPS, _PROGRAM_INFO = 16, 208  # bytes of struct bpf_prog_info that are of interest
_MOST_PROGRAMS = 64  # that the kernel allows on one cgroup (BPF_CGROUP_MAX_PROGS)


# Helpers by number (linux/bpf.h, ___BPF_FUNC_MAPPER).
MAP_LOOKUP, MAP_UPDATE, BIND, SOCK_HASH_UPDATE, SK_LOOKUP_TCP, SK_LOOKUP_UDP, SK_RELEASE = 1, 2, 64, 70, 84, 85, 86
SK_STORAGE_GET, PROBE_READ_KERNEL, NETNS_COOKIE, ANCESTOR_CGROUP_ID, SK_ASSIGN, SET_RETVAL = (
    107,
    113,
    122,
    123,
    124,
    187,
)

_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}  # BPF_B, BPF_H, BPF_W, BPF_DW


class Assembler:
    """Instructions in order; a jump names a label, which `label` places later.

    Comparisons with a number are of 32 bits, those of two registers of 64.
    """

    __slots__ = ("_code", "_jumps", "_labels")

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int]] = []
        self._jumps: list[tuple[int, str]] = []
        self._labels: dict[str, int] = {}

    def load_word(self, to: int, base: int, offset: int) -> None:
        """`to` = the 32 bits at `base` + `offset`."""
        self._code.append((0x61, to | base << 4 | (offset & 0xFFFF) << 8, 0))

    def load(self, size: int, to: int, base: int, offset: int) -> None:
        """`to` = the `size` bytes at `base` + `offset`."""
        self._code.append((0x61 | _SIZES[size], to | base << 4 | (offset & 0xFFFF) << 8, 0))

    def store(self, size: int, base: int, offset: int, source: int) -> None:
        """The `size` bytes at `base` + `offset` = `source`."""
        self._code.append((0x63 | _SIZES[size], base | source << 4 | (offset & 0xFFFF) << 8, 0))

    def store_number(self, size: int, base: int, offset: int, value: int) -> None:
        self._code.append((0x62 | _SIZES[size], base | (offset & 0xFFFF) << 8, value & 0xFFFFFFFF))

    def move(self, to: int, source: int) -> None:
        self._code.append((0xBF, to | source << 4, 0))

    def number(self, to: int, value: int) -> None:
        """`to` = a number of 32 bits; a negative one keeps its sign."""
        self._code.append((0xB7 if value < 0 else 0xB4, to, value & 0xFFFFFFFF))

    def add(self, to: int, value: int) -> None:
        self._code.append((0x07, to, value & 0xFFFFFFFF))

    def address(self, to: int, offset: int) -> None:
        """`to` = FRAME + `offset`, which is negative."""
        self.move(to, FRAME)
        self.add(to, offset)

    def map(self, to: int, descriptor: int) -> None:
        """`to` = the map (BPF_PSEUDO_MAP_FD), to be a helper's argument."""
        self._code.append((0x18, to | 1 << 4, descriptor))
        self._code.append((0, 0, 0))

    def bits_and(self, to: int, value: int) -> None:
        self._code.append((0x54, to, value))

    def shift_right(self, to: int, value: int) -> None:
        self._code.append((0x77, to, value))

    def swap16(self, to: int) -> None:
        """Network's order to the host's, and back."""
        self._code.append((0xDC, to, 16))

    def call(self, helper: int) -> None:
        """R0 = the helper's result; R1 to R5 are gone."""
        self._code.append((0x85, 0, helper))

    def jump(self, label: str) -> None:
        self._jump(0x05, 0, 0, label)

    def if_equal(self, register: int, value: int, label: str) -> None:
        self._jump(0x16, register, value, label)

    def if_not_equal(self, register: int, value: int, label: str) -> None:
        self._jump(0x56, register, value, label)

    def if_null(self, register: int, label: str) -> None:
        """All 64 bits."""
        self._jump(0x15, register, 0, label)

    def if_not_null(self, register: int, label: str) -> None:
        self._jump(0x55, register, 0, label)

    def if_same(self, register: int, other: int, label: str) -> None:
        self._jump(0x1D, register | other << 4, 0, label)

    def if_other(self, register: int, other: int, label: str) -> None:
        self._jump(0x5D, register | other << 4, 0, label)

    def if_any_bit(self, register: int, value: int, label: str) -> None:
        self._jump(0x46, register, value, label)

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def leave(self, value: int) -> None:
        """Ends the program with a small result."""
        self._code.append((0xB7, R0, value))
        self._code.append((0x95, 0, 0))

    def _jump(self, operation: int, registers: int, value: int, label: str) -> None:
        self._jumps.append((len(self._code), label))
        self._code.append((operation, registers, value))

    def assemble(self) -> bytes:
        """Raises struct.error for a jump over more than 32767 instructions, KeyError for a label never placed."""
        code = self._code
        for at, label in self._jumps:
            operation, registers, value = code[at]
            distance = self._labels[label] - at - 1
            if not -0x8000 <= distance < 0x8000:
                raise struct.error(f"the jump to {label} is too long")
            code[at] = operation, registers & 0xFF | (distance & 0xFFFF) << 8, value
        self._jumps = []
        words = [word for operation, rest, value in code for word in (operation | rest << 8, value)]
        return struct.pack(f"<{len(words)}I", *words)


def load(kind: int, code: bytes, name: str, hook: int = 0, license: bytes = LICENSE) -> int:
    """BPF_PROG_LOAD: a descriptor of the program. `hook`: where it is to be attached, for kinds that must know.

    Raises OSError with the end of the verifier's log.
    """
    instructions, license_ = Buffer(code), Buffer(license + b"\0")
    label = name.encode()[:15]

    def attempt(log: Buffer | None) -> int:
        place = (1, len(bytes(log)), log.address) if log else (0, 0, 0)
        head = struct.pack("<IIQQ", kind, len(code) // 8, instructions.address, license_.address)
        return command(_PROG_LOAD, head + struct.pack("<IIQII16sII", *place, 0, 0, label, 0, hook))

    try:
        return attempt(None)
    except OSError as e:
        log = Buffer(1 << 16)
        try:
            return attempt(log)
        except OSError:
            text = bytes(log).partition(b"\0")[0].decode(errors="replace").strip().splitlines()
            raise OSError(e.errno, f"BPF program {name}: {e.strerror}: {' / '.join(text[-3:])}") from None


def attach(program: int, target: int, kind: int, flags: int = 0) -> None:
    """BPF_PROG_ATTACH to the cgroup that `target` is a descriptor of."""
    command(_PROG_ATTACH, struct.pack("<4I", target, program, kind, flags))


def detach(program: int, target: int, kind: int) -> None:
    command(_PROG_DETACH, struct.pack("<4I", target, program, kind, 0))


def attached(target: int, kind: int) -> tuple[int, ...]:
    """The ids of the programs on this cgroup itself."""
    ids = Buffer(4 * _MOST_PROGRAMS)
    query = Buffer(struct.pack("<4IQII", target, kind, 0, 0, ids.address, _MOST_PROGRAMS, 0))
    syscall(BPF, _PROG_QUERY, query, 32)
    (count,) = struct.unpack_from("<I", bytes(query), 24)
    return struct.unpack_from(f"<{count}I", bytes(ids))


def programs(target: int, kind: int) -> Iterator[tuple[int, str, list[int]]]:
    """(descriptor, name, ids of its maps) of each program on this cgroup itself; the descriptor is the loop's.

    Raises OSError where the kernel doesn't know the hook.
    """
    for number in attached(target, kind):
        try:
            program = by_id(number)
        except FileNotFoundError:
            continue  # it was taken off just now
        try:
            yield program, *program_info(program)
        finally:
            os.close(program)


def by_id(number: int) -> int:
    """A descriptor of a program that is somewhere in the kernel. Raises FileNotFoundError when it has gone."""
    return command(_PROG_GET_FD_BY_ID, struct.pack("<3I", number, 0, 0))


def program_info(program: int) -> tuple[str, list[int]]:
    """A program's name and the ids of its maps (struct bpf_prog_info)."""
    ids = Buffer(4 * _MOST_MAPS)
    info = Buffer(struct.pack("<52xIQ", _MOST_MAPS, ids.address) + bytes(_PROGRAM_INFO - 64))
    command(_INFO_BY_FD, struct.pack("<IIQ", program, _PROGRAM_INFO, info.address))
    found = bytes(info)
    (count,) = struct.unpack_from("<I", found, 52)
    name = found[64:80].partition(b"\0")[0].decode()
    return name, list(struct.unpack_from(f"<{min(count, _MOST_MAPS)}I", bytes(ids)))


def run_time(program: int) -> tuple[int, int]:
    """(nanoseconds, runs), counted while a descriptor of `count_runs` is open."""
    info = Buffer(_PROGRAM_INFO)
    command(_INFO_BY_FD, struct.pack("<IIQ", program, _PROGRAM_INFO, info.address))
    time, runs = struct.unpack_from("<QQ", bytes(info), 192)
    return time, runs


def count_runs() -> int:
    """A descriptor; as long as it is open the kernel counts the runs of all programs (BPF_STATS_RUN_TIME)."""
    return command(_ENABLE_STATS, struct.pack("<I", 0))


def link(program: int, target: int, kind: int) -> int:
    """BPF_LINK_CREATE: attached as long as somebody has the descriptor. `target`: of a cgroup or a namespace."""
    return command(_LINK_CREATE, struct.pack("<4I", program, target, kind, 0) + bytes(16))


def link_by_id(number: int) -> int:
    """Another descriptor of a link. Raises FileNotFoundError when nobody has one any more."""
    return command(_LINK_GET_FD_BY_ID, struct.pack("<3I", number, 0, 0))


def link_info(link: int) -> tuple[int, int]:
    """A link's id and its program's (struct bpf_link_info)."""
    info = Buffer(16)
    command(_INFO_BY_FD, struct.pack("<IIQ", link, 16, info.address))
    number, program = struct.unpack_from("<II", bytes(info), 4)
    return number, program


def bind_map(program: int, descriptor: int) -> None:
    """BPF_PROG_BIND_MAP: the program holds a map that it doesn't name, so that it is found by `program_info`."""
    command(_PROG_BIND_MAP, struct.pack("<III", program, descriptor, 0))


def command(number: int, attributes: bytes) -> int:
    """bpf(2)."""
    return syscall(BPF, number, Buffer(attributes), len(attributes))
