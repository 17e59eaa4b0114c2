"""Copies of a container, and of what it wrote: `copy`, `snapshot`, `restore`.

`containers/<id>/snapshots/<name>/upper` is the writable layer of a moment, that of the directory it is in. It goes with
its container. A running container is frozen for the copy. Volumes and bind mounts are no part of a snapshot.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from limpet import jsontext
from limpet.containers import create, state
from limpet.containers.copies import snapshotting
from limpet.containers.copies.snapshotting import Home
from limpet.containers.files.changes import Frozen
from limpet.containers.mounts import mountplan, volumes
from limpet.containers.options import Options
from limpet.errors import Conflict
from limpet.images.catalog import Image

if TYPE_CHECKING:
    from limpet.containers.copies.snapshotting import Snapshot
    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.state import Container
    from limpet.store.store import Store


def copy(store: Store, container: Container, name: str) -> Container:
    """A new container with the same options and layers, and all that the other one wrote; it is not started.

    Named volumes and bind mounts are shared, anonymous volumes are copied. Raises Conflict for a name in use.
    """
    directory = store.container_path(container.id)
    with open(f"{directory}/image.json", "rb") as file:
        config = jsontext.loads(file.read())
    known = container.image_id and store.db.row("SELECT 1 FROM image WHERE id = ?", container.image_id)
    image = Image((container.image_id or "") if known else "", config, [], 0)
    options = Options.from_json(container.options.to_json())
    options.name = name
    if options.networks:
        from limpet.containers.network import networking

        networking.another(options)
    others = {mount.target: mount for mount in mountplan.load(store, container.id) if mount.anonymous}

    def fill(place: str, mounts: list[Mount]) -> None:
        own = [mount for mount in mounts if mount.anonymous and mount.target in others]
        trees = [(others[mount.target].source, volumes.data_path(store, mount.name)) for mount in own]
        trees.append((f"{directory}/upper", f"{place}/upper"))
        with Frozen(store, container, wanted=True):
            for source, target in trees:
                snapshotting.copy(source, target, made=True)
        snapshotting.sync(place)

    return create.create(store, image, options, layers=container.layers, fill=fill)


def home(store: Store, container: Container) -> Home:
    command = f"limpet snapshot {container.name}"
    return Home(f"container {container.name}", store.container_path(container.id), "upper", command)


def take(store: Store, container: Container, name: str = "") -> Snapshot:
    """See `snapshotting.take`."""
    return snapshotting.take(store, home(store, container), name, Frozen(store, container, wanted=True))


def restore(store: Store, container: Container, snapshot: Snapshot) -> None:
    """What the container wrote since is gone. Raises Conflict if it runs."""
    lock = state.try_lock(store, container)
    if lock < 0:
        raise Conflict(f"container {container.name} is running", f"limpet stop {container.name}", exit_code=1)
    try:
        snapshotting.put_back(store, home(store, container), snapshot, contextlib.nullcontext())
    finally:
        os.close(lock)
