"""Uploads to a registry that answers as registries in the field do, and to one that loses and misunderstands things."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from tests.registry import server
from tests.registry.server import send as answer

from limpet.errors import Corrupt, LimpetError, Refused
from limpet.oci.manifest import Descriptor
from limpet.registry import connection, upload
from limpet.registry.client import Registry
from limpet.registry.rate import Rate
from limpet.registry.upload import Upload, send

if TYPE_CHECKING:
    import http.server
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Handler = http.server.BaseHTTPRequestHandler

pytestmark = pytest.mark.slow

SMALL, BIG = os.urandom(1000), os.urandom(3 << 20)


class Uploads:
    """A registry of one repository that takes uploads by the letter of the specification.

    `breaks`: bytes of a body after which the next connections break. `largest`: bytes of a body at most.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.sessions: dict[str, bytearray] = {}
        self.breaks: list[int] = []
        self.seen: list[str] = []
        self.single_post = True
        self.largest = 1 << 40
        self.minimum = ""
        self.turned_away: list[int] = []
        self.forget = False
        self.received: threading.Event | None = None
        """Set when the first megabyte of a large body is here, which then ends where its sender does."""

    def __call__(self, handler: Handler) -> bool:
        self.seen.append(f"{handler.command} {handler.path.partition('?')[0].rpartition('/')[0]}")
        parts = urlsplit(handler.path)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        if handler.command == "HEAD":
            found = self.blobs.get(parts.path.rpartition("/")[2])
            handler.send_response(404 if found is None else 200)
            handler.send_header("Content-Length", str(len(found or b"")))
            handler.end_headers()
        elif handler.command == "POST":
            self._post(handler, query)
        else:
            self._session(handler, parts.path.rpartition("/")[2], query)
        return True

    def _post(self, handler: Handler, query: dict[str, str]) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if query.get("from") == "has-it":
            self.blobs[query["mount"]] = b""
            answer(handler, 201)
        elif "digest" in query and self.single_post:
            self._keep(handler, query["digest"], body)
        else:
            name = str(len(self.sessions))
            self.sessions[name] = bytearray()
            self._go_on(handler, name, 202)

    def _session(self, handler: Handler, name: str, query: dict[str, str]) -> None:
        session = self.sessions.get(name)
        if session is None:
            answer(handler, 404, b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')
            return
        if handler.command == "GET":
            self._go_on(handler, name, 204)
            return
        length = int(handler.headers["Content-Length"])
        if self.turned_away:
            handler.rfile.read(length)
            answer(handler, self.turned_away.pop(), b"no", {"Retry-After": "0"})
            return
        if length > self.largest:
            handler.rfile.read(length)
            answer(handler, 413, b"too large")
            return
        if length and self.breaks:
            session += handler.rfile.read(min(length, self.breaks.pop()))
            if self.forget:
                del self.sessions[name]
            handler.close_connection = True
            return
        match = re.fullmatch(r"(\d+)-(\d+)", handler.headers.get("Content-Range", ""))
        if match and int(match[1]) != len(session):
            answer(handler, 416, b"another range")
            return
        if self.received is not None and length > 2 << 20:
            session += handler.rfile.read(1 << 20)
            length -= 1 << 20
            self.received.set()
        session += handler.rfile.read(length)
        if handler.command == "PATCH":
            self._go_on(handler, name, 202)
        else:
            self._keep(handler, query["digest"], bytes(session))

    def _keep(self, handler: Handler, digest: str, data: bytes) -> None:
        if server.digest_of(data) != digest:
            answer(handler, 400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "other bytes"}]}')
            return
        self.blobs[digest] = data
        answer(handler, 201)

    def _go_on(self, handler: Handler, name: str, status: int) -> None:
        count = len(self.sessions[name])
        headers = {"Location": f"/upload/{name}?state=x", "Range": f"0-{max(0, count - 1)}"}
        if self.minimum:
            headers["OCI-Chunk-Min-Length"] = self.minimum
        answer(handler, status, b"", headers)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Uploads, Registry]]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    uploads = Uploads()
    with server.scripted() as state:
        state.answer = uploads
        yield uploads, Registry(state.domain)


def _upload(data: bytes, *, told: list[int] | None = None, sources: list[str] | None = None) -> Upload:
    def opening(offset: int) -> Iterator[bytes]:
        for start in range(offset, len(data), 100_000):
            yield data[start : start + 100_000]

    advance: Callable[[int], None] = (told if told is not None else []).append
    return Upload(Descriptor("", server.digest_of(data), len(data)), opening, sources or [], advance)


def test_a_small_blob_is_one_request(there: tuple[Uploads, Registry]) -> None:
    uploads, registry = there
    assert send(registry, "app", _upload(SMALL)) == "Pushed"
    assert uploads.seen == ["HEAD /v2/app/blobs", "POST /v2/app/blobs/uploads"]
    assert uploads.blobs == {server.digest_of(SMALL): SMALL}
    assert send(registry, "app", _upload(SMALL)) == "Layer already exists"


