"""Ending a container: stop, kill, wait, and taking it away by force.

Every way to an end leads past the same three facts: the mark `<run>/<id>/stopped` says that somebody wanted it (so that
no restart policy acts), a pidfd says when PID 1 is gone, and the monitor's lock says when all is written down.
"""

from __future__ import annotations

import os
import select
import time

from limpet import jsontext
from limpet.containers import attach, removal, restarting, state
from limpet.containers.observe import events
from limpet.errors import Conflict, LimpetError, NotFound, Refused
from limpet.kernel import cgroup, process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from limpet.containers.state import Container
    from limpet.store.store import Store

STOP_TIMEOUT = 10
"""Seconds between the stop signal and SIGKILL (moby `daemon/stop.go`)."""

KILL_TIMEOUT = 10
"""Seconds within which SIGKILL has to end a container (moby `daemon/kill.go`)."""

BATCH = 64
"""Containers whose rows go in one transaction; each holds a descriptor meanwhile."""

PATIENCE = 3.0
"""Seconds that `remove` leaves the monitor of a killed container to put its affairs in order."""


def stop(
    store: Store,
    container: Container,
    *,
    timeout: int | None = None,
    signal: str = "",
    explain: Callable[[str], None] | None = None,
) -> str:
    """Ends it; one that does not run is fine. A remark for the user about a slow stop, or "".

    `timeout`: seconds until SIGKILL, -1 to wait for ever; None for the container's own, else 10. `explain` gets a
    remark as soon as the stop takes more than a second. Raises Refused if even SIGKILL is no end.
    """
    number = signals.number(signal or stop_signal(store, container))
    seconds = container.options.stop_timeout if timeout is None else timeout
    seconds = STOP_TIMEOUT if seconds is None else seconds
    remark, ended = "", 0
    ran = False
    while True:
        # Again and again: a start or a restart may be under way, and sees the mark too late.
        _mark(store, container)
        status = state.status(store, container)
        pidfd = _open(store, container, status) if status.running and status.pid != ended else -1
        if pidfd >= 0:
            ran = True
            events.tell(store, container, "kill", signal=number)
            try:
                remark = _end(store, container, status, pidfd, number, seconds, explain)
            finally:
                os.close(pidfd)
            ended = status.pid
        if wait_for_monitor(store, container, 0.2):
            if ran:
                events.tell(store, container, "stop")
            return remark


def end_run(store: Store, container: Container) -> None:
    """As `stop`, but its monitor may start it again."""
    status = state.status(store, container)
    pidfd = _open(store, container, status) if status.running else -1
    if pidfd >= 0:
        seconds = STOP_TIMEOUT if container.options.stop_timeout is None else container.options.stop_timeout
        number = signals.number(stop_signal(store, container))
        events.tell(store, container, "kill", signal=number)
        try:
            _end(store, container, status, pidfd, number, seconds, None)
        finally:
            os.close(pidfd)


def kill(store: Store, container: Container, signal: str = "KILL") -> None:
    """Sends one signal to PID 1. Raises Conflict if the container does not run."""
    number = signals.number(signal)
    status = state.status(store, container)
    pidfd = _open(store, container, status) if status.running else -1
    if pidfd < 0:
        raise Conflict(
            f"cannot kill container: {container.name}: container {container.id[:12]} is not running", exit_code=1
        )
    configured = stop_signal(store, container, default="")
    by_hand = not configured or number == signals.number(configured) or number == signals.SIGKILL
    if by_hand:
        _mark(store, container)  # moby `daemon/kill.go`: which signals count as a stop by hand, and end a pause
    events.tell(store, container, "kill", signal=number)
    try:
        if number == signals.SIGKILL:
            kill_all(container, pidfd)
            _must_go(container, pidfd)
            wait_for_monitor(store, container)
        else:
            process.pidfd_send_signal(pidfd, number)
            if by_hand:
                _thaw(container, status)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def wait(store: Store, container: Container) -> int:
    """Until the run that is going on ends, if one is: the exit code of the last run."""
    code = attach.wait(store, container)
    return state.status(store, container).exit_code if code is None else code


def remove(store: Store, container: Container, *, force: bool = False, volumes: bool = False) -> None:
    """Takes it away. Raises Conflict if it runs and `force` is not said; with `force` it always ends.

    NotFound: somebody else took it meanwhile.
    """
    ((_, problem),) = remove_all(store, [container], force=force, volumes=volumes)
    if problem is not None:
        raise problem


