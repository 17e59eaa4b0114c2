"""Compressed streams: what comes out is what went in, and what is broken is said to be."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import time
import tracemalloc
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.errors import Corrupt, Invalid
from limpet.layers.compression import PIECE, Compressor, decompress, detect
from tests import needs

DATA = b"".join(b"line %d of something\n" % (i * i) for i in range(200_000)) + os.urandom(100_000)
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
}


def plain(data: bytes, kind: str, step: int = PIECE, max_ratio: int = 0) -> bytes:
    source = io.BytesIO(data)
    pieces = list(decompress(lambda n: source.read(min(n, step)), kind, max_ratio=max_ratio))
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("kind", PACK)
def test_there_and_back(kind: str) -> None:
    packed = PACK[kind](DATA)
    assert detect(packed[:6]) == kind
    for step in (PIECE, 5000):
        assert plain(packed, kind, step) == DATA


def test_plain_tars_are_passed_on() -> None:
    assert detect(b"name\0\0") == "tar"
    assert plain(DATA, "tar") == DATA


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("step", [1, 7, 4096])
def test_several_members_wherever_they_meet(kind: str, step: int) -> None:
    parts = [b"one", b"", b"three" * 1000]
    packed = b"".join(map(PACK[kind], parts))
    assert plain(packed, kind, step) == b"".join(parts)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("step", [1, 100, PIECE])
def test_broken_streams(kind: str, step: int) -> None:
    packed = PACK[kind](DATA[-2000:])
    for broken, words in (
        (b"", "empty"),
        (packed[:-3], "cut off"),
        (packed[:50], "cut off"),
        (packed[:2], "cut off|not a|damaged"),
        (packed + b"trailing garbage", "after the end"),
        (packed + b"\0" * 20 + b"x", "after the end"),
        (packed[:200] + bytes(16) + packed[216:], "damaged"),
        (b"neither this nor that", "not a"),
    ):
        with pytest.raises(Corrupt, match=words):
            plain(broken, kind, step)


def test_padding_that_the_formats_know() -> None:
    assert plain(PACK["xz"](b"x") + bytes(8), "xz") == b"x"
    assert plain(PACK["gzip"](b"x") + bytes(10240), "gzip", 100) == b"x"
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    for packed in (skippable + PACK["zstd"](b"x"), PACK["zstd"](b"x") + skippable):
        assert detect(packed[:6]) == "zstd"
        assert plain(packed, "zstd") == b"x"


def test_a_header_with_a_name_and_a_comment() -> None:
    packed = subprocess.run(["gzip", "-cN"], input=b"data", capture_output=True, check=True).stdout
    named = packed[:3] + b"\x18" + packed[4:10] + b"name\0comment\0" + packed[10:]
    assert plain(named, "gzip") == b"data"


@pytest.mark.parametrize("kind", PACK)
def test_bombs(kind: str) -> None:
    packed = PACK[kind](bytes(70 << 20))
    tracemalloc.start()
    with pytest.raises(Invalid, match="LIMPET_MAX_LAYER_RATIO") as caught:
        for _ in decompress(io.BytesIO(packed).read, kind, max_ratio=100):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than 100 times" in str(caught.value)
    assert peak < 20 << 20
    small = PACK[kind](bytes(1 << 20))
    assert len(plain(small, kind, max_ratio=100)) == 1 << 20  # too little to count


@needs.real_time
def test_very_many_members_are_not_quadratic() -> None:
    start = time.process_time()
    assert plain(gzip.compress(b"") * 100_000, "gzip") == b""
    assert time.process_time() - start < 10


def test_unknown_kinds() -> None:
    with pytest.raises(Invalid, match="lz4"):
        plain(b"x", "lz4")
    with pytest.raises(Invalid, match="xz"):
        Compressor("xz")


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.binary(max_size=5000), max_size=6))
def test_what_is_compressed_is_the_same_each_time(kind: str, pieces: list[bytes]) -> None:
    results = []
    for _ in range(2):
        compressor = Compressor(kind)
        results.append(b"".join([compressor.write(piece) for piece in pieces]) + compressor.finish())
    assert results[0] == results[1]
    assert plain(results[0], kind) == b"".join(pieces)