def test_a_registry_without_single_posts_is_asked_once(there: tuple[Uploads, Registry]) -> None:
    uploads, registry = there
    uploads.single_post = False
    for data in (SMALL, SMALL[1:]):
        assert send(registry, "app", _upload(data)) == "Pushed"
    assert registry.single_post is False
    assert len(uploads.blobs) == 2


def test_an_empty_blob(there: tuple[Uploads, Registry]) -> None:
    uploads, registry = there
    for single in (True, False):
        uploads.single_post, registry.single_post = single, None
        uploads.blobs.clear()
        assert send(registry, "app", _upload(b"")) == "Pushed"
        assert uploads.blobs == {server.digest_of(b""): b""}


def test_a_large_one_goes_in_one_piece(there: tuple[Uploads, Registry]) -> None:
    uploads, registry = there
    told: list[int] = []
    assert send(registry, "app", _upload(BIG, told=told)) == "Pushed"
    assert [line.partition(" ")[0] for line in uploads.seen] == ["HEAD", "POST", "PUT"]
    assert uploads.blobs[server.digest_of(BIG)] == BIG
    assert sum(told) == len(BIG)


def test_mounts(there: tuple[Uploads, Registry]) -> None:
    uploads, registry = there
    assert send(registry, "app", _upload(BIG, sources=["has-it"])) == "Mounted from has-it"
    assert send(registry, "app", _upload(SMALL, sources=["has-it-not"])) == "Pushed"
    assert uploads.blobs[server.digest_of(SMALL)] == SMALL


@pytest.mark.parametrize("breaks", [[0], [1], [1 << 20], [5, 1 << 20, 700_000], [1] * 4])
def test_goes_on_where_it_broke(there: tuple[Uploads, Registry], breaks: list[int]) -> None:
    uploads, registry = there
    uploads.breaks = list(breaks)
    told: list[int] = []
    assert send(registry, "app", _upload(BIG, told=told)) == "Pushed"
    assert uploads.blobs[server.digest_of(BIG)] == BIG
    assert sum(told) == len(BIG)
    assert "GET /upload" in uploads.seen
    if breaks == [1 << 20]:
        assert [line.partition(" ")[0] for line in uploads.seen][-3:] == ["GET", "PATCH", "PUT"]


def test_begins_again_when_the_registry_forgot(there: tuple[Uploads, Registry]) -> None:
    uploads, registry = there
    uploads.breaks, uploads.forget = [100_000, 5], True
    assert send(registry, "app", _upload(BIG)) == "Pushed"
    assert uploads.blobs[server.digest_of(BIG)] == BIG


def test_bytes_that_were_on_their_way(there: tuple[Uploads, Registry]) -> None:
    """The registry adds what it still had in hand after it told how much it has: the digest tells, all goes again."""
    uploads, registry = there
    uploads.breaks = [1 << 20]
    usual = uploads._go_on

    def late(handler: Handler, name: str, status: int) -> None:
        usual(handler, name, status)
        if status == 204 and len(uploads.sessions) == 1:
            uploads.sessions[name] += b"late"

    uploads._go_on = late  # type: ignore[method-assign]
    assert send(registry, "app", _upload(BIG)) == "Pushed"
    assert uploads.blobs[server.digest_of(BIG)] == BIG


