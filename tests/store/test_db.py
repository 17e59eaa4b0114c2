"""A store of an earlier schema is brought up to date by who opens it; one of a later schema is left alone."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from limpet.errors import LimpetError
from limpet.store import db

if TYPE_CHECKING:
    from pathlib import Path


def test_the_first_schema_becomes_this_one(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    old = sqlite3.connect(path)
    old.executescript(db.SCHEMA)
    old.execute("INSERT INTO volume VALUES ('data', 1.5, 0, '{}')")
    old.execute("INSERT INTO container VALUES ('c', 'web', 'i', 'image', '[\"l\"]', 1, '{}')")
    old.execute("PRAGMA user_version=1")
    old.commit()
    old.close()
    for _ in range(2):  # and once only
        opened = db.Database(path)
        assert opened.row("SELECT * FROM volume") == ("data", 1.5, 0, "{}", "local", "{}")
        opened.run("INSERT OR IGNORE INTO container_image VALUES ('c', 'other', '[]')")
        uses = opened.rows("SELECT name, image_id, layers FROM container_use ORDER BY image_id")
        assert uses == [("web", "i", '["l"]'), ("web", "other", "[]")]
        opened.close()
    fresh = db.Database(str(tmp_path / "new.db"))
    shape = "SELECT name, sql FROM sqlite_master ORDER BY name"
    assert db.Database(path).rows(shape) == fresh.rows(shape)


def test_a_later_schema_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version={db.VERSION + 1}")
    newer.close()
    with pytest.raises(LimpetError, match="by a newer limpet"):
        db.Database(path)
