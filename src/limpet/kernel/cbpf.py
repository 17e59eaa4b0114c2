"""Classic BPF, as seccomp(2) runs it: code as lists of instructions that can be put one behind the other.

An instruction is a `struct sock_filter` as one little-endian 64-bit number. A conditional jump reaches 255
instructions and only forward; `search` and `dispatch` use longer jumps where they must, a rule is always shorter.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Code = list[int]
    Condition = tuple[int, str, int, int]
    """Index of the argument, operation (`SCMP_CMP_…`), value, second value."""

NUMBER, ARCHITECTURE = 0, 4
"""Offsets in `struct seccomp_data`."""

MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_LOAD, _AND, _RETURN, _JUMP, _IF_EQUAL, _IF_GREATER, _IF_AT_LEAST = 0x20, 0x54, 0x06, 0x05, 0x15, 0x25, 0x35
_ARGUMENTS, _LOW = 16, 0xFFFFFFFF
_ELSEWHERE = -1  # a jump to the end of the rule: it does not match


def assemble(code: Code) -> bytes:
    return struct.pack(f"<{len(code)}Q", *code)


def leave(action: int) -> Code:
    """Ends with a SECCOMP_RET_* value."""
    return [_RETURN | action << 32]


def load(offset: int) -> Code:
    return [_LOAD | offset << 32]


def dispatch(cases: Sequence[tuple[int, Code]], otherwise: Code) -> Code:
    """Runs the code of the case that equals what was loaded."""
    code: Code = []
    for value, body in cases:
        code += [_if(_IF_EQUAL, value, 1, 0), _JUMP | len(body) << 32, *body]
    return code + otherwise


def search(starts: Sequence[int], leaves: Sequence[Code]) -> Code:
    """Runs the leaf whose range has what was loaded: leaf n from `starts[n]` until the next start. A binary search.

    `starts` is in order, its first is 0; each leaf ends with a return.
    """
    if len(starts) == 1:
        return leaves[0]
    middle = len(starts) // 2
    below = search(starts[:middle], leaves[:middle])
    above = search(starts[middle:], leaves[middle:])
    if len(below) <= 255:
        return [_if(_IF_AT_LEAST, starts[middle], len(below), 0), *below, *above]
    return [_if(_IF_AT_LEAST, starts[middle], 0, 1), _JUMP | len(below) << 32, *below, *above]


def rule(conditions: Sequence[Condition], action: int, *, wide: bool) -> Code:
    """Ends with `action` if all conditions hold, else goes on behind. Without `wide` only low 32-bit halves count."""
    parts: list[tuple[int, int, int, int]] = []
    for condition in conditions:
        parts += _wide(*condition) if wide else _narrow(*condition)
    parts.append((_RETURN, action, 0, 0))
    return [
        _if(operation, value, *(len(parts) - at - 1 if jump == _ELSEWHERE else jump for jump in jumps))
        for at, (operation, value, *jumps) in enumerate(parts)
    ]


def _if(operation: int, value: int, yes: int, no: int) -> int:
    return operation | yes << 16 | no << 24 | value << 32


def _narrow(index: int, operation: str, value: int, second: int) -> list[tuple[int, int, int, int]]:
    load = (_LOAD, _ARGUMENTS + 8 * index, 0, 0)
    value &= _LOW
    if operation == "SCMP_CMP_MASKED_EQ":
        return [load, (_AND, value, 0, 0), (_IF_EQUAL, second & value, 0, _ELSEWHERE)]
    test, yes, no = {
        "SCMP_CMP_EQ": (_IF_EQUAL, 0, _ELSEWHERE),
        "SCMP_CMP_NE": (_IF_EQUAL, _ELSEWHERE, 0),
        "SCMP_CMP_GT": (_IF_GREATER, 0, _ELSEWHERE),
        "SCMP_CMP_GE": (_IF_AT_LEAST, 0, _ELSEWHERE),
        "SCMP_CMP_LT": (_IF_AT_LEAST, _ELSEWHERE, 0),
        "SCMP_CMP_LE": (_IF_GREATER, _ELSEWHERE, 0),
    }[operation]
    return [load, (test, value, yes, no)]


def _wide(index: int, operation: str, value: int, second: int) -> list[tuple[int, int, int, int]]:
    """The high half first; what it leaves open the low half decides, by the same test as for 32 bits."""
    high, high_load = value >> 32, (_LOAD, _ARGUMENTS + 8 * index + 4, 0, 0)
    low = _narrow(index, operation, value, second)
    if operation == "SCMP_CMP_MASKED_EQ":
        return [high_load, (_AND, high, 0, 0), (_IF_EQUAL, second >> 32 & high, 0, _ELSEWHERE), *low]
    if operation == "SCMP_CMP_EQ":
        return [high_load, (_IF_EQUAL, high, 0, _ELSEWHERE), *low]
    if operation == "SCMP_CMP_NE":
        return [high_load, (_IF_EQUAL, high, 0, len(low)), *low]
    if operation in ("SCMP_CMP_GT", "SCMP_CMP_GE"):
        return [high_load, (_IF_GREATER, high, 1 + len(low), 0), (_IF_EQUAL, high, 0, _ELSEWHERE), *low]
    return [high_load, (_IF_GREATER, high, _ELSEWHERE, 0), (_IF_EQUAL, high, 0, len(low)), *low]