def test_smaller_bodies_where_large_ones_are_refused(
    there: tuple[Uploads, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, registry = there
    monkeypatch.setattr(upload, "CHUNK", 2 << 20)
    uploads.largest, uploads.minimum = 2 << 20, "100"
    assert send(registry, "app", _upload(BIG)) == "Pushed"
    assert uploads.blobs[server.digest_of(BIG)] == BIG
    assert sum("PATCH" in line for line in uploads.seen) == 2


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_trouble_passes(there: tuple[Uploads, Registry], status: int) -> None:
    uploads, registry = there
    uploads.turned_away = [status, status]
    assert send(registry, "app", _upload(BIG)) == "Pushed"
    assert uploads.blobs[server.digest_of(BIG)] == BIG


@pytest.mark.parametrize("status", [403, 405, 507])
def test_refusals_are_told(there: tuple[Uploads, Registry], status: int) -> None:
    uploads, registry = there
    uploads.turned_away = [status] * 20
    with pytest.raises(LimpetError, match=rf"app.*HTTP {status}"):
        send(registry, "app", _upload(BIG))
    assert uploads.blobs == {}


def test_trouble_that_stays(there: tuple[Uploads, Registry]) -> None:
    uploads, registry = there
    uploads.turned_away = [503] * 50
    with pytest.raises(connection.TransferError, match="HTTP 503"):
        send(registry, "app", _upload(BIG))


def test_other_bytes_than_the_digest_says(there: tuple[Uploads, Registry]) -> None:
    _, registry = there
    wrong = Upload(Descriptor("", server.digest_of(SMALL), len(BIG)), lambda offset: iter([BIG[offset:]]))
    with pytest.raises(Corrupt, match="got other bytes"):
        send(registry, "app", wrong)
    short = Upload(Descriptor("", server.digest_of(BIG), len(BIG)), lambda offset: iter([SMALL]))
    with pytest.raises(Corrupt, match="ends after 1000 of"):
        send(registry, "app", short)


def test_an_upload_without_a_place(there: tuple[Uploads, Registry]) -> None:
    uploads, registry = there
    uploads._go_on = lambda handler, name, status: answer(handler, status)  # type: ignore[method-assign]
    with pytest.raises(LimpetError, match="without saying where"):
        send(registry, "app", _upload(BIG))


@pytest.mark.parametrize(
    ("header", "count"), [("0-99", 100), ("bytes=0-99", 100), ("0-0", 0), ("", 0), ("5-9", -1), ("x", -1), ("0--1", -1)]
)
def test_what_a_registry_has(header: str, count: int) -> None:
    assert upload._position(header) == count


def test_a_rate_is_kept(there: tuple[Uploads, Registry]) -> None:
    _, registry = there
    registry.rate = Rate(4 << 20)
    began = time.monotonic()
    assert send(registry, "app", _upload(BIG)) == "Pushed"
    assert 0.45 < time.monotonic() - began < 3


def test_a_real_registry_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docker-registry has what came before the break, and takes the rest."""
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.05)
    with server.docker_registry(tmp_path / "registry") as real:
        registry = Registry(real.domain)
        broken: list[int] = []

        def opening(offset: int) -> Iterator[bytes]:
            for start in range(offset, len(BIG), 1 << 16):
                if start > 1 << 20 and not broken:
                    broken.append(start)
                    raise connection.TransferError("the line broke")
                yield BIG[start : start + (1 << 16)]

        blob = Upload(Descriptor("", server.digest_of(BIG), len(BIG)), opening)
        assert send(registry, "app", blob) == "Pushed"
        assert broken
        assert b"".join(registry.blob("app", blob.descriptor)) == BIG


def test_no_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    locked = server.docker_registry(tmp_path / "registry", login=True)
    with locked as real, pytest.raises(Refused, match="push access denied"):
        send(Registry(real.domain), "app", _upload(BIG, sources=["other"]))


class Guard:
    """Wants a token with the scope of each request; each token is good for `uses` requests."""

    def __init__(self, inner: Uploads, domain: str, uses: int) -> None:
        self._inner, self._domain, self._uses = inner, domain, uses
        self.tokens: dict[str, list[str]] = {}
        self.left: dict[str, int] = {}

    def __call__(self, handler: Handler) -> bool:
        parts = urlsplit(handler.path)
        query = parse_qs(parts.query)
        if parts.path == "/token":
            name = f"T{len(self.tokens)}"
            self.tokens[name] = sorted(scope for text in query["scope"] for scope in text.split())
            self.left[name] = self._uses
            answer(handler, 200, b'{"token": "%s"}' % name.encode())
            return True
        needed = ["repository:app:pull,push"]
        if "from" in query:
            needed.append(f"repository:{query['from'][0]}:pull")
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if not set(needed) <= set(self.tokens.get(token, ())) or self.left[token] == 0:
            handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
            header = f'Bearer realm="http://{self._domain}/token",service="s",scope="{" ".join(needed)}"'
            answer(handler, 401, b"{}", {"WWW-Authenticate": header})
            return True
        self.left[token] -= 1
        return self._inner(handler)


@pytest.mark.parametrize("uses", [2, 3, 100])
def test_tokens(there: tuple[Uploads, Registry], uses: int) -> None:
    """A mount asks for both repositories in one token; a token that ends during an upload is got anew."""
    uploads, registry = there
    guard = Guard(uploads, registry.domain, uses)
    with server.scripted() as state:
        guard._domain = state.domain
        state.answer = guard
        registry = Registry(state.domain)
        assert send(registry, "app", _upload(BIG, sources=["has-it"])) == "Mounted from has-it"
        assert any(len(scopes) == 2 for scopes in guard.tokens.values())
        uploads.blobs.clear()
        assert send(registry, "app", _upload(BIG)) == "Pushed"
    assert uploads.blobs[server.digest_of(BIG)] == BIG


@pytest.mark.parametrize(
    "begun",
    [
        "/upload/77?state=x",
        "http://127.0.0.1:1/upload/0",
        "file:///etc/passwd",
        "https://registry.invalid/x",
        "/upload/0",
    ],
    ids=["forgotten", "nobody there", "a file", "no such host", "other bytes"],
)
def test_an_earlier_upload_that_leads_nowhere(there: tuple[Uploads, Registry], begun: str) -> None:
    """All goes up anew, and the new place is told."""
    uploads, registry = there
    uploads.sessions["0"] = bytearray(b"other bytes")
    places: list[str] = []
    blob = replace(_upload(BIG), begun=urljoin(registry.connection.base, begun), opened=places.append)
    assert send(registry, "app", blob) == "Pushed"
    assert uploads.blobs[server.digest_of(BIG)] == BIG
    assert places[-1].endswith("/upload/1?state=x")
