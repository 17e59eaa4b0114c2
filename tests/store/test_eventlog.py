"""The event log: whole lines whoever writes, a bounded size, nothing that fails because of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from limpet import jsontext
from limpet.store import eventlog
from limpet.store.store import Store


def lines(store: Store) -> list[list[object]]:
    found = []
    for name in ("log.1", "log"):
        path = Path(eventlog.directory(store), name)
        if path.exists():
            found += [jsontext.loads(line) for line in path.read_bytes().splitlines()]
    return found


def test_a_line_is_an_event(store: Store) -> None:
    eventlog.write(store, "container", "die", "abc", {"exitCode": "3", "name": "naïve\nname"})
    ((moment, *rest),) = lines(store)
    assert isinstance(moment, int)
    assert rest == ["container", "die", "abc", {"exitCode": "3", "name": "naïve\nname"}]


def test_many_writers_and_rotations_lose_nothing_but_the_oldest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "LIMIT", 40_000)
    children = []
    for writer in range(4):
        pid = os.fork()
        if pid == 0:
            for number in range(200):
                eventlog.write(store, "test", str(writer), str(number), {"filling": "x" * 60})
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    found = lines(store)
    size = sum(entry.stat().st_size for entry in os.scandir(eventlog.directory(store)))
    assert 30_000 < size < 90_000
    assert len(os.listdir(eventlog.directory(store))) <= 2
    for writer in range(4):
        numbers = [int(str(line[3])) for line in found if line[2] == str(writer)]
        assert numbers == list(range(200 - len(numbers), 200))  # the last ones, in order, without a gap


def test_a_line_has_a_bound(store: Store) -> None:
    eventlog.write(store, "container", "start", "abc", {"name": "web", "label": "x" * 100_000})
    ((_, _, _, _, attributes),) = lines(store)
    assert attributes == {"name": "web"}


def test_what_can_not_be_written_is_no_error(store: Store) -> None:
    Path(eventlog.directory(store)).write_text("a file")
    eventlog.write(store, "container", "start", "abc", {})


def test_a_store_that_is_gone_does_not_come_back(store: Store) -> None:
    shutil.rmtree(store.root)
    eventlog.write(store, "container", "die", "abc", {})
    assert not os.path.exists(store.root)
