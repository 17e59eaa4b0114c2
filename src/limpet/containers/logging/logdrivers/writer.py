"""A driver in a process of its own, so that the monitor never waits for a disk or for another machine.

Between them is a socket that holds `max-buffer-size` bytes. When that is full, the container waits (mode=blocking: its
output is read no further), or lines are dropped and counted (mode=non-blocking: the new ones, as Docker does).
The process begins with the first line and ends when the monitor falls asleep, so that a silent container has none.
"""

from __future__ import annotations

import mmap
import os
import select
import time

from limpet.containers.logging.logfile import Lines
from limpet.containers.monitor.streams import PATIENCE
from limpet.kernel import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any, NoReturn

    from limpet.containers.logging.logdrivers.opening import Driver
else:
    import _socket as socket

_PACKET = 32 << 10  # of text; at most 16 KiB more
_HEAD = 13  # bytes before it: stream, lines (u32), nanoseconds (u64)
_STREAMS = ("stdout", "stderr")
_SNDBUFFORCE = 32  # asm-generic/socket.h


class WriterProcess:
    """A `logdrivers.opening.Log`. `make` is called in the process, for the driver."""

    def __init__(self, make: Callable[[], Driver], size: int, *, drop: bool) -> None:
        self._make = make
        self._size = size
        self._drop = drop
        self._lines = Lines()
        self._socket: socket.socket | None = None
        self._pid = 0
        self._shared: mmap.mmap | None = None  # u64 lines that the driver has taken; u64 of them that it dropped
        self._sent = 0  # lines
        self._dropped = 0
        self._waiting: list[tuple[bytes, int]] = []  # packets and their lines, in blocking mode

    @property
    def blocked(self) -> bool:
        return bool(self._waiting)

    @property
    def descriptor(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    @property
    def dropped(self) -> int:
        return self._dropped + self._counter(8)

    def write(self, stream: str, data: bytes, moment: int = 0) -> None:
        self._pass_on(stream, [text for text, _ in self._lines.cut(stream, data)], moment or time.time_ns())

    def flush(self) -> None:
        for stream, line in self._lines.rest():
            self._pass_on(stream, [line], time.time_ns())

    def retry(self, seconds: float = 0.0) -> None:
        """Sends what waits. With `seconds` it is the end: who takes nothing for so long gets no more."""
        end = time.monotonic() + seconds
        while self._waiting:
            packet, lines = self._waiting[0]
            if self._send(packet, lines):
                del self._waiting[0]
                end = time.monotonic() + seconds
                continue
            left = end - time.monotonic()
            if left <= 0:
                if seconds:
                    self._drop = True
                    self._dropped += sum(lines for _, lines in self._waiting)
                    self._waiting.clear()
                return
            poll = select.poll()
            poll.register(self.descriptor, select.POLLOUT)
            poll.poll(left * 1000)

    def saved(self) -> list[Any] | None:
        if self._waiting or (self._pid and self._counter(0) < self._sent):
            return None
        self._end(PATIENCE)  # it has nothing to do
        return [self._lines.saved(), self._dropped]

    def restore(self, saved: list[Any]) -> None:
        lines, self._dropped = saved
        self._lines.restore(lines)

    def close(self) -> None:
        self.flush()
        self.retry(PATIENCE)
        self._end(PATIENCE)

    def _pass_on(self, stream: str, texts: list[bytes], moment: int) -> None:
        which = _STREAMS.index(stream).to_bytes(1, "little")
        stamp = moment.to_bytes(8, "little")
        while texts:
            count = size = 0
            while count < len(texts) and size + len(texts[count]) <= _PACKET:
                size += len(texts[count])
                count += 1
            text = b"".join(texts[:count])
            del texts[:count]
            lines = max(text.count(b"\n"), 1)
            packet = which + lines.to_bytes(4, "little") + stamp + text
            if self._waiting:
                self._waiting.append((packet, lines))
            elif not self._send(packet, lines):
                if self._drop:
                    self._dropped += lines
                else:
                    self._waiting.append((packet, lines))

    def _send(self, packet: bytes, lines: int) -> bool:
        """False if it does not fit now."""
        for _ in range(2):
            if self._socket is None:
                try:
                    self._begin()
                except OSError:  # no process can be made: as a full disk
                    self._dropped += lines
                    return True
            assert self._socket is not None
            try:
                self._socket.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError:  # somebody killed it: what it had not taken is lost
                self._end(0)
                continue
            self._sent += lines
            return True
        self._dropped += lines
        return True

    def _begin(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, self._size)
        except OSError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._size)
        self._shared = mmap.mmap(-1, 16)
        self._sent = 0
        self._pid = os.fork()
        if self._pid == 0:
            _serve(theirs, self._shared, self._make)
        theirs.close()

    def _end(self, patience: float) -> None:
        """Lets it finish what it was given; counts what it could not pass on."""
        if self._socket is None:
            return
        self._socket.shutdown(socket.SHUT_WR)
        if self._pid:
            try:
                probe = os.pidfd_open(self._pid)
            except OSError:
                probe = -1
            if probe >= 0:
                poll = select.poll()
                poll.register(probe, select.POLLIN)
                if not poll.poll(patience * 1000):
                    process.pidfd_send_signal(probe, signals.SIGKILL)
                os.close(probe)
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:  # reaped with others
                pass
        self._dropped += max(self._sent - self._counter(0), 0) + self._counter(8)
        self._socket.close()
        self._socket = self._shared = None
        self._pid = self._sent = 0

    def _counter(self, at: int) -> int:
        return int.from_bytes(self._shared[at : at + 8], "little") if self._shared is not None else 0


def _serve(channel: socket.socket, shared: mmap.mmap, make: Callable[[], Driver]) -> NoReturn:
    """The process. It holds nothing of the monitor's, neither its lock nor the container's pipes, and ends with it."""
    try:
        process.set_death_signal(signals.SIGKILL)
        process.set_name(b"limpet-log")
        fd = channel.fileno()
        if fd > 3:
            process.close_range(3, fd - 1)
        process.close_range(fd + 1, 0xFFFFFFFF)
        driver = make()
        taken = 0
        while packet := channel.recv(_HEAD + _PACKET + (16 << 10)):
            lines, moment = int.from_bytes(packet[1:5], "little"), int.from_bytes(packet[5:_HEAD], "little")
            driver.write(_STREAMS[packet[0]], packet[_HEAD:], moment)
            taken += lines
            shared[0:16] = taken.to_bytes(8, "little") + driver.dropped.to_bytes(8, "little")
        driver.close()
    finally:
        os._exit(0)
