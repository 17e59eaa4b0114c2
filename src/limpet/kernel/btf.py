"""The kernel's own description of its types (BTF, Documentation/bpf/btf.rst): where a member of a structure lies."""

from __future__ import annotations

import struct

_VMLINUX = "/sys/kernel/btf/vmlinux"
_STRUCT, _UNION = 4, 5
# Bytes that follow a type's twelve, by kind; `n` is how many it has of what it has several of.
_FOLLOWING = {1: (4, 0), 3: (12, 0), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0), 19: (0, 12)}


def bit_of(structure: str, member: str) -> tuple[int, int]:
    """(byte, mask) of a member of one bit. Raises OSError without BTF, LookupError for what isn't there."""
    with open(_VMLINUX, "rb") as file:
        data = file.read()
    _, _, _, header, types, size, strings, _ = struct.unpack_from("<HBBIIIII", data)
    names = header + strings
    wanted = data.find(b"\0" + structure.encode() + b"\0", names) + 1 - names
    if wanted <= 0:
        raise LookupError(structure)
    at, end = header + types, header + types + size
    unpack = struct.Struct("<III").unpack_from
    while at < end:
        name, info, _ = unpack(data, at)
        kind, count = info >> 24 & 31, info & 0xFFFF
        at += 12
        if kind in (_STRUCT, _UNION):
            if kind == _STRUCT and name == wanted:
                return _member(data, names, at, count, bool(info >> 31), member)
            at += 12 * count
        else:
            once, each = _FOLLOWING.get(kind, (0, 0))
            at += once + each * count
    raise LookupError(structure)


def _member(data: bytes, names: int, at: int, count: int, bits: bool, wanted: str) -> tuple[int, int]:
    for number in range(count):
        name, _, offset = struct.unpack_from("<III", data, at + 12 * number)
        if data[names + name : data.index(b"\0", names + name)] == wanted.encode():
            offset = offset & 0xFFFFFF if bits else offset
            return offset // 8, 1 << offset % 8
    raise LookupError(wanted)
