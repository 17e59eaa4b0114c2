"""Compressed layers: right, the same every time, and like what everyone else can read."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.errors import Invalid
from limpet.layers import compress, compression


def _plain(data: bytes, kind: str) -> bytes:
    source = iter([data])
    return b"".join(compression.decompress(lambda size: next(source, b""), kind))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [0, 1, compress.BLOCK - 1, compress.BLOCK, compress.BLOCK + 1, 5 * compress.BLOCK])
def test_there_and_back(kind: str, size: int) -> None:
    data = (os.urandom(1000) + bytes(3000)) * (size // 4000 + 1)
    data = data[:size]
    packed = b"".join(compress.compress(iter([data]), kind))
    assert _plain(packed, kind) == data


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=3000).map(lambda piece: piece * 300), max_size=6))
def test_how_it_is_cut_into_pieces_is_no_matter(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    packed = b"".join(compress.compress(iter(pieces), "gzip"))
    assert packed == b"".join(compress.compress(iter([whole]), "gzip"))
    assert gzip.decompress(packed) == whole


def test_one_core_writes_what_two_write() -> None:
    data = b"".join(hashlib.sha256(str(number).encode()).hexdigest().encode() for number in range(60_000))
    there = os.sched_getaffinity(0)
    both = b"".join(compress.compress(iter([data]), "gzip"))
    try:
        os.sched_setaffinity(0, {min(there)})
        assert b"".join(compress.compress(iter([data]), "gzip")) == both
    finally:
        os.sched_setaffinity(0, there)
    assert subprocess.run(["gzip", "-dc"], input=both, capture_output=True, check=True).stdout == data
    assert len(both) < 1.02 * len(gzip.compress(data, 3))


def test_levels() -> None:
    data = Path(argparse.__file__).read_bytes() * 3
    sizes = {level: len(b"".join(compress.compress(iter([data]), "gzip", level))) for level in (1, 9)}
    assert sizes[9] < sizes[1]
    for kind, level in (("gzip", 0), ("gzip", 10), ("zstd", 23), ("xz", None), ("zstd:chunked", None), ("estargz", 3)):
        with pytest.raises(Invalid):
            compress.compress(iter([data]), kind, level)
