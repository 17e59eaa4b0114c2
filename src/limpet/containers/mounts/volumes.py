"""Volumes: directories that outlive containers. The row is the truth; `<root>/volumes/<name>/_data` holds the files.

Made in the order directory, row; removed in the order row, directory (see `limpet.store`).
"""

from __future__ import annotations

import os
import time

from limpet import jsontext
from limpet.containers import names
from limpet.errors import Conflict, Invalid, LimpetError, NotFound
from limpet.store import eventlog, faults
from limpet.store.files import remove_tree, sync_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.store.store import Store


ANONYMOUS = "com.docker.volume.anonymous"  # Docker's label
MADE_FOR = "org.limpet.made-for"
"""Of an anonymous volume: the container, the place and the image, for who finds it later."""


class Volume:
    """`driver` and `options` as `volumedrivers` has them."""

    __slots__ = ("anonymous", "created", "driver", "labels", "name", "options")

    def __init__(
        self,
        name: str,
        created: float,
        anonymous: bool,
        labels: dict[str, str],
        driver: str = "local",
        options: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.created = created
        self.anonymous = anonymous
        self.labels = labels
        self.driver = driver
        self.options = options or {}

    @property
    def is_mounted(self) -> bool:
        """Whether it is more than a directory of the store: it has to be mounted to be used (`volumemounts`)."""
        return self.driver != "local" or "type" in self.options or "device" in self.options


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


def create(
    store: Store,
    name: str = "",
    labels: dict[str, str] | None = None,
    *,
    anonymous: bool = False,
    driver: str = "",
    options: dict[str, str] | None = None,
) -> Volume:
    """Makes the volume, or gives the one there is. Without a name it gets one of 64 hex digits.

    Raises Conflict if there is one with another driver or other options, and what the driver raises.
    """
    name = check_name(name) if name else names.container_id()
    known = lookup(store, name)
    if known is not None:
        if (driver and driver != known.driver) or (options and not options.items() <= known.options.items()):
            what = f"driver {known.driver}" + "".join(f", {key}={value}" for key, value in known.options.items())
            raise Conflict(f"there is a volume {name} already, of {what}", "choose another name", exit_code=1)
        return known
    volume = Volume(name, time.time(), anonymous, labels or {}, driver or "local", options)
    with store.lease():
        if volume.driver != "local" or volume.options:
            from limpet.containers.mounts import volumedrivers

            volume.options = volumedrivers.driver(store, volume.driver).create(name, volume.options)
        make_directory(store, name)
        with store.db.transaction():
            made = insert(store, volume)
    if made:
        eventlog.write(store, "volume", "create", name, {"driver": volume.driver})
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
        "INSERT INTO volume (name, created, anonymous, labels, driver, options) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO NOTHING",
        volume.name,
        volume.created,
        int(volume.anonymous),
        jsontext.dumps(volume.labels),
        volume.driver,
        jsontext.dumps(volume.options),
    )
    return inserted > 0


def data_path(store: Store, name: str) -> str:
    return f"{store.volume_path(name)}/_data"


def lookup(store: Store, name: str) -> Volume | None:
    row = store.db.row(f"SELECT {_COLUMNS} FROM volume WHERE name = ?", name)
    return None if row is None else _volume(row)


def find(store: Store, name: str) -> Volume:
    """Raises NotFound."""
    volume = lookup(store, name)
    if volume is None:
        raise NotFound(f"get {name}: no such volume", "`limpet volume ls` lists them", exit_code=1)
    return volume


def all_volumes(store: Store) -> list[Volume]:
    return [_volume(row) for row in store.db.rows(f"SELECT {_COLUMNS} FROM volume ORDER BY name")]


def describe(store: Store, volume: Volume) -> dict[str, Any]:
    """Docker's form of it (the Engine API's VolumeInspect)."""
    return {
        "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(volume.created)),
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": data_path(store, volume.name),
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }


def users(store: Store, name: str) -> list[str]:
    """Ids of the containers that mount it."""
    return [row[0] for row in store.db.rows("SELECT container_id FROM container_volume WHERE volume = ?", name)]


def remove(store: Store, name: str) -> None:
    """Raises NotFound, and Conflict if a container (running or not) mounts it."""
    volume = find(store, name)
    if volume.is_mounted or volume.options:
        _check_unused(store, name)
        _unmade(store, volume)
    with store.db.transaction():
        _check_unused(store, name)
        store.db.run("DELETE FROM volume WHERE name = ?", name)
    faults.reach("volume-row-gone")
    remove_files(store, name, volume.driver)


def _check_unused(store: Store, name: str) -> None:
    used = users(store, name)
    if used:
        names = [each for id in used for (each,) in store.db.rows("SELECT name FROM container WHERE id = ?", id)]
        hint = f"`limpet rm {' '.join(names)}` first" if names else "try again"
        raise Conflict(f"remove {name}: volume is in use - [{', '.join(used)}]", hint, exit_code=1)


def _unmade(store: Store, volume: Volume) -> None:
    """Its driver lets go of it. Raises what the driver raises: then it stays."""
    from limpet.containers.mounts import volumedrivers, volumemounts

    volumemounts.recover(store)
    volumedrivers.driver(store, volume.driver).remove(volume.name, volume.options)
    volumemounts.forget(store, volume.name)


def remove_unnamed(store: Store, volume: Volume) -> None:
    """Of a container that is gone, and so is its row. A driver that fails has the last word in the log of events."""
    if volume.is_mounted or volume.options:
        try:
            _unmade(store, volume)
        except LimpetError as e:
            eventlog.write(store, "volume", "error", volume.name, {"driver": volume.driver, "error": e.message})
            if volume.driver == "local":
                return  # something is mounted there: it is not ours to take
    remove_files(store, volume.name, volume.driver)


def remove_files(store: Store, name: str, driver: str = "local") -> None:
    """The directory of a volume whose row is gone: out of sight by one rename, then deleted."""
    eventlog.write(store, "volume", "destroy", name, {"driver": driver})
    aside = store.temporary("volume")
    try:
        os.rename(store.volume_path(name), aside)
    except FileNotFoundError:
        return
    faults.reach("volume-renamed")
    remove_tree(aside)


_COLUMNS = "name, created, anonymous, labels, driver, options"


def _volume(row: Any) -> Volume:
    name, created, anonymous, labels, driver, options = row
    return Volume(name, created, bool(anonymous), jsontext.loads(labels), driver, jsontext.loads(options))
