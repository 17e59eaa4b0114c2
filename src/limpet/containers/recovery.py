"""What becomes of containers that were lost: their monitor was killed, or the machine went down.

A monitor takes its container along, and nobody is there to do what it would have done at the end: remove a container
that was made with `--rm`, start one again that has a restart policy. There is no daemon that would notice, so this is
a step of its own, `limpet system recover`: by hand, at boot, or from time to time. It asks nobody's leave to change
anything that a user did: what was stopped by hand stays stopped.
"""

from __future__ import annotations

import os

from limpet.containers import start, state, stop
from limpet.containers.network import addressing, policing
from limpet.containers.options import restart_policy
from limpet.errors import Conflict, LimpetError, NotFound
from limpet.kernel import cgroup, controllers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.containers.state import Container, Status
    from limpet.store.store import Store


def due(store: Store, container: Container, status: Status) -> bool:
    """Whether its restart policy wants a container started again that ended with its monitor."""
    if not status.lost or os.path.exists(f"{store.run_path(container.id)}/stopped"):
        return False
    policy, most = restart_policy(container.options.restart)
    if policy == "on-failure":
        return status.exit_code != 0 and (most == 0 or status.restarts < most)
    return policy != "no"


def recover(store: Store, say: Callable[[str], None]) -> list[LimpetError]:
    """Removes lost `--rm` containers, starts those that are due, the oldest first, and takes empty groups away.

    `say` gets a line for each. The result: what could not be done. Two at once are fine.
    """
    failed = []
    for container in reversed(state.all_containers(store)):
        try:
            if done := recover_one(store, container):
                say(f"{container.name}: {done}")
        except LimpetError as e:
            failed.append(e)
    if os.path.exists(f"{store.run}/volumes"):
        from limpet.containers.mounts import volumemounts

        volumemounts.recover(store)
    for what in collect_networks(store):
        say(f"{what} removed")
    groups = len(collect_groups(store))
    addressing.collect(store)
    policing.collect()
    if groups:
        say(f"{groups} empty control group{'' if groups == 1 else 's'} removed")
    return failed


def recover_one(store: Store, container: Container) -> str:
    """The same for one: what was done, or "". Raises LimpetError."""
    status = state.status(store, container)
    try:
        if status.lost and container.options.auto_remove:
            stop.remove(store, container)
            return "removed (--rm)"
        if due(store, container, status):
            start.start(store, container)
            return f"started (--restart {container.options.restart})"
    except (NotFound, Conflict):
        pass  # somebody else was faster
    return ""


def shut_down(store: Store, container: Container) -> str:
    """Stops it as a machine that goes down would, but gently: `recover` starts again what has a restart policy.

    A remark about a slow stop, or "". Raises LimpetError.
    """
    wanted = state.status(store, container).state in ("running", "paused", "restarting")
    remark = stop.stop(store, container)
    policy, _ = restart_policy(container.options.restart)
    if wanted and policy in ("always", "unless-stopped") and os.path.isdir(store.container_path(container.id)):
        state.lose(store, container)
    return remark


def collect_networks(store: Store) -> list[str]:
    """Takes away what networks of this store have in the kernel and no running container needs; what that was."""
    if not os.path.exists(f"{store.run}/network.lock"):
        return []  # none was used since the boot
    from limpet.network.private import upkeep

    return upkeep.settle(store)


def collect_groups(store: Store) -> list[str]:
    """Takes away the control groups of this store's containers that are no more; the paths of those that went."""
    removed = []
    for place in orphaned_groups(store):
        controllers.remove(os.path.basename(place))
        if cgroup.remove(place):
            removed.append(place)
    return removed


def orphaned_groups(store: Store) -> list[str]:
    """Paths. Nobody can be just making one of these: the row is there before the group, and goes after it.

    Those of a build's steps have no row; they go with the process that made them.
    """
    return [
        place
        for place in cgroup.owned(store.root)
        if store.db.row("SELECT 1 FROM container WHERE id = ?", os.path.basename(place)) is None
        and not cgroup.process_lives(os.path.basename(place))
    ]
