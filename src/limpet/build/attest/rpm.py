"""rpm's database in SQLite (rpm 4.16 and later): the headers in its table `Packages`.

A header (rpm.org, "RPM package format", "Header structure") without its magic: the number of index entries and of bytes
of data, big-endian; entries of tag, type, offset, count; the data. The database is a stranger's: it is read in memory,
no schema of it is trusted, no query runs long.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

PLACES = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")
MOST_BYTES = 256 << 20
_MOST = 100_000
_STEPS = 50_000_000  # of SQLite's machine
_TEXTS = (6, 9)  # string, i18n string
_TAGS = {1000: "name", 1001: "version", 1002: "release", 1003: "epoch", 1011: "vendor", 1014: "license"}
_TAGS |= {1022: "architecture", 1044: "source"}


class Header(NamedTuple):
    """`version` with the release, as rpm shows it. `source`: the file name of the source package."""

    name: str
    version: str
    epoch: str
    architecture: str
    license: str
    vendor: str
    source: str


def headers(fd: int) -> list[Header]:
    """[] for what is no such database."""
    import sqlite3

    with os.fdopen(os.dup(fd), "rb") as file:
        data = bytearray(file.read(MOST_BYTES))
    data[18:20] = b"\1\1"  # not in WAL mode, which a database in memory can't be in (SQLite, "Database File Format")
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(bytes(data))
        rows = _rows(connection)
    except (sqlite3.Error, OverflowError):
        return []
    finally:
        connection.close()
    found = (parse(row[0]) for row in rows if isinstance(row[0], bytes))
    return [each for each in found if each is not None]


def _rows(connection: sqlite3.Connection) -> list[tuple[object]]:
    left = [_STEPS // 1000]

    def watch() -> int:
        left[0] -= 1
        return left[0] < 0

    connection.execute("PRAGMA trusted_schema=OFF")
    connection.set_progress_handler(watch, 1000)
    kind = connection.execute("SELECT type FROM sqlite_master WHERE name = 'Packages'").fetchone()
    if kind != ("table",):
        return []
    return connection.execute("SELECT blob FROM Packages LIMIT ?", (_MOST,)).fetchall()


def parse(blob: bytes) -> Header | None:
    """None for what is no header, or a public key, which rpm keeps as a package."""
    try:
        count, size = struct.unpack_from(">II", blob)
        start = 8 + 16 * count
        if count > 1 << 16 or start + size > len(blob):
            return None
        values: dict[str, str] = {}
        for number in range(count):
            tag, kind, offset, _ = struct.unpack_from(">IIII", blob, 8 + 16 * number)
            name = _TAGS.get(tag)
            if name is None or offset >= size:
                continue
            if kind in _TEXTS:
                end = blob.index(b"\0", start + offset, start + size)
                values[name] = blob[start + offset : end].decode("utf-8", "replace")
            elif kind == 4:
                values[name] = str(struct.unpack_from(">I", blob, start + offset)[0])
    except (struct.error, ValueError):
        return None
    if not values.get("name") or not values.get("version") or values["name"] == "gpg-pubkey":
        return None
    version = values["version"] + (f"-{values['release']}" if values.get("release") else "")
    rest = (values.get(key, "") for key in ("epoch", "architecture", "license", "vendor", "source"))
    return Header(values["name"], version, *rest)
