"""What ELF files need, compared with what `ldd` says, and by the loader's rules on files made here."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from limpet.errors import Invalid
from limpet.images import elf
from limpet.images.loader import CacheEntry, Loader, parse_cache, write_cache


def make_elf(
    path: Path, *, soname: str = "", needed: tuple[str, ...] = (), rpath: str = "", runpath: str = "", machine: int = 62
) -> str:
    """A 64-bit file with a dynamic section and nothing else."""
    strings = b"\0"
    dynamic = b""
    for tag, text in [(14, soname), (15, rpath), (29, runpath), *((1, name) for name in needed)]:
        if text:
            dynamic += struct.pack("<qQ", tag, len(strings))
            strings += text.encode() + b"\0"
    base = 0x400000
    start = 64 + 2 * 56
    size = len(dynamic) + 3 * 16
    dynamic += struct.pack("<qQqQqQ", 5, base + start + size, 10, len(strings), 0, 0)
    total = start + size + len(strings)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, base, base, total, total, 4096)
    table = struct.pack("<IIQQQQQQ", 2, 4, start, base + start, base + start, size, size, 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + load + table + dynamic + strings)
    return str(path)


def test_agrees_with_ldd() -> None:
    ldd = shutil.which("ldd")
    if ldd is None:
        pytest.skip("needs ldd to compare with")
    loader = Loader()
    compared = 0
    for name in ("bash", "python3", "tar", "find", "ls", "ps", "openssl", "perl", "podman", "skopeo", "strace"):
        program = shutil.which(name, path="/usr/bin:/bin")
        if program is None or loader.read(program) is None:
            continue
        output = subprocess.run([ldd, program], capture_output=True, text=True).stdout
        theirs = set(re.findall(r"=> (/\S+)", output)) | set(re.findall(r"^\s+(/\S+) \(", output, re.M))
        ours, missing = loader.needs(program)
        assert {os.path.realpath(p) for p in ours} == {os.path.realpath(p) for p in theirs}, program
        assert missing == []
        compared += 1
    assert compared >= 3


def test_what_is_not_elf_is_none(tmp_path: Path) -> None:
    for data in (b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + b"\x09" * 100):
        (tmp_path / "file").write_bytes(data)
        assert elf.read(str(tmp_path / "file")) is None


def test_a_broken_file_costs_an_error_and_nothing_else(tmp_path: Path) -> None:
    whole = Path(
        make_elf(tmp_path / "whole", soname="a.so", needed=("b.so", "c.so"), runpath="$ORIGIN/x:/y")
    ).read_bytes()
    dice = random.Random(1)
    errors = 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(5, len(data))] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
        (tmp_path / "broken").write_bytes(data[: dice.choice((len(data), dice.randrange(64, len(data))))])
        try:
            elf.read(str(tmp_path / "broken"))
        except Invalid as e:
            assert "broken ELF file" in e.message  # noqa: PT017 - either outcome is right
            errors += 1
    assert errors > 50


def test_reads_what_the_file_says(tmp_path: Path) -> None:
    info = elf.read(make_elf(tmp_path / "a", soname="a.so.1", needed=("b.so", "c.so"), rpath="/p:$ORIGIN/../q"))
    assert info is not None
    assert (info.soname, info.needed, info.rpath, info.runpath) == (
        "a.so.1",
        ("b.so", "c.so"),
        ("/p", "$ORIGIN/../q"),
        (),
    )
    assert info.kind == (64, 62)


def test_origin_is_the_directory_of_the_object_that_says_so(tmp_path: Path) -> None:
    program = make_elf(tmp_path / "bin/tool", needed=("b.so",), runpath="$ORIGIN/../lib")
    library = make_elf(tmp_path / "lib/b.so", needed=("c.so",), runpath="${ORIGIN}/deep")
    deep = make_elf(tmp_path / "lib/deep/c.so")
    found, missing = Loader(cache="/nonexistent").needs(program)
    assert [os.path.realpath(path) for path in found] == [library, deep]
    assert missing == []


def test_rpath_is_inherited_and_runpath_is_not(tmp_path: Path) -> None:
    make_elf(tmp_path / "lib/b.so", needed=("c.so",))
    make_elf(tmp_path / "lib/c.so")
    loader = Loader(cache="/nonexistent")
    by_rpath = make_elf(tmp_path / "rpath", needed=("b.so",), rpath=str(tmp_path / "lib"))
    assert loader.needs(by_rpath) == ([f"{tmp_path}/lib/b.so", f"{tmp_path}/lib/c.so"], [])
    by_runpath = make_elf(tmp_path / "runpath", needed=("b.so",), runpath=str(tmp_path / "lib"))
    assert loader.needs(by_runpath) == ([f"{tmp_path}/lib/b.so"], ["c.so"])


def test_the_rpath_of_the_program_counts_for_its_plugins(tmp_path: Path) -> None:
    program = make_elf(tmp_path / "program", rpath=str(tmp_path / "lib"))
    plugin = make_elf(tmp_path / "plugin.so", needed=("c.so",))
    make_elf(tmp_path / "lib/c.so")
    loader = Loader(cache="/nonexistent")
    assert loader.needs(plugin) == ([], ["c.so"])
    assert loader.needs(plugin, program) == ([f"{tmp_path}/lib/c.so"], [])


def test_a_library_of_another_machine_is_passed_over(tmp_path: Path) -> None:
    make_elf(tmp_path / "wrong/c.so", machine=183)
    right = make_elf(tmp_path / "right/c.so")
    program = make_elf(tmp_path / "program", needed=("c.so",), runpath=f"{tmp_path}/wrong:{tmp_path}/right")
    assert Loader(cache="/nonexistent").needs(program) == ([right], [])


def test_a_circle_ends(tmp_path: Path) -> None:
    first = make_elf(tmp_path / "a.so", needed=("b.so",), runpath="$ORIGIN")
    second = make_elf(tmp_path / "b.so", needed=("a.so",), runpath="$ORIGIN")
    assert Loader(cache="/nonexistent").needs(first) == ([second, first], [])


def test_the_cache_is_asked_and_what_it_found_is_remembered(tmp_path: Path) -> None:
    library = make_elf(tmp_path / "far/c.so.1")
    entries = [CacheEntry("c.so.1", library, 0x303)]
    (tmp_path / "cache").write_bytes(write_cache(entries))
    loader = Loader(cache=str(tmp_path / "cache"))
    assert loader.needs(make_elf(tmp_path / "program", needed=("c.so.1",))) == ([library], [])
    assert loader.through_cache == entries


def test_the_cache_of_this_host_is_read_and_written_alike() -> None:
    path = Path("/etc/ld.so.cache")
    if not path.exists():
        pytest.skip("needs a host with /etc/ld.so.cache")
    entries = parse_cache(path.read_bytes())
    assert any(entry.name == "libc.so.6" for entry in entries)
    assert parse_cache(write_cache(entries)) == entries  # ldconfig's order is ours: the loader searches by halves


@pytest.mark.parametrize(
    "data", [b"", b"ld.so-1.7.0", b"ld.so-1.7.0\0\xff\xff\xff\x7f", b"glibc-ld.so.cache1.1" + b"\xff" * 28]
)
def test_a_broken_cache_is_none(data: bytes) -> None:
    assert parse_cache(data) == []
