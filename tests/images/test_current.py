"""The short way of a pull of what is here: one plain request; and all that makes a pull go its usual way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.registry import server

from limpet.images import current, names
from limpet.images.pull import pull
from limpet.layers import durable
from limpet.oci import media
from limpet.store.store import Store

if TYPE_CHECKING:
    import http.server
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    Handler = http.server.BaseHTTPRequestHandler

IMAGE = server.make_image([server.tar_of({"a": b"x" * 5000}), server.tar_of({"b": b"y" * 5000})])
OTHER = server.make_image([server.tar_of({"c": b"z" * 5000})], architecture="s390x")


@pytest.fixture
def fake(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[server.Scripted]:
    """With the image pulled as app:1, and settled."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with server.scripted() as state:
        state.add(IMAGE, "1")
        pull(store, f"{state.domain}/app:1")
        durable.settle(store)
        state.requests.clear()
        yield state


def test_one_request(store: Store, fake: server.Scripted) -> None:
    found = current.unchanged(store, f"{fake.domain}/app:1")
    assert found is not None
    assert (str(found[0]), found[1]) == (f"{fake.domain}/app:1", IMAGE.digest)
    assert [path for path, _ in fake.requests] == ["/v2/app/manifests/1"]


def test_the_command(limpet: Any, fake: server.Scripted) -> None:
    name = f"{fake.domain}/app:1"
    limpet("pull", "-q", name)
    durable.settle(Store(str(limpet.root), f"{limpet.root}/run"))
    fake.requests.clear()
    result = limpet("pull", name)
    assert result.stdout.splitlines() == [
        "1: Pulling from app",
        f"Digest: {IMAGE.digest}",
        f"Status: Image is up to date for {name}",
        name,
    ]
    assert result.stderr == ""
    assert len(fake.requests) == 1


def test_localhost_is_meant_as_it_is_written(store: Store, fake: server.Scripted) -> None:
    name = f"localhost:{fake.domain.rpartition(':')[2]}/app:1"
    pull(store, name)
    durable.settle(store)
    assert current.unchanged(store, name) is not None


def _answers(status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> Callable[[Handler], bool]:
    def answer(handler: Handler) -> bool:
        server.send(handler, status, body, headers)
        return True

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _answers(200, b"", {"Docker-Content-Digest": OTHER.digest}),
        _answers(200, IMAGE.manifest),
        _answers(401, b"{}", {"WWW-Authenticate": "Basic realm=x"}),
        _answers(404),
        _answers(307, b"", {"Location": "/x", "Docker-Content-Digest": IMAGE.digest}),
        _answers(503),
        _answers(200, b"", {"Docker-Content-Digest": IMAGE.digest[:-1]}),
        _answers(200, IMAGE.manifest, {"X": "y" * (1 << 17)}),
    ],
    ids="other none 401 404 307 503 cut head".split(),
)
def test_other_answers_go_the_usual_way(store: Store, fake: server.Scripted, answer: Any) -> None:
    def closing(handler: Handler) -> bool:
        handler.close_connection = True
        return bool(answer(handler))

    fake.answer = closing
    assert current.unchanged(store, f"{fake.domain}/app:1") is None


def test_nobody_there(store: Store, fake: server.Scripted) -> None:
    names.tag(store, f"{fake.domain}/app:1", "127.0.0.1:1/app:1")
    assert current.unchanged(store, "127.0.0.1:1/app:1") is None


def test_what_is_here_is_not_whole(store: Store, fake: server.Scripted) -> None:
    name = f"{fake.domain}/app:1"
    boot = durable.boot_id()
    store.db.run("UPDATE layer SET boot = ? WHERE diff_id = ?", boot, IMAGE.diff_ids[0])
    assert current.unchanged(store, name) is None
    durable.settle(store)
    assert current.unchanged(store, name) is not None
    store.db.run("UPDATE name SET implicit = 1")
    assert current.unchanged(store, name) is None
    store.db.run("UPDATE name SET implicit = 0")
    path = f"{store.layer_path(IMAGE.diff_ids[1])}/data"
    os.rename(path, f"{path}-aside")
    assert current.unchanged(store, name) is None
    os.rename(f"{path}-aside", path)
    assert current.unchanged(store, name) is not None


def test_other_names_are_not_asked_for(store: Store, fake: server.Scripted) -> None:
    assert current.unchanged(store, f"{fake.domain}/app:2") is None
    fake.requests.clear()  # that could be asked before it is known whether there is such a name here
    for text in (
        f"{fake.domain}/app@{IMAGE.digest}",
        "Bad Name",
        "app:1",
        "registry.example/app:1",
        "127.0.0.1.example/app:1",
        "127.0.0.256:5/app:1",
        "127.0.0.1:99999/app:1",
        "[::1]:5000/app:1",
    ):
        assert current.unchanged(store, text) is None
    assert fake.requests == []


def test_the_image_of_an_index(store: Store, fake: server.Scripted) -> None:
    """Only where a pull without --platform would choose the same again."""
    fake.add(OTHER, "other")
    mine = server.make_image([server.tar_of({"a": b"x" * 5000})], architecture=_architecture())
    fake.add(mine, "mine")
    index = server.make_index({f"linux/{_architecture()}": mine, "linux/s390x": OTHER})
    fake.documents["index"] = (media.OCI_INDEX, index)
    name = f"{fake.domain}/app:index"
    pull(store, name, platform="linux/s390x")
    durable.settle(store)
    assert current.unchanged(store, name) is None
    pull(store, name)
    durable.settle(store)
    found = current.unchanged(store, name)
    assert found is not None
    assert found[1] == server.digest_of(index)


def _architecture() -> str:
    return current._ARCHITECTURES[os.uname().machine]


@pytest.mark.parametrize(
    ("file", "text", "plain"),
    [
        ("limpet/registries.toml", "", False),
        ("containers/registries.conf", '# [[registry]]\nunqualified-search-registries = ["docker.io"]\n', True),
        ("containers/registries.conf.d/names.conf", '[aliases]\n  "a" = "b.example/a"\n', True),
        ("containers/registries.conf", '[[registry]]\nlocation = "127.0.0.1"\nblocked = true\n', False),
        ("containers/registries.conf.d/x.conf", 'registry = [{location = "127.0.0.1", blocked = true}]\n', False),
        ("containers/registries.conf", '[aliases]\n"a" = "b"\n[[registry]]\nprefix = "*.x"\n', False),
        ("containers/registries.conf", "#" * (1 << 17), False),
    ],
)
def test_settings(store: Store, fake: server.Scripted, tmp_path: Path, file: str, text: str, plain: bool) -> None:
    path = tmp_path / "config" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert (current.unchanged(store, f"{fake.domain}/app:1") is not None) == plain


def test_settings_of_the_environment(store: Store, fake: server.Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIMPET_REGISTRIES", "CONTAINERS_REGISTRIES_CONF"):
        monkeypatch.setenv(name, "/dev/null")
        assert current.unchanged(store, f"{fake.domain}/app:1") is None
        monkeypatch.delenv(name)
    assert current.unchanged(store, f"{fake.domain}/app:1") is not None
