"""A terminal for tests: what a program on a pty leaves on the screen, and whether it restored what it changed.

It knows what limpet sends (ECMA-48: CUU, ED, EL, SGR, carriage return, line feed); anything else is a failure. Lines
that are too long are wrapped, and wrapped anew when the size changes, as VTE, kitty and tmux do.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import unicodedata
from collections.abc import Callable

_TOKEN = re.compile("\x1b\\[([0-9;?]*)([A-Za-z])|[^\x1b]|\x1b")


class Screen:
    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines: list[list[str]] = [[]]  # logical lines, cell by cell; a wide character's second cell is ""
        self.row, self.column = 0, 0
        """In physical rows from the first one that was ever written."""

    def _physical(self) -> list[tuple[int, int]]:
        """(line, where in it a row begins)."""
        return [
            (number, start)
            for number, line in enumerate(self.lines)
            for start in range(0, max(len(line), 1), self.columns)
        ]

    def resize(self, columns: int) -> None:
        number, start = self._physical()[self.row]
        at = start + self.column
        self.columns = columns
        self.row = self._physical().index((number, at // columns * columns))
        self.column = at % columns

    def feed(self, text: str) -> None:
        for found in _TOKEN.finditer(text):
            if found.group(2):
                self._control(found.group(1), found.group(2))
            else:
                self._character(found.group())

    def _control(self, value: str, name: str) -> None:
        rows = self._physical()
        number, start = rows[self.row]
        if name == "A":
            bottom = len(rows) - self.rows
            self.row = max(self.row - int(value or 1), max(bottom, 0))
        elif name == "K":
            assert not value
            del self.lines[number][start + self.column :]
        elif name == "J":
            assert not value
            del self.lines[number][start + self.column :]
            del self.lines[number + 1 :]
        else:
            assert name == "m", f"{name} is not expected"

    def _character(self, char: str) -> None:
        if char == "\r":
            self.column = 0
            return
        rows = self._physical()
        if char == "\n":
            self.row += 1
            self.column = 0
            if self.row == len(rows):
                self.lines.append([])
            return
        assert unicodedata.category(char) != "Cc", f"{char!r} is not expected"
        number, start = rows[self.row]
        line = self.lines[number]
        wide = unicodedata.east_asian_width(char) in ("W", "F")
        if unicodedata.category(char) == "Mn":
            return
        for cell in (char, "") if wide else (char,):
            at = start + self.column
            line += [" "] * (at - len(line))
            line[at : at + 1] = [cell]
            if self.column == self.columns:
                self.row, self.column, start = self.row + 1, 0, at
            self.column += 1

    def text(self) -> list[str]:
        """What stands there, scrolled out of sight or not."""
        return ["".join(line).rstrip() for line in self.lines]


class Session:
    """A command on a pty, with what it shows. `see` waits until something is there."""

    def __init__(self, command: list[str], environment: dict[str, str], columns: int = 80, rows: int = 24) -> None:
        self.screen = Screen(columns, rows)
        self.raw = b""
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        environment = {**{key: value for key, value in environment.items() if key != "NO_COLOR"}, "TERM": "xterm"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        self._theirs = theirs  # kept open, to look at its state afterwards
        self._rest = b""

    def see(self, wanted: Callable[[str], bool]) -> None:
        """Reads until the whole text fits; fails when the command has ended before."""
        while not wanted("\n".join(self.screen.text())):
            assert self._read(), f"it ended:\n{self.raw.decode(errors='replace')}"

    def resize(self, columns: int) -> None:
        self.screen.resize(columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", self.screen.rows, columns, 0, 0))

    def end(self) -> int:
        """The exit code, when all it wrote is read."""
        os.close(self._theirs)
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(60)

    def state(self) -> object:
        return termios.tcgetattr(self._theirs)

    def _read(self) -> bool:
        while not select.select([self._ours], [], [], 0.2)[0]:
            if self.process.poll() is not None:
                return False  # our own copy of the other end keeps it open
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.raw += data
        data = self._rest + data
        # A piece may end in the middle of a character or a sequence.
        cut = len(data)
        escape = data.rfind(b"\x1b")
        if escape >= 0 and not re.match(rb"\x1b\[[0-9;?]*[A-Za-z]", data[escape:]):
            cut = escape
        while cut and len(data) - cut < 4:
            try:
                text = data[:cut].decode()
                break
            except UnicodeDecodeError:
                cut -= 1
        else:
            text = data[:cut].decode()
        self._rest = data[cut:]
        self.screen.feed(text)
        return True
