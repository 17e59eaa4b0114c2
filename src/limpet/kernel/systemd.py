"""Scopes of systemd: a container's monitor leaves the unit or session that started it, and gets a group of its own.

systemd owns the tree of control groups where it runs, and one may make groups only in what it was given
(systemd.io/CONTROL_GROUP_DELEGATION, "Delegation"). So a container has a transient scope, `limpet-<id>.scope`, with
`Delegate=yes`; below it are two groups of ours, one for the monitor and one for the container (`kernel.cgroup`). It
goes with its last process. A scope is asked for over systemd's own socket, or over the bus where that does not answer;
a user has an instance of systemd of their own, to be asked in the same way (org.freedesktop.systemd1(5)).
"""

from __future__ import annotations

import os
import time

from limpet.errors import LimpetError
from limpet.kernel import cgroup, dbus, idmap, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Property = tuple[str, tuple[str, Any]]
    """Name, (D-Bus signature, value)."""

PATIENCE = 30.0
"""Seconds in which systemd has to do what it was asked. Docker and Podman wait as long."""

KILL_SIGNAL = signals.SIGURG
"""What systemd sends to all processes of a scope that is to stop: a signal that programs do not notice, but a monitor
does, and ends the container by its own stop signal."""

SLICE = "limpet.slice"
GONE = 15.0  # seconds that a container gets, beyond its own time, to be gone when its scope is stopped
UNLIMITED = (1 << 64) - 1

PROPERTIES = {"cpu.weight": "CPUWeight", "io.weight": "IOWeight", "memory.low": "MemoryLow"}
"""Files of a group, and what systemd calls what it writes into them (systemd.resource-control(5))."""

_NAME = "org.freedesktop.systemd1"
_MANAGER = {dbus.PATH: "/org/freedesktop/systemd1", dbus.INTERFACE: f"{_NAME}.Manager"}
_BUS = {dbus.PATH: "/org/freedesktop/DBus", dbus.INTERFACE: "org.freedesktop.DBus"}
_EXISTS = f"{_NAME}.UnitExists"
_PAUSE = 0.005  # seconds between two tries, while the scope of the last run is going away


def user_directory() -> str:
    """Where a user's systemd has its sockets (file-hierarchy(7)), whoever we are in a namespace of theirs."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{idmap.outside(os.geteuid())}"


def sockets(user: bool) -> list[tuple[str, bool]]:
    """(address, whether a bus listens there), in the order of trial."""
    directory = user_directory() if user else "/run"
    return [
        (f"{directory}/systemd/private", False),
        (f"{directory}/bus" if user else "/run/dbus/system_bus_socket", True),
    ]


def available(user: bool = False) -> bool:
    """Whether systemd runs the machine, or (`user`) an instance for this user, with version 2 of control groups."""
    if not (os.path.isdir("/run/systemd/system") and os.path.exists("/sys/fs/cgroup/cgroup.controllers")):
        return False
    return any(os.path.exists(address) for address, _ in sockets(user))


def makes_scopes() -> bool:
    """Whether containers get scopes: of the machine's systemd, or of the user's own (`store.unprivileged`)."""
    user = cgroup.of_user_instance()
    return cgroup.delegated() == user and available(user)


def slice_path(name: str) -> str:
    """The group of a slice, below the root of its instance: a-b.slice → a.slice/a-b.slice (systemd.slice(5))."""
    parts = name.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


class Scope:
    """One that was asked for: `wait` returns when the process is in it."""

    def __init__(
        self, name: str, pid: int, description: str, seconds: int, parent: str = SLICE, user: bool = False
    ) -> None:
        """`name`: as "limpet-<id>.scope"; `seconds`: that its container gets for its end, negative for any time.

        Asks, and does not wait. Raises LimpetError when nobody answers.
        """
        self._name = name
        stop = UNLIMITED if seconds < 0 else int((seconds + GONE) * 1_000_000)
        # Ordered before limpet.service, it is stopped after it; the rest is up then and still when it ends.
        self._properties: list[Property] = [
            ("Description", ("s", description)),
            ("Slice", ("s", parent)),
            ("PIDs", ("au", [pid])),
            ("Delegate", ("b", True)),
            ("TasksMax", ("t", UNLIMITED)),
            ("KillSignal", ("i", KILL_SIGNAL)),
            ("TimeoutStopUSec", ("t", stop)),
            ("CollectMode", ("s", "inactive-or-failed")),
            ("Before", ("as", ["limpet.service"])),
            ("After", ("as", ["local-fs.target", "network.target"])),
        ]
        self._end = time.monotonic() + PATIENCE
        self._user = user
        # Ours is to go with the last container; one that is there already, or that the admin has a file for, stays so.
        ours = parent == SLICE and not os.path.isdir(f"/sys/fs/cgroup/{SLICE}")
        self._slices: list[Any] = [(SLICE, [("StopWhenUnneeded", ("b", True))])] if ours else []
        self._connection, self._number = self._ask()

    def _ask(self) -> tuple[dbus.Connection, int]:
        # "replace": the slice may be about to stop, as its last scope went just now. No job of a shutdown is replaced.
        values = [self._name, "replace", self._properties, self._slices]
        return _asked(self._name, self._user, self._end, "StartTransientUnit", "ssa(sv)a(sa(sv))", values)

    def wait(self) -> None:
        """Raises LimpetError with systemd's own words."""
        try:
            while not self._answered():
                # What it was for has ended just now, and systemd has not heard of it.
                self._connection.close()
                time.sleep(_PAUSE)
                self._connection, self._number = self._ask()
        finally:
            self._connection.close()

    def _answered(self) -> bool:
        """False if there is a unit of that name still."""

        def job(message: dbus.Message) -> bool:
            return message.kind == dbus.SIGNAL and message.fields.get(dbus.MEMBER) == "JobRemoved"

        seen: list[dbus.Message] = []
        answer = _wait(self._connection, self._name, lambda m: _is_answer(m, self._number, seen.append))
        if answer.kind == dbus.ERROR:
            if answer.fields.get(dbus.ERROR_NAME) == _EXISTS and self._slices:
                self._slices = []
                return False
            if answer.fields.get(dbus.ERROR_NAME) == _EXISTS and time.monotonic() < self._end:
                return False
            raise _refused(self._name, answer)
        while True:
            # systemd may tell of the end of the job before it answers the call that began it.
            for message in seen:
                if job(message) and message.values[1] == answer.values[0]:
                    if message.values[3] != "done":
                        raise LimpetError(f"systemd did not start {self._name}: {message.values[3]}")
                    return True
            seen = [_wait(self._connection, self._name, job)]


