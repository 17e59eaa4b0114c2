"""The client against a real registry, and against one that does all that goes wrong in the field."""

from __future__ import annotations

import base64
import json
import socket
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from tests.registry import server
from tests.registry.server import send

from limpet.errors import Corrupt, Invalid, LimpetError, NotFound, Refused
from limpet.oci import media
from limpet.oci.manifest import Descriptor
from limpet.registry import challenge, connection
from limpet.registry.client import Registry

if TYPE_CHECKING:
    import http.server
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = server.make_image([server.tar_of({"a": b"x" * 100_000})])
LAYER = Descriptor(media.OCI_LAYER_GZIP, server.digest_of(IMAGE.layers[0]), len(IMAGE.layers[0]))
BIG = bytes(range(256)) * 20_000
BIG_BLOB = Descriptor("", server.digest_of(BIG), len(BIG))


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    return tmp_path / "config.json"


@pytest.fixture
def fake() -> Iterator[server.Scripted]:
    with server.scripted() as state:
        state.add(IMAGE, "1")
        state.documents[BIG_BLOB.digest] = ("application/octet-stream", BIG)
        yield state


def _login(path: Path, domain: str, **entry: str) -> None:
    auth = base64.b64encode(f"{server.USER}:{server.PASSWORD}".encode()).decode()
    path.write_text(json.dumps({"auths": {domain: entry or {"auth": auth}}}))


def test_a_real_registry(tmp_path: Path) -> None:
    with server.docker_registry(tmp_path / "registry") as real:
        real.push(IMAGE, "dir/app:1")
        client = Registry(real.domain)
        assert client.manifest("dir/app", "1") == (IMAGE.manifest, media.OCI_MANIFEST, IMAGE.digest)
        assert client.manifest("dir/app", IMAGE.digest)[0] == IMAGE.manifest
        assert b"".join(client.blob("dir/app", LAYER)) == IMAGE.layers[0]
        assert b"".join(client.blob("dir/app", LAYER, offset=10)) == IMAGE.layers[0][10:]
        with pytest.raises(NotFound, match=f"manifest for {real.domain}/dir/app:2 not found: manifest unknown"):
            client.manifest("dir/app", "2")
        with pytest.raises(NotFound, match="not found: manifest unknown; check the tag"):
            client.manifest("dir/other", "1")
        with pytest.raises(NotFound, match="not found: manifest unknown; check the digest"):
            client.manifest("dir/app", server.digest_of(b"nothing"))


def test_a_real_registry_with_a_login(tmp_path: Path, no_login: Path) -> None:
    with server.docker_registry(tmp_path / "registry", login=True) as real:
        with pytest.raises(NotFound, match=r"not found or no access: not logged in; .* limpet login"):
            Registry(real.domain).manifest("app", "1")
        _login(no_login, real.domain)
        with pytest.raises(NotFound, match=r"unknown|denied"):  # let in, but there is no such image
            Registry(real.domain).manifest("app", "1")
        _login(no_login, real.domain, username=server.USER, password="wrong")
        with pytest.raises(NotFound, match=r"pull refused: the login as .* was not accepted; log in again"):
            Registry(real.domain).manifest("app", "1")


