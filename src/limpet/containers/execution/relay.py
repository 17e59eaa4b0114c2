"""Pipes between a program that `exec` runs and descriptors that it must not have.

A program that gets a file or a terminal of the host can open it again by /proc/self/fd, with other rights than ours:
read what was opened for appending, push input into the terminal. Pipes, sockets and /dev/null are passed as they are,
so that the common cases cost nothing.
"""

from __future__ import annotations

import os
import select

from limpet.containers.execution.console import write_all
from limpet.kernel import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 1 << 16


class Relay:
    """`stdio` is for the program. After the fork call `begin`; `finish(pidfd)` copies until it has ended."""

    def __init__(self, stdio: tuple[int, int, int], harmless: Callable[[int], bool]) -> None:
        self._outputs: dict[int, int] = {}  # our end of a pipe → where it goes
        self._theirs: list[int] = []
        self._stdin = -1
        self._pump = 0
        fds = list(stdio)
        if not harmless(fds[0]):
            fds[0], self._stdin = self._pipe()
        for i in (1, 2):
            if not harmless(fds[i]):
                end, write = os.pipe()
                self._outputs[end] = fds[i]
                self._theirs.append(write)
                fds[i] = write
        self.stdio = (fds[0], fds[1], fds[2])

    def _pipe(self) -> tuple[int, int]:
        end, write = os.pipe()
        self._theirs.append(end)
        return end, write

    def begin(self) -> None:
        """Closes what is the program's, and starts to copy standard input: in a process, so that neither blocks."""
        for fd in self._theirs:
            os.close(fd)
        if self._stdin < 0:
            return
        self._pump = os.fork()
        if self._pump == 0:
            try:
                process.set_death_signal(signals.SIGKILL)
                while data := os.read(0, _PIECE):
                    write_all(self._stdin, data)
            finally:
                os._exit(0)
        os.close(self._stdin)

    def finish(self, pid: int) -> None:
        """Returns when the program has ended and what it wrote is passed on."""
        if self._outputs:
            self._copy(pid)
        if self._pump:
            os.kill(self._pump, signals.SIGKILL)
            os.waitpid(self._pump, 0)

    def _copy(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        for fd in (*self._outputs, pidfd):
            poll.register(fd, select.POLLIN)
        ended = False
        while self._outputs:
            events = poll.poll(0 if ended else None)
            if ended and not events:
                break  # something that it left behind holds the pipe: not ours to wait for
            for fd, _ in events:
                if fd == pidfd:
                    ended = True
                    poll.unregister(pidfd)
                    continue
                data = os.read(fd, _PIECE)
                if data:
                    write_all(self._outputs[fd], data)
                else:
                    poll.unregister(fd)
                    os.close(fd)
                    del self._outputs[fd]
        os.close(pidfd)
