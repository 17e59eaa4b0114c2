"""Which container a text means, and states that are derived from who is alive."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import pytest

from limpet import jsontext
from limpet.containers import state
from limpet.containers.options import Options
from limpet.containers.state import Container
from limpet.errors import Conflict, NotFound
from limpet.store.store import Store


def add(store: Store, name: str, container_id: str = "", **options: Any) -> Container:
    """A row and a directory, as `create` leaves them, without an image."""
    container_id = container_id or os.urandom(32).hex()
    container = Container(container_id, name, None, "image", [], time.time(), Options(name=name, **options))
    with store.db.transaction():
        store.db.run(
            "INSERT INTO container (id, name, image_id, image_name, layers, created, options)"
            " VALUES (?, ?, NULL, ?, '[]', ?, ?)",
            container_id,
            name,
            container.image_name,
            container.created,
            container.options.to_json(),
        )
    os.makedirs(store.container_path(container_id))
    return container


def write(store: Store, container: Container, **values: Any) -> None:
    Path(store.container_path(container.id), "status").write_text(jsontext.dumps(values))


def hold_lock(store: Store, container: Container) -> int:
    os.makedirs(store.run_path(container.id), exist_ok=True)
    fd = os.open(f"{store.run_path(container.id)}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def test_found_by_id_name_and_prefix(store: Store) -> None:
    one = add(store, "web", "abc1" + "0" * 60)
    two = add(store, "abc2", "abc3" + "0" * 60)
    assert state.find(store, one.id).name == "web"
    assert state.find(store, "/web").id == one.id
    assert state.find(store, "abc1").id == one.id
    assert state.find(store, "abc2").id == two.id
    with pytest.raises(Conflict, match="the beginning of several"):
        state.find(store, "abc")


def test_a_name_that_is_the_beginning_of_another_id_wins(store: Store) -> None:
    add(store, "web", "fee1" + "0" * 60)
    named = add(store, "fee1", "aaaa" + "0" * 60)
    assert state.find(store, "fee1").id == named.id


@pytest.mark.parametrize("text", ["", "nothing", "%", "ABC", "a' OR 1=1 --", "x" * 10000])
def test_not_found(store: Store, text: str) -> None:
    add(store, "web")
    with pytest.raises(NotFound, match="No such container: ") as caught:
        state.find(store, text)
    assert caught.value.exit_code == 1


def test_the_near_name_is_offered(store: Store) -> None:
    add(store, "website")
    with pytest.raises(NotFound) as caught:
        state.find(store, "wesbite")
    assert caught.value.hint == "did you mean website?"


def test_newest_first(store: Store) -> None:
    for name in ("one", "two", "three"):
        add(store, name)
    assert [c.name for c in state.all_containers(store)] == ["three", "two", "one"]


def test_without_a_status_it_was_created(store: Store) -> None:
    status = state.status(store, add(store, "web"))
    assert (status.state, status.exit_code, status.finished_at) == ("created", 0, state.NEVER)
    assert not status.running


@pytest.mark.parametrize("written", ["running", "restarting"])
def test_it_runs_only_while_its_monitor_lives(store: Store, written: str) -> None:
    container = add(store, "web")
    write(store, container, state=written, pid=1, monitor=1, exit_code=7)
    lock = hold_lock(store, container)
    assert state.status(store, container).state == written
    os.close(lock)
    status = state.status(store, container)
    code = 137 if written == "running" else 7  # while it waited for the next try it had ended already
    assert (status.state, status.exit_code, status.pid, status.lost) == ("exited", code, 0, True)
    assert status.error


def test_the_lock_is_not_taken_for_a_monitors(store: Store) -> None:
    """What a killed monitor wrote last would be true again while somebody else holds the lock."""
    container = add(store, "web")
    write(store, container, state="running", pid=1, started_at="2026-01-01T00:00:00Z")
    lock = state.try_lock(store, container)
    assert lock >= 0
    status = state.status(store, container)
    assert (status.state, status.exit_code, status.started_at) == ("exited", 137, "2026-01-01T00:00:00Z")
    assert state.try_lock(store, container) == -1
    os.close(lock)


def test_the_lock_of_what_was_removed(store: Store) -> None:
    container = add(store, "web")
    os.rmdir(store.container_path(container.id))
    with pytest.raises(NotFound, match="No such container: web"):
        state.try_lock(store, container)
    assert not os.path.exists(store.run_path(container.id))


def test_an_exit_code_is_kept(store: Store) -> None:
    container = add(store, "web")
    write(store, container, state="exited", exit_code=3, finished_at="2026-01-01T00:00:00Z")
    status = state.status(store, container)
    assert (status.state, status.exit_code) == ("exited", 3)
