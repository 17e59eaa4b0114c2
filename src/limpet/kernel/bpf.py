"""eBPF: an assembler for the few instructions that our programs need, and the commands of bpf(2) that carry them.

A program that is attached (not linked) to a cgroup lives as long as the cgroup: no descriptor has to stay open.
Instructions are those of the kernel's Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct

from limpet.kernel.sys import Buffer, by_machine, syscall

R0, R1, R2, R3, R4, R5 = range(6)
F_ALLOW_MULTI = 2
"""Groups below may attach programs of their own, and all must agree."""

_BPF = by_machine(321, 280)
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_INSTRUCTION = struct.Struct("<BBhI")
_LICENSE = b"Apache-2.0"  # only helpers that the kernel marks as GPL's ask for another
_MOST_PROGRAMS = 64  # that the kernel allows on one cgroup (BPF_CGROUP_MAX_PROGS)


class Assembler:
    """Instructions in order; a jump names a label, which `label` places later. All comparisons are of 32 bits."""

    __slots__ = ("_code", "_jumps", "_labels")

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int]] = []
        self._jumps: list[tuple[int, str]] = []
        self._labels: dict[str, int] = {}

    def load_word(self, to: int, base: int, offset: int) -> None:
        """`to` = the 32 bits at `base` + `offset`."""
        self._code.append((0x61, to | base << 4 | offset << 8, 0))

    def move(self, to: int, source: int) -> None:
        self._code.append((0xBF, to | source << 4, 0))

    def bits_and(self, to: int, value: int) -> None:
        self._code.append((0x54, to, value))

    def shift_right(self, to: int, value: int) -> None:
        self._code.append((0x77, to, value))

    def jump(self, label: str) -> None:
        self._jump(0x05, 0, 0, label)

    def if_not_equal(self, register: int, value: int, label: str) -> None:
        self._jump(0x56, register, value, label)

    def if_any_bit(self, register: int, value: int, label: str) -> None:
        self._jump(0x46, register, value, label)

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def leave(self, value: int) -> None:
        """Ends the program with a small result."""
        self._code.append((0xB7, R0, value))
        self._code.append((0x95, 0, 0))

    def _jump(self, operation: int, register: int, value: int, label: str) -> None:
        self._jumps.append((len(self._code), label))
        self._code.append((operation, register, value))

    def assemble(self) -> bytes:
        """Raises struct.error for a jump over more than 32767 instructions, KeyError for a label never placed."""
        distance = {at: self._labels[label] - at - 1 for at, label in self._jumps}
        return b"".join(
            [
                _INSTRUCTION.pack(operation, registers & 0xFF, distance.get(at, registers >> 8), value)
                for at, (operation, registers, value) in enumerate(self._code)
            ]
        )


def load(kind: int, code: bytes, name: str) -> int:
    """BPF_PROG_LOAD: a descriptor of the program. Raises OSError with the end of the verifier's log."""
    instructions, license_ = Buffer(code), Buffer(_LICENSE + b"\0")
    label = name.encode()[:15]

    def attempt(log: Buffer | None) -> int:
        place = (1, len(bytes(log)), log.address) if log else (0, 0, 0)
        head = struct.pack("<IIQQ", kind, len(code) // 8, instructions.address, license_.address)
        return _bpf(_PROG_LOAD, head + struct.pack("<IIQII16s", *place, 0, 0, label))

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
    _bpf(_PROG_ATTACH, struct.pack("<4I", target, program, kind, flags))


def detach(program: int, target: int, kind: int) -> None:
    _bpf(_PROG_DETACH, struct.pack("<4I", target, program, kind, 0))


def attached(target: int, kind: int) -> tuple[int, ...]:
    """The ids of the programs on this cgroup itself."""
    ids = Buffer(4 * _MOST_PROGRAMS)
    query = Buffer(struct.pack("<4IQII", target, kind, 0, 0, ids.address, _MOST_PROGRAMS, 0))
    syscall(_BPF, _PROG_QUERY, query, 32)
    (count,) = struct.unpack_from("<I", bytes(query), 24)
    return struct.unpack_from(f"<{count}I", bytes(ids))


def by_id(number: int) -> int:
    """A descriptor of a program that is somewhere in the kernel. Raises FileNotFoundError when it has gone."""
    return _bpf(_PROG_GET_FD_BY_ID, struct.pack("<3I", number, 0, 0))


def _bpf(command: int, attributes: bytes) -> int:
    return syscall(_BPF, command, Buffer(attributes), len(attributes))
