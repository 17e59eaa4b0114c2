"""Other limits, restart policy, environment and labels for a container that is there (moby `container_unix.go`)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from limpet.containers import restarting, state
from limpet.containers.observe import events
from limpet.containers.options import restart_policy
from limpet.containers.plan import limits
from limpet.errors import Conflict, Invalid, Refused
from limpet.kernel import controllers
from limpet.store import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limpet.containers.plan.limits import Limits
    from limpet.containers.state import Container
    from limpet.errors import LimpetError
    from limpet.store.store import Store


def update(
    store: Store,
    container: Container,
    given: Limits,
    restart: str = "",
    *,
    env: Sequence[str] = (),
    labels: Mapping[str, str | None] | None = None,
    storage: dict[str, str] | None = None,
) -> None:
    """At once for a running container, and kept for its next start. Raises Invalid, Conflict, Refused.

    A limit of 0 is taken away, where the kernel can (`limits.LIFTABLE`).
    Where the kernel refuses a limit (more memory is in use than it allows) nothing is kept. `env`: KEY=VALUE, or KEY to
    take it away, at the next start only. `labels`: None takes one away. `storage`: of --storage-opt; a container that
    was made without gets it at its next start.
    """
    options = container.options
    if restart:
        policy, _ = restart_policy(restart)
        if options.auto_remove and policy != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
    there = options.limits.keys()
    given = {name: value for name, value in given.items() if value or name in there or name not in limits.LIFTABLE}
    merged, resources = limits.lifted(merge(options.limits, given))
    limits.check(merged)
    if given and state.status(store, container).running:
        try:
            controllers.update(container.group, resources)
        except controllers.LimitError as e:
            with suppress(OSError):
                controllers.apply(container.group, limits.resources(options.limits))  # those that were taken already
            raise refusal(container, e) from e
        except FileNotFoundError:
            pass  # it ended just now
    if storage:
        from limpet.containers.mounts import quota

        size = quota.size_of(storage, "--storage-opt")
        held = quota.change(f"{store.container_path(container.id)}/upper", size)
        if not held and state.status(store, container).running:
            files.put(f"{store.run_path(container.id)}/storage-limit", str(size).encode())  # for who watches it
        options.storage_opts = storage
    options.limits = merged
    options.restart = restart or options.restart
    options.env = merge_env(options.env, env)
    for key, value in (labels or {}).items():
        if value is None:
            options.labels.pop(key, None)
        else:
            options.labels[key] = value
    with store.db.transaction():
        store.db.run("UPDATE container SET options = ? WHERE id = ?", options.to_json(), container.id)
    restarting.leave_word(store, container)
    events.tell(store, container, "update")


def merge_env(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """As if the new ones had been given after the old ones: the last of each key counts."""
    return list({text.partition("=")[0]: text for text in (*old, *new)}.values())


def merge(old: Limits, new: Limits) -> Limits:
    """Docker's rules for what can't be said of a container that has the other kind of limit already."""
    for ours, theirs, words in (
        ("cpu-quota", "cpus", "CPU Quota cannot be updated as NanoCPUs has already been set"),
        ("cpu-period", "cpus", "CPU Period cannot be updated as NanoCPUs has already been set"),
        ("cpus", "cpu-quota", "NanoCPUs cannot be updated as CPU Quota has already been set"),
        ("cpus", "cpu-period", "NanoCPUs cannot be updated as CPU Period has already been set"),
    ):
        if new.get(ours) and theirs in old and theirs not in new:
            raise Invalid(f"Conflicting options: {words}", exit_code=1)
    if "memory-swap" not in new and 0 < old.get("memory-swap", 0) < new.get("memory", 0):
        raise Invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            exit_code=1,
        )
    devices = {  # each device has its own
        name: [[path, value] for path, value in dict((*old.get(name, ()), *new[name])).items()]
        for name in limits.DEVICES
        if name in new
    }
    return {**old, **new, **devices}


def refusal(container: Container, error: controllers.LimitError) -> LimpetError:
    """The kernel's no in words."""
    hint = ""
    if "memory" in error.what:
        hint = "more may be in use already than the limit allows: `limpet stats` shows it"
    return Refused(f"container {container.name}: {error.what}: {error.strerror}", hint, exit_code=1)
