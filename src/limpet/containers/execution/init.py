"""PID 1 of a container: reaps orphans, passes signals on, and ends as the program does.

On x86-64 the forked child becomes a program of a few bytes (`tinyinit`); elsewhere it stays the Python process it is.
It has the program's user, capabilities and seccomp filter, so that the container may see of it what it may see of the
program, and the output streams, so that `echo >/proc/1/fd/1` reaches the log as elsewhere. It dies with the monitor.

Under a seccomp profile of the user's, which may forbid what an init has to do, it stands *apart*: no filter, no
descriptor, one capability (CAP_KILL), and not dumpable: the container can't trace it or read it through /proc.
"""

from __future__ import annotations

import os

from limpet.containers.execution import handshake, tinyinit
from limpet.containers.execution.process import Failure, become, start
from limpet.containers.monitor import title
from limpet.errors import reason
from limpet.kernel import capabilities, process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    import socket
    from typing import Any, NoReturn

    Config = dict[str, Any]
else:
    import _signal


def prepare(*, apart: bool) -> int:
    """See `tinyinit.prepare`."""
    return tinyinit.prepare(readable=not apart)


def fork(
    section: Config, filter: bytes | None, terminal: str, channel: socket.socket, prepared: int, *, apart: bool
) -> None:
    """Returns in the child, which is to become the program, when this process has become the init.

    `section`: `process` of config.json; `filter`: seccomp's program; `terminal`: its path, or ""; `prepared`: see
    `tinyinit.prepare`.
    """
    signals.block(signals.SIG_BLOCK, signals.valid())  # what arrives in between waits for the init
    signals.reset()  # an ignored one would not even wait
    ready, held = os.pipe()
    child = os.fork()
    if child:
        _run(child, section, filter, terminal, channel, prepared, apart=apart)
    os.close(held)
    os.read(ready, 1)  # its end: the exec closed it
    os.close(ready)


def spawn(section: Config, filter: bytes | None, channel: socket.socket, prepared: int) -> NoReturn:
    """This process becomes the init, and its child the program, without a copy of our memory in between.

    posix_spawn(3) shares it until the exec. For programs without a terminal that have a default seccomp profile.
    """
    try:
        signals.block(signals.SIG_BLOCK, signals.valid())  # what arrives in between waits for the init
        signals.reset()
        run = start(section, channel)
        _become(section, filter)
        os.umask(section["user"].get("umask", 0o022))
        program = run()
        process.set_death_signal(signals.SIGKILL)
        os.chdir("/")
        os.close(0)  # whoever feeds the program shall notice when it stops reading
    except BaseException as e:
        handshake.report(channel, e)
        os._exit(125)
    _wait(program, prepared)


def _become(section: Config, filter: bytes | None) -> None:
    """Raises Failure, in the words of `process.execute`."""
    try:
        become(section, filter)
    except OSError as e:
        raise Failure(128, f"preparing the process: {reason(e)}") from e


def _run(
    program: int,
    section: Config,
    filter: bytes | None,
    terminal: str,
    channel: socket.socket,
    prepared: int,
    *,
    apart: bool,
) -> NoReturn:
    """The rest of PID 1's life. `program` is the child whose exit code becomes ours (128 + n for a signal)."""
    try:
        if apart:
            process.close_range(0, 2)
            process.set_no_new_privileges()
            capabilities.drop_bounding(("CAP_KILL",))
            capabilities.set_thread(("CAP_KILL",), ("CAP_KILL",), ())
        else:
            if terminal:
                fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)  # the program's session will own it
                os.dup2(fd, 1)
                os.dup2(fd, 2)
            _become(section, filter)
            os.close(0)  # whoever feeds the program shall notice when it stops reading
        process.set_death_signal(signals.SIGKILL)
    except BaseException as e:  # the program, which waits for us, dies with us before it could say the same
        handshake.report(channel, e)
        os._exit(125)
    _wait(program, prepared, readable=not apart)


def _wait(program: int, prepared: int, *, readable: bool = True) -> NoReturn:
    """All signals are blocked."""
    try:
        tinyinit.become(program, prepared, readable=readable)
        process.close_range(3, 0xFFFFFFFF)
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