def test_tokens(fake: server.Scripted, no_login: Path) -> None:
    """Bearer: the token is asked for once, with the scope, and with the login if there is one."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if handler.path.startswith("/token"):
            send(handler, 200, b'{"access_token": "T"}')
            return True
        if handler.headers.get("Authorization") == "Bearer T":
            return False
        header = f'Bearer realm="http://{fake.domain}/token",service="s",scope="repository:app:pull"'
        send(handler, 401, b"{}", {"WWW-Authenticate": header})
        return True

    fake.answer = answer
    _login(no_login, f"http://{fake.domain}/v1/")
    client = Registry(fake.domain)
    client.manifest("app", "1")
    assert b"".join(client.blob("app", LAYER)) == IMAGE.layers[0]
    tokens = [(path, headers) for path, headers in fake.requests if path.startswith("/token")]
    ((path, headers),) = tokens
    assert path == "/token?service=s&scope=repository%3Aapp%3Apull"
    assert headers["authorization"].startswith("Basic ")


def test_an_identity_token_is_exchanged(fake: server.Scripted, no_login: Path) -> None:
    bodies: list[bytes] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if handler.path == "/token":
            bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])))
            send(handler, 200, b'{"access_token": "T"}')
        elif handler.headers.get("Authorization") == "Bearer T":
            return False
        else:
            header = f'Bearer realm="http://{fake.domain}/token",service="s"'
            send(handler, 401, b"{}", {"WWW-Authenticate": header})
        return True

    fake.answer = answer
    _login(no_login, fake.domain, identitytoken="I")
    Registry(fake.domain).manifest("app", "1")
    assert b"refresh_token=I" in bodies[0]
    assert b"grant_type=refresh_token" in bodies[0]


@pytest.mark.parametrize("realm", ["http://registry.example/token", "ftp://x/", ""])
def test_a_token_server_without_tls_gets_nothing(fake: server.Scripted, realm: str) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        send(handler, 401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}"'})
        return True

    fake.answer = answer
    with pytest.raises(Refused, match="no TLS"):
        Registry(fake.domain).manifest("app", "1")


def test_a_redirect_does_not_get_the_login(fake: server.Scripted, no_login: Path) -> None:
    _login(no_login, fake.domain)
    with server.scripted() as storage:
        storage.add(IMAGE, "1")

        def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
            if "Authorization" not in handler.headers:
                send(handler, 401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
            elif "/blobs/" in handler.path:
                location = f"http://{storage.domain}/else/{handler.path.rpartition('/')[2]}"
                send(handler, 307, b"", {"Location": location})
            else:
                return False
            return True

        fake.answer = answer
        client = Registry(fake.domain)
        client.manifest("app", "1")
        assert b"".join(client.blob("app", LAYER)) == IMAGE.layers[0]
        ((_, headers),) = storage.requests
        assert "authorization" not in headers


@pytest.mark.parametrize("location", ["http://registry.example/x", "/v2/again"])
def test_redirects_end(fake: server.Scripted, location: str) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        send(handler, 307, b"", {"Location": location})
        return True

    fake.answer = answer
    with pytest.raises(Refused, match=r"without TLS|redirects"):
        Registry(fake.domain).manifest("app", "1")


def test_trouble_passes(fake: server.Scripted) -> None:
    left = [503, 500, 429]

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if not left:
            return False
        send(handler, left.pop(), b"busy", {"Retry-After": "0"})
        return True

    fake.answer = answer
    assert Registry(fake.domain).manifest("app", "1")[2] == IMAGE.digest


def test_trouble_that_stays_is_told(fake: server.Scripted) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        send(handler, 503, b'{"errors": [{"code": "UNAVAILABLE", "message": "down for\\nrepair"}]}')
        return True

    fake.answer = answer
    with pytest.raises(LimpetError, match="HTTP 503: UNAVAILABLE down for repair"):
        Registry(fake.domain).manifest("app", "1")
    assert len(fake.requests) == connection.MAX_TRIES


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on(fake: server.Scripted, ranges: bool) -> None:
    """More breaks than tries: each one brings something, so none counts."""
    served: list[int] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        begin = int(handler.headers.get("Range", "bytes=0-")[6:-1]) if ranges else 0
        served.append(begin)
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Length", str(len(BIG) - begin))
        if begin:
            handler.send_header("Content-Range", f"bytes {begin}-{len(BIG) - 1}/{len(BIG)}")
        handler.end_headers()
        step = 1 << 20 if ranges else len(served) * (1 << 20)
        handler.wfile.write(BIG[begin : begin + step])
        handler.close_connection = True
        return True

    fake.answer = answer
    got = b"".join(Registry(fake.domain).blob("app", BIG_BLOB))
    assert got == BIG
    assert len(served) >= 5


def test_a_transfer_that_brings_nothing_ends(fake: server.Scripted) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BIG)))
        handler.end_headers()
        handler.close_connection = True
        return True

    fake.answer = answer
    with pytest.raises(LimpetError, match="connection broke"):
        list(Registry(fake.domain).blob("app", BIG_BLOB))
    assert len(fake.requests) == connection.MAX_TRIES


def test_more_bytes_than_announced(fake: server.Scripted) -> None:
    with pytest.raises(Corrupt, match="longer than"):
        list(Registry(fake.domain).blob("app", Descriptor("", BIG_BLOB.digest, 1000)))


def test_a_manifest_with_another_digest(fake: server.Scripted) -> None:
    other = "sha256:" + "0" * 64
    fake.documents[other] = (media.OCI_MANIFEST, IMAGE.manifest)
    with pytest.raises(Corrupt, match=other):
        Registry(fake.domain).manifest("app", other)


def test_a_manifest_of_any_size(fake: server.Scripted) -> None:
    fake.documents["1"] = (media.OCI_MANIFEST, b" " * (5 << 20))
    with pytest.raises(LimpetError, match="larger than"):
        Registry(fake.domain).manifest("app", "1")


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        domain = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(Refused, match=f"cannot connect to {domain}: Connection refused"):
        Registry(domain).manifest("app", "1")


def test_a_name_that_is_none() -> None:
    with pytest.raises(LimpetError, match=r"no-such-host.invalid:443: the name cannot be resolved"):
        Registry("no-such-host.invalid").manifest("app", "1")


def test_tls_is_wanted(fake: server.Scripted) -> None:
    """Any name but this machine's own is spoken to over TLS, even if it leads here."""
    port = fake.domain.partition(":")[2]
    assert not connection.is_loopback(f"registry.example:{port}")
    assert connection.Connection(f"registry.example:{port}").base.startswith("https://")


