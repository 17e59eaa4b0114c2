"""The facts, in SQLite (WAL mode). Rows are the truth: a file that no row names is garbage.

Why not `import sqlite3`: it is a thin module over `_sqlite3` that imports `datetime` and `collections` (2 ms on the
path of `limpet run`).

On a file system with blocks smaller than a page (ext4 of less than 512 MB) the mode is a rollback journal, kept: the
index of a WAL is a mapped file with holes there, and a full disk ends who writes to it by SIGBUS.

A process ends without closing its connection (`os._exit`, see `cli.main`): the last close would checkpoint the log and
sync it, some milliseconds for nothing. The log stays small by `wal_autocheckpoint`, and the next opener reads it.
"""

from __future__ import annotations

import os

from limpet.errors import Conflict, LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from types import TracebackType
    from typing import Any
else:
    import sys

    from limpet.store.cache import lru_cache

    # `_sqlite3` takes its statement cache from `functools`, whose own imports (collections, types, …) are 3 of the 4 ms
    # that loading it would cost. It keeps the function and forgets the module: nobody else ever sees the stand-in.
    _stand_in = "functools" not in sys.modules
    if _stand_in:
        sys.modules["functools"] = type(sys)("functools")
        sys.modules["functools"].lru_cache = lru_cache
    import _sqlite3 as sqlite3

    if _stand_in:
        del sys.modules["functools"]

VERSION = 4
PAGE = 4096  # bytes
RESERVE = 1_000_000  # bytes, of the database and of its log each: an autocheckpoint comes after 200 pages of 4 KiB

SCHEMA = """
-- A file in blobs/. `boot` is the id of the boot during which it was written without a sync, NULL once it is durable.
CREATE TABLE blob (
    digest TEXT PRIMARY KEY,            -- sha256:<hex>
    size INTEGER NOT NULL,              -- bytes
    boot TEXT
) WITHOUT ROWID;
-- A directory in layers/, made by a storage driver.
CREATE TABLE layer (
    diff_id TEXT PRIMARY KEY,           -- sha256:<hex> of the uncompressed tar
    driver TEXT NOT NULL,               -- 'erofs', 'dir'
    size INTEGER NOT NULL,              -- bytes of the uncompressed tar
    boot TEXT
) WITHOUT ROWID;
-- Which blobs are compressed forms of a layer, so that a pull of another image knows the layer is here.
CREATE TABLE layer_blob (
    digest TEXT PRIMARY KEY,            -- of the compressed bytes; the blob itself may have been dropped
    diff_id TEXT NOT NULL,
    media_type TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX layer_blob_diff_id ON layer_blob (diff_id);
-- An image is its config; the id is the digest of the config blob, as Docker's.
CREATE TABLE image (
    id TEXT PRIMARY KEY,
    config TEXT NOT NULL,               -- the JSON text of the config blob, here too for speed
    created INTEGER NOT NULL            -- when it came into this store, Unix seconds
) WITHOUT ROWID;
CREATE TABLE image_layer (
    image_id TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,          -- 0 is the bottom
    diff_id TEXT NOT NULL REFERENCES layer (diff_id),
    PRIMARY KEY (image_id, position)
) WITHOUT ROWID;
CREATE INDEX image_layer_diff_id ON image_layer (diff_id);
-- Manifests by which an image came or went; the bytes are in blobs/.
CREATE TABLE manifest (
    digest TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    media_type TEXT NOT NULL
) WITHOUT ROWID;
-- Blobs that a manifest names: config and compressed layers.
CREATE TABLE manifest_blob (
    manifest TEXT NOT NULL REFERENCES manifest (digest) ON DELETE CASCADE,
    position INTEGER NOT NULL,          -- 0 is the config, then the layers from the bottom
    digest TEXT NOT NULL,
    PRIMARY KEY (manifest, position)
) WITHOUT ROWID;
CREATE TABLE name (
    reference TEXT PRIMARY KEY,         -- canonical: docker.io/library/debian:12, or repository@sha256:...
    image_id TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    manifest TEXT REFERENCES manifest (digest) ON DELETE SET NULL,
    index_digest TEXT,                  -- of the index that the registry answered with, when it was one
    implicit INTEGER NOT NULL DEFAULT 0 -- 1: brought in by `build` or `up` as a base, goes when nothing needs it
) WITHOUT ROWID;
CREATE INDEX name_image ON name (image_id);
CREATE TABLE container (
    id TEXT PRIMARY KEY,                -- 64 hex digits
    name TEXT NOT NULL UNIQUE,
    image_id TEXT,                      -- NULL for a container without an image
    image_name TEXT NOT NULL,           -- as the user wrote it
    layers TEXT NOT NULL,               -- JSON list of diff IDs, bottom first: keeps them when the image goes
    created REAL NOT NULL,              -- Unix seconds
    options TEXT NOT NULL               -- JSON: what the user asked for; containers/plan/spec.py has its fields
) WITHOUT ROWID;
-- What a build step made, by all that it depended on; goes with the layer.
CREATE TABLE build_step (
    key TEXT PRIMARY KEY,               -- sha256 hex over the parent's key, the step and its inputs
    diff_id TEXT NOT NULL REFERENCES layer (diff_id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX build_step_diff_id ON build_step (diff_id);
CREATE TABLE volume (
    name TEXT PRIMARY KEY,
    created REAL NOT NULL,
    anonymous INTEGER NOT NULL,         -- 1: removed with its container
    labels TEXT NOT NULL                -- JSON object
) WITHOUT ROWID;
CREATE TABLE container_volume (
    container_id TEXT NOT NULL REFERENCES container (id) ON DELETE CASCADE,
    volume TEXT NOT NULL REFERENCES volume (name),
    PRIMARY KEY (container_id, volume)
) WITHOUT ROWID;
"""

