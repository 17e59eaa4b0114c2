"""Where systemd runs the machine, a monitor leaves what started it, into a scope for itself and its container.

Whoever starts a container may be a unit, a timer, or a session over SSH: what ends with it shall not be the containers.
Elsewhere nobody stops what a process has started, and a container's group is made plainly, by `kernel.cgroup`.
"""

from __future__ import annotations

import os

from limpet.errors import LimpetError
from limpet.kernel import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.kernel.systemd import Scope


def ask(container: Container) -> Scope | None:
    """Asks systemd for a scope of the calling process; None where there is no systemd, or it manages no groups.

    The answer takes some milliseconds, in which there is other work to do: `enter` waits for it.
    """
    if not os.path.isdir("/run/systemd/system"):
        return None
    from limpet.containers.stop import STOP_TIMEOUT
    from limpet.kernel import systemd

    name = cgroup.scope_name(container.group)
    if not systemd.makes_scopes() or f"/{name}/" in cgroup.of_self():
        return None  # we are in it: it waited there for a call, or the guardian of a killed monitor has started us
    options = container.options
    parent = options.cgroup_parent if options.cgroup_parent.endswith(".slice") else systemd.SLICE
    seconds = STOP_TIMEOUT if options.stop_timeout is None else options.stop_timeout
    return systemd.Scope(
        name, os.getpid(), f"limpet container {container.name}", seconds, parent, cgroup.of_user_instance()
    )


def enter(container: Container, scope: Scope) -> None:
    """Waits for the scope, and goes into the monitor's group in it: no process may be beside groups with limits."""
    scope.wait()
    place = cgroup.scope(container.group)
    if not os.path.isdir(place):
        raise LimpetError(f"container {container.name}: systemd made its scope, but not at {place}")
    monitor = f"{place}/{cgroup.MONITOR}"
    cgroup.make(monitor)
    try:
        cgroup.enter(monitor)
    except FileNotFoundError as e:  # cgroup-v2.rst, "Delegation Containment"
        raise LimpetError(
            f"container {container.name}: limpet is in a control group namespace, and may not leave it",
            "call it from outside; or mount version 2 of control groups without nsdelegate",
        ) from e


def leave(container: Container) -> None:
    """The two at once, for a monitor that has nothing to do meanwhile."""
    scope = ask(container)
    if scope is not None:
        enter(container, scope)


def approach() -> None:
    """For a user's program that is to go into a container's group (`exec`): only who is in the same instance may.

    The calling process leaves its session for a scope of its own. Root may go from anywhere to anywhere.
    """
    if f"/{os.path.basename(cgroup.root() or '')}/" in cgroup.of_self():
        return
    from limpet.kernel import systemd

    name = cgroup.scope_name(f"exec-{os.getpid()}")
    systemd.Scope(name, os.getpid(), "limpet exec", 0, user=True).wait()
