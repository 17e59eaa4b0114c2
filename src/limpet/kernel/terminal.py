"""Terminals: sizes, raw mode that is always undone, and the master of a pty in any devpts."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_TIOCSPTLCK, _TIOCGPTN = 0x40045431, 0x80045430
# Indices of the list that tcgetattr gives (termios(3)).
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6


def get_size(fd: int) -> tuple[int, int]:
    """(rows, columns); (0, 0) where there is no terminal."""
    try:
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 0, 0
    return rows, columns


def set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def open_ptmx(directory: str) -> tuple[int, str]:
    """(master, path of the slave) of a new pty of the devpts that is mounted at `directory`."""
    master = os.open(f"{directory}/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
    except OSError:
        os.close(master)
        raise
    return master, f"{directory}/{number}"


class RawMode:
    """`with RawMode(fd):` every key comes at once and unchanged, and output is not touched; undone at the end.

    Raises termios.error when `fd` is no terminal. For a death that runs no code (SIGKILL) nothing in this process can
    help: `stty sane` does.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] = []

    def __enter__(self) -> RawMode:
        self._saved = termios.tcgetattr(self._fd)
        raw = termios.tcgetattr(self._fd)
        # cfmakeraw(3)
        raw[_IFLAG] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        raw[_OFLAG] &= ~termios.OPOST
        raw[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[_CFLAG] = raw[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, raw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """At once: to wait for output to drain would wait for ever on a terminal that somebody has stopped."""
        if self._saved:
            saved, self._saved = self._saved, []
            try:
                termios.tcsetattr(self._fd, termios.TCSANOW, saved)
            except termios.error:
                pass  # the terminal was closed: nobody is left to notice
