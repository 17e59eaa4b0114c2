"""Tokens and logins: which are asked for, when, with whose name, and who never sees them."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.registry import server
from tests.registry.server import send

from limpet.errors import LimpetError, NotFound, Refused
from limpet.registry import challenge, connection, redact, scopes
from limpet.registry.client import Registry
from limpet.registry.connection import Connection

IMAGE = server.make_image([server.tar_of({"a": b"x" * 1000})])
USER, PASSWORD = "me", "correct horse battery"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    return tmp_path / "auth.json"


def login(path: Path, *keys: str) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    path.write_text(json.dumps({"auths": {key: {"auth": auth} for key in keys}}))


@dataclass
class Guarded:
    """A registry with a token server on another port; `grant` says what that answers to a query (a list of pairs)."""

    registry: server.Scripted
    tokens: server.Scripted
    grant: Callable[[list[tuple[str, str]]], tuple[int, dict[str, Any]]]
    valid: set[str] = field(default_factory=set)
    scope: str = ""

    @property
    def asked(self) -> list[list[str]]:
        """The scopes of each request for a token."""
        queries = [parse_qsl(urlsplit(path).query) for path, _ in self.tokens.requests]
        return [[value for key, value in query if key == "scope"] for query in queries]

    @property
    def refused(self) -> int:
        return sum(
            headers.get("authorization", "").removeprefix("Bearer ") not in self.valid
            for _, headers in self.registry.requests
        )


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with server.scripted() as registry, server.scripted() as tokens:
        registry.add(IMAGE, "1")
        count = iter(range(1000))

        def grant(query: list[tuple[str, str]]) -> tuple[int, dict[str, Any]]:
            token = f"token-{next(count)}"
            state.valid.add(token)
            return 200, {"token": token, "expires_in": 300}

        state = Guarded(registry, tokens, grant)

        def guard(handler: Any) -> bool:
            if handler.headers.get("Authorization", "").removeprefix("Bearer ") in state.valid:
                return False
            header = f'Bearer realm="http://{tokens.domain}/token",service="s"'
            if state.scope:
                header += f',scope="{state.scope}"'
            send(handler, 401, b'{"errors": [{"code": "UNAUTHORIZED"}]}', {"WWW-Authenticate": header})
            return True

        def give(handler: Any) -> bool:
            status, answer = state.grant(parse_qsl(urlsplit(handler.path).query))
            send(handler, status, json.dumps(answer).encode())
            return True

        registry.answer, tokens.answer = guard, give
        yield state


# --- which tokens -----------------------------------------------------------------------------------------------------


def test_a_stranger_gets_a_token_too(guarded: Guarded) -> None:
    client = Registry(guarded.registry.domain)
    client.manifest("app", "1")
    client.manifest("app", IMAGE.digest)
    assert guarded.asked == [["repository:app:pull"]]
    assert guarded.refused == 1
    assert "authorization" not in guarded.tokens.requests[0][1]


def test_the_second_repository_is_not_refused_first(guarded: Guarded) -> None:
    client = Registry(guarded.registry.domain)
    client.manifest("app", "1")
    client.manifest("other", "1")
    assert guarded.asked == [["repository:app:pull"], ["repository:other:pull"]]
    assert guarded.refused == 1


def test_several_scopes_are_one_request(guarded: Guarded) -> None:
    """A mount needs two repositories; what it got covers the reading of either."""
    client = Connection(guarded.registry.domain)
    both = "repository:app:pull,push repository:base:pull"
    client.request("POST", "/v2/app/blobs/uploads/?mount=x&from=base", scope=both).close()
    for scope in ("repository:app:pull", "repository:base:pull", "repository:app:push"):
        client.request("GET", "/v2/app/manifests/1", scope=scope).close()
    assert guarded.asked == [["repository:app:pull,push", "repository:base:pull"]]
    client.request("GET", "/v2/base/manifests/1", scope="repository:base:push").close()
    assert guarded.asked[1:] == [["repository:base:push"]]


def test_what_the_registry_asks_for_is_added(guarded: Guarded) -> None:
    guarded.scope = "repository:app:delete registry:catalog:*"
    Registry(guarded.registry.domain).manifest("app", "1")
    assert guarded.asked == [["repository:app:delete,pull", "registry:catalog:*"]]


def test_a_token_whose_scope_is_too_small_is_asked_for_again(guarded: Guarded) -> None:
    usual = guarded.grant

    def grant(query: list[tuple[str, str]]) -> tuple[int, dict[str, Any]]:
        if ("scope", "repository:secret:pull") in query or len(query) == 3:
            return usual(query)
        guarded.scope = "repository:secret:pull"  # the second refusal says what was missing
        return 200, {"token": "too-small"}

    guarded.grant = grant
    Registry(guarded.registry.domain).manifest("app", "1")
    assert guarded.asked == [["repository:app:pull"], ["repository:app:pull", "repository:secret:pull"]]


def test_a_token_is_renewed_before_its_end(guarded: Guarded) -> None:
    usual = guarded.grant

    def grant(query: list[tuple[str, str]]) -> tuple[int, dict[str, Any]]:
        return 200, {**usual(query)[1], "expires_in": 1}

    guarded.grant = grant
    client = Registry(guarded.registry.domain)
    client.manifest("app", "1")
    begin = time.monotonic()
    while len(guarded.asked) == 1:
        client.manifest("app", "1")
        assert time.monotonic() - begin < 20
    assert time.monotonic() - begin < 1.0
    assert guarded.refused == 1


def test_a_token_that_was_issued_long_ago(guarded: Guarded) -> None:
    """Both times are the server's: it may live in another year."""
    now = datetime(2001, 1, 1, tzinfo=UTC)
    then = (now - timedelta(seconds=299)).isoformat()

    def give(handler: Any) -> bool:
        guarded.valid.add("old")
        body = json.dumps({"token": "old", "expires_in": 300, "issued_at": then}).encode()
        handler.send_response_only(200)
        for name, value in (("Date", format_datetime(now, usegmt=True)), ("Content-Length", str(len(body)))):
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
        return True

    guarded.tokens.answer = give
    client = Registry(guarded.registry.domain)
    client.manifest("app", "1")
    begin = time.monotonic()
    while len(guarded.asked) == 1:
        client.manifest("app", "1")
        assert time.monotonic() - begin < 20


