"""Which files the dynamic loader would open for a program, found by its rules without running it (ld.so(8)).

For a library named without a slash: DT_RPATH of the object and of what loaded it (if the object has no DT_RUNPATH),
then DT_RUNPATH of the object, then the cache, then the default directories. LD_LIBRARY_PATH is of the caller, not of
the files, and glibc-hwcaps directories hold faster twins of files that are found anyway: both are left out, so that
the same files give the same answer whoever asks on whatever processor.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from limpet.errors import Invalid
from limpet.images import elf

CACHE = "/etc/ld.so.cache"
_MAGIC = b"glibc-ld.so.cache1.1"  # sysdeps/generic/dl-cache.h, struct cache_file_new
_OLD_MAGIC = b"ld.so-1.7.0"
_HEADER = struct.Struct("=20sIIB3xI12x")
_ENTRY = struct.Struct("=iIIIQ")


@dataclass(frozen=True)
class CacheEntry:
    name: str
    path: str
    flags: int  # FLAG_* of dl-cache.h: the ABI


def parse_cache(data: bytes) -> list[CacheEntry]:
    """The entries of an ld.so.cache in the order of the file, those of hwcap directories left out. Junk gives []."""
    if data.startswith(_OLD_MAGIC):  # glibc < 2.32 puts the new form after the old one, aligned to 8
        (count,) = struct.unpack_from("=I", data, 12) if len(data) >= 16 else (0,)
        data = data[(16 + count * 12 + 7) & ~7 :]
    if len(data) < _HEADER.size:
        return []
    magic, count, _, _, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC or _HEADER.size + count * _ENTRY.size > len(data):
        return []
    entries = []
    for flags, key, value, _, hwcap in _ENTRY.iter_unpack(data[_HEADER.size : _HEADER.size + count * _ENTRY.size]):
        name, path = _text(data, key), _text(data, value)
        if name and path.startswith("/") and not hwcap:
            entries.append(CacheEntry(name, path, flags))
    return entries


def _text(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    return os.fsdecode(data[start:end]) if start < len(data) and end - start < 4096 else ""


def write_cache(entries: list[CacheEntry]) -> bytes:
    """An ld.so.cache that names just these: what an image needs of its host's `ld.so.conf`, without ldconfig in it."""
    ordered = sorted(set(entries), key=lambda e: (_sort_key(e.name), e.flags, e.path), reverse=True)
    start = _HEADER.size + len(ordered) * _ENTRY.size
    strings = bytearray()
    rows = bytearray()
    for entry in ordered:
        key = start + len(strings)
        strings += os.fsencode(entry.name) + b"\0"
        value = start + len(strings)
        strings += os.fsencode(entry.path) + b"\0"
        rows += _ENTRY.pack(entry.flags, key, value, 0, 0)
    # flags: cache_file_new_flags_endian_little is 2, big is 3; 0 means "not set" and is accepted by every glibc.
    return _HEADER.pack(_MAGIC, len(ordered), len(strings), 0, 0) + bytes(rows) + bytes(strings)


def _sort_key(name: str) -> list[tuple[int, int]]:
    """The order of `_dl_cache_libcmp`, by which the loader searches: runs of digits are numbers, and above letters."""
    key: list[tuple[int, int]] = []
    raw = os.fsencode(name)
    i = 0
    while i < len(raw):
        if 48 <= raw[i] <= 57:
            end = i
            while end < len(raw) and 48 <= raw[end] <= 57:
                end += 1
            key.append((1, int(raw[i:end])))
            i = end
        else:
            key.append((0, raw[i]))
            i += 1
    return key


