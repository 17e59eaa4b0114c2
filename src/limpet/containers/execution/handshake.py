"""Between whoever starts a program in a container and the child that becomes it: `runtime` and `exec` share this.

They talk over a socket pair of packets: b"T" with the terminal's master as an SCM_RIGHTS descriptor, b"A" (does the
other side still live?), b"H" (its mounts are made: run the hooks), b"E" with a failure, b"X" with one of the exec
itself; end of file means that the exec closed it.
"""

from __future__ import annotations

import os

from limpet.containers.execution import outcome, process
from limpet.kernel import process as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]
else:
    import _socket as socket


def load_terminal() -> None:
    """Before a child that will make a terminal is forked (2 modules that most containers do not need)."""
    import limpet.kernel.terminal  # noqa: F401


def converse(channel: socket.socket, hooks: Callable[[], None] | None = None) -> int | None:
    """Listens to the child until its exec; the master of its terminal, if it made one. Raises StartFailed.

    `hooks` is called when the child waits in `pause`.
    The last packet may come from a program that others in the container can trace (`trampoline`): no packet is trusted.
    """
    master: int | None = None
    while True:
        packet, rights, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return master
        if rights:
            fd = int.from_bytes(rights[0][2], "little")
            if master is None and packet[:1] == b"T":
                master = fd
            else:
                os.close(fd)
        elif packet[:1] == b"H" and hooks is not None:
            hooks()
            hooks = None
            channel.send(b"H")
        elif packet[:1] == b"E":
            if master is not None:
                os.close(master)
            raise outcome.unpack(packet)
        elif packet[:1] == b"X" and len(packet) > 3:
            if master is not None:
                os.close(master)
            failure = process.explain(packet)
            raise outcome.StartFailed(failure.message, failure.hint, failure.code)


def report(channel: socket.socket, error: BaseException) -> None:
    """The child's side of `converse`."""
    if isinstance(error, process.Failure):
        packet = outcome.pack(error.code, error.message, error.hint)
    elif isinstance(error, NotADirectoryError):
        packet = outcome.pack(127, error.strerror or "not a directory")  # as moby `daemon/errors.go`
    elif isinstance(error, OSError):
        packet = outcome.pack(128, error.strerror or str(error))
    else:
        packet = outcome.pack(128, f"{type(error).__name__}: {error}")
    channel.send(packet)


def pause(channel: socket.socket) -> None:
    """In the child: waits while the other side runs the hooks. It does not return if they fail."""
    channel.send(b"H")
    if not channel.recv(1):
        os._exit(125)


def place(keep: tuple[int, ...], stdio: tuple[int, int, int], channel: socket.socket) -> None:
    """Standard descriptors into place; every other one but `keep` and `channel` is closed."""
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)  # inheritable
    low = 3
    for fd in sorted((*keep, channel.fileno())):
        if fd > low:
            kernel.close_range(low, fd - 1)
        low = fd + 1
    kernel.close_range(low, 0xFFFFFFFF)


def out_of_the_way(channel: socket.socket) -> socket.socket:
    """The same channel by a number that no socket of the program's shall have (`process.execute`)."""
    import fcntl

    fd = fcntl.fcntl(channel.fileno(), fcntl.F_DUPFD_CLOEXEC, process.FIRST_FREE)
    channel.close()
    return socket.socket(fileno=fd)


def open_terminal(plan: Config, channel: socket.socket) -> str:
    """A pty of the container's own devpts; its master goes to the other side, already of the right size.

    `plan` is the process section; the result the slave's path.
    """
    from limpet.kernel import terminal  # loaded by `load_terminal`: there is no importing here

    master, slave = terminal.open_ptmx("/dev/pts")
    size = plan.get("consoleSize")
    if size:
        terminal.set_size(master, size["height"], size["width"])
    channel.sendmsg([b"T"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, master.to_bytes(4, "little"))])
    os.close(master)
    return slave


def take_terminal(slave: str) -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()
    fd = os.open(slave, os.O_RDWR)  # a session leader's first terminal becomes its controlling one
    for target in (0, 1, 2):
        os.dup2(fd, target)
    if fd > 2:
        os.close(fd)


def parent_lives(channel: socket.socket) -> bool:
    """The death signal was set after the fork: a monitor that had died before closed the other end."""
    try:
        channel.send(b"A", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True
