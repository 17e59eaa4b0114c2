"""Snapshots of volumes: `volume snapshot`, `volume snapshots`, `volume restore`.

All containers that mount the volume and run are frozen for the copy, so that its files belong together. What is put
back needs all of them stopped.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from limpet.containers import state
from limpet.containers.copies import snapshotting
from limpet.containers.copies.snapshotting import Home
from limpet.containers.files.changes import Frozen
from limpet.containers.mounts import volumes
from limpet.errors import Conflict, NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.containers.copies.snapshotting import Snapshot
    from limpet.containers.mounts.volumes import Volume
    from limpet.containers.state import Container
    from limpet.store.store import Store


def take(store: Store, volume: Volume, name: str = "") -> Snapshot:
    """See `snapshotting.take`. Raises Refused for one that is no directory of the store."""
    _plain(volume)
    return snapshotting.take(store, home(store, volume), name, _still(store, volume))


def home(store: Store, volume: Volume) -> Home:
    command = f"limpet volume snapshot {volume.name}"
    return Home(f"volume {volume.name}", store.volume_path(volume.name), "_data", command)


def restore(store: Store, volume: Volume, snapshot: Snapshot) -> None:
    """What was written since is gone. Raises Conflict while a container that mounts it runs."""
    _plain(volume)
    locks: dict[str, int] = {}

    @contextlib.contextmanager
    def ready() -> Iterator[None]:
        with store.db.transaction():  # nobody makes a container meanwhile
            _lock(store, volume, locks)
            yield

    try:
        _lock(store, volume, locks)
        snapshotting.put_back(store, home(store, volume), snapshot, ready())
    finally:
        for fd in locks.values():
            os.close(fd)


def _plain(volume: Volume) -> None:
    if volume.is_mounted:
        if "size" in volume.options:
            raise Refused(
                f"volume {volume.name} is a file system in a file, for its size", "volume export", exit_code=1
            )
        where = volume.options.get("device") or f"the driver {volume.driver}"
        raise Refused(f"volume {volume.name} is {where}", "take its snapshots there", exit_code=1)


def _lock(store: Store, volume: Volume, locks: dict[str, int]) -> None:
    """Nobody starts a container that mounts it until these are closed."""
    for container in _users(store, volume):
        if container.id in locks:
            continue
        try:
            fd = state.try_lock(store, container)
        except NotFound:
            continue
        if fd < 0:
            what = f"volume {volume.name} is mounted by container {container.name}, which runs"
            raise Conflict(what, f"limpet stop {container.name}", exit_code=1)
        locks[container.id] = fd


def _users(store: Store, volume: Volume) -> list[Container]:
    found = (state.lookup(store, container_id) for container_id in volumes.users(store, volume.name))
    return [container for container in found if container is not None]


@contextlib.contextmanager
def _still(store: Store, volume: Volume) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for container in _users(store, volume):
            stack.enter_context(Frozen(store, container, wanted=True))
        yield