SINCE_2 = """
ALTER TABLE volume ADD COLUMN driver TEXT NOT NULL DEFAULT 'local';
-- A JSON object: what -o said.
ALTER TABLE volume ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
-- An image that a container mounts beside its own (`--mount type=image`).
CREATE TABLE container_image (
    container_id TEXT NOT NULL REFERENCES container (id) ON DELETE CASCADE,
    image_id TEXT NOT NULL,
    layers TEXT NOT NULL,               -- JSON list of diff IDs, bottom first
    PRIMARY KEY (container_id, image_id)
) WITHOUT ROWID;
-- Every image, and every stack of layers, that a container needs.
CREATE VIEW container_use AS
    SELECT id AS container_id, name, image_id, layers, created FROM container
    UNION ALL
    SELECT container_id, name, m.image_id, m.layers, created FROM container_image m JOIN container ON id = container_id
"""

SINCE_3 = """
CREATE TABLE network (
    id TEXT PRIMARY KEY,                -- 64 hex digits
    name TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,               -- bridge, macvlan, ipvlan, host, none
    created REAL NOT NULL,              -- Unix seconds
    settings TEXT NOT NULL              -- JSON: subnets and what the user said; network/networks.py has its fields
) WITHOUT ROWID;
-- A container's place on a network, whether it runs or not: its addresses are its own until it is removed.
CREATE TABLE endpoint (
    id TEXT PRIMARY KEY,                -- 64 hex digits; the first 12 name its interface on the host
    network_id TEXT NOT NULL REFERENCES network (id),
    container_id TEXT NOT NULL REFERENCES container (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,          -- of the container's networks: 0 is eth0
    address TEXT,                       -- IPv4, NULL without one
    address6 TEXT,
    settings TEXT NOT NULL,             -- JSON: network/endpoints.py has its fields
    UNIQUE (network_id, container_id),
    UNIQUE (network_id, address),
    UNIQUE (network_id, address6)
) WITHOUT ROWID;
CREATE INDEX endpoint_container ON endpoint (container_id)
"""

SINCE_4 = """
-- Containers that share namespaces. Which containers are in it, they say themselves.
CREATE TABLE pod (
    id TEXT PRIMARY KEY,                -- 64 hex digits
    name TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,              -- Unix seconds
    options TEXT NOT NULL               -- JSON: what the user asked for; containers/pod/pods.py has its keys
) WITHOUT ROWID
"""


