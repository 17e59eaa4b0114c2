"""Physical lines of a Dockerfile to logical ones: directives, comments, continuations. Every character keeps its place.

Rules (Dockerfile reference, "Format", "Parser directives"; where it is silent, what BuildKit does):

- A line whose first character after spaces is `#` is a comment, also between continued lines.
- The escape character at a line's end, spaces and tabs after it allowed, joins it with the next, unless another escape
  character stands before it. Blank lines within a continuation are skipped (old files have them), with a note.
- Leading spaces go from the first line of an instruction, not from those that continue it.
- Directives (`# name=value`) stand before everything else, in any case of letters, each once; the first line
  that is none ends them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import field

from limpet.build.language.words import SPACES
from limpet.errors import Invalid
from limpet.frozen import dataclass

MAX_SIZE = 32 << 20
"""Characters of a Dockerfile; more is refused."""

MAX_LINE = 10 << 20
"""Characters of one physical line, and of one instruction with its continuations."""

_DIRECTIVE = re.compile(r"#[\t\n\v\f\r \x85\xa0]*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of the file. `line` and `column`, both from 1, are where it begins."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Directive:
    """`# name=value`; `name` in small letters."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Logical:
    """An instruction's line, joined. `starts` and `places`: where each piece of `text` lies in the file."""

    text: str
    line: int
    end_line: int
    starts: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    comments: tuple[Word, ...]
    empty_continuation: bool

    def place(self, offset: int) -> tuple[int, int]:
        """(line, column) of a character of `text`."""
        index = bisect_right(self.starts, offset) - 1
        line, column = self.places[index]
        return line, column + offset - self.starts[index]

    def word(self, begin: int, end: int) -> Word:
        return Word(self.text[begin:end], *self.place(begin))


def mistake(path: str, lines: list[str], line: int, column: int, message: str, hint: str = "") -> Invalid:
    """An error that names file, line, column and the source line."""
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    return Invalid(located(path, line, column, message, source), printable(hint))


