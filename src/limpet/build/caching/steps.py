"""The cache as one build sees it: a key in, the layer that the step made out.

Three places are asked, in this order: what was made on this machine (`build_step`), what an earlier build took from a
source that this build names too (`imported_step`), and the sources themselves. What came from a source never becomes
an answer for a build that does not name it: whoever may write there is trusted by those only who say so.

A layer lives as long as the image that was built with it (`build_layer`); one that no image came of, until the cache
is pruned.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from limpet.errors import LimpetError
from limpet.frozen import dataclass
from limpet.images.present import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from limpet.store.store import Store

    class Source(Protocol):
        """A cache that `--cache-from` names. `title` is its name for people and in the store."""

        title: str

        def has(self, key: str) -> bool:
            """Whether it knows the step. Raises LimpetError when it can't be read."""

        def bring(self, key: str, below: Sequence[str]) -> str:
            """The diff ID of the step's layer, which is in the store now and fits on `below`. Raises LimpetError."""

        def close(self) -> None: ...


TABLES = (
    """CREATE TABLE IF NOT EXISTS build_record (  -- what is known of a row of build_step
        key TEXT PRIMARY KEY REFERENCES build_step (key) ON DELETE CASCADE,
        what TEXT NOT NULL,             -- the instruction
        created REAL NOT NULL,          -- Unix seconds
        used REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS imported_step (  -- a step that came from a source of --cache-from
        source TEXT NOT NULL,           -- its name: counts only for builds that name it
        key TEXT NOT NULL,
        diff_id TEXT NOT NULL REFERENCES layer (diff_id) ON DELETE CASCADE,
        what TEXT NOT NULL,
        created REAL NOT NULL,
        used REAL NOT NULL,
        PRIMARY KEY (source, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS imported_step_diff_id ON imported_step (diff_id)",
    """CREATE TABLE IF NOT EXISTS build_layer (  -- why a layer that only builds use stays
        diff_id TEXT NOT NULL REFERENCES layer (diff_id) ON DELETE CASCADE,
        owner TEXT NOT NULL,            -- the image that was built with it, or '' for none
        PRIMARY KEY (diff_id, owner)
    ) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class Used:
    """A step of this build. `below` are the layers beneath, bottom first; `hit`: it was not run."""

    stage: int
    key: str
    below: tuple[str, ...]
    diff_id: str
    what: str
    hit: bool


class StepCache:
    """`find` and `keep` for each step, from any thread; `finish` at the end. The caller holds a lease.

    One thread at a time brings something from the sources, by a connection of its own: the others go on meanwhile.
    """

    def __init__(
        self,
        store: Store,
        *,
        no_cache: bool = False,
        skip: Sequence[str] = (),
        sources: Sequence[Source] = (),
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`skip`: names or numbers of the stages whose steps run again."""
        self._store = store
        self._no_cache = no_cache
        self._skip = {name.lower() for name in skip}
        self._sources = list(sources)
        self._warn = warn
        self._contents: set[str] = set()
        self._lock = threading.Lock()  # the connection serves one thread at a time
        self._bringing = threading.Lock()
        self._grew = False
        self.used: list[Used] = []
        for statement in TABLES:
            store.db.run(statement)

    def ignores(self, number: int, name: str) -> bool:
        """Whether the steps of a stage run again (`--no-cache`, `--no-cache-filter`)."""
        return self._no_cache or str(number) in self._skip or name.lower() in self._skip

    def find(self, stage: int, name: str, key: str, below: Sequence[str], what: str) -> tuple[str, bool]:
        """(the layer of a step, "" for none; whether it is taken, and not made anew). It is in the store and fits."""
        with self._lock:
            here = self._local(key)
            if self.ignores(stage, name):
                return here or "", False
            diff_id = here or self._imported(key)
        if diff_id is None and self._sources:
            with self._bringing:
                diff_id = self._brought(key, below, what)
        if diff_id is None:
            return "", False
        self.used.append(Used(stage, key, tuple(below), diff_id, what, True))
        return diff_id, True

    def keep(self, stage: int, key: str, below: Sequence[str], diff_id: str, what: str) -> None:
        """A step was made."""
        self._enter(key, diff_id, what)
        self.used.append(Used(stage, key, tuple(below), diff_id, what, False))

    def content(self, key: str) -> str | None:
        """A layer that is nothing but files of the context, for the time of a step: there is no doubt about it."""
        with self._lock:
            diff_id = self._local(key)
        if diff_id is not None:
            self._contents.add(diff_id)
        return diff_id

    def keep_content(self, key: str, diff_id: str, what: str) -> None:
        self._enter(key, diff_id, what)
        self._contents.add(diff_id)

    def _enter(self, key: str, diff_id: str, what: str) -> None:
        now, db = time.time(), self._store.db
        with self._lock, db.transaction(durable=False):
            db.run("INSERT OR REPLACE INTO build_step (key, diff_id) VALUES (?, ?)", key, diff_id)
            db.run("INSERT OR REPLACE INTO build_record VALUES (?, ?, ?, ?)", key, what, now, now)
            db.run("INSERT OR IGNORE INTO build_layer VALUES (?, '')", diff_id)
        self._grew = True

    def finish(self, image_id: str) -> None:
        """The build is over: what it used was used now, and stays as long as the image does ("" if there is none)."""
        now, db = time.time(), self._store.db
        with db.transaction(durable=False):
            for each in self.used:
                db.run("UPDATE build_record SET used = ? WHERE key = ?", now, each.key)
                db.run("UPDATE imported_step SET used = ? WHERE key = ?", now, each.key)
            if image_id:
                for diff_id in {each.diff_id for each in self.used} | self._contents:
                    db.run("DELETE FROM build_layer WHERE diff_id = ? AND owner = ''", diff_id)
                    db.run("INSERT OR IGNORE INTO build_layer VALUES (?, ?)", diff_id, image_id)

    @property
    def grew(self) -> bool:
        """Whether there is more in the cache than before the build."""
        return self._grew

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def _local(self, key: str) -> str | None:
        row = self._store.db.row("SELECT diff_id FROM build_step WHERE key = ?", key)
        return None if row is None else str(row[0])

    def _imported(self, key: str) -> str | None:
        for source in self._sources:
            row = self._store.db.row(
                "SELECT diff_id FROM imported_step WHERE source = ? AND key = ?", source.title, key
            )
            if row is not None and is_whole(self._store, row[0]):
                return str(row[0])
        return None

    def _brought(self, key: str, below: Sequence[str], what: str) -> str | None:
        """From the first source that has it. One that fails is not asked again by this build."""
        for source in list(self._sources):
            try:
                if not source.has(key):
                    continue
                diff_id = source.bring(key, below)
            except LimpetError as e:
                self._warn(f"--cache-from {source.title}: {e}; going on without it")
                with self._lock:
                    self._sources.remove(source)
                source.close()
                continue
            now, db = time.time(), self._store.db
            values = (source.title, key, diff_id, what, now, now)
            with self._lock, db.transaction(durable=False):
                db.run("INSERT OR REPLACE INTO imported_step VALUES (?, ?, ?, ?, ?, ?)", *values)
                db.run("INSERT OR IGNORE INTO build_layer VALUES (?, '')", diff_id)
            self._grew = True
            return diff_id
        return None
