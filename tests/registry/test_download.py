"""Downloads in parallel ranges, and servers that do not keep their word about ranges, lengths and encodings."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.registry import server
from tests.registry.server import send

from limpet.errors import Corrupt, LimpetError, Refused
from limpet.oci.manifest import Descriptor
from limpet.registry import connection, download
from limpet.registry.client import Registry
from limpet.registry.rate import Rate

if TYPE_CHECKING:
    import http.server
    from collections.abc import Iterator
    from pathlib import Path

    Handler = http.server.BaseHTTPRequestHandler

pytestmark = pytest.mark.slow

BIG = os.urandom(6 << 20)
BLOB = Descriptor("", server.digest_of(BIG), len(BIG))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[server.Scripted]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    with server.scripted() as state:
        state.documents[BLOB.digest] = ("application/octet-stream", BIG)
        yield state


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges for a few hundred KiB, after a moment."""
    monkeypatch.setattr(download, "PATIENCE", 0.05)
    monkeypatch.setattr(download, "WORTH", 1 << 20)
    monkeypatch.setattr(download, "SLOW", 1 << 40)
    monkeypatch.setattr(download, "SEGMENT", 300_000)
    monkeypatch.setattr(download, "PIECE", 100_000)
    monkeypatch.setattr(download, "TRIAL", 800_000)
    monkeypatch.setattr(download, "SMALL", 50_000)


