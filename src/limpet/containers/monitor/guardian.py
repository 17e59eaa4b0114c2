"""Somebody who notices that a monitor was killed: a process of a page and a half beside it, for who would be missed.

A monitor that is killed takes its container along, and there is no daemon that could start it again or take it away.
So a container with a restart policy, or in the background with `--rm`, has a second process: `hibernation`'s waiting
program, which waits for the end of the monitor alone. A monitor that ends by itself ends this one first. Else it
executes Python, which does what `recovery` would do for that one container, with the delays of a restart.
What neither survives (the machine, a SIGKILL for both) is left to the next command and to `limpet system recover`.
"""

from __future__ import annotations

import os
import select
import sys
import time

from limpet import SOURCE
from limpet.containers import restarting
from limpet.containers.monitor import hibernation
from limpet.kernel import machinecode, process, signals
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.store.store import Store

_WAKE = """
import sys
sys.path.insert(0, sys.argv[1])
from limpet.containers.monitor.guardian import wake
wake(*sys.argv[2:])
"""


def begin(store: Store, container: Container) -> int:
    """Makes it, of the calling monitor: a pidfd for `end`; -1 where this machine has no code. Raises OSError."""
    if not hibernation.possible():
        return -1
    monitor = os.pidfd_open(os.getpid())
    try:
        source = SOURCE
        arguments = [sys.executable, "-S", "-I", "-c", _WAKE, source, store.root, store.run, container.id]
        arguments.append(str(time.monotonic()))
        code = hibernation.image({monitor: select.POLLIN}, arguments, name=b"limpet-guard")
        program = machinecode.in_memory("limpet-guardian", code)
        pid = os.fork()
        if pid == 0:
            try:
                # Nothing else of the monitor's: neither its lock nor the container's ends of pipes.
                low = 3
                for fd in sorted((monitor, program)):
                    if fd > low:
                        process.close_range(low, fd - 1)
                    low = fd + 1
                process.close_range(low, 0xFFFFFFFF)
                os.setsid()
                os.set_inheritable(monitor, True)
                os.execve(program, [f"limpet guardian {container.name}"], os.environ)
            finally:
                os._exit(1)
        os.close(program)
        return os.pidfd_open(pid)
    finally:
        os.close(monitor)


def end(pidfd: int) -> None:
    """The monitor is about to end by itself, and nobody has to do anything about it."""
    try:
        process.pidfd_send_signal(pidfd, signals.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except (ProcessLookupError, ChildProcessError):
        pass  # somebody killed that one
    os.close(pidfd)


def wake(root: str, run: str, container_id: str, began: str) -> None:
    """The monitor is gone, and said nothing before. `began`: when it was there first, in seconds of monotonic time."""
    from limpet.containers import recovery, state
    from limpet.store.store import Store

    store = Store(root, run, make=False)
    if store.absent:
        return
    container = state.lookup(store, container_id)
    if container is None or not state.status(store, container).lost:
        return
    if not container.options.auto_remove:
        path = f"{store.run_path(container_id)}/revived"
        delay = restarting.FIRST_DELAY
        try:
            with open(path, encoding="ascii") as file:
                delay = restarting.delay(float(file.read()), time.monotonic() - float(began))
        except (FileNotFoundError, ValueError):
            pass
        files.write_file(path, str(delay).encode(), durable=False)
        time.sleep(delay)
        container = state.lookup(store, container_id)
        if container is None:
            return
    recovery.recover_one(store, container)