@pytest.mark.parametrize(
    "name", ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:80", "[::1]:5", "a.localhost:1"]
)
def test_this_machine(name: str) -> None:
    assert connection.is_loopback(name)


@pytest.mark.parametrize(
    "name",
    ["localhost.example", "128.0.0.1", "127.0.0.1.nip.io", "127.1", "[::2]:5", "127.0.0.256", "127.0.0.x", "a.b.c.d"],
)
def test_other_machines(name: str) -> None:
    assert not connection.is_loopback(name)


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": [1]}', '{"auths": {"DOMAIN": {"auth": "%%%"}}}'])
def test_a_broken_login_file(fake: server.Scripted, no_login: Path, text: str) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        send(handler, 401, b"", {"WWW-Authenticate": "Basic realm=x"})
        return True

    fake.answer = answer
    no_login.write_text(text.replace("DOMAIN", fake.domain))
    with pytest.raises(Invalid, match=r"config\.json"):
        Registry(fake.domain).manifest("app", "1")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic", [("basic", {})]),
        ('Basic realm="a b"', [("basic", {"realm": "a b"})]),
        (
            'Bearer realm="https://x/t",service=r,scope="a,b:c"',
            [("bearer", {"realm": "https://x/t", "service": "r", "scope": "a,b:c"})],
        ),
        ('Bearer realm="a\\"b", Basic realm=c', [("bearer", {"realm": 'a"b'}), ("basic", {"realm": "c"})]),
        ("", []),
        ("=,=", []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, one.parameters) for one in challenge.parse(header)] == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("", 0.0), ("soon", 0.0), ("-1", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("9" * 400, 1e9)],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert connection.retry_after(value) == pytest.approx(seconds, rel=0.01)


def test_retry_after_as_a_date() -> None:
    assert 5 < connection.retry_after(formatdate(time.time() + 10, usegmt=True)) < 11