class Slow:
    """Whole blobs come slowly, ranges at once; `broken` of the first ranges break half-way.

    `line`: held for each piece, if all connections share one line.
    """

    def __init__(self, fake: server.Scripted, *, broken: int = 0, says: str = "bytes") -> None:
        self.ranges: list[str] = []
        self._left = broken
        self._says = says
        self._lock = threading.Lock()
        self.line: threading.Lock | None = None
        fake.answer = self

    def __call__(self, handler: Handler) -> bool:
        wanted = handler.headers.get("Range", "")
        if wanted.endswith("-") or not wanted:
            begin = int(wanted[6:-1] or 0)
            handler.send_response(206 if wanted else 200)
            if wanted:
                handler.send_header("Content-Range", f"bytes {begin}-{len(BIG) - 1}/{len(BIG)}")
            handler.send_header("Content-Length", str(len(BIG) - begin))
            handler.send_header("Accept-Ranges", self._says)
            handler.end_headers()
            try:
                for start in range(begin, len(BIG), 100_000):
                    with self.line or threading.Lock():
                        handler.wfile.write(BIG[start : start + 100_000])
                        time.sleep(0.02)
            except OSError:
                handler.close_connection = True
            return True
        with self._lock:
            self.ranges.append(wanted)
            breaks, self._left = self._left > 0, self._left - 1
        if not breaks:
            return False
        first, _, last = wanted[6:].partition("-")
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(BIG)}")
        handler.send_header("Content-Length", str(int(last) + 1 - int(first)))
        handler.end_headers()
        handler.wfile.write(BIG[int(first) : (int(first) + int(last)) // 2])
        handler.close_connection = True
        return True


def test_a_slow_line_gets_several_connections(fake: server.Scripted, eager: None) -> None:
    slow = Slow(fake)
    assert b"".join(Registry(fake.domain).blob("app", BLOB)) == BIG
    assert len(slow.ranges) > 10
    assert sum(not headers.get("range") for _, headers in fake.requests) == 1


def test_a_line_that_is_full_keeps_one_connection(
    fake: server.Scripted, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two connections share what one had: the second one, which was tried, brings the rest."""
    slow = Slow(fake)
    slow.line = threading.Lock()
    monkeypatch.setattr(download, "PATIENCE", 0.4)  # a rate is to be known
    assert b"".join(Registry(fake.domain).blob("app", BLOB)) == BIG
    assert slow.ranges == []
    assert len(fake.requests) == 2


def test_broken_ranges_go_on(fake: server.Scripted, eager: None) -> None:
    Slow(fake, broken=7)
    assert b"".join(Registry(fake.domain).blob("app", BLOB)) == BIG


def test_the_rest_of_a_blob(fake: server.Scripted, eager: None) -> None:
    Slow(fake)
    assert b"".join(Registry(fake.domain).blob("app", BLOB, 1_234_567)) == BIG[1_234_567:]


@pytest.mark.parametrize("reason", ["no ranges", "a limit", "a fast line", "fast enough", "a slow reader"])
def test_one_connection_stays_one(
    fake: server.Scripted, eager: None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(fake, says="none" if reason == "no ranges" else "bytes")
    if reason == "fast enough":
        monkeypatch.setattr(download, "SLOW", 1_000_000)
    registry = Registry(fake.domain, Rate(1 << 30) if reason == "a limit" else None)
    if reason in ("a fast line", "a slow reader"):
        fake.answer = lambda handler: False
    got = b""
    for piece in registry.blob("app", BLOB):
        got += piece
        if reason == "a slow reader":
            time.sleep(0.01)
    assert got == BIG
    assert slow.ranges == []


def test_a_server_that_says_ranges_and_has_none(fake: server.Scripted, eager: None) -> None:
    slow = Slow(fake)

    def answer(handler: Handler) -> bool:
        wanted = handler.headers.get("Range", "")
        if wanted and not wanted.endswith("-"):
            slow.ranges.append(wanted)
            send(handler, 200, BIG)
            return True
        return slow(handler)

    fake.answer = answer
    assert b"".join(Registry(fake.domain).blob("app", BLOB)) == BIG
    assert slow.ranges


def _workers() -> int:
    return sum(thread.name == download.THREAD for thread in threading.enumerate())


def test_a_reader_that_stops_early(fake: server.Scripted, eager: None) -> None:
    Slow(fake)
    pieces = Registry(fake.domain).blob("app", BLOB)
    while not _workers():
        next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while _workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _workers() == 0


def _answering(fake: server.Scripted, status: int, headers: dict[str, str], body: bytes = BIG) -> None:
    def answer(handler: Handler) -> bool:
        send(handler, status, body, headers)
        return True

    fake.answer = answer


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        f"bytes 0-{len(BIG) - 101}/{len(BIG)}",
        f"bytes 100-{len(BIG) - 1}/{len(BIG) + 1}",
        f"bytes 100-{len(BIG)}/{len(BIG)}",
        f"bytes 101-{len(BIG) - 1}/{len(BIG)}",
        "bytes 100-99/*",
        "items 100-200/*",
        "bytes */100",
        f"bytes 100-{'9' * 400}/*",
    ],
)
def test_another_range_than_was_asked_for(fake: server.Scripted, content_range: str) -> None:
    _answering(fake, 206, {"Content-Range": content_range}, BIG[100:])
    with pytest.raises(LimpetError, match="another range"):
        list(Registry(fake.domain).blob("app", BLOB, 100))


def test_a_part_where_all_was_asked_for(fake: server.Scripted) -> None:
    _answering(fake, 206, {"Content-Range": f"bytes 0-{len(BIG) - 1}/{len(BIG)}"})
    with pytest.raises(LimpetError, match="sent a part"):
        list(Registry(fake.domain).blob("app", BLOB))


def test_all_where_a_part_was_asked_for(fake: server.Scripted) -> None:
    _answering(fake, 200, {})
    assert b"".join(Registry(fake.domain).blob("app", BLOB, 5_000_000)) == BIG[5_000_000:]


@pytest.mark.parametrize(("change", "word"), [(1, "longer"), (-1, "shorter")])
def test_another_length(fake: server.Scripted, change: int, word: str) -> None:
    _answering(fake, 200, {}, BIG + b"x" if change > 0 else BIG[:-1])
    with pytest.raises(Corrupt, match=f"{word} than the {len(BIG)} bytes"):
        list(Registry(fake.domain).blob("app", BLOB))


def test_content_encodings(fake: server.Scripted) -> None:
    """A proxy that compresses on the way is refused; a store that labels a gzip layer as what it is gets it through."""
    _answering(fake, 200, {"Content-Encoding": "gzip"})
    assert b"".join(Registry(fake.domain).blob("app", BLOB)) == BIG

    def chunked(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")
        return True

    fake.answer = chunked
    with pytest.raises(LimpetError, match="content encoding 'gzip'"):
        list(Registry(fake.domain).blob("app", BLOB))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://registry.example/x"])
def test_redirects_to_where_nobody_should_go(fake: server.Scripted, location: str) -> None:
    _answering(fake, 307, {"Location": location}, b"")
    with pytest.raises(Refused, match="redirects to"):
        list(Registry(fake.domain).blob("app", BLOB))


def test_redirects_in_circles(fake: server.Scripted) -> None:
    _answering(fake, 307, {"Location": f"/v2/app/blobs/{BLOB.digest}"}, b"")
    with pytest.raises(Refused, match="more than 5 redirects"):
        list(Registry(fake.domain).blob("app", BLOB))


def test_silence_ends(fake: server.Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit is on silence, not on size: a slow blob comes whole, a silent one is given up."""
    import urllib3

    from limpet.registry import transport

    monkeypatch.setattr(transport, "_TIMEOUT", urllib3.Timeout(connect=5, read=0.5))
    monkeypatch.setattr(connection, "MAX_TRIES", 1)
    monkeypatch.setattr(download, "MAX_TRIES", 1)
    Slow(fake, says="none")
    began = time.monotonic()
    assert b"".join(Registry(fake.domain).blob("app", BLOB)) == BIG
    assert time.monotonic() - began > 0.5

    def silent(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BIG)))
        handler.end_headers()
        handler.wfile.write(BIG[:1000])
        handler.rfile.read(1)
        return True

    fake.answer = silent
    with pytest.raises(LimpetError, match="no answer in time"):
        list(Registry(fake.domain).blob("app", BLOB))
