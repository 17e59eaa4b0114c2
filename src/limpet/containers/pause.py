"""A container stands still, and goes on: by the freezer of its cgroup2 group (cgroup-v2.rst, "Core Interface Files").

Nothing is remembered: that it is paused is what the group says (`state.status`), so no crash can make it wrong. The
monitor is not in the group. It needs not be awake for this, and goes on serving whoever is attached.
"""

from __future__ import annotations

from limpet.containers import state
from limpet.containers.observe import events
from limpet.errors import Conflict, LimpetError, Refused
from limpet.kernel import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.store.store import Store

PATIENCE = 10.0
"""Seconds that every process gets to stand still. One that waits for a device or a file server can't yet."""


def pause(store: Store, container: Container) -> None:
    """Returns when all its processes stand still. Conflict if it does not run, or is paused (moby `pause.go`)."""
    found = state.status(store, container).state
    if found == "restarting":
        raise Conflict(f"Container {container.name} is restarting, wait until the container is running", exit_code=1)
    if found == "paused":
        raise Conflict(f"Container {container.name} is already paused", exit_code=1)
    place = cgroup.path(container.group)
    if place is None and cgroup.delegated():
        raise Refused("pausing needs a control group of yours", cgroup.WAY, exit_code=1)
    if place is None:
        raise Refused("pausing needs cgroup version 2, which this host does not mount", exit_code=1)
    try:
        if found != "running":
            raise FileNotFoundError
        cgroup.freeze(place)
        if not cgroup.settled(place, True, PATIENCE):
            cgroup.thaw(place)
            raise LimpetError(
                f"container {container.name} did not stand still within {PATIENCE:.0f} s, and goes on",
                "a process of it waits for a device or a file server",
                exit_code=1,
            )
    except FileNotFoundError:
        raise Conflict(f"Container {container.name} is not running", exit_code=1) from None
    events.tell(store, container, "pause")


def unpause(store: Store, container: Container) -> None:
    """Raises Conflict if it is not paused."""
    place = cgroup.path(container.group)
    try:
        if place is None or state.status(store, container).state != "paused":
            raise FileNotFoundError
        cgroup.thaw(place)
    except FileNotFoundError:
        raise Conflict(f"Container {container.name} is not paused", exit_code=1) from None
    events.tell(store, container, "unpause")
