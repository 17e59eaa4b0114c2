"""Monitors are forked, never started anew; where the caller is a command of its own, as early as can be.

`limpet run` forks its future monitor before it has looked at anything: while the command loads SQLite, finds the image
and makes the container, the monitor loads what it needs, on another processor. That saves 5 ms of 30, and the monitor
is smaller by all that it never had: the command line, the images, the database. A caller that is already big and
busy (a server) makes one by a plain fork.

The order travels over a socket: the container's row as text, the descriptors as SCM_RIGHTS. End of file before it
means that there is nothing to do.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.kernel import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from limpet.containers.state import Container
    from limpet.store.store import Store
else:
    import _socket as socket

BLOCK = 1 << 16


class Early:
    """A monitor that waits for its order. One that gets none ends when this is closed, or with its maker."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.fork() == 0:
            _wait(theirs)
        theirs.close()

    def order(self, store: Store, container: Container, size: tuple[int, int] | None, descriptors: list[int]) -> bool:
        """Hands over a container to be run; `descriptors` as `monitor.main` has them. They stay open here.

        False if the process is gone: somebody killed it.
        """
        text = jsontext.dumps([store.root, store.run, container.to_list(), size]).encode()
        rights = b"".join(fd.to_bytes(4, "little") for fd in descriptors)
        try:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            sent = self._socket.sendmsg([text], ancillary, socket.MSG_NOSIGNAL)
            self._socket.sendall(text[sent:], socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            self._socket.close()
        return True

    def close(self) -> None:
        self._socket.close()


def hand_over(
    store: Store,
    container: Container,
    size: tuple[int, int] | None,
    descriptors: list[int],
    unwritten: Sequence[str] = (),
) -> None:
    """The same by a fork of the caller as it is now. A caller that lives long has a zombie child, by and by.

    The root is mounted here, since that may need the database (layers that were not synced before a crash).
    """
    from limpet.containers.monitor import monitor
    from limpet.containers.plan import bundle

    root = bundle.mount(store, container)
    try:
        if os.fork() == 0:
            try:
                isolate([*descriptors, root])
                store.forget()
                monitor.main(store, container, size, descriptors, root, unwritten)
            finally:
                os._exit(1)
    finally:
        os.close(root)


def aside(work: Callable[[], object]) -> None:
    """Does it in a child of the monitor, which may outlive that; nobody waits for it."""
    if os.fork():
        return
    try:
        isolate([])
        work()
    finally:
        os._exit(0)


def isolate(keep: list[int]) -> None:
    """Nothing of the starter stays: session, directory, mask, standard descriptors, files, locks of the database."""
    os.setsid()
    signals.reset(but=(signals.SIGPIPE, signals.SIGXFSZ))  # these two end a write with an error
    signals.block(signals.SIG_SETMASK, ())
    os.chdir("/")
    os.umask(0o022)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    low = 3
    for fd in sorted(keep):
        if fd > low:
            process.close_range(low, fd - 1)
        low = max(low, fd + 1)
    process.close_range(low, 0xFFFFFFFF)


def _wait(channel: socket.socket) -> NoReturn:
    try:
        isolate([channel.fileno()])
        from limpet.containers.monitor import monitor
        from limpet.containers.state import Container
        from limpet.network import loading
        from limpet.store.store import Store

        loading.prepare()
        data, rights, _, _ = channel.recvmsg(BLOCK, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
        if data:
            whole = bytearray(data)
            while more := channel.recv(BLOCK):
                whole += more
            channel.close()
            root, run, row, size = jsontext.loads(bytes(whole))
            packed = rights[0][2]
            descriptors = [int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4)]
            monitor.main(Store(root, run), Container.from_list(row), size and tuple(size), descriptors)
    finally:
        os._exit(1)