def test_a_token_that_is_no_longer_taken(guarded: Guarded) -> None:
    client = Registry(guarded.registry.domain)
    client.manifest("app", "1")
    guarded.valid.clear()
    client.manifest("app", "1")
    client.manifest("app", "1")
    assert len(guarded.asked) == 2
    assert guarded.valid == {"token-1"}
    assert [headers.get("authorization", "").removeprefix("Bearer ") for _, headers in guarded.registry.requests] == [
        "",
        "token-0",
        "token-0",
        "token-1",
        "token-1",
    ]


def test_many_threads_ask_once(guarded: Guarded) -> None:
    client = Registry(guarded.registry.domain)
    barrier = threading.Barrier(8)

    def work(number: int) -> str:
        barrier.wait()
        return client.manifest("app", "1")[2]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(8))) == {IMAGE.digest}
    assert len(guarded.asked) == 1


# --- logins -----------------------------------------------------------------------------------------------------------


def test_the_token_server_gets_the_login(guarded: Guarded, no_login: Path) -> None:
    """Although it is another host: the registry itself named it, over the same connection as all else it says."""
    login(no_login, guarded.registry.domain)
    Registry(guarded.registry.domain).manifest("app", "1")
    assert guarded.tokens.requests[0][1]["authorization"] == BASIC
    assert not any(headers.get("authorization") == BASIC for _, headers in guarded.registry.requests)


