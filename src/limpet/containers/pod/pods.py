"""Pods: containers that share namespaces, and live and die together (podman-pod(1)).

A pod is a row and an infra container (`infra`), which holds the namespaces. A container is in a pod by its options
(`pod`), for good. What state a pod is in is derived from its containers. The row is made first and goes last, so that
after a kill at any moment `pod rm` finds what there is, and a missing infra container is made at the next start.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from limpet import jsontext
from limpet.containers import names, state
from limpet.containers.options import SHM_SIZE, restart_policy
from limpet.containers.pod import infra
from limpet.errors import Conflict, Invalid, LimpetError, NotFound
from limpet.store import eventlog, faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.containers.options import Options
    from limpet.containers.state import Container, Status
    from limpet.store.store import Store

SHARED = ("ipc", "net", "uts")
"""What a pod shares unless it is said otherwise (Podman's default)."""

POLICIES = ("continue", "stop")
_DEFAULTS: dict[str, Any] = {
    "hostname": "",  # the pod's name if it is not said and the UTS namespace is shared
    "labels": {},
    "share": list(SHARED),
    "infra": True,
    "infra_name": "",
    "infra_image": "",
    "infra_command": [],
    "exit_policy": "continue",  # or stop: the infra container ends with the last other one
    "restart": "no",  # of the infra container, and of those containers that say nothing
    "network": "host",
    "networks": [],  # as a container's, with the next four
    "ip": "",
    "ip6": "",
    "mac_address": "",
    "network_alias": [],
    "publish": [],
    "limits": {},  # of all its containers together, as `limits.KEYS`
    "cgroup_parent": "",
    "add_host": [],
    "dns": [],
    "dns_search": [],
    "dns_option": [],
    "shm_size": SHM_SIZE,
    "sysctls": {},
    "volumes": [],  # these three: of every container in it
    "devices": [],
    "security_opt": [],
}


class Pod:
    """A row. `created`: Unix seconds. `options`: the keys above."""

    __slots__ = ("created", "id", "name", "options")

    def __init__(self, id: str, name: str, created: float, options: dict[str, Any]) -> None:
        self.id = id
        self.name = name
        self.created = created
        self.options = {**_DEFAULTS, **options}


def create(store: Store, name: str, **options: Any) -> Pod:
    """Makes a pod, and its infra container, not started. Raises Invalid, and Conflict for a name in use."""
    unknown = set(options) - set(_DEFAULTS)
    if unknown:
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
    for word in options.get("share", ()):
        if word not in infra.ATTRIBUTES:
            raise Invalid(f"a pod can't share '{word}'", f"{', '.join(infra.ATTRIBUTES)} and none are there")
    restart_policy(options.get("restart", "no"))
    if options.get("limits"):
        from limpet.containers.plan import limits

        limits.check(options["limits"])
        if not options.get("infra", True):
            raise Invalid("limits of a pod without infra container", "nobody would hold them: leave out --infra=false")
    pod = Pod(names.container_id(), names.check(name, "pod") if name else "", time.time(), options)
    if not pod.options["infra"]:
        if options.get("share"):
            raise Invalid("a pod without infra container shares nothing", "leave out --infra=false or --share")
        pod.options["share"] = []
    with store.db.transaction():
        pod.name = pod.name or _free_name(store, pod.id)
        if _taken(store, pod.name):
            raise Conflict(
                f"the name {pod.name} is already in use", "choose another, or remove what has it; --replace does both"
            )
        if "uts" in pod.options["share"] and not pod.options["hostname"]:
            pod.options["hostname"] = pod.name[:64]
        store.db.run(
            "INSERT INTO pod (id, name, created, options) VALUES (?, ?, ?, ?)",
            pod.id,
            pod.name,
            pod.created,
            jsontext.dumps({key: value for key, value in pod.options.items() if value != _DEFAULTS[key]}),
        )
    faults.reach("pod-row")
    if pod.options["infra"]:
        try:
            infra.make(store, pod)
        except BaseException:
            store.db.run("DELETE FROM pod WHERE id = ?", pod.id)
            raise
    tell(store, pod, "create")
    return pod


def _taken(store: Store, name: str) -> bool:
    """Pods and containers share one set of names, as in Podman."""
    return any(store.db.row(f"SELECT 1 FROM {table} WHERE name = ?", name) for table in ("pod", "container"))


def _free_name(store: Store, pod_id: str) -> str:
    for attempt in range(6):
        name = names.generate(attempt)
        if not _taken(store, name):
            return name
    return pod_id[:12]


def find(store: Store, text: str) -> Pod:
    """By name, by id, by the beginning of an id. Raises NotFound, Conflict."""
    query = "SELECT id, name, created, options FROM pod WHERE "
    row = store.db.row(f"{query}id = ?1 OR name = ?1", text)
    if row is None and text and set(text) <= set("0123456789abcdef"):
        found = store.db.rows(f"{query}substr(id, 1, ?) = ? LIMIT 2", len(text), text)
        if len(found) > 1:
            raise Conflict(f"several pods have an id that begins with {text}", "write more of it", exit_code=1)
        row = found[0] if found else None
    if row is None:
        raise NotFound(f"No such pod: {text}", _near(store, text), exit_code=1)
    return _pod(row)


def _near(store: Store, text: str) -> str:
    from limpet.nearest import nearest

    near = nearest(text, [name for (name,) in store.db.rows("SELECT name FROM pod")])
    return f"did you mean {near}?" if near else ""


def all_pods(store: Store) -> list[Pod]:
    """Every pod, the newest first."""
    return [_pod(row) for row in store.db.rows("SELECT id, name, created, options FROM pod ORDER BY created DESC, id")]


def _pod(row: Any) -> Pod:
    id, name, created, options = row
    return Pod(id, name, created, jsontext.loads(options))


class Member:
    """A container of a pod, and its state now."""

    __slots__ = ("container", "status")

    def __init__(self, container: Container, status: Status) -> None:
        self.container = container
        self.status = status

    @property
    def runs(self) -> bool:
        return self.status.state in ("running", "paused", "restarting")


def members(store: Store, pod: Pod) -> list[Member]:
    """The infra container first, then the others, the oldest first."""
    found = sorted(state.of_pod(store, pod.id), key=lambda each: (not each.options.infra, each.created))
    return [Member(container, state.status(store, container)) for container in found]


def status(found: Sequence[Member]) -> str:
    """Created, Running, Degraded, Paused, Stopped or Exited (Podman `libpod/pod_status.go`)."""
    states = [member.status.state for member in found]
    count = len(states)
    running = states.count("running") + states.count("restarting")
    ended = states.count("exited")
    if count and running == count:
        return "Running"
    if running:
        return "Degraded"
    if count and states.count("paused") == count:
        return "Paused"
    if ended:
        return "Exited" if ended == count else "Stopped"
    return "Created"


def tell(store: Store, pod: Pod, action: str) -> None:
    eventlog.write(store, "pod", action, pod.id, {**pod.options["labels"], "name": pod.name})


def infra_of(store: Store, pod: Pod) -> Container | None:
    """None for a pod without; one that a crash kept from being made is made."""
    for container in state.of_pod(store, pod.id):
        if container.options.infra:
            return container
    return infra.make(store, pod) if pod.options["infra"] else None


def join(store: Store, options: Options) -> None:
    """`options.pod`, a name or id, becomes an id, and the namespaces what the pod shares. Raises NotFound, Refused."""
    try:
        pod = find(store, options.pod)
    except LimpetError as e:
        e.exit_code = 125  # it is a container that was not made
        raise
    options.pod = pod.id
    options.pod_ends = pod.options["exit_policy"] == "stop"
    if options.restart == "no" and not options.auto_remove:
        options.restart = pod.options["restart"]
    holder = infra_of(store, pod)
    if holder is not None:
        infra.join(options, pod, holder)


def remove(store: Store, pod: Pod, *, force: bool = False, timeout: int | None = None) -> list[LimpetError]:
    """Takes the pod and all its containers away. Raises Conflict if one but the infra container runs, without `force`.

    The result: what could not be removed, for which the pod stays.
    """
    from limpet.containers import stop

    found = members(store, pod)
    running = [member.container for member in found if member.runs and not member.container.options.infra]
    if running and not force:
        raise Conflict(
            f"pod {pod.name} has containers that run: {', '.join(container.name for container in running)}",
            f"`limpet pod stop {pod.name}` ends them, `limpet pod rm -f {pod.name}` ends and removes them",
            exit_code=1,
        )
    if timeout is not None:
        from limpet.containers.pod import podlife

        podlife.stop(store, pod, timeout=timeout)
    stop.strike(store, [member.container for member in found])
    problems = []
    for _, problem in stop.remove_all(
        store, [member.container for member in reversed(found)], force=True, volumes=True, infra=True
    ):
        if problem is not None and not isinstance(problem, NotFound):
            problems.append(problem)
    if not problems:
        faults.reach("pod-members-gone")
        with store.db.transaction():
            left = state.of_pod(store, pod.id)
            if not left:
                store.db.run("DELETE FROM pod WHERE id = ?", pod.id)
        if left:
            raise Conflict(f"pod {pod.name}: a container was made in it just now", "remove it again", exit_code=1)
        tell(store, pod, "remove")
    return problems


def before_start(store: Store, container: Container) -> None:
    """What the container needs runs when this returns: a pod's infra container, those of --requires.

    Raises LimpetError. Nothing goes in a circle: a container names only those that were there before it.
    """
    from limpet.containers import start

    for required in container.options.requires:
        other = state.find(store, required)
        if not state.status(store, other).running:
            start.start(store, other)
    if container.options.infra or not container.options.pod:
        return
    row = store.db.row("SELECT id, name, created, options FROM pod WHERE id = ?", container.options.pod)
    holder = infra_of(store, _pod(row)) if row is not None else None
    if holder is not None and not state.status(store, holder).running:
        start.start(store, holder)