def remove_all(
    store: Store,
    containers: Sequence[Container],
    *,
    force: bool = False,
    volumes: bool = False,
    infra: bool = False,
) -> Iterator[tuple[Container, LimpetError | None]]:
    """Takes several away, with one sync for `BATCH` of them; tells of each how it went, when it is gone.

    `infra`: the pods of infra containers go too, or else these stay.
    """
    for start in range(0, len(containers), BATCH):
        batch = containers[start : start + BATCH]
        problems: dict[str, LimpetError] = {}
        locks: list[int] = []
        try:
            for container in batch:
                try:
                    if container.options.infra and not infra:
                        raise _infra(store, container)
                    locks.append(_hold(store, container, force=force))
                    cgroup.clear(container.group)
                except LimpetError as e:
                    problems[container.id] = e
            which = [(c.id, volumes or c.options.auto_remove) for c in batch if c.id not in problems]
            removal.remove_containers(store, which)
        finally:
            for lock in locks:
                if lock >= 0:
                    os.close(lock)
        for container in batch:
            yield container, problems.get(container.id)


def _infra(store: Store, container: Container) -> LimpetError:
    row = store.db.row("SELECT name FROM pod WHERE id = ?", container.options.pod)
    name = row[0] if row else container.options.pod[:12]
    return Conflict(
        f"container {container.name} is the infra container of pod {name}: it goes with the pod",
        f"limpet pod rm {name}",
        exit_code=1,
    )


def _hold(store: Store, container: Container, *, force: bool) -> int:
    """The lock of a container that does not run (any more): nobody starts it. -1: somebody else has it for long."""
    lock = _lock(store, container)
    deadline = time.monotonic() + PATIENCE
    while lock < 0:
        status = state.status(store, container)
        if not force and status.state in ("running", "paused", "restarting"):
            raise Conflict(
                f'cannot remove container "/{container.name}": container is {status.state}',
                "unpause it and stop it before removing, or force remove"
                if status.state == "paused"
                else "stop the container before removing or force remove",
                exit_code=1,
            )
        late = time.monotonic() > deadline
        if late and not force:
            raise Conflict(f"container {container.name} is being started, or copied from or to", "try again")
        if force:
            _mark(store, container)
            _kill_now(store, container, status, monitor_too=late)
        wait_for_monitor(store, container, 0.2)
        lock = _lock(store, container)
        if lock < 0 and time.monotonic() > deadline + PATIENCE:
            break  # somebody holds it who is no monitor: what he does will fail
    return lock


def strike(store: Store, containers: Sequence[Container]) -> None:
    """SIGKILL to all that run, before each is removed: their monitors finish at the same time, not one by one."""
    for container in containers:
        status = state.status(store, container)
        if status.running:
            _mark(store, container)
            _kill_now(store, container, status, monitor_too=False)


def rename(store: Store, container: Container, name: str) -> None:
    """Raises Invalid for a bad name, Conflict for one in use."""
    from limpet.containers import names

    name = names.check(name)
    with store.db.transaction():
        taken = store.db.row("SELECT id FROM container WHERE name = ?", name)
        if taken is not None and taken[0] == container.id:
            raise Conflict(f"container {name} has that name already", "choose another name", exit_code=1)
        if taken is not None:
            raise Conflict(
                f'the container name "/{name}" is already in use by container "{taken[0]}"',
                "remove or rename that one, or choose another name",
                exit_code=1,
            )
        old, container.name = container.name, name
        container.options.name = name
        store.db.run(
            "UPDATE container SET name = ?, options = ? WHERE id = ?", name, container.options.to_json(), container.id
        )
    restarting.leave_word(store, container)
    events.tell(store, container, "rename", oldName=f"/{old}")
    if container.options.networks:
        from limpet.containers import recovery

        recovery.collect_networks(store)  # the others there know it by its name


def _has_init(store: Store, container: Container) -> bool:
    try:
        with open(f"{store.container_path(container.id)}/config.json", "rb") as file:
            annotations = jsontext.loads(file.read()).get("annotations") or {}
    except (OSError, ValueError):
        return False  # it is being removed
    return bool(annotations.get("org.limpet.init", "false") != "false")


def stop_signal(store: Store, container: Container, default: str = "TERM") -> str:
    """The user's, the image's, or `default`."""
    if container.options.stop_signal:
        return container.options.stop_signal
    try:
        with open(f"{store.container_path(container.id)}/image.json", "rb") as file:
            image = jsontext.loads(file.read())
    except (OSError, ValueError):
        return default
    return (image.get("config") or {}).get("StopSignal") or default


def kill_all(container: Container, pidfd: int) -> None:
    """SIGKILL to everything in it: its cgroup where there is one, and PID 1, with which its PID namespace goes."""
    place = cgroup.path(container.group)
    try:
        if place is not None:
            cgroup.kill(place)
    except OSError:
        pass
    try:
        process.pidfd_send_signal(pidfd, signals.SIGKILL)
    except ProcessLookupError:
        pass