def test_a_part_of_a_registry_has_its_own_login(guarded: Guarded, no_login: Path) -> None:
    login(no_login, f"{guarded.registry.domain}/team")
    client = Registry(guarded.registry.domain)
    client.manifest("team/app", "1")
    client.manifest("app", "1")
    assert [headers.get("authorization") for _, headers in guarded.tokens.requests] == [BASIC, None]


def test_an_identity_token_that_is_replaced(guarded: Guarded, no_login: Path) -> None:
    """Each use gives the one for the next."""
    no_login.write_text(json.dumps({"auths": {guarded.registry.domain: {"identitytoken": "identity-0"}}}))
    used: list[str] = []

    def give(handler: Any) -> bool:
        form = dict(parse_qsl(handler.rfile.read(int(handler.headers["Content-Length"])).decode()))
        assert (form["grant_type"], form["service"], form["client_id"]) == ("refresh_token", "s", "limpet")
        used.append(form["refresh_token"])
        token = f"token-{len(used)}"
        guarded.valid.add(token)
        answer = {"access_token": token, "refresh_token": f"identity-{len(used)}", "expires_in": "300"}
        send(handler, 200, json.dumps(answer).encode())
        return True

    guarded.tokens.answer = give
    client = Registry(guarded.registry.domain)
    for repository in ("app", "app", "other"):
        client.manifest(repository, "1")
    assert used == ["identity-0", "identity-1"]


def test_a_refused_password_is_not_shown_again(no_login: Path) -> None:
    with server.scripted() as fake:
        login(no_login, fake.domain)

        def answer(handler: Any) -> bool:
            send(handler, 401, b"{}", {"WWW-Authenticate": "Basic realm=x"})
            return True

        fake.answer = answer
        with pytest.raises(NotFound, match=r"pull refused: the login as .* was not accepted"):
            Registry(fake.domain).manifest("app", "1")
        assert [headers.get("authorization") for _, headers in fake.requests] == [None, BASIC]


def test_a_token_server_that_moves_takes_no_login_along(guarded: Guarded, no_login: Path) -> None:
    login(no_login, guarded.registry.domain)
    with server.scripted() as other:

        def take(handler: Any) -> bool:
            guarded.valid.add("elsewhere")
            send(handler, 200, b'{"token": "elsewhere"}')
            return True

        def move(handler: Any) -> bool:
            send(handler, 307, b"", {"Location": f"http://{other.domain}{handler.path}"})
            return True

        other.answer, guarded.tokens.answer = take, move
        Registry(guarded.registry.domain).manifest("app", "1")
        assert guarded.tokens.requests[0][1]["authorization"] == BASIC
        assert "authorization" not in other.requests[0][1]


def test_a_way_back_home_has_no_login(no_login: Path) -> None:
    with server.scripted() as fake, server.scripted() as other:
        login(no_login, fake.domain)

        def answer(handler: Any) -> bool:
            if handler.path == "/chosen":
                send(handler, 200, b"{}")
            elif handler.headers.get("Authorization") == BASIC:
                send(handler, 302, b"", {"Location": f"http://{other.domain}/"})
            else:
                send(handler, 401, b"", {"WWW-Authenticate": "Basic realm=x"})
            return True

        def back(handler: Any) -> bool:
            send(handler, 302, b"", {"Location": f"http://{fake.domain}/chosen"})
            return True

        fake.answer, other.answer = answer, back
        Connection(fake.domain).request("GET", "/v2/app/blobs/x", scope="repository:app:pull").close()
        assert fake.requests[-1][0] == "/chosen"
        assert "authorization" not in fake.requests[-1][1]


