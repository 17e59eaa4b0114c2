"""Copying between this process's terminal and a pty, for `exec --tty`: the program there is our child."""

from __future__ import annotations

import os
import select

from limpet.errors import OUTPUT
from limpet.kernel import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn

    from limpet.kernel.terminal import RawMode


class KeyMatcher:
    """Finds the detach keys in what is typed; bytes that may be the beginning of them are held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the keys were complete."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                out.append(byte)
        return bytes(out), False


class RawTerminal:
    """`with RawTerminal():` standard input is a raw terminal, and is restored whatever happens to this process.

    An exception and a caught signal are undone here; a small forked guardian undoes what SIGKILL and crashes leave.
    """

    def __init__(self) -> None:
        from limpet.kernel import terminal

        self._raw = terminal.RawMode(0)
        self._alive = -1

    def __enter__(self) -> RawTerminal:
        self._raw.__enter__()
        end, self._alive = os.pipe()
        if os.fork() == 0:
            _guard(self._raw, end, self._alive)
        os.close(end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.restore()
        os.write(self._alive, b"k")  # all is well
        os.close(self._alive)


def _guard(raw: RawMode, end: int, other: int) -> NoReturn:
    """Waits for the end of its parent, with no other descriptor than the terminal."""
    try:
        signals.block(signals.SIG_BLOCK, signals.valid())  # SIGTTOU too: the terminal is not ours in the background
        os.dup2(end, 1)
        process.close_range(2, 0xFFFFFFFF)
        process.set_name(b"limpet-guard")
        if not os.read(1, 1):
            raw.restore()
    finally:
        os._exit(0)


def copy(master: int, pid: int, *, stdin: bool, keys: bytes) -> bool:
    """Until the program `pid` has closed the terminal; True if the user detached."""
    matcher = KeyMatcher(keys)
    wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signals.set_handler(signals.SIGWINCH, _no_action)
    signals.set_wakeup_fd(write)
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(wake, select.POLLIN)
    if stdin:
        poll.register(0, select.POLLIN)
    try:
        while True:
            for fd, _ in poll.poll():
                if fd == wake:
                    os.read(wake, 64)
                    _resize(master)
                elif fd == 0:
                    data = os.read(0, 1 << 16)
                    if not data:
                        poll.unregister(0)
                        write_all(master, b"\x04")
                        continue
                    data, detached = matcher.feed(data)
                    write_all(master, data)
                    if detached:
                        return True
                else:
                    try:
                        data = os.read(master, 1 << 16)
                    except OSError:  # EIO: the last process has closed it
                        return False
                    write_all(1, data)
    finally:
        signals.set_wakeup_fd(-1)
        signals.set_handler(signals.SIGWINCH, before)
        os.close(wake)
        os.close(write)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # another program made our standard output non-blocking
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError as e:
            raise OSError(e.errno, e.strerror, {1: OUTPUT, 2: "standard error"}.get(fd)) from None


def _resize(master: int) -> None:
    from limpet.kernel import terminal

    try:
        rows, columns = terminal.get_size(0 if os.isatty(0) else 1)
        terminal.set_size(master, rows, columns)
    except OSError:
        pass


def _no_action(number: int, frame: object) -> None:
    pass
