"""Whether a container that was started in the background stays up: who started it is told if it does not.

`run -d` and `start` return at once, so they look for a moment only; `up -d` watches for as long as a program usually
takes to find that something is missing.
"""

from __future__ import annotations

import os
import select
import time

from limpet.containers import attach, state
from limpet.containers.monitor import frames
from limpet.errors import Conflict, LimpetError
from limpet.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from limpet.containers.state import Container
    from limpet.store.store import Store

LINES = 5
"""So many of its last lines are told."""

_WIDTH = 200
_RECORDING = 5.0  # seconds that a monitor has to write down an end: the disk may be busy


def ended(store: Store, container: Container, seconds: float, connection: socket.socket | None = None) -> int | None:
    """The exit code, if the run that goes on ends within `seconds`; None if it goes on, or if nobody knows any more.

    `connection`: the first client's (see `start.launch`). Until it is closed a container with `--rm` is not removed, so
    that its last words can be read. It stays open.
    """
    if state.status(store, container).waiting:
        return None  # for its first call: nothing runs that could end
    given = connection
    try:
        connection = connection or attach.connect(store, container)
    except Conflict:
        return _recorded(store, container)
    pidfd = _open(store, container)
    end = time.monotonic() + (seconds if pidfd >= 0 else _RECORDING)
    buffer = bytearray()
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    try:
        if pidfd >= 0:
            poll.register(pidfd, select.POLLIN)
        while ready := poll.poll(max(end - time.monotonic(), 0) * 1000):
            if any(fd == pidfd for fd, _ in ready):
                poll.unregister(pidfd)  # the exit code comes as soon as the monitor has written all down
                end = time.monotonic() + _RECORDING
            if all(fd == pidfd for fd, _ in ready):
                continue
            data = connection.recv(1 << 16)
            if not data:
                return _recorded(store, container)
            buffer += data
            while (found := frames.take(buffer)) is not None:
                if found[0] == frames.EXIT:
                    return frames.number(found[1])
    except OSError:
        return _recorded(store, container)
    finally:
        if given is None:
            connection.close()
        if pidfd >= 0:
            os.close(pidfd)
    return None


def last_words(store: Store, container: Container, code: int) -> str:
    """One line: that it ended, how, and what it said last."""
    from limpet.containers.logging import logs
    from limpet.units import seconds_of

    began = max(seconds_of(state.status(store, container).started_at), 0)  # what earlier runs said is theirs
    try:
        entries = list(logs.read(store, container, tail=LINES, since=began))
    except LimpetError:  # a log that can't be read
        entries = []
    lines = ["".join(c if c.isprintable() else " " for c in entry.text).strip()[:_WIDTH] for entry in entries]
    said = " | ".join(line for line in lines if line)
    how = f"container {container.name} ended with exit code {code}"
    return f"{how}: {said}" if said else f"{how}, without a word"


def _open(store: Store, container: Container) -> int:
    """A pidfd of PID 1; -1 when it has ended."""
    status = state.status(store, container)
    try:
        pidfd = os.pidfd_open(status.pid) if status.running and status.pid else -1
    except OSError:
        return -1
    if pidfd >= 0 and status.pid_start and process.start_time(status.pid) != status.pid_start:
        os.close(pidfd)  # the number is another's by now
        return -1
    return pidfd


def _recorded(store: Store, container: Container) -> int | None:
    status = state.status(store, container)
    if status.running or not os.path.isdir(store.container_path(container.id)):
        return None
    return status.exit_code
