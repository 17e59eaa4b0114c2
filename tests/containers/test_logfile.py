"""The json-file log: Docker's format, parts of 16 KiB, rotation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limpet.containers.execution.console import KeyMatcher
from limpet.containers.logging.logfile import PART, LogFile, limits, timestamp
from limpet.containers.monitor import frames
from limpet.errors import Invalid

if TYPE_CHECKING:
    from pathlib import Path


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_of_both_streams(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "l"), -1, 1)
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"err\n")
    log.write("stdout", b"o\nrest")
    log.close()
    found = entries(tmp_path / "l")
    assert [(e["stream"], e["log"]) for e in found] == [
        ("stdout", "one\n"),
        ("stderr", "err\n"),
        ("stdout", "two\n"),
        ("stdout", "rest\n"),  # Docker too ends a last line that has no newline
    ]
    assert list(found[0]) == ["log", "stream", "time"]


def test_the_text_is_written_as_go_writes_it(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "l"), -1, 1)
    log.write("stdout", 'a<b>&c "ü"\t\\\xff\n'.encode("latin-1"))
    log.close()
    line = (tmp_path / "l").read_text()
    assert "\\u003cb\\u003e\\u0026c" in line
    assert json.loads(line)["log"] == 'a<b>&c "\ufffd"\t\\\ufffd\n'


def test_a_long_line_comes_in_parts_with_one_time(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "l"), -1, 1)
    log.write("stdout", b"x" * (2 * PART + 5) + b"\n")
    log.close()
    found = entries(tmp_path / "l")
    assert [len(e["log"]) for e in found] == [PART, PART, 6]
    assert [e["log"].endswith("\n") for e in found] == [False, False, True]
    assert len({e["time"] for e in found}) == 1


def test_rotation_keeps_every_byte_of_the_newest(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "l"), 1000, 3)
    for number in range(100):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l", "l.1", "l.2"]
    lines = [e["log"] for name in ("l.2", "l.1", "l") for e in entries(tmp_path / name)]
    assert lines == [f"line {number}\n" for number in range(100 - len(lines), 100)]
    assert all(p.stat().st_size < 1200 for p in tmp_path.iterdir())


def test_one_file_only(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "l"), 100, 1)
    for number in range(10):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert [p.name for p in tmp_path.iterdir()] == ["l"]
    assert entries(tmp_path / "l")[-1]["log"] == "line 9\n"


def test_nothing_written_no_file(tmp_path: Path) -> None:
    LogFile(str(tmp_path / "l"), -1, 1).close()
    assert list(tmp_path.iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.binary(max_size=40000), max_size=6))
def test_any_bytes_in_any_pieces(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "l"
    path.unlink(missing_ok=True)
    log = LogFile(str(path), -1, 1)
    for piece in pieces:
        log.write("stdout", piece)
    log.close()
    data = b"".join(pieces)
    text = "".join(e["log"] for e in entries(path)) if path.exists() else ""
    if data.isascii():
        assert text == data.decode() + ("" if not data or data.endswith(b"\n") else "\n")


def test_limits() -> None:
    assert limits({}) == (10_000_000, 3)
    assert limits({"max-size": "1m", "max-file": "2"}) == (1_000_000, 2)
    assert limits({"max-size": "-1"}) == (-1, 3)
    for wrong in ({"max-size": "0"}, {"max-file": "0"}, {"max-file": "x"}):
        with pytest.raises(Invalid):
            limits(wrong)


def test_time_has_no_trailing_zeros() -> None:
    assert timestamp(1_500_000_000_000_000_000) == "2017-07-14T02:40:00Z"
    assert timestamp(1_500_000_000_120_000_000) == "2017-07-14T02:40:00.12Z"


def test_frames() -> None:
    buffer = bytearray(frames.frame(frames.STDOUT, b"abc") + frames.frame(frames.EXIT, frames.number_payload(137)))
    rest = buffer[-3:]
    del buffer[-3:]
    assert frames.take(buffer) == (frames.STDOUT, b"abc")
    assert frames.take(buffer) is None
    buffer += rest
    kind, payload = frames.take(buffer) or (0, b"")
    assert (kind, frames.number(payload)) == (frames.EXIT, 137)
    with pytest.raises(ValueError, match="frame of"):
        frames.take(bytearray(b"\1\xff\xff\xff\xff"))


def test_detach_keys_are_found_across_reads() -> None:
    keys = KeyMatcher(b"\x10\x11")
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b\x10\x10") == (b"\x10b\x10", False)
    assert keys.feed(b"\x11") == (b"", True)
    assert KeyMatcher(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
