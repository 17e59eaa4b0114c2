"""A region at the bottom of a terminal that is drawn again and again, below lines that stay.

No line is as wide as the terminal, so that none wraps; a frame is one write; nothing of the terminal's state is changed
(the cursor stays visible, no mode is set), so that a kill at any moment leaves nothing to restore.
"""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Escape sequences as ECMA-48 has them, 5.3 and 5.4, and the strings of OSC, DCS, SOS, PM, APC up to their terminator.
_ESCAPES = re.compile(
    "(?:\x1b[PX^_\\]]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|\x1b[ -/]*[0-~]?"
)
_LINE = 4096
"""Characters of a line of output that are looked at: no terminal shows more."""


def harmless(text: str) -> str:
    """One line without escape sequences, control and direction characters; tabs are blanks."""
    if text.isprintable():
        return text
    text = _ESCAPES.sub("", text)
    return "".join(c for c in text.replace("\t", "    ") if c.isprintable() or unicodedata.category(c) in ("Zs", "Co"))


@lru_cache(4096)
def _cells(char: str) -> int:
    """Columns that a terminal gives it (Unicode Standard Annex 11; wcwidth)."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 1 if char == "\ufe0f" else 0  # it may make an emoji of what stands before it
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def width(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, room: int) -> str:
    """At most `room` columns of it, with … where something is missing."""
    text = text[: room * 4 + 4]  # marks that take no column have a limit too
    if width(text) <= room:
        return text
    if room < 1:
        return ""
    taken, used = 0, 0
    for char in text:
        cells = _cells(char)
        if used + cells > room - 1:
            break
        used += cells
        taken += 1
    return text[:taken] + "…"


class Lines:
    """The last lines of what a program writes, as a terminal would leave them: a carriage return begins a line anew."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._whole: list[str] = []
        self._rest = ""

    def feed(self, data: bytes) -> None:
        start = len(data)
        for _ in range(self._keep + 1):
            start = data.rfind(b"\n", 0, start)
            if start < 0:
                break
        else:  # what came before can't be seen any more: a flood costs little
            self._decoder.reset()
            self._whole, self._rest, data = [], "", data[start + 1 :]
        text = self._rest + self._decoder.decode(data[-(self._keep + 1) * _LINE :])
        *lines, self._rest = text.split("\n")
        self._rest = self._rest[-_LINE:]
        self._whole = (self._whole + lines)[-self._keep :]

    def last(self, count: int) -> list[str]:
        """At most `count` lines, harmless."""
        lines = [_overwritten(line) for line in [*self._whole, self._rest]]
        return [line for line in lines if line.strip()][-count:] if count > 0 else []


def _overwritten(line: str) -> str:
    return harmless(line[-_LINE:].rstrip("\r").rpartition("\r")[2])


class Screen:
    """Draws on a descriptor that is a terminal. `draw` from one thread at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._widths: list[int] = []
        self._coloured = not os.environ.get("NO_COLOR")

    def size(self) -> tuple[int, int]:
        """(columns, rows), as it is now."""
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def coloured(self, text: str, code: str) -> str:
        """`code` as in SGR (ECMA-48, 8.3.117); NO_COLOR (no-color.org) switches it off."""
        return f"\x1b[{code}m{text}\x1b[m" if self._coloured and text else text

    def draw(self, above: Iterable[str], region: Iterable[tuple[str, str]]) -> None:
        """`above` are lines that stay. `region`: (text, its colour) of each line; none is wider than the terminal."""
        columns, _ = self.size()
        out = [self._back(columns)]
        out += [f"{line}\x1b[K\n" for line in above]
        self._widths = []
        for text, code in region:
            text = cut(text, columns - 1)
            self._widths.append(width(text))
            out.append(f"{self.coloured(text, code)}\x1b[K\n")
        out.append("\x1b[J")
        _write(self._fd, "".join(out).encode(errors="replace"))

    def _back(self, columns: int) -> str:
        """To the region's first row. A terminal that became narrower has broken its lines into several rows."""
        rows = sum(max(1, -(-each // columns)) for each in self._widths)
        return f"\r\x1b[{rows}A" if rows else "\r" if self._widths else ""


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
