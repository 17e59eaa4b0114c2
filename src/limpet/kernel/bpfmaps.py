"""Maps of eBPF programs (Documentation/bpf/maps.rst): what programs and we tell each other.

A map lives as long as a program that uses it, or a descriptor; nothing is pinned. Keys and values are bytes.
"""

from __future__ import annotations

import errno
import struct

from limpet.kernel.bpf import BPF, command
from limpet.kernel.sys import Buffer, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

HASH, ARRAY, LRU_HASH, SOCKHASH, SK_STORAGE = 1, 2, 9, 18, 24
ANY, ONLY_NEW = 0, 1
NO_PREALLOC, CLONE = 1, 512
"""Flags of `create`: memory as entries come; and one that SK_STORAGE knows, which must have NO_PREALLOC too."""

_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _GET_FD_BY_ID, _INFO_BY_FD, _BTF_LOAD = 0, 1, 2, 3, 4, 14, 15, 18
_LOOKUP_BATCH = 24
_INFO = 88  # bytes of struct bpf_map_info that are of interest


def create(kind: int, key: int, value: int, entries: int, name: str, flags: int = 0) -> int:
    """A descriptor. `key`, `value`: sizes in bytes; `entries`: how many at most (0 for SK_STORAGE)."""
    types = (0, 0, 0)
    btf = -1
    if kind == SK_STORAGE:  # the kernel wants to know what is in it
        btf = _integers(key, value)
        types = (btf, 1, 2)
    head = struct.pack("<5III16s", kind, key, value, entries, flags, 0, 0, name.encode()[:15])
    try:
        return command(_CREATE, head + struct.pack("<IIII", 0, *types) + bytes(8))
    finally:
        if btf >= 0:
            import os

            os.close(btf)


def put(descriptor: int, key: bytes, value: bytes, flags: int = ANY) -> None:
    """Raises FileExistsError for a key that is there, with ONLY_NEW; OSError (E2BIG) for a full map."""
    _element(_UPDATE, descriptor, key, Buffer(value), flags)


def get(descriptor: int, key: bytes, size: int) -> bytes | None:
    """The value, of that many bytes; None if there is none."""
    value = Buffer(size)
    try:
        _element(_LOOKUP, descriptor, key, value, 0)
    except FileNotFoundError:
        return None
    return bytes(value)


def drop(descriptor: int, key: bytes) -> bool:
    """Whether it was there."""
    try:
        _element(_DELETE, descriptor, key, None, 0)
    except FileNotFoundError:
        return False
    return True


def keys(descriptor: int, size: int) -> list[bytes]:
    """All keys, of any kind of map; what others add or drop meanwhile may be in it or not."""
    found: list[bytes] = []
    following = Buffer(size)
    before: Buffer | None = None
    while len(found) < 1 << 20:  # keys that others drop make the kernel begin again
        try:
            command(
                _NEXT_KEY, struct.pack("<I4xQQQ", descriptor, before.address if before else 0, following.address, 0)
            )
        except FileNotFoundError:
            break
        found.append(bytes(following))
        before = Buffer(found[-1])
    return found


def by_id(number: int) -> int:
    """A descriptor of a map that is somewhere in the kernel."""
    return command(_GET_FD_BY_ID, struct.pack("<3I", number, 0, 0))


def opened(numbers: Iterable[int]) -> dict[str, int]:
    """Descriptors of these maps, by name."""
    return {name(descriptor): descriptor for descriptor in map(by_id, numbers)}


def name(descriptor: int) -> str:
    info = Buffer(_INFO)
    command(_INFO_BY_FD, struct.pack("<IIQ", descriptor, _INFO, info.address))
    return bytes(info)[24:40].partition(b"\0")[0].decode()


def _element(number: int, descriptor: int, key: bytes, value: Buffer | None, flags: int) -> None:
    where = Buffer(key)
    command(number, struct.pack("<I4xQQQ", descriptor, where.address, value.address if value else 0, flags))


def _integers(*sizes: int) -> int:
    """A descriptor of type information (Documentation/bpf/btf.rst): an unsigned integer of each size, types 1, 2, …"""
    names = b"\0u\0"
    types = b"".join(struct.pack("<IIII", 1, 1 << 24, size, size * 8) for size in sizes)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    data = Buffer(header + types + names)
    size = 24 + len(types) + len(names)
    return command(_BTF_LOAD, struct.pack("<QQIII", data.address, 0, size, 0, 0) + bytes(4))


def items(descriptor: int, key: int, value: int, most: int = 65536) -> list[tuple[bytes, bytes]]:
    """All of a HASH, with few calls (BPF_MAP_LOOKUP_BATCH); `key`, `value`: sizes, `most`: entries of the map."""
    found: list[tuple[bytes, bytes]] = []
    count = 256
    place, before = Buffer(4), 0
    while True:
        keys_, values = Buffer(key * count), Buffer(value * count)
        request = Buffer(
            struct.pack("<QQQQIIQQ", before, place.address, keys_.address, values.address, count, descriptor, 0, 0)
        )
        ended = False
        try:
            syscall(BPF, _LOOKUP_BATCH, request, 56)
        except FileNotFoundError:
            ended = True
        except OSError as e:
            if e.errno != errno.ENOSPC or count >= most:  # a bucket that is larger than our memory
                raise
            count *= 4
            continue
        (got,) = struct.unpack_from("<I", bytes(request), 32)
        all_keys, all_values = bytes(keys_), bytes(values)
        found += [(all_keys[key * n : key * n + key], all_values[value * n : value * n + value]) for n in range(got)]
        if ended:
            return found
        place, previous = Buffer(4), place
        before = previous.address
