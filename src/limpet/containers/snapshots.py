"""Copies of a container, and of what it wrote: `copy`, `snapshot`, `restore`.

`containers/<id>/snapshots/<name>/upper` is the writable layer of a moment, that of the directory it is in. It goes with
its container. A running container is frozen for the copy. Volumes and bind mounts are no part of a snapshot.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet import jsontext
from limpet.containers import create, mountplan, names, state, treecopy, volumes
from limpet.containers.changes import Frozen
from limpet.containers.options import Options
from limpet.errors import Conflict, LimpetError, NotFound
from limpet.images.catalog import Image
from limpet.kernel import fs
from limpet.nearest import near
from limpet.store.files import remove_tree, sync_directory

if TYPE_CHECKING:
    from limpet.containers.mountplan import Mount
    from limpet.containers.state import Container
    from limpet.store.store import Store

_SHOWN = 8
"""Names in an error, the latest ones."""


class Snapshot:
    """`path`: its directory; `created`: Unix seconds."""

    __slots__ = ("created", "name", "path")

    def __init__(self, path: str) -> None:
        self.name = os.path.basename(path)
        self.path = path
        self.created = os.stat(path).st_mtime


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
    others = {mount.target: mount for mount in mountplan.load(store, container.id) if mount.anonymous}

    def fill(place: str, mounts: list[Mount]) -> None:
        own = [mount for mount in mounts if mount.anonymous and mount.target in others]
        trees = [(others[mount.target].source, volumes.data_path(store, mount.name)) for mount in own]
        trees.append((f"{directory}/upper", f"{place}/upper"))
        with Frozen(store, container, wanted=True):
            for source, target in trees:
                os.rmdir(target)
                _copy(source, target)
        _sync(place)

    return create.create(store, image, options, layers=container.layers, fill=fill)


def take(store: Store, container: Container, name: str = "") -> Snapshot:
    """Without a name it is called snap0, snap1, … Raises Conflict for a name that the container has already."""
    home = _home(store, container)
    os.makedirs(home, 0o700, exist_ok=True)
    path = f"{home}/{names.check(name, 'snapshot') if name else _free(home)}"
    if os.path.exists(path):
        raise Conflict(f"container {container.name} has a snapshot {name} already", "choose another name", exit_code=1)
    new = store.temporary("snapshot")
    os.mkdir(new, 0o700)
    try:
        with Frozen(store, container, wanted=True):
            _copy(f"{store.container_path(container.id)}/upper", f"{new}/upper")
        _sync(new)
        os.rename(new, path)
    except BaseException:
        remove_tree(new)
        raise
    sync_directory(home)
    return Snapshot(path)


def snapshots(store: Store, container: Container) -> list[Snapshot]:
    """The oldest first."""
    home = _home(store, container)
    found = os.listdir(home) if os.path.isdir(home) else []
    return sorted((Snapshot(f"{home}/{name}") for name in found), key=lambda each: (each.created, each.name))


def find(store: Store, container: Container, name: str = "") -> Snapshot:
    """Without a name the latest. Raises NotFound."""
    known = {each.name: each for each in snapshots(store, container)}
    if not known:
        raise NotFound(f"container {container.name} has no snapshot", "`limpet snapshot` takes one", exit_code=1)
    if not name:
        return list(known.values())[-1]
    if name not in known:
        others = near(name, list(known))[:1] or list(known)
        hint = f"there is {', '.join(others[-_SHOWN:])}"
        raise NotFound(f"container {container.name} has no snapshot {name}", hint, exit_code=1)
    return known[name]


def restore(store: Store, container: Container, snapshot: Snapshot) -> None:
    """What the container wrote since is gone. Raises Conflict if it runs."""
    lock = state.try_lock(store, container)
    if lock < 0:
        raise Conflict(f"container {container.name} is running", f"limpet stop {container.name}", exit_code=1)
    upper = f"{store.container_path(container.id)}/upper"
    new = store.temporary("restore")
    try:
        _copy(f"{snapshot.path}/upper", new)
        _sync(new)
        fs.renameat2(new, upper, fs.RENAME_EXCHANGE)
        sync_directory(os.path.dirname(upper))
    finally:
        remove_tree(new)
        os.close(lock)


def remove(store: Store, snapshot: Snapshot) -> None:
    aside = store.temporary("snapshot")
    os.rename(snapshot.path, aside)
    remove_tree(aside)


def _copy(source: str, target: str) -> None:
    """Raises LimpetError."""
    try:
        treecopy.copy_path(source, target)
    except OSError as e:
        raise LimpetError(f"copying {e.filename or source}: {e.strerror}", exit_code=1) from e


def _sync(place: str) -> None:
    """What was copied is on disk when it returns: not while a container stands still for it."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fs.syncfs(fd)
    finally:
        os.close(fd)


def _home(store: Store, container: Container) -> str:
    return f"{store.container_path(container.id)}/snapshots"


def _free(home: str) -> str:
    number = 0
    while os.path.exists(f"{home}/snap{number}"):
        number += 1
    return f"snap{number}"