def located(path: str, line: int, column: int, message: str, source: str) -> str:
    """`path:line:column: message >>> source line`, on one line; a long source line is cut around the column."""
    begin = max(0, min(column - 1 - _SHOWN // 2, len(source) - _SHOWN))
    shown = source[begin : begin + _SHOWN]
    shown = ("…" if begin else "") + shown.strip() + ("…" if begin + _SHOWN < len(source) else "")
    text = f"{path}:{line}:{column}: {message}" + (f" >>> {shown}" if shown else "")
    return printable(text)


def printable(text: str) -> str:
    """On one line, and nothing in it that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char in SPACES else ascii(char)[1:-1] for char in text)


@dataclass(slots=True)
class Reader:
    """Gives one logical line after another, and the raw lines of a heredoc in between."""

    path: str
    lines: list[str]
    """The physical lines, without their ends."""
    escape: str = "\\"
    directives: list[Directive] = field(default_factory=list)
    _ends: list[str] = field(default_factory=list)
    _at: int = 0
    _comments: list[Word] = field(default_factory=list)
    _continues: re.Pattern[str] = field(default_factory=lambda: _continuation("\\"))

    def next(self) -> Logical | None:
        """None at the end of the file."""
        while self._at < len(self.lines):
            line = self.lines[self._at]
            number = self._at + 1
            bare = line.lstrip(SPACES)
            self._at += 1
            if bare.startswith("#"):
                self._comment(bare, number, len(line) - len(bare) + 1)
                continue
            if not bare:
                self._comments = []
                continue
            logical = self._join(bare, number, len(line) - len(bare) + 1)
            self._comments = []
            return logical
        return None

    def heredoc(self, name: str, *, strip_tabs: bool) -> str | None:
        """All lines, with their ends, up to one that is `name`; None if there is none."""
        content: list[str] = []
        for index in range(self._at, len(self.lines)):
            line = self.lines[index]
            if (line.lstrip("\t") if strip_tabs else line) == name:
                self._at = index + 1
                return "".join(content)
            content.append(line + self._ends[index])
        return None

    @property
    def line(self) -> int:
        """Number of the last physical line that was read."""
        return self._at

    def _comment(self, bare: str, number: int, column: int) -> None:
        text = bare[1:].strip(SPACES)
        if text:
            self._comments.append(Word(text, number, column))
        else:
            self._comments = []

    def _join(self, bare: str, number: int, column: int) -> Logical:
        pieces: list[str] = []
        starts: list[int] = []
        places: list[tuple[int, int]] = []
        length = 0
        empty = False
        piece, line = bare, number
        while True:
            more = self._continues.search(piece)
            if more:
                piece = piece[: more.start()]
            if piece or not pieces:
                starts.append(length)
                places.append((line, column))
                pieces.append(piece)
                length += len(piece)
                if length > MAX_LINE:
                    message = f"an instruction of more than {MAX_LINE >> 20} MiB"
                    raise mistake(self.path, self.lines, number, column, message)
            if not more:
                break
            following, skipped = self._continued()
            empty = empty or skipped
            if following is None:
                break
            piece, line, column = following, self._at, 1
        return Logical("".join(pieces), number, self._at, tuple(starts), tuple(places), tuple(self._comments), empty)

    def _continued(self) -> tuple[str | None, bool]:
        """(the next line that counts, whether blank ones were skipped)."""
        skipped = False
        while self._at < len(self.lines):
            line = self.lines[self._at]
            self._at += 1
            bare = line.lstrip(SPACES)
            if not bare:
                skipped = True
            elif not bare.startswith("#"):
                return line, skipped
        return None, skipped

    def read_directives(self) -> None:
        """Raises Invalid for a directive that comes twice, or an escape character that is none."""
        first = 1 if self.lines and self.lines[0].startswith("#!") else 0
        seen: set[str] = set()
        for index in range(first, len(self.lines)):
            line = self.lines[index].lstrip(SPACES)
            found = _DIRECTIVE.match(line)
            name = found.group(1).lower() if found else ""
            if not found or name not in ("syntax", "escape", "check"):
                break
            column = len(self.lines[index]) - len(line) + 1
            if name in seen:
                message = f"only one {name} parser directive can be used"
                raise mistake(self.path, self.lines, index + 1, column, message)
            seen.add(name)
            value = found.group(2)
            self.directives.append(Directive(name, value, index + 1))
            self._at = index + 1
            if name == "escape":
                if value not in ("\\", "`"):
                    message = f"invalid escape token '{value}' does not match ` or \\"
                    raise mistake(self.path, self.lines, index + 1, column + found.start(2), message, "use \\ or `")
                self.escape = value
                self._continues = _continuation(value)


def reader(text: str, path: str, escape: str = "") -> Reader:
    """Raises Invalid for a text or a line that is too long, and for directives that are wrong.

    With `escape` given there are no directives.
    """
    if len(text) > MAX_SIZE:
        raise Invalid(f"{path}: larger than {MAX_SIZE >> 20} MiB")
    raw = text.removeprefix("\ufeff").split("\n")
    if raw and not raw[-1]:
        raw.pop()
    lines = [line.rstrip("\r") for line in raw]
    ends = [line[len(bare) :] + "\n" for line, bare in zip(raw, lines, strict=True)]
    if ends and not text.endswith("\n"):
        ends[-1] = ends[-1][:-1]
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise Invalid(f"{path}:{number}: a line of more than {MAX_LINE >> 20} MiB")
    if escape:
        return Reader(path, lines, escape, _ends=ends, _continues=_continuation(escape))
    result = Reader(path, lines, _ends=ends)
    result.read_directives()
    return result


def _continuation(escape: str) -> re.Pattern[str]:
    token = re.escape(escape)
    return re.compile(rf"(?<!{token}){token}[ \t]*\Z")
