"""Volumes: directories that outlive containers. The row is the truth; `<root>/volumes/<name>/_data` holds the files.

Made in the order directory, row; removed in the order row, directory (see `limpet.store`).
"""

from __future__ import annotations

import os
import time

from limpet import jsontext
from limpet.containers import names
from limpet.errors import Conflict, Invalid, NotFound
from limpet.store import eventlog, faults
from limpet.store.files import remove_tree, sync_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.store.store import Store


class Volume:
    __slots__ = ("anonymous", "created", "labels", "name")

    def __init__(self, name: str, created: float, anonymous: bool, labels: dict[str, str]) -> None:
        self.name = name
        self.created = created
        self.anonymous = anonymous
        self.labels = labels


def check_name(name: str) -> str:
    """Raises Invalid. The same rule as for containers, without the '/' (moby `volume/names`)."""
    try:
        if name.startswith("/"):
            raise Invalid("")
        return names.check(name)
    except Invalid:
        raise Invalid(
            f"invalid volume name '{name}'",
            "it needs two or more of a-z A-Z 0-9 _ . - ; for a directory of the host write an absolute path",
        ) from None


def create(store: Store, name: str = "", labels: dict[str, str] | None = None, *, anonymous: bool = False) -> Volume:
    """Makes the volume, or gives the one there is. Without a name it gets one of 64 hex digits."""
    name = check_name(name) if name else names.container_id()
    known = lookup(store, name)
    if known is not None:
        return known
    volume = Volume(name, time.time(), anonymous, labels or {})
    with store.lease():
        make_directory(store, name)
        with store.db.transaction():
            made = insert(store, volume)
    if made:
        eventlog.write(store, "volume", "create", name, {"driver": "local"})
    return lookup(store, name) or volume


def make_directory(store: Store, name: str) -> None:
    """The first half of making a volume; the caller holds a lease and adds the row."""
    os.makedirs(f"{store.volume_path(name)}/_data", exist_ok=True)
    sync_directory(store.volume_path(name))
    sync_directory(f"{store.root}/volumes")
    faults.reach("volume-directory")


def insert(store: Store, volume: Volume) -> bool:
    """The second half, in the caller's transaction. False: another process was first, and its volume stays."""
    inserted = store.db.run(
        "INSERT INTO volume (name, created, anonymous, labels) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
        volume.name,
        volume.created,
        int(volume.anonymous),
        jsontext.dumps(volume.labels),
    )
    return inserted > 0


def data_path(store: Store, name: str) -> str:
    return f"{store.volume_path(name)}/_data"


def lookup(store: Store, name: str) -> Volume | None:
    row = store.db.row("SELECT name, created, anonymous, labels FROM volume WHERE name = ?", name)
    return None if row is None else _volume(row)


def find(store: Store, name: str) -> Volume:
    """Raises NotFound."""
    volume = lookup(store, name)
    if volume is None:
        raise NotFound(f"get {name}: no such volume", "`limpet volume ls` lists them", exit_code=1)
    return volume


def all_volumes(store: Store) -> list[Volume]:
    return [_volume(row) for row in store.db.rows("SELECT name, created, anonymous, labels FROM volume ORDER BY name")]


def describe(store: Store, volume: Volume) -> dict[str, Any]:
    """Docker's form of it (the Engine API's VolumeInspect)."""
    return {
        "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(volume.created)),
        "Driver": "local",
        "Labels": volume.labels or None,
        "Mountpoint": data_path(store, volume.name),
        "Name": volume.name,
        "Options": None,
        "Scope": "local",
    }


def users(store: Store, name: str) -> list[str]:
    """Ids of the containers that mount it."""
    return [row[0] for row in store.db.rows("SELECT container_id FROM container_volume WHERE volume = ?", name)]


def remove(store: Store, name: str) -> None:
    """Raises NotFound, and Conflict if a container (running or not) mounts it."""
    find(store, name)
    with store.db.transaction():
        used = users(store, name)
        if used:
            raise Conflict(
                f"remove {name}: volume is in use - [{', '.join(used)}]", "remove the containers first", exit_code=1
            )
        store.db.run("DELETE FROM volume WHERE name = ?", name)
    faults.reach("volume-row-gone")
    remove_files(store, name)


def remove_files(store: Store, name: str) -> None:
    """The directory of a volume whose row is gone: out of sight by one rename, then deleted."""
    eventlog.write(store, "volume", "destroy", name, {"driver": "local"})
    aside = store.temporary("volume")
    try:
        os.rename(store.volume_path(name), aside)
    except FileNotFoundError:
        return
    faults.reach("volume-renamed")
    remove_tree(aside)


def _volume(row: Any) -> Volume:
    name, created, anonymous, labels = row
    return Volume(name, created, bool(anonymous), jsontext.loads(labels))
