"""The standard streams of one run of a container, as the monitor holds them: two pipes and perhaps a third, or a pty.

Output goes to the log and to the clients; input comes from the clients. Nothing here blocks.
"""

from __future__ import annotations

import os
import select

from limpet.containers.monitor import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.logging.logdrivers.opening import Log
    from limpet.containers.monitor.clients import Clients

BLOCK = 1 << 16
PATIENCE = 10.0  # seconds for a log that takes nothing, once the container has ended
INPUT = 256 << 10  # of input that the container has not read yet; then the clients have to wait


class Streams:
    def __init__(self, tty: bool, interactive: bool, log: Log, clients: Clients) -> None:
        self._tty = tty
        self._interactive = interactive
        self._log = log
        self._clients = clients
        self._outputs: dict[int, tuple[str, int]] = {}  # descriptor: stream of the log, type of frame
        self._stdin = -1
        self._input = bytearray()
        self._input_ends = False
        self.terminal: int | None = None
        self.pipes = [0, 0, 0]  # inodes of the pipes that are the container's 0, 1, 2; 0 for what is none

    def open(self, theirs: list[int]) -> tuple[int, int, int]:
        """The container's 0, 1, 2; also into `theirs`, for the caller to close. With a terminal they are /dev/null."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        theirs.append(null)
        if self._tty:
            return null, null, null
        stdin = null
        if self._interactive:
            stdin, self._stdin = os.pipe()
            os.set_blocking(self._stdin, False)
            theirs.append(stdin)
        ends = []
        for name, kind in (("stdout", frames.STDOUT), ("stderr", frames.STDERR)):
            ours, end = os.pipe()
            os.set_blocking(ours, False)
            self._outputs[ours] = (name, kind)
            theirs.append(end)
            ends.append(end)
        self.pipes = [os.fstat(fd).st_ino if fd != null else 0 for fd in (stdin, *ends)]
        return stdin, ends[0], ends[1]

    def adopt_terminal(self, master: int) -> None:
        os.set_blocking(master, False)
        self.terminal = master
        self._outputs = {master: ("stdout", frames.STDOUT)}
        self._stdin = master

    @property
    def descriptors(self) -> list[int]:
        return [fd for fd in {*self._outputs, self._stdin} if fd >= 0]

    def saved(self) -> list[Any] | None:
        """What `restore` needs in another process with the same descriptors; None while something waits."""
        if self._input:
            return None
        log = self._log.saved()
        if log is None:
            return None
        outputs = [[fd, name, kind] for fd, (name, kind) in self._outputs.items()]
        return [outputs, self._stdin, self._input_ends, self.terminal, log]

    def restore(self, saved: list[Any]) -> None:
        outputs, self._stdin, self._input_ends, self.terminal, lines = saved
        self._log.restore(lines)
        self._outputs = {fd: (name, kind) for fd, name, kind in outputs}

    def interests(self) -> dict[int, int]:
        """Descriptor → events for poll(2)."""
        self._clients.paused = len(self._input) > INPUT
        wanted: dict[int, int] = {}
        if self._log.blocked:
            wanted[self._log.descriptor] = select.POLLOUT
        elif not self._clients.waiting():
            for fd in self._outputs:
                wanted[fd] = select.POLLIN
        if self._stdin >= 0 and self._input:
            wanted[self._stdin] = wanted.get(self._stdin, 0) | select.POLLOUT
        return wanted

    def handle(self, fd: int, events: int) -> bool:
        """Serves one event; False if the descriptor is none of ours."""
        if fd == self._log.descriptor:
            self._log.retry()
            return True
        ours = fd == self._stdin or fd in self._outputs
        if fd == self._stdin and events & (select.POLLOUT | select.POLLERR):
            self._write_input()
        if fd in self._outputs and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._read_output(fd)
        return ours

    def feed(self, data: bytes) -> None:
        """Input from a client."""
        if self._stdin >= 0 and not self._input_ends:
            self._input += data
            self._write_input()

    def end_input(self) -> None:
        """End of file for the container once it has read what there is. A terminal has no end: ^D is typed."""
        if self._tty:
            return
        self._input_ends = True
        if not self._input and self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def finish(self) -> None:
        """After the end of the container: passes on what is still in the pipes, and closes them."""
        for fd in list(self._outputs):
            while fd in self._outputs and self._read_output(fd):
                if self._log.blocked:
                    self._log.retry(PATIENCE)
        self._log.flush()
        self.close()

    def close(self) -> None:
        for fd in {*self._outputs, self._stdin, self.terminal if self.terminal is not None else -1} - {-1}:
            os.close(fd)
        self._outputs = {}
        self._stdin = -1
        self.terminal = None

    def _read_output(self, fd: int) -> bool:
        """Passes on what there is; False when there is no more (for now, or for ever)."""
        stream, kind = self._outputs[fd]
        try:
            data = os.read(fd, BLOCK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody holds the other side of the terminal
            data = b""
        if not data:
            del self._outputs[fd]
            if fd != self.terminal:
                os.close(fd)
            return False
        self._log.write(stream, data)
        self._clients.broadcast(kind, data)
        return True

    def _write_input(self) -> None:
        try:
            sent = os.write(self._stdin, self._input[:BLOCK])
            del self._input[:sent]
        except BlockingIOError:
            return
        except OSError:  # the container closed it
            self._input.clear()
            self.end_input()
        if self._input_ends:
            self.end_input()