def test_an_address_on_another_host_gets_no_login(no_login: Path) -> None:
    """An upload's Location is the registry's choice."""
    with server.scripted() as fake, server.scripted() as other:
        login(no_login, fake.domain)

        def answer(handler: Any) -> bool:
            if handler.headers.get("Authorization") == BASIC:
                return False
            send(handler, 401, b"", {"WWW-Authenticate": "Basic realm=x"})
            return True

        fake.answer = other.answer = answer
        fake.add(IMAGE, "1")
        client = Connection(fake.domain)
        scope = "repository:app:pull,push"
        client.request("GET", "/v2/app/manifests/1", scope=scope).close()
        assert client.request("GET", f"http://{fake.domain}/v2/app/manifests/1", scope=scope).status == 200
        assert client.request("POST", f"http://{other.domain}/upload", scope=scope, body=b"x").status == 401
        assert len(other.requests) == 1
        assert "authorization" not in other.requests[0][1]


def test_what_is_hidden_from_strangers(no_login: Path) -> None:
    """404 to a stranger, although there is a way to log in."""
    with server.scripted() as fake:
        fake.add(IMAGE, "1")

        def answer(handler: Any) -> bool:
            if handler.headers.get("Authorization") == BASIC:
                return False
            if handler.path == "/v2/":
                send(handler, 401, b"", {"WWW-Authenticate": "Basic realm=x"})
            else:
                send(handler, 404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
            return True

        fake.answer = answer
        with pytest.raises(NotFound):
            Registry(fake.domain).manifest("app", "1")
        login(no_login, fake.domain)
        assert Registry(fake.domain).manifest("app", "1")[2] == IMAGE.digest


def test_the_error_says_which_login_was_used(guarded: Guarded, no_login: Path) -> None:
    login(no_login, guarded.registry.domain)
    guarded.grant = lambda query: (401, {})
    with pytest.raises(NotFound, match=rf"the login as me \(from {no_login}\) was not accepted"):
        Registry(guarded.registry.domain).manifest("app", "1")


def test_basic_where_the_token_server_refuses(no_login: Path) -> None:
    """Two challenges: the second counts if the first leads nowhere."""
    with server.scripted() as fake:
        fake.add(IMAGE, "1")
        login(no_login, fake.domain)

        def answer(handler: Any) -> bool:
            if handler.path.startswith("/token"):
                send(handler, 401, b"{}")
            elif handler.headers.get("Authorization") == BASIC:
                return False
            else:
                header = f'Bearer realm="http://{fake.domain}/token", Basic realm="x"'
                send(handler, 401, b"{}", {"WWW-Authenticate": header})
            return True

        fake.answer = answer
        assert Registry(fake.domain).manifest("app", "1")[2] == IMAGE.digest


# --- what a server may do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"token": 1}',
        b'{"token": ""}',
        b'{"token": "a b"}',
        b'{"token": "a\\r\\nX-Injected: 1"}',
        '{"token": "ü"}'.encode(),
        b'{"token": "' + b"x" * 70_000 + b'"}',
        b"[" * 100_000,
    ],
)
def test_answers_without_a_token(guarded: Guarded, answer: bytes) -> None:
    def give(handler: Any) -> bool:
        send(handler, 200, answer)
        return True

    guarded.tokens.answer = give
    with pytest.raises(LimpetError, match=r"\(token server of .*\): the answer has no token"):
        Registry(guarded.registry.domain).manifest("app", "1")


def test_an_answer_without_end(guarded: Guarded) -> None:
    sent = 0

    def give(handler: Any) -> bool:
        nonlocal sent
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            while sent < 100 << 20:
                handler.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
        except OSError:
            pass
        handler.close_connection = True
        return True

    guarded.tokens.answer = give
    with pytest.raises(LimpetError, match="larger than 1048576 bytes"):
        Registry(guarded.registry.domain).manifest("app", "1")
    assert sent < 50 << 20


@pytest.mark.parametrize("status", [400, 404, 418])
def test_a_token_server_that_refuses_is_not_asked_again(guarded: Guarded, status: int) -> None:
    guarded.grant = lambda query: (status, {"errors": [{"code": "DENIED", "message": "no such service"}]})
    with pytest.raises(LimpetError, match=f"token server of .*HTTP {status}: DENIED no such service"):
        Registry(guarded.registry.domain).manifest("app", "1")
    assert len(guarded.asked) == 1


