"""PID 1 of a container: reaps orphans, passes signals on, and ends as the program does.

On x86-64 the forked child becomes a program of 171 bytes (`tinyinit`); elsewhere it stays the Python process it is.
It holds no descriptor and one capability (CAP_KILL, to signal a program that changed its user), can't be traced or
read through /proc by the container (not dumpable), imports nothing any more (see `rootfs`), and dies with the monitor.
"""

from __future__ import annotations

import os

from limpet.containers import tinyinit, title
from limpet.kernel import capabilities, process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal


def block_signals() -> None:
    """Before the fork of the program: what arrives in between waits for `run`."""
    signals.block(signals.SIG_BLOCK, signals.valid())


def run(program: int) -> NoReturn:
    """The rest of PID 1's life. `program` is the child whose exit code becomes ours (128 + n for a signal)."""
    try:
        process.close_range(0, 0xFFFFFFFF)
        process.set_no_new_privileges()
        capabilities.drop_bounding(("CAP_KILL",))
        capabilities.set_thread(("CAP_KILL",), ("CAP_KILL",), ())
        process.set_death_signal(signals.SIGKILL)
        tinyinit.become(program)
        title.set_title("limpet init")
        process.set_name(b"limpet-init")
        process.set_dumpable(False)
        while True:
            number = _signal.sigwait(_signal.valid_signals())
            if number == _signal.SIGCHLD:
                _reap(program)
            else:
                os.kill(program, number)
    finally:
        os._exit(255)


def _reap(program: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
