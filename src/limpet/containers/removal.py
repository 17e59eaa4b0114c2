"""Taking a stopped container away: rows first, then files, so that a kill in between leaves only garbage."""

from __future__ import annotations

import os
import sys

from limpet import SOURCE
from limpet.containers import state
from limpet.containers.mounts import volumes
from limpet.containers.observe import events
from limpet.errors import LimpetError
from limpet.store import faults
from limpet.store.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from limpet.store.store import Store


def remove_container(store: Store, container_id: str, *, with_volumes: bool, durable: bool = True) -> None:
    """Removes the row, the directory, the run directory; `with_volumes`: anonymous volumes that nobody else mounts too.

    The container must not run. What is already gone is fine: two may remove the same one.
    """
    remove_containers(store, [(container_id, with_volumes)], durable=durable)


def remove_containers(store: Store, which: list[tuple[str, bool]], *, durable: bool = True) -> None:
    """The same for several (id, with volumes), whose rows go in one transaction: one sync for all of them."""
    gone: list[volumes.Volume] = []
    removed: list[state.Container] = []
    with store.db.transaction(durable=durable):
        for container_id, with_volumes in which:
            anonymous = _anonymous_volumes(store, container_id) if with_volumes else []
            container = state.lookup(store, container_id)
            if container is not None:
                removed.append(container)
            store.db.run("DELETE FROM container WHERE id = ?", container_id)
            for volume in anonymous:
                store.db.run("DELETE FROM volume WHERE name = ?", volume.name)
            gone += anonymous
    faults.reach("container-row-gone")
    for container in removed:
        if container.options.storage_opts:
            from limpet.containers.mounts import quota

            quota.release(f"{store.container_path(container.id)}/upper")
        events.tell(store, container, "destroy")
    for container_id, _ in which:
        remove_files(store, container_id)
    if state.ruled(store):
        from limpet.containers.network import policing

        policing.refresh(store)
    for volume in gone:
        volumes.remove_unnamed(store, volume)


def collect(store: Store, container_id: str) -> bool:
    """Whether it was made with `--rm` and lost its monitor: then it should be gone, and goes now."""
    container = state.lookup(store, container_id)
    if container is None or not (container.options.auto_remove and state.status(store, container).lost):
        return False
    from limpet.containers import stop

    try:
        stop.remove(store, container)
    except LimpetError:
        pass  # somebody else takes it, or it can't be removed just now: nobody asked for it
    return True


def _anonymous_volumes(store: Store, container_id: str) -> list[volumes.Volume]:
    rows = store.db.rows(
        "SELECT volume FROM container_volume JOIN volume ON name = volume WHERE container_id = ?1 AND anonymous"
        " AND NOT EXISTS (SELECT 1 FROM container_volume o WHERE o.volume = name AND o.container_id != ?1)",
        container_id,
    )
    return [volumes.find(store, name) for (name,) in rows]


def remove_files(store: Store, container_id: str) -> None:
    """The files of a container that no row names: out of sight by one rename, then deleted."""
    aside = store.temporary("container")
    try:
        os.rename(store.container_path(container_id), aside)
    except FileNotFoundError:
        pass
    else:
        faults.reach("container-renamed")
        remove_tree(aside)
    remove_tree(store.run_path(container_id))


def remove_from_monitor(store: Store, container_id: str, lock: int) -> NoReturn:
    """The monitor of a `--rm` container whose client is gone becomes a fresh process that removes it.

    A forked process must not use SQLite again (`store.forget`). The lock stays held until all is gone, so that whoever
    waits for the container sees its end only then.
    """
    os.set_inheritable(lock, True)
    source = SOURCE
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from limpet.containers.removal import remove_container\n"
        "from limpet.store.store import Store\n"
        "remove_container(Store(sys.argv[2], sys.argv[3]), sys.argv[4], with_volumes=True)\n"
    )
    os.execv(sys.executable, [sys.executable, "-S", "-I", "-c", code, source, store.root, store.run, container_id])