def test_a_token_server_in_trouble_is_asked_again(guarded: Guarded) -> None:
    usual, left = guarded.grant, [503, 429]

    def grant(query: list[tuple[str, str]]) -> tuple[int, dict[str, Any]]:
        return (left.pop(), {}) if left else usual(query)

    guarded.grant = grant
    assert Registry(guarded.registry.domain).manifest("app", "1")[2] == IMAGE.digest


@pytest.mark.parametrize("realm", ["http://user:pass@127.0.0.1/token", "https://[/", "http://registry.example/t", "x"])
def test_token_servers_that_get_nothing(guarded: Guarded, realm: str) -> None:
    def answer(handler: Any) -> bool:
        send(handler, 401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}"'})
        return True

    guarded.registry.answer = answer
    with pytest.raises(Refused, match="no TLS") as error:
        Registry(guarded.registry.domain).manifest("app", "1")
    assert "pass@" not in str(error.value)


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "http://user:pass@127.0.0.1/", "https://", "http://[::", "http://a:b/"],
)
def test_redirects_to_what_is_no_place(guarded: Guarded, location: str) -> None:
    def answer(handler: Any) -> bool:
        send(handler, 307, b"", {"Location": location})
        return True

    guarded.registry.answer = answer
    with pytest.raises(Refused, match="redirects to"):
        Registry(guarded.registry.domain).manifest("app", "1")


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdefghij.k", "Authorization: Bearer ***"),
        ("said: basic dXNlcjpwYXNz and more", "said: basic *** and more"),
        ("https://user:pass@host/x", "https://***@host/x"),
        ("https://host/x?X-Amz-Signature=abc&b=c no", "https://host/x?*** no"),
        ('{"refresh_token": "abc", "password":"d e"}', '{"refresh_token": ***, "password":***}'),
        ("proxy-authorization=xyz", "proxy-authorization=***"),
        ("nothing to hide: host:5000/app@sha256:abc", "nothing to hide: host:5000/app@sha256:abc"),
    ],
)
def test_secrets_are_hidden(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_known", set())
    assert redact.clean(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="https://?=\"'@: basicearrtoken&*\n", max_size=300))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = redact.clean(text)
    assert redact.clean(once) == once
    assert once.count("\n") <= text.count("\n")


def test_a_long_text_is_cleaned_fast() -> None:
    begin = time.monotonic()
    for unit in ("http://", "basic ", "://@", "token=", "Authorization: "):
        redact.clean(unit * 200_000)
    assert time.monotonic() - begin < 10


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='Bearerbsic realm="\\,= \t\x00é', max_size=200))
def test_challenges_of_any_kind(header: str) -> None:
    for one in challenge.parse(header):
        assert one.scheme
        assert all(name == name.lower() for name in one.parameters)


@pytest.mark.parametrize("secret", ["password", 'a b"c', "Basic x", "://x@", "overlap-overlap"])
def test_a_known_secret_of_any_kind_is_hidden(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_known", set())
    redact.conceal(secret)
    redact.conceal("lap-over")
    text = f'{secret}, token={secret} "{secret}" https://{secret}@host/?x={secret} Bearer {secret} "password":"d e"'
    cleaned = redact.clean(text)
    assert secret not in cleaned
    assert "d e" not in cleaned
    assert "host/?" in cleaned


def test_scopes() -> None:
    assert scopes.is_pull("repository:app:pull")
    assert not scopes.is_pull("repository:app:pull,push")
    assert not scopes.is_pull("repository:app:pull repository:b:pull")
    assert not scopes.is_pull("registry:catalog:*")
    assert not scopes.is_pull("")
    assert scopes.repository("repository:host:5000/app:pull") == "host:5000/app"
    assert scopes.parse("x y:z :") == {}
    assert scopes.renamed("repository:a/b:pull registry:catalog:*", str.upper) == (
        "repository:A/B:pull registry:catalog:*"
    )
