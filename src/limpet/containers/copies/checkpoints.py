"""Checkpoints of a container: all its processes, with their memory, as files. It goes on from them later, or elsewhere.

`containers/<id>/checkpoints/<name>/` holds CRIU's images and `checkpoint.json`; a checkpoint goes with its container.
What the container wrote to its own files stays where it is: a checkpoint has memory, `snapshot` has files, and an
export (`checkpointarchive`) has both.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from limpet import jsontext
from limpet.containers import attach, names, state
from limpet.containers.copies import criu, snapshotting
from limpet.containers.observe import events
from limpet.errors import Conflict, Corrupt, NotFound, Refused
from limpet.nearest import near
from limpet.store import faults, files
from limpet.store.files import remove_tree, sync_directory

if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.store.store import Store

VERSION = 1
"""Of checkpoint.json."""

_FACTS = "checkpoint.json"


class Checkpoint(NamedTuple):
    """`created`: Unix seconds. `flags`: CRIU's that its restoring needs too. `pipes`: see `criu.restore`."""

    name: str
    path: str
    created: float
    flags: list[str]
    pipes: list[int]


def take(
    store: Store,
    container: Container,
    name: str = "",
    *,
    leave_running: bool = False,
    tcp_established: bool = False,
    file_locks: bool = False,
) -> Checkpoint:
    """Without a name it is called checkpoint0, checkpoint1, … On disk when it returns.

    The container has ended then, unless `leave_running`. Raises Conflict if it does not run or the name is taken,
    Refused for what can't be kept, LimpetError with what CRIU says.
    """
    criu.program()
    status = state.status(store, container)
    if status.state == "paused":
        raise Conflict(f"container {container.name} is paused", f"limpet unpause {container.name}", exit_code=1)
    if status.state != "running":
        raise Conflict(f"container {container.name} is not running", exit_code=1)
    _refuse(container, leave_running)
    place = f"{store.container_path(container.id)}/checkpoints"
    os.makedirs(place, 0o700, exist_ok=True)
    path = f"{place}/{names.check(name, 'checkpoint') if name else _free(place)}"
    if os.path.exists(path):
        raise Conflict(f"container {container.name} has a checkpoint {name} already", "choose another", exit_code=1)
    flags = [*(["--tcp-established"] if tcp_established else []), *(["--file-locks"] if file_locks else [])]
    new = store.temporary("checkpoint")
    os.mkdir(new, 0o700)
    stopped = f"{store.run_path(container.id)}/stopped"
    try:
        with open(f"{store.container_path(container.id)}/config.json", "rb") as file:
            config = jsontext.loads(file.read())
        if "org.limpet.mounts" in config.get("annotations", {}):
            raise Refused(f"container {container.name}: mounts of images and subpaths can't be kept yet", exit_code=1)
        if not leave_running:
            files.put(stopped, b"")  # its end is wanted: no policy restarts it
        try:
            what = f"container {container.name}"
            more = [*flags, *(["--leave-running"] if leave_running else [])]
            criu.dump(status.pid, new, config, container.group, more, what)
        except BaseException:
            if not leave_running and os.path.exists(stopped):
                os.unlink(stopped)
            raise
        facts = {
            "version": VERSION,
            "created": time.time(),
            "flags": flags,
            "pipes": status.pipes,
            "sizes": _sizes(new),
        }
        files.put(f"{new}/{_FACTS}", jsontext.dumps(facts).encode())
        snapshotting.sync(new)
        faults.reach("checkpoint-taken")
        os.rename(new, path)
    except BaseException:
        remove_tree(new)
        raise
    sync_directory(place)
    if not leave_running:
        attach.wait(store, container)
    events.tell(store, container, "checkpoint")
    return find(store, container, os.path.basename(path))


def listed(store: Store, container: Container) -> list[Checkpoint]:
    """The oldest first."""
    place = f"{store.container_path(container.id)}/checkpoints"
    found = [_load(f"{place}/{name}") for name in (os.listdir(place) if os.path.isdir(place) else [])]
    return sorted(found, key=lambda each: (each.created, each.name))


def find(store: Store, container: Container, name: str = "") -> Checkpoint:
    """Without a name the latest. Raises NotFound."""
    known = {each.name: each for each in listed(store, container)}
    if not known:
        hint = f"`limpet checkpoint create {container.name}` takes one"
        raise NotFound(f"container {container.name} has no checkpoint", hint, exit_code=1)
    if not name:
        return list(known.values())[-1]
    if name not in known:
        others = near(name, list(known))[:1] or list(known)[-3:]
        raise NotFound(
            f"container {container.name} has no checkpoint {name}", f"there is {', '.join(others)}", exit_code=1
        )
    return known[name]


def verify(checkpoint: Checkpoint) -> None:
    """Whether all files are there and whole, as far as their sizes say: CRIU may wait for ever for what is missing.

    Raises Corrupt.
    """
    with open(f"{checkpoint.path}/{_FACTS}", "rb") as file:
        wanted: dict[str, int] = jsontext.loads(file.read())["sizes"]
    found = _sizes(checkpoint.path)
    wrong = sorted(name for name, size in wanted.items() if found.get(name) != size)
    if wrong:
        what = f"checkpoint {checkpoint.name} is damaged: {wrong[0]} has not the {wanted[wrong[0]]} bytes that it had"
        raise Corrupt(what, "only an ordinary start is left", exit_code=1)


def remove(store: Store, checkpoint: Checkpoint) -> None:
    aside = store.temporary("checkpoint")
    os.rename(checkpoint.path, aside)
    remove_tree(aside)


def _refuse(container: Container, leave_running: bool) -> None:
    options = container.options
    for wrong, why, hint in (
        (options.tty, "it has a terminal, which CRIU can't keep for us", "only containers without -t"),
        (options.runtime != "limpet", f"it is run by {options.runtime}", "only limpet's own runtime"),
        (options.userns == "auto", "it has a user namespace of its own", "only containers without --userns auto"),
        (
            options.auto_remove and not leave_running,
            "it and its checkpoint would go, by --rm",
            "--leave-running",
        ),
        (
            any(kind.startswith("container:") for kind in (options.pid, options.ipc, options.network)),
            "it lives in namespaces of another container",
            "only containers with their own",
        ),
    ):
        if wrong:
            raise Refused(f"container {container.name} can't be checkpointed: {why}", hint, exit_code=1)


def _sizes(place: str) -> dict[str, int]:
    return {entry.name: entry.stat().st_size for entry in os.scandir(place) if entry.name != _FACTS}


def _load(path: str) -> Checkpoint:
    with open(f"{path}/{_FACTS}", "rb") as file:
        facts: dict[str, Any] = jsontext.loads(file.read())
    name = os.path.basename(path)
    if facts["version"] > VERSION:
        raise Refused(f"checkpoint {name} was written by a newer limpet", f"this one knows version {VERSION}")
    return Checkpoint(name, path, facts["created"], facts["flags"], facts["pipes"])


def _free(place: str) -> str:
    number = 0
    while os.path.exists(f"{place}/checkpoint{number}"):
        number += 1
    return f"checkpoint{number}"
