"""Snapshots of a tree: `<directory>/snapshots/<name>/<tree>` is a copy of `<directory>/<tree>` as it was at a moment.

What containers (`snapshots`) and volumes (`volumesnapshots`) have in common. They go with the directory that they are
in. Blocks are shared where the file system can do that (`treecopy`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from limpet.containers import names
from limpet.containers.files import treecopy
from limpet.containers.mounts import quota
from limpet.errors import Conflict, LimpetError, NotFound
from limpet.kernel import fs
from limpet.nearest import near
from limpet.store import faults
from limpet.store.files import remove_tree, sync_directory

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from limpet.store.store import Store

_SHOWN = 8
"""Names in an error, the latest ones."""


class Home(NamedTuple):
    """Of what there are snapshots. `what`: for people; `command` takes one."""

    what: str
    directory: str
    tree: str
    command: str


class Snapshot:
    """`path`: its directory; `created`: Unix seconds."""

    __slots__ = ("created", "name", "path")

    def __init__(self, path: str) -> None:
        self.name = os.path.basename(path)
        self.path = path
        self.created = os.stat(path).st_mtime


def take(store: Store, home: Home, name: str, still: AbstractContextManager[object]) -> Snapshot:
    """Without a name it is called snap0, snap1, … `still`: while it is entered, nobody writes.

    On disk when it returns. Raises Conflict for a name that is taken, LimpetError if the copy fails (a full disk).
    """
    place = f"{home.directory}/snapshots"
    os.makedirs(place, 0o700, exist_ok=True)
    path = f"{place}/{names.check(name, 'snapshot') if name else _free(place)}"
    if os.path.exists(path):
        raise Conflict(f"{home.what} has a snapshot {name} already", "choose another name", exit_code=1)
    new = store.temporary("snapshot")
    os.mkdir(new, 0o700)
    try:
        with still:
            copy(f"{home.directory}/{home.tree}", f"{new}/{home.tree}")
        sync(new)
        faults.reach("snapshot-copied")
        os.rename(new, path)
    except BaseException:
        remove_tree(new)
        raise
    sync_directory(place)
    return Snapshot(path)


def listed(home: Home) -> list[Snapshot]:
    """The oldest first."""
    place = f"{home.directory}/snapshots"
    found = os.listdir(place) if os.path.isdir(place) else []
    return sorted((Snapshot(f"{place}/{name}") for name in found), key=lambda each: (each.created, each.name))


def find(home: Home, name: str = "") -> Snapshot:
    """Without a name the latest. Raises NotFound."""
    known = {each.name: each for each in listed(home)}
    if not known:
        raise NotFound(f"{home.what} has no snapshot", f"`{home.command}` takes one", exit_code=1)
    if not name:
        return list(known.values())[-1]
    if name not in known:
        others = near(name, list(known))[:1] or list(known)
        hint = f"there is {', '.join(others[-_SHOWN:])}"
        raise NotFound(f"{home.what} has no snapshot {name}", hint, exit_code=1)
    return known[name]


def put_back(store: Store, home: Home, snapshot: Snapshot, ready: AbstractContextManager[object]) -> None:
    """The tree is what it was. The caller sees to it that nobody uses it while `ready` is entered: it changes then."""
    new = store.temporary("restore")
    try:
        os.mkdir(new, 0o700)
        quota.adopt(new, f"{home.directory}/{home.tree}")
        copy(f"{snapshot.path}/{home.tree}", new, made=True)
        sync(new)
        with ready:
            fs.renameat2(new, f"{home.directory}/{home.tree}", fs.RENAME_EXCHANGE)
            sync_directory(home.directory)
    finally:
        remove_tree(new)


def remove(store: Store, snapshot: Snapshot) -> None:
    aside = store.temporary("snapshot")
    os.rename(snapshot.path, aside)
    remove_tree(aside)


def copy(source: str, target: str, *, made: bool = False) -> None:
    """Raises LimpetError."""
    try:
        treecopy.copy_path(source, target, made=made)
    except OSError as e:
        raise LimpetError(f"copying {e.filename or source}: {e.strerror}", exit_code=1) from e


def sync(place: str) -> None:
    """What was copied is on disk when it returns: not while a container stands still for it."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fs.syncfs(fd)
    finally:
        os.close(fd)


def _free(place: str) -> str:
    number = 0
    while os.path.exists(f"{place}/snap{number}"):
        number += 1
    return f"snap{number}"