class Database:
    """One connection. Threads must not share it; a forked child must not use it."""

    def __init__(self, path: str) -> None:
        """`path` "": an empty one in memory."""
        self._path = path
        self._log = f"{path}-wal"
        try:
            # Once: a close of any descriptor of the file drops SQLite's locks on it (fcntl(2), F_SETLK).
            _reserve(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError:
            pass  # it is here, or SQLite says what is wrong
        try:
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=60.0, isolation_level=None, check_same_thread=False
            )
            self._open()
        except sqlite3.DatabaseError as e:
            raise LimpetError(f"{path}: {e}", "`limpet system check` reads what is left of it") from e

    def _open(self) -> None:
        run = self._connection.execute
        small = os.statvfs(self._path or "/").f_bsize < PAGE
        if small:
            run("PRAGMA journal_mode=PERSIST")
            self._log = f"{self._path}-journal"
        (version,) = run("PRAGMA user_version").fetchone()
        run("PRAGMA foreign_keys=ON")
        if version == VERSION:
            self._reserve_log()
            return
        if version > VERSION:
            raise LimpetError(f"the store was written by a newer limpet (schema {version}, this one knows {VERSION})")
        if not small:
            run("PRAGMA journal_mode=WAL")
        with self.transaction():
            (version,) = run("PRAGMA user_version").fetchone()  # another process may have been first
            missing = (SCHEMA, SINCE_2, SINCE_3, SINCE_4)[version:]
            for statement in (statement for text in missing for statement in text.split(";\n")):
                run(statement)
            run(f"PRAGMA user_version={VERSION}")
        self._reserve_log()

    def _reserve_log(self) -> None:
        """A log's frames overwrite those that were checkpointed, so this is done once, until a last close."""
        try:
            if os.stat(self._log).st_blocks * 512 < RESERVE:
                _reserve(self._log, os.O_WRONLY)
        except OSError:
            pass  # gone again, or full already: what needs space will say so

    def rows(self, query: str, *values: object) -> list[Any]:
        """All rows of a query, as tuples."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as e:
            raise _failed(e) from e

    def row(self, query: str, *values: object) -> Any:
        """The first row of a query as a tuple, or None."""
        try:
            return self._connection.execute(query, values).fetchone()
        except sqlite3.OperationalError as e:
            raise _failed(e) from e

    def run(self, statement: str, *values: object) -> int:
        """Executes one statement, gives the number of rows changed. Raises Conflict on a broken constraint."""
        try:
            return self._connection.execute(statement, values).rowcount
        except sqlite3.IntegrityError as e:
            raise Conflict(str(e)) from e
        except sqlite3.OperationalError as e:
            raise _failed(e) from e

    def transaction(self, *, durable: bool = True) -> Transaction:
        """`with db.transaction():` all or nothing, one writer at a time. `durable`: on disk when it ends."""
        return Transaction(self._connection, durable)

    def close(self) -> None:
        self._connection.close()


def _reserve(path: str, flags: int) -> None:
    """Space for some changes: things can be removed, and an end be recorded, on a disk that is full."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        from limpet.kernel import fs

        fs.reserve(fd, RESERVE)
    finally:
        os.close(fd)


class Transaction:
    def __init__(self, connection: sqlite3.Connection, durable: bool) -> None:
        self._connection = connection
        self._durable = durable

    def __enter__(self) -> None:
        self._connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
        self._connection.execute("PRAGMA wal_autocheckpoint=200")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as e:
            raise _failed(e) from e

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        except sqlite3.OperationalError as e:
            raise _failed(e) from e
        finally:
            if self._connection.in_transaction:  # a full disk may have rolled back by itself
                self._connection.execute("ROLLBACK")


def _failed(error: sqlite3.OperationalError) -> LimpetError:
    full = "full" in str(error)
    hint = "free some space: the database needs a little even to remove things" if full else ""
    return LimpetError(f"the store's database: {error}", hint)
