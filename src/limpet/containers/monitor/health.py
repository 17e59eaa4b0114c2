"""Health checks of a running container, in its monitor: a program in the container, again and again (moby `health.go`).

Each check is a child of the monitor that does what `exec` does. The time until the next one is a timerfd, for which the
monitor can wait as machine code, too: between two checks it costs no Python. What was found is written to the file
`health` in the container's directory, from which `ps` and `inspect` take it.
"""

from __future__ import annotations

import os
import select
import time

from limpet import jsontext
from limpet.containers import state
from limpet.containers.logging import logfile
from limpet.containers.monitor import early, healthcheck, title
from limpet.containers.observe import events
from limpet.errors import LimpetError
from limpet.kernel import process, signals, timer
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from limpet.containers.state import Container
    from limpet.store.store import Store

ENTRIES = 5
"""Results that are kept."""

OUTPUT = 4096
"""Bytes of what a check wrote that are kept."""

SELDOM = 10 * healthcheck.SECOND
"""Nanoseconds between two checks, from which on it is worth while to sleep: to wake costs 30 ms of a processor."""

_KILLED = -1  # exit code of a check that took too long


class Health:
    """From the container's start to its end. `began`: of the run, in seconds of the monotonic clock."""

    def __init__(
        self, store: Store, container: Container, check: dict[str, Any], began: float, timer_fd: int = -1
    ) -> None:
        self._store = store
        self._container = container
        self._check = check
        self._began = began
        self._path = f"{store.container_path(container.id)}/health"
        self._timer = timer_fd
        self._probe = self._output = self._pid = -1
        self._started = 0
        self._text = b""
        if timer_fd >= 0:  # it goes on, after a sleep
            found = healthcheck.read(os.path.dirname(self._path)) or {}
        else:
            found = {}
            self._timer = timer.create()
        self._status: str = found.get("Status", "starting")
        self._streak: int = found.get("FailingStreak", 0)
        self._log: list[dict[str, Any]] = found.get("Log", [])
        if timer_fd < 0:
            self._write()
            self._wait()

    @property
    def timer(self) -> int:
        return self._timer

    @property
    def idle(self) -> bool:
        """Between two checks."""
        return self._pid < 0

    @property
    def seldom(self) -> bool:
        """Whether the checks are so far apart that a monitor may sleep between them."""
        return bool(self._check["Interval"] >= SELDOM and not (self._status == "starting" and self._in_start_period()))

    def saved(self) -> list[Any]:
        """For `restored`, while it is idle."""
        return [self._check, self._began, self._timer]

    @classmethod
    def restored(cls, store: Store, container: Container, saved: list[Any]) -> Health:
        return cls(store, container, *saved)

    def interests(self) -> dict[int, int]:
        """Descriptor → events of poll(2)."""
        found = {self._timer: select.POLLIN}
        if self._pid >= 0:
            found[self._probe] = select.POLLIN
        if self._output >= 0:
            found[self._output] = select.POLLIN
        return found

    def handle(self, fd: int) -> str | None:
        """None if the event is none of ours; else what is to be done with the container: "", or an action."""
        if fd == self._timer:
            if not timer.is_up(fd):
                return ""
            if self._pid >= 0:
                return self._give_up()
            self._begin()
            return ""
        if self._pid >= 0 and fd == self._probe:
            _, status = os.waitpid(self._pid, 0)
            code = os.waitstatus_to_exitcode(status)
            return self._finish(code if code >= 0 else 128 - code)
        if self._output >= 0 and fd == self._output:
            self._read()
            return ""
        return None

    def close(self) -> None:
        """The container has ended, and what it ran with it."""
        if self._pid >= 0:
            self._kill()
        self._put_away()
        os.close(self._timer)
        self._timer = -1
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # whoever was sent to stop it (`end_run`) has no more to do
        except ChildProcessError:
            pass

    def _wait(self) -> None:
        """Until the next check: that of the start period while it lasts and nothing was found yet."""
        starting = self._status == "starting" and self._in_start_period()
        timer.arm(self._timer, self._check["StartInterval" if starting else "Interval"] / healthcheck.SECOND)

    def _in_start_period(self) -> bool:
        return bool(time.monotonic() - self._began < self._check["StartPeriod"] / healthcheck.SECOND)

    def _begin(self) -> None:
        if state.is_paused(self._container.group):
            self._wait()
            return
        self._started, self._text = time.time_ns(), b""
        self._output, write = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _probe(self._store, self._container, self._check["Command"], write)
        os.close(write)
        os.set_blocking(self._output, False)
        self._probe = os.pidfd_open(self._pid)
        timer.arm(self._timer, self._check["Timeout"] / healthcheck.SECOND)

    def _give_up(self) -> str:
        self._kill()
        self._text = f"Health check exceeded timeout ({_seconds(self._check['Timeout'])})".encode()
        return self._finish(_KILLED)

    def _kill(self) -> None:
        try:
            process.pidfd_send_signal(self._probe, signals.SIGKILL)  # and its program dies with it
            os.waitpid(self._pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def _read(self) -> None:
        """More than OUTPUT is read and forgotten: the program must not wait for us."""
        try:
            while data := os.read(self._output, 1 << 16):
                self._text += data[: OUTPUT + 1 - len(self._text)]
        except BlockingIOError:
            return
        os.close(self._output)
        self._output = -1

    def _put_away(self) -> None:
        for fd in (self._output, self._probe):
            if fd >= 0:
                os.close(fd)
        self._output = self._probe = self._pid = -1

    def _finish(self, code: int) -> str:
        if self._output >= 0 and code != _KILLED:
            self._read()
        self._put_away()
        text = self._text[:OUTPUT].decode(errors="replace") + ("..." if len(self._text) > OUTPUT else "")
        before = self._status
        entry = {
            "Start": logfile.timestamp(self._started),
            "End": logfile.timestamp(time.time_ns()),
            "ExitCode": code,
            "Output": text,
        }
        self._log = [*self._log, entry][-ENTRIES:]
        if code == 0:
            self._status, self._streak = "healthy", 0
        elif before != "starting" or not self._in_start_period():
            self._streak += 1
            if self._streak >= self._check["Retries"]:
                self._status = "unhealthy"
        self._write()
        self._wait()
        if self._status == before:
            return ""
        events.tell(self._store, self._container, f"health_status: {self._status}")
        return self._check["OnFailure"].replace("none", "") if self._status == "unhealthy" else ""

    def _write(self) -> None:
        found = {"Status": self._status, "FailingStreak": self._streak, "Log": self._log}
        try:
            files.write_file(self._path, jsontext.dumps(found).encode(), 0o644, durable=False)
        except OSError:
            pass  # the disk is full: the next one, perhaps


def end_run(store: Store, container: Container, *, for_good: bool) -> None:
    """Stops the container, by a child of its monitor: with `for_good` as `stop` does, else for its next start."""
    from limpet.containers import stop

    early.aside(lambda: (stop.stop if for_good else stop.end_run)(store, container))


def _probe(store: Store, container: Container, command: list[str], output: int) -> NoReturn:
    code = 1
    try:
        early.isolate([output])  # above all the monitor's lock is not ours
        title.set_title(f"limpet health check of {container.name}")
        process.set_name(b"limpet-health")
        process.set_death_signal(signals.SIGKILL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        from limpet.containers.execution import exec

        try:
            code = exec.exec_(store, container, command, tell=False)
        except LimpetError as e:
            os.write(2, e.message.encode())
            code = e.exit_code
    finally:
        os._exit(code)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / healthcheck.SECOND:g}s"