def wait_for_monitor(store: Store, container: Container, seconds: float | None = None) -> bool:
    """Whether nobody holds the container's lock, within `seconds`: everything about its end is on disk then."""
    end = None if seconds is None else time.monotonic() + seconds
    pidfd = _monitor(state.status(store, container))
    try:
        while state.monitored(store, container.id):
            left = 1.0 if end is None else min(end - time.monotonic(), 1.0)
            if left <= 0:
                return False
            if pidfd >= 0 and not _gone(pidfd, left):
                continue
            time.sleep(0.002)  # nobody to wait for, or gone and a moment from letting go
        return True
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _end(
    store: Store,
    container: Container,
    status: state.Status,
    pidfd: int,
    number: int,
    seconds: int,
    explain: Callable[[str], None] | None,
) -> str:
    """From the stop signal to the end of PID 1. The remark, if only SIGKILL helped."""
    # Without patience SIGKILL is what was asked for: there is nothing to explain.
    deaf = _deaf(store, container, status.pid, number, seconds) if seconds else ""
    try:
        process.pidfd_send_signal(pidfd, number)
        _thaw(container, status)
        at_once = 1 if seconds < 0 or seconds > 1 else seconds
        if _gone(pidfd, at_once):
            return ""
        if explain is not None and seconds:
            then = f"SIGKILL follows after {seconds} s" if seconds >= 0 else "it is waited for"
            explain(deaf or f"has not ended yet: {signals.name(number)} was sent, {then}")
        if _gone(pidfd, None if seconds < 0 else seconds - at_once):
            return ""
        kill_all(container, pidfd)
        _must_go(container, pidfd)
    except ProcessLookupError:
        return ""
    return deaf


def _lock(store: Store, container: Container) -> int:
    """As `state.try_lock`; a row of which the files are lost can be removed too."""
    try:
        return state.try_lock(store, container)
    except NotFound:
        if store.db.row("SELECT 1 FROM container WHERE id = ?", container.id) is None:
            raise
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)  # nothing is left that could be started


def _kill_now(store: Store, container: Container, status: state.Status, *, monitor_too: bool) -> None:
    """SIGKILL to all of it; `monitor_too` when the monitor itself does not get on (stopped, stuck)."""
    pidfd = _open(store, container, status) if status.running else -1
    if pidfd >= 0:
        events.tell(store, container, "kill", signal=signals.SIGKILL)
        kill_all(container, pidfd)
        os.close(pidfd)
    monitor = _monitor(status) if monitor_too else -1
    if monitor >= 0:
        try:
            process.pidfd_send_signal(monitor, signals.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(monitor)


def _must_go(container: Container, pidfd: int) -> None:
    if not _gone(pidfd, KILL_TIMEOUT):
        raise Refused(
            f"container {container.name} was killed, but did not end within {KILL_TIMEOUT} s",
            "a process of it waits for a device or a file server; `limpet rm -f` takes the container away all the same",
            exit_code=1,
        )


def _monitor(status: state.Status) -> int:
    """A pidfd of the monitor; -1 if it is gone."""
    if not status.monitor:
        return -1
    try:
        pidfd = os.pidfd_open(status.monitor)
    except OSError:
        return -1
    try:
        with open(f"/proc/{status.monitor}/comm", "rb") as file:
            if file.read().strip() == b"limpet-monitor":
                return pidfd
    except OSError:
        pass
    os.close(pidfd)  # another process got the number
    return -1


def _mark(store: Store, container: Container) -> None:
    try:
        os.close(os.open(f"{store.run_path(container.id)}/stopped", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except FileNotFoundError:
        pass  # no run directory: it never ran since the machine started


def _open(store: Store, container: Container, status: state.Status) -> int:
    """A pidfd of PID 1, or -1 when it ended just now."""
    try:
        pidfd = os.pidfd_open(status.pid)
    except OSError:
        return -1
    if status.pid_start and process.start_time(status.pid) != status.pid_start:
        os.close(pidfd)  # it ended in between, and the number is another's
        return -1
    return pidfd


def _gone(pidfd: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def _thaw(container: Container, status: state.Status) -> None:
    place = cgroup.path(container.group)
    if status.state == "paused" and place is not None:
        try:
            cgroup.thaw(place)
        except FileNotFoundError:
            pass  # it ended just now


def _deaf(store: Store, container: Container, pid: int, number: int, seconds: int) -> str:
    """A remark when PID 1 would not even notice the signal. Our own init passes all on, whatever it does just now."""
    if number == signals.SIGKILL or process.hears(pid, number) or _has_init(store, container):
        return ""
    then = f"it is killed after {seconds} s" if seconds >= 0 else "it goes on"
    return f"PID 1 does not handle {signals.name(number)}, so {then}; run it with --init, or set --stop-signal"
