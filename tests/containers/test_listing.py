"""ps: rows, words and filters as Docker has them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limpet import jsontext
from limpet.containers import state
from limpet.containers.mounts.mountplan import Mount, save
from limpet.containers.observe import listing
from limpet.containers.options import Options
from limpet.containers.state import Container, Status
from limpet.errors import Invalid, NotFound
from limpet.store.db import Database
from limpet.store.store import Store


def add(store: Store, name: str, age: float = 0.0, status: dict[str, Any] | None = None, **options: Any) -> Container:
    container = Container(
        os.urandom(32).hex(), name, None, "busybox:1", [], time.time() - age, Options(name=name, **options)
    )
    with store.db.transaction():
        store.db.run(
            "INSERT INTO container (id, name, image_id, image_name, layers, created, options)"
            " VALUES (?, ?, NULL, ?, '[]', ?, ?)",
            container.id,
            name,
            container.image_name,
            container.created,
            container.options.to_json(),
        )
    directory = Path(store.container_path(container.id))
    directory.mkdir()
    (directory / "image.json").write_text(
        jsontext.dumps({"config": {"Cmd": ["sh", "-c", "a long command line"], "Labels": {"made": "by-image"}}})
    )
    if status:
        (directory / "status").write_text(jsontext.dumps(status))
    return container


def ago(seconds: float) -> str:
    moment = time.time() - seconds - 0.2
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"


def names(store: Store, *filters: str, **options: Any) -> list[str]:
    options.setdefault("all", True)
    return [row.container.name for row in listing.rows(store, filters=filters, **options)]


@pytest.fixture
def several(store: Store) -> Store:
    add(store, "oldest", 300, {"state": "exited", "exit_code": 0, "finished_at": ago(100)}, labels={"a": "1"})
    add(store, "middle", 200, {"state": "exited", "exit_code": 3, "finished_at": ago(100)}, labels={"a": "2", "b": ""})
    add(store, "newest", 100)
    return store


def test_fields(several: Store) -> None:
    row = listing.rows(several, all=True)[2]
    found = listing.fields(row, full=False)
    assert found["ID"] == row.container.id[:12]
    assert found["Command"] == '"sh -c a long comman…"'
    assert found["Image"] == "busybox:1"
    assert found["RunningFor"] == "5 minutes ago"
    assert found["Status"] == "Exited (0) About a minute ago"
    assert found["Labels"] == "made=by-image,a=1"
    assert listing.fields(row, full=True)["Command"] == '"sh -c a long command line"'


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "Created"),
        ({"state": "running", "started_at": 120}, "Up 2 minutes"),
        ({"state": "paused", "started_at": 7200}, "Up 2 hours (Paused)"),
        ({"state": "restarting", "exit_code": 1, "finished_at": 5}, "Restarting (1) 5 seconds ago"),
        ({"state": "exited", "exit_code": 137, "finished_at": 3 * 3600}, "Exited (137) 3 hours ago"),
        ({"state": "exited", "exit_code": 137}, "Exited (137)"),
    ],
)
def test_words(values: dict[str, Any], words: str) -> None:
    moments = {key: ago(value) if key.endswith("_at") else value for key, value in values.items()}
    assert listing.words(Status(moments)) == words


def test_which(several: Store) -> None:
    assert names(several) == ["newest", "middle", "oldest"]
    assert names(several, all=False) == []
    assert names(several, all=False, last=2) == ["newest", "middle"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["name=dle"], ["middle"]),
        (["name=^/?middle$"], ["middle"]),
        (["name=^mid$"], []),
        (["name=middle", "name=oldest"], ["middle", "oldest"]),
        (["name=*"], []),
        (["status=exited"], ["middle", "oldest"]),
        (["status=created"], ["newest"]),
        (["status=created", "status=exited"], ["newest", "middle", "oldest"]),
        (["exited=3"], ["middle"]),
        (["exited=0", "status=exited"], ["oldest"]),
        (["label=a"], ["middle", "oldest"]),
        (["label=a=2"], ["middle"]),
        (["label=a", "label=b"], ["middle"]),
        (["label=made=by-image"], ["newest", "middle", "oldest"]),
        (["before=newest"], ["middle", "oldest"]),
        (["since=oldest", "before=newest"], ["middle"]),
        (["ancestor=busybox:1"], ["newest", "middle", "oldest"]),
        (["ancestor=other"], []),
        (["network=host"], ["newest", "middle", "oldest"]),
        (["network=none"], []),
        (["volume=data"], []),
    ],
)
def test_filters(several: Store, filters: list[str], expected: list[str]) -> None:
    assert names(several, *filters) == expected


def test_a_status_filter_means_all(several: Store) -> None:
    assert names(several, "status=created", all=False) == ["newest"]
    assert names(several, "exited=0", all=False) == []


def test_filter_by_id(several: Store) -> None:
    one = state.find(several, "middle")
    assert names(several, f"id={one.id}") == ["middle"]
    assert names(several, f"id={one.id[:12]}") == ["middle"]


@pytest.mark.parametrize("text", ["nonsense=1", "name", "", "=", "status=asleep", "exited=x"])
def test_wrong_filters(several: Store, text: str) -> None:
    with pytest.raises(Invalid, match="invalid filter"):
        names(several, text)


def test_before_something_unknown(several: Store) -> None:
    with pytest.raises(NotFound, match="No such container: nothing"):
        names(several, "before=nothing")


def test_volumes(store: Store) -> None:
    container = add(store, "web", volumes=["data:/srv", "/etc/hosts:/here"])
    mounts = [Mount("volume", "/srv", "/x/data/_data", "data"), Mount("bind", "/here", "/a/very/long/path")]
    Path(store.container_path(container.id), "mounts.json").write_text(save(mounts))
    for value in ("data", "/srv", "/here", "/a/very/long/path"):
        assert names(store, f"volume={value}") == ["web"]
    found = listing.fields(listing.rows(store, all=True)[0], full=False)
    assert (found["Mounts"], found["LocalVolumes"]) == ("data,/a/very/long/p…", "1")


def test_what_it_wrote(store: Store) -> None:
    container = add(store, "web")
    upper = Path(store.container_path(container.id), "upper")
    (upper / "dir").mkdir(parents=True)
    assert listing.written(store, container) == 0
    (upper / "dir/file").write_bytes(b"x" * 1000)
    os.link(upper / "dir/file", upper / "again")
    (upper / "other").write_bytes(b"y" * 10)
    assert listing.written(store, container) == 1010


def test_more_containers_are_no_more_queries(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    queries: list[str] = []

    def traced(run: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: Database, query: str, *values: object) -> Any:
            queries.append(query)
            return run(self, query, *values)

        return traced

    monkeypatch.setattr(Database, "rows", traced(Database.rows))
    monkeypatch.setattr(Database, "row", traced(Database.row))
    counts = []
    for number in (1, 20):
        for i in range(number):
            add(store, f"c{number}-{i}", status={"state": "exited", "finished_at": ago(5)})
        queries.clear()
        assert [listing.fields(row, full=False) for row in listing.rows(store, all=True)]
        counts.append(len(queries))
    assert 0 < counts[0] == counts[1]