class Loader:
    """Resolves libraries of the host. Remembers what it read: make one for each capture."""

    def __init__(self, cache: str = CACHE) -> None:
        self._elf: dict[str, elf.Elf | None] = {}
        self._cache: dict[str, list[CacheEntry]] = {}
        try:
            with open(cache, "rb") as file:
                entries = parse_cache(file.read(64 << 20))
        except OSError:
            entries = []
        for entry in entries:
            self._cache.setdefault(entry.name, []).append(entry)
        self.through_cache: list[CacheEntry] = []  # found only by the cache: their directory isn't a default one

    def read(self, path: str) -> elf.Elf | None:
        """What the file says, or None if it can't be read, isn't ELF, or is broken."""
        if path not in self._elf:
            try:
                self._elf[path] = elf.read(path)
            except (OSError, Invalid):
                self._elf[path] = None
        return self._elf[path]

    def needs(self, path: str, program: str = "") -> tuple[list[str], list[str]]:
        """Paths of all files that loading `path` opens besides itself, and the names that could not be found.

        `program` is the executable whose process will load `path`, if that is a plug-in: its DT_RPATH counts too.
        """
        found: dict[str, None] = {}
        missing: dict[str, None] = {}
        names: set[str] = set()  # by name or soname: a process loads each once
        start = self.read(path)
        if start is None:
            return [], []
        if start.interpreter:
            found[start.interpreter] = None
        queue: list[tuple[str, tuple[str, ...]]] = [(path, (program,) if program and program != path else ())]
        while queue:
            current, chain = queue.pop(0)
            info = self.read(current)
            if info is None:
                continue
            for name in info.needed:
                if name in names:
                    continue
                names.add(name)
                target = self._resolve(name, current, chain)
                if target is None:
                    missing[name] = None
                elif target not in found:
                    found[target] = None
                    queue.append((target, (current, *chain)))
        return list(found), list(missing)

    def _resolve(self, name: str, path: str, chain: tuple[str, ...]) -> str | None:
        info = self.read(path)
        if info is None:
            return None
        if "/" in name:
            return name if self._fits(name, info) else None
        directories: list[str] = []
        if not info.runpath:
            for holder in (path, *chain):
                outer = self.read(holder)
                if outer is not None and not outer.runpath:
                    directories += [_expand(d, holder, outer) for d in outer.rpath]
        directories += [_expand(d, path, info) for d in info.runpath]
        for directory in directories:
            candidate = f"{directory.rstrip('/')}/{name}"
            if directory.startswith("/") and self._fits(candidate, info):
                return candidate
        if info.no_default:
            return None
        defaults = default_directories(info)
        for entry in self._cache.get(name, ()):
            if self._fits(entry.path, info):
                if os.path.dirname(entry.path) not in defaults:
                    self.through_cache.append(entry)
                return entry.path
        for directory in defaults:
            if self._fits(f"{directory}/{name}", info):
                return f"{directory}/{name}"
        return None

    def _fits(self, path: str, wanted: elf.Elf) -> bool:
        found = self.read(path)
        return found is not None and found.kind == wanted.kind


_TRIPLETS = {
    (64, 62): "x86_64-linux-gnu",
    (32, 3): "i386-linux-gnu",
    (64, 183): "aarch64-linux-gnu",
    (32, 40): "arm-linux-gnueabihf",
    (64, 243): "riscv64-linux-gnu",
    (64, 21): "powerpc64le-linux-gnu",
    (64, 22): "s390x-linux-gnu",
}


def default_directories(info: elf.Elf) -> tuple[str, ...]:
    """Where glibc looks last: Debian's is built with the multiarch directories, others with lib64; order as theirs."""
    triplet = _TRIPLETS.get(info.kind)
    multiarch = (f"/lib/{triplet}", f"/usr/lib/{triplet}") if triplet else ()
    wide = ("/lib64", "/usr/lib64") if info.bits == 64 else ()
    return (*multiarch, *wide, "/lib", "/usr/lib")


def _expand(directory: str, path: str, info: elf.Elf) -> str:
    """`$ORIGIN` is the directory of the object that has the tag, `$LIB` the loader's own library directory."""
    if "$" not in directory:
        return directory
    library = f"lib/{_TRIPLETS.get(info.kind)}"
    if not os.path.isdir(f"/{library}"):
        library = "lib64" if info.bits == 64 and os.path.isdir("/lib64") else "lib"
    for token, value in (("ORIGIN", os.path.dirname(path)), ("LIB", library)):
        directory = directory.replace(f"${{{token}}}", value).replace(f"${token}", value)
    return directory