def set_properties(name: str, properties: Sequence[Property], user: bool = False) -> None:
    """Changes a unit as long as it lives. Raises LimpetError with systemd's own words."""
    end = time.monotonic() + PATIENCE
    connection, number = _asked(name, user, end, "SetUnitProperties", "sba(sv)", (name, True, properties))
    try:
        answer = _wait(connection, name, lambda message: _is_answer(message, number))
    finally:
        connection.close()
    if answer.kind == dbus.ERROR:
        raise _refused(name, answer)


def _asked(
    name: str, user: bool, end: float, member: str, signature: str, values: Sequence[Any]
) -> tuple[dbus.Connection, int]:
    """A connection to systemd on which a call of the manager was sent, and the call's number."""
    error: OSError | None = None
    for address, bus in sockets(user):
        try:
            connection = dbus.Connection(address, end)
        except OSError as e:
            error = e
            continue
        try:
            fields = {**_MANAGER, dbus.MEMBER: member}
            if bus:
                fields[dbus.DESTINATION] = _NAME
                who = {**_BUS, dbus.DESTINATION: "org.freedesktop.DBus"}
                connection.call({**who, dbus.MEMBER: "Hello"})
                rule = f"type='signal',interface='{_NAME}.Manager',member='JobRemoved'"
                connection.call({**who, dbus.MEMBER: "AddMatch"}, "s", [rule])
                connection.call({**_MANAGER, dbus.DESTINATION: _NAME, dbus.MEMBER: "Subscribe"})
            number = connection.call(fields, signature, values)
            connection.flush()
        except OSError as e:
            connection.close()
            error = e
            continue
        return connection, number
    why = (error and error.strerror) or "it has no socket"
    raise LimpetError(f"{name}: systemd can't be asked for it: {why}", "`systemctl status` shows whether it is well")


def _wait(connection: dbus.Connection, name: str, wanted: Callable[[dbus.Message], bool]) -> dbus.Message:
    try:
        while not wanted(message := connection.receive()):
            pass
    except TimeoutError:
        raise LimpetError(
            f"{name}: systemd did not answer within {PATIENCE:.0f} s", "`systemctl list-jobs` shows what it is doing"
        ) from None
    except (OSError, ValueError) as e:
        raise LimpetError(f"{name}: systemd does not answer as it should: {e or type(e).__name__}") from e
    return message


def _is_answer(message: dbus.Message, number: int, other: Callable[[dbus.Message], None] | None = None) -> bool:
    if message.kind in (dbus.RETURN, dbus.ERROR) and message.fields.get(dbus.REPLY_TO) == number:
        return True
    if other is not None:
        other(message)
    return False


def _refused(name: str, answer: dbus.Message) -> LimpetError:
    text = answer.values[0] if answer.values else answer.fields.get(dbus.ERROR_NAME)
    return LimpetError(f"systemd refuses {name}: {str(text).rstrip('.')}")
