"""Ending a container: stop, kill, wait, and taking it away by force.

Every way to an end leads past the same three facts: the mark `<run>/<id>/stopped` says that somebody wanted it (so that
no restart policy acts), a pidfd says when PID 1 is gone, and the monitor's lock says when all is written down.
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from limpet import jsontext
from limpet.containers import attach, removal, state
from limpet.errors import Conflict
from limpet.kernel import cgroup, process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.store.store import Store

STOP_TIMEOUT = 10
"""Seconds between the stop signal and SIGKILL (moby `daemon/stop.go`)."""


def stop(store: Store, container: Container, *, timeout: int | None = None, signal: str = "") -> str:
    """Ends it; one that does not run is fine. A remark for the user about a slow stop, or "".

    `timeout`: seconds until SIGKILL, -1 to wait for ever; None for the container's own, else 10.
    """
    number = signals.number(signal or stop_signal(store, container))
    _mark(store, container)
    status = state.status(store, container)
    pidfd = _open(store, container, status) if status.state in ("running", "paused") else -1
    remark = ""
    try:
        if pidfd >= 0:
            seconds = container.options.stop_timeout if timeout is None else timeout
            seconds = STOP_TIMEOUT if seconds is None else seconds
            remark = _deaf(status.pid, number, seconds)
            _thaw(container, status)
            process.pidfd_send_signal(pidfd, number)
            if not _gone(pidfd, None if seconds < 0 else seconds):
                kill_all(container, pidfd)
                _gone(pidfd, None)
            elif remark:
                remark = ""
    except ProcessLookupError:
        pass
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    wait_for_monitor(store, container)
    return remark


def kill(store: Store, container: Container, signal: str = "KILL") -> None:
    """Sends one signal to PID 1. Raises Conflict if the container does not run."""
    number = signals.number(signal)
    status = state.status(store, container)
    if not status.running:
        raise Conflict(f"container {container.name} is not running", exit_code=1)
    configured = stop_signal(store, container, default="")
    if not configured or number == signals.number(configured) or number == signals.SIGKILL:
        _mark(store, container)  # moby `daemon/kill.go`: which signals count as a stop by hand
    pidfd = _open(store, container, status)
    try:
        if number == signals.SIGKILL:
            kill_all(container, pidfd)
            _gone(pidfd, None)
            if container.options.restart == "no":
                wait_for_monitor(store, container)
        else:
            process.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def wait(store: Store, container: Container) -> int:
    """Until the run that is going on ends, if one is: the exit code of the last run."""
    code = attach.wait(store, container)
    return state.status(store, container).exit_code if code is None else code


def remove(store: Store, container: Container, *, force: bool = False, volumes: bool = False) -> None:
    """Takes it away. Raises Conflict if it runs and `force` is not said; with `force` it always ends."""
    status = state.status(store, container)
    if status.state in ("running", "paused", "restarting"):
        if not force:
            raise Conflict(
                f'cannot remove container "{container.name}": container is {status.state}',
                "stop the container before removing or force remove",
                exit_code=1,
            )
        _mark(store, container)
        pidfd = _open(store, container, status) if status.running else -1
        if pidfd >= 0:
            kill_all(container, pidfd)
            os.close(pidfd)
        wait_for_monitor(store, container)
    left = cgroup.path(container.id)
    if left is not None and os.path.isdir(left):
        cgroup.kill(left)
        _remove_group(left)
    removal.remove_container(store, container.id, with_volumes=volumes or container.options.auto_remove)


def rename(store: Store, container: Container, name: str) -> None:
    """Raises Invalid for a bad name, Conflict for one in use."""
    from limpet.containers import names

    names.check(name)
    with store.db.transaction():
        taken = store.db.row("SELECT id FROM container WHERE name = ?", name)
        if taken is not None:
            raise Conflict(f'the container name "/{name}" is already in use by container "{taken[0]}"', exit_code=1)
        container.options.name = name
        store.db.run(
            "UPDATE container SET name = ?, options = ? WHERE id = ?", name, container.options.to_json(), container.id
        )


def stop_signal(store: Store, container: Container, default: str = "TERM") -> str:
    """The user's, the image's, or `default`."""
    if container.options.stop_signal:
        return container.options.stop_signal
    try:
        with open(f"{store.container_path(container.id)}/image.json", "rb") as file:
            image = jsontext.loads(file.read())
    except OSError:
        return default
    return (image.get("config") or {}).get("StopSignal") or default


def kill_all(container: Container, pidfd: int) -> None:
    """SIGKILL to everything in it: its cgroup where there is one, and PID 1, with which its PID namespace goes."""
    place = cgroup.path(container.id)
    try:
        if place is not None:
            cgroup.kill(place)
    except OSError:
        pass
    try:
        process.pidfd_send_signal(pidfd, signals.SIGKILL)
    except ProcessLookupError:
        pass


def wait_for_monitor(store: Store, container: Container) -> None:
    """Returns when no monitor holds the container's lock: everything about its end is on disk then."""
    try:
        fd = os.open(f"{store.run_path(container.id)}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _mark(store: Store, container: Container) -> None:
    try:
        os.close(os.open(f"{store.run_path(container.id)}/stopped", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except FileNotFoundError:
        pass  # no run directory: it never ran since the machine started


def _open(store: Store, container: Container, status: state.Status) -> int:
    """A pidfd of PID 1, or -1 when it ended just now."""
    try:
        pidfd = os.pidfd_open(status.pid)
    except (ProcessLookupError, OSError):
        return -1
    if state.status(store, container).pid != status.pid:
        os.close(pidfd)  # it ended in between, and the number may be another's
        return -1
    return pidfd


def _gone(pidfd: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def _thaw(container: Container, status: state.Status) -> None:
    place = cgroup.path(container.id)
    if status.state == "paused" and place is not None:
        cgroup.thaw(place)


def _deaf(pid: int, number: int, seconds: int) -> str:
    """A remark when PID 1 has no handler for the signal: the kernel does not deliver it then (pid_namespaces(7))."""
    try:
        with open(f"/proc/{pid}/status") as file:
            caught = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return ""
    if number == signals.SIGKILL or caught >> (number - 1) & 1:
        return ""
    return (
        f"PID 1 does not handle {signals.name(number)}, so it was killed after {seconds} s; "
        "run it with --init, or set --stop-signal"
    )


def _remove_group(place: str) -> None:
    """Killed processes leave their group when they are reaped: a few moments at most."""
    for _ in range(500):
        try:
            cgroup.remove(place)
            return
        except OSError:
            time.sleep(0.01)
