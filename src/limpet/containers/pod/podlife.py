"""What happens to all containers of a pod: start, stop, kill, pause; and the end of a pod whose last one has ended."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from limpet import SOURCE
from limpet.containers import state
from limpet.containers.monitor import early
from limpet.containers.pod import pods
from limpet.errors import Conflict, LimpetError
from limpet.kernel import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.containers.pod.pods import Pod
    from limpet.containers.state import Container
    from limpet.store.store import Store

_LOOK = 0.02  # seconds between two looks at a monitor that is about to end


def start(store: Store, pod: Pod) -> list[LimpetError]:
    """The infra container, then the others, the oldest first; those that run are left as they are. What failed."""
    from limpet.containers import start as starting

    pods.infra_of(store, pod)
    problems = []
    for member in pods.members(store, pod):
        if member.runs:
            continue
        try:
            starting.start(store, member.container)
        except LimpetError as e:
            problems.append(e)
            if member.container.options.infra:
                break  # the others would join it
    pods.tell(store, pod, "start")
    return problems


def stop(store: Store, pod: Pod, *, timeout: int | None = None) -> list[LimpetError]:
    """All at the same time, the infra container last. What failed."""
    from limpet.containers import stop as stopping

    found = [member.container for member in pods.members(store, pod) if member.runs]

    def end(container: Container) -> None:
        stopping.stop(store, container, timeout=timeout)

    problems = _together(store, [each for each in found if not each.options.infra], end)
    if not problems:
        problems = _each([each for each in found if each.options.infra], end)
    pods.tell(store, pod, "stop")
    return problems


def kill(store: Store, pod: Pod, signal: str) -> list[LimpetError]:
    """One signal to all that run; to the infra container only if it is SIGKILL."""
    from limpet.containers import stop as stopping

    number = signals.number(signal)
    found = [member.container for member in pods.members(store, pod) if member.status.running]
    if number != signals.SIGKILL:
        found = [container for container in found if not container.options.infra]
    if not found:
        raise Conflict(f"pod {pod.name}: no container of it runs", exit_code=1)
    pods.tell(store, pod, "kill")
    return _each(list(reversed(found)), lambda container: stopping.kill(store, container, signal))


def pause(store: Store, pod: Pod) -> list[LimpetError]:
    from limpet.containers import pause as pausing

    found = [member.container for member in pods.members(store, pod) if member.status.state == "running"]
    if not found:
        raise Conflict(f"pod {pod.name}: no container of it runs", exit_code=1)
    problems = _each(list(reversed(found)), lambda container: pausing.pause(store, container))
    pods.tell(store, pod, "pause")
    return problems


def unpause(store: Store, pod: Pod) -> list[LimpetError]:
    from limpet.containers import pause as pausing

    found = [member.container for member in pods.members(store, pod) if member.status.state == "paused"]
    if not found:
        raise Conflict(f"pod {pod.name}: no container of it is paused", exit_code=1)
    problems = _each(found, lambda container: pausing.unpause(store, container))
    pods.tell(store, pod, "unpause")
    return problems


def _each(containers: Sequence[Container], act: Callable[[Container], object]) -> list[LimpetError]:
    problems = []
    for container in containers:
        try:
            act(container)
        except LimpetError as e:
            problems.append(e)
    return problems


def _together(store: Store, containers: Sequence[Container], act: Callable[[Container], object]) -> list[LimpetError]:
    """As `_each`, a forked process for each, so that the slowest decides how long it takes."""
    if len(containers) < 2:
        return _each(containers, act)
    sys.stdout.flush()
    children = []
    for container in containers:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                store.forget()
                act(container)
                os._exit(0)
            except LimpetError as e:
                os.write(write, f"{e.message}\n{e.hint}".encode()[:4096])
            finally:
                os._exit(1)
        os.close(write)
        children.append((container, pid, read))
    problems = []
    for container, pid, read in children:
        with open(read, "rb") as file:
            message, _, hint = file.read().decode(errors="replace").partition("\n")
        if os.waitpid(pid, 0)[1]:
            problems.append(LimpetError(message or f"container {container.name}: it could not be ended", hint))
    return problems


def tell_end(store: Store, container: Container) -> None:
    """By the monitor of one whose pod ends with its last container: a process of its own looks whether that was it.

    A monitor must not open the database. It goes on and ends; the process waits for that.
    """
    source = SOURCE
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from limpet.containers.pod.podlife import ended\n"
        "from limpet.store.store import Store\n"
        "ended(Store(sys.argv[2], sys.argv[3]), *sys.argv[4:])\n"
    )
    command = [
        sys.executable,
        "-S",
        "-I",
        "-c",
        code,
        source,
        store.root,
        store.run,
        container.options.pod,
        container.id,
    ]
    early.aside(lambda: os.execv(sys.executable, command))  # above all without the monitor's lock


def ended(store: Store, pod_id: str, container_id: str) -> None:
    """Stops the infra container if no other one of the pod runs, once the monitor of `container_id` is gone.

    Of two that end at once each waits for its own monitor before it looks: the later one sees both gone.
    """
    from limpet.containers import stop as stopping

    while state.monitored(store, container_id):
        time.sleep(_LOOK)
    found = [(each, state.status(store, each)) for each in state.of_pod(store, pod_id) if each.id != container_id]
    if any(status.state in ("running", "paused", "restarting") for each, status in found if not each.options.infra):
        return
    for each, status in found:
        if each.options.infra and status.running:
            stopping.stop(store, each)
