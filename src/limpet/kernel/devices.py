"""Which device nodes a container may use: OCI `linux.resources.devices` as a BPF program on its cgroup.

The rules have the meaning of cgroup v1's device controller (runtime spec, config-linux.md#allowed-device-list): for
each bit of access that is asked for, the last rule that names the device and the bit decides; without one it is
denied. The program decides mknod and open, for all processes in the group and below, and lives as long as the group.
"""

from __future__ import annotations

import os

from limpet.errors import Invalid
from limpet.kernel import bpf
from limpet.kernel.bpf import R1, R2, R3, R4, R5, Assembler
from limpet.kernel.sys import fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Rules = Sequence[Mapping[str, Any]]

_PROG_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6
# struct bpf_cgroup_dev_ctx { access << 16 | type, major, minor } and its constants (linux/bpf.h).
_ACCESS = {"m": 1, "r": 2, "w": 4}
_TYPES = {"b": 1, "c": 2, "a": 0}
_ALL = 7


def attach(cgroup_path: str, rules: Rules) -> None:
    """Puts the rules on a cgroup2 group, instead of those that an earlier call put there.

    At no moment is the group without either. Raises Invalid for a rule that has no meaning, OSError for the rest.
    """
    code = program(rules)
    try:
        group = os.open(cgroup_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        fail(e, f"device rules on {cgroup_path}")
    try:
        before = bpf.attached(group, _CGROUP_DEVICE)
        loaded = bpf.load(_PROG_CGROUP_DEVICE, code, "limpet_devices")
        try:
            bpf.attach(loaded, group, _CGROUP_DEVICE, bpf.F_ALLOW_MULTI)
        finally:
            os.close(loaded)
        for number in before:
            old = bpf.by_id(number)
            try:
                bpf.detach(old, group, _CGROUP_DEVICE)
            finally:
                os.close(old)
    except OSError as e:
        raise OSError(e.errno, f"device rules on {cgroup_path}: {e.strerror}") from None
    finally:
        os.close(group)


def program(rules: Rules) -> bytes:
    """The program's instructions. R2 type, R3 the access still to be granted, R4 major, R5 minor."""
    asm = Assembler()
    asm.load_word(R2, R1, 0)
    asm.move(R3, R2)
    asm.bits_and(R2, 0xFFFF)
    asm.shift_right(R3, 16)
    asm.load_word(R4, R1, 4)
    asm.load_word(R5, R1, 8)
    for number in range(len(rules) - 1, -1, -1):  # the last rule that names it wins: ask it first
        if _rule(asm, rules[number], f"{number}"):
            break
    else:
        asm.leave(0)
    return asm.assemble()


def _rule(asm: Assembler, rule: Mapping[str, Any], label: str) -> bool:
    """True if nothing can reach what would follow."""
    kind = rule.get("type") or "a"
    access = rule.get("access") or "rwm"
    if kind not in _TYPES or not set(access) <= _ACCESS.keys():
        raise Invalid(f"device rule {kind} {access}: the type is a, b or c, the access some of r, w, m")
    tested = False
    if _TYPES[kind]:
        asm.if_not_equal(R2, _TYPES[kind], label)
        tested = True
    for register, name in ((R4, "major"), (R5, "minor")):
        value = rule.get(name, -1)
        if value is None or value == -1:
            continue
        if not isinstance(value, int) or not 0 <= value < 2**32:
            raise Invalid(f"device rule: {name} {value!r} is not a device number")
        asm.if_not_equal(register, value, label)
        tested = True
    bits = sum(_ACCESS[letter] for letter in set(access))
    if rule.get("allow", False):
        if bits == _ALL:
            asm.leave(1)
        else:
            asm.bits_and(R3, _ALL & ~bits)
            asm.if_not_equal(R3, 0, label)
            asm.leave(1)
            tested = True
    elif bits == _ALL:
        asm.leave(0)
    else:
        asm.if_any_bit(R3, bits, f"{label}-denied")
        asm.jump(label)
        asm.label(f"{label}-denied")
        asm.leave(0)
        tested = True
    asm.label(label)
    return not tested
