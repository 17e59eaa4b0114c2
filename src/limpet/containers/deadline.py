"""What Podman's --pidfile and --timeout want of a container that has just been started."""

from __future__ import annotations

import os
import select

from limpet.containers import stop
from limpet.containers.monitor import early
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.execution.runtime import Started
    from limpet.containers.state import Container


def begun(container: Container, started: Started) -> None:
    """Writes the pid, and has a process of its own kill the container when its time is over. Raises OSError."""
    options = container.options
    if options.pidfile:
        files.write_file(options.pidfile, str(started.pid).encode(), 0o644, durable=False)
    if options.timeout:
        early.aside(lambda: _wait(container, started.pid))


def _wait(container: Container, pid: int) -> None:
    """The child has none of the monitor's descriptors. The monitor reaps: until then the number is the container's."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(container.options.timeout * 1000):
        stop.kill_all(container, pidfd)
