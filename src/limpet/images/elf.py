"""What an ELF file says it needs: its interpreter, its libraries, and where it wants them looked for.

Only the headers, the dynamic section and the strings it names are read. A file may be anything: offsets and counts
are checked, a lie raises Invalid, and a file that isn't ELF gives None. Source: gABI chapters 4 and 5, elf.h.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from limpet.errors import Invalid

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 0, 1, 5, 10
_DT_SONAME, _DT_RPATH, _DT_RUNPATH, _DT_FLAGS_1 = 14, 15, 29, 0x6FFFFFFB
_DF_1_NODEFLIB = 0x800
_MAX_SEGMENTS = 4096
_MAX_DYNAMIC = 1 << 20  # bytes of the dynamic section
_MAX_STRING = 4096


@dataclass(frozen=True)
class Elf:
    """Paths and names as they stand in the file: `$ORIGIN` is not expanded, rpath and runpath are split at colons."""

    bits: int  # 32 or 64
    machine: int  # e_machine
    interpreter: str
    needed: tuple[str, ...]
    soname: str
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    no_default: bool  # DF_1_NODEFLIB: neither the cache nor the default directories are asked

    @property
    def kind(self) -> tuple[int, int]:
        """Objects load only objects of their own kind."""
        return self.bits, self.machine


def read(path: str) -> Elf | None:
    """Reads the file, following links. None if it isn't ELF; Invalid if it says so and is broken; OSError as usual."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _read(fd, path)
    except struct.error as e:
        raise Invalid(f"{path}: a broken ELF file ({e})") from e
    finally:
        os.close(fd)


def _read(fd: int, path: str) -> Elf | None:
    head = os.pread(fd, 64, 0)
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    wide = head[4] == 2
    order = "<" if head[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", head, 18)
    if wide:
        (table,) = struct.unpack_from(order + "Q", head, 32)
        entry_size, count = struct.unpack_from(order + "HH", head, 54)
        header = struct.Struct(order + "IIQQQQQQ")  # type flags offset vaddr paddr filesz memsz align
    else:
        (table,) = struct.unpack_from(order + "I", head, 28)
        entry_size, count = struct.unpack_from(order + "HH", head, 42)
        header = struct.Struct(order + "IIIIIIII")  # type offset vaddr paddr filesz memsz flags align
    if count > _MAX_SEGMENTS or (count and entry_size < header.size):
        raise Invalid(f"{path}: a broken ELF file (program headers)")
    headers = _at(fd, path, table, entry_size * count)
    loads: list[tuple[int, int, int]] = []
    dynamic = b""
    interpreter = ""
    for i in range(count):
        fields = header.unpack_from(headers, i * entry_size)
        offset, address, length = (fields[2], fields[3], fields[5]) if wide else (fields[1], fields[2], fields[4])
        if fields[0] == _PT_LOAD:
            loads.append((address, length, offset))
        elif fields[0] == _PT_DYNAMIC:
            dynamic = _at(fd, path, offset, min(length, _MAX_DYNAMIC))
        elif fields[0] == _PT_INTERP:
            interpreter = (
                _at(fd, path, offset, min(length, _MAX_STRING)).split(b"\0")[0].decode(errors="surrogateescape")
            )
    wanted: dict[int, list[int]] = {}
    pair = struct.Struct(order + ("qQ" if wide else "iI"))
    for tag, value in pair.iter_unpack(dynamic[: len(dynamic) // pair.size * pair.size]):
        if tag == _DT_NULL:
            break
        wanted.setdefault(tag, []).append(value)

    strings = b""
    if _DT_STRTAB in wanted:
        offset = _file_offset(loads, wanted[_DT_STRTAB][0], path)
        strings = _at(fd, path, offset, min(wanted.get(_DT_STRSZ, [0])[0], 64 << 20))

    def text(tag: int) -> list[str]:
        found = []
        for start in wanted.get(tag, []):
            end = strings.find(b"\0", start)
            if start >= len(strings) or end < 0 or end - start > _MAX_STRING:
                raise Invalid(f"{path}: a broken ELF file (string table)")
            found.append(strings[start:end].decode(errors="surrogateescape"))
        return found

    return Elf(
        bits=64 if wide else 32,
        machine=machine,
        interpreter=interpreter,
        needed=tuple(text(_DT_NEEDED)),
        soname=next(iter(text(_DT_SONAME)), ""),
        rpath=tuple(":".join(text(_DT_RPATH)).split(":")) if _DT_RPATH in wanted else (),
        runpath=tuple(":".join(text(_DT_RUNPATH)).split(":")) if _DT_RUNPATH in wanted else (),
        no_default=bool(wanted.get(_DT_FLAGS_1, [0])[0] & _DF_1_NODEFLIB),
    )


def _at(fd: int, path: str, offset: int, length: int) -> bytes:
    if offset > 1 << 62:
        raise Invalid(f"{path}: a broken ELF file (offset)")
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise Invalid(f"{path}: a broken ELF file (cut short)")
    return data


def _file_offset(loads: list[tuple[int, int, int]], address: int, path: str) -> int:
    for start, length, offset in loads:
        if start <= address < start + length:
            return address - start + offset
    raise Invalid(f"{path}: a broken ELF file (an address outside its segments)")
