"""Text of a Dockerfile to instructions: names, flags, arguments, heredocs, each with its place. No I/O, no meaning.

Grammar: the Dockerfile reference, "Format", "Here-Documents", and each instruction's; where it is silent, BuildKit's
behaviour. `lines` joins the lines; what the instructions mean is the business of `typed`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.language import lines as physical
from limpet.build.language import words as shell
from limpet.build.language.lines import Word
from limpet.build.language.words import SPACES
from limpet.errors import Invalid
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from limpet.build.language.lines import Directive, Logical

MAX_SIZE = physical.MAX_SIZE

MAX_INSTRUCTIONS = 10_000
"""Of a Dockerfile; more is refused: each step of the plan has its whole environment."""

INSTRUCTIONS = frozenset(
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER "
    "VOLUME WORKDIR".split()
)
"""All of the language."""

_JSON_OR_LIST = frozenset({"ADD", "COPY", "VOLUME"})
_JSON_OR_TEXT = frozenset({"CMD", "ENTRYPOINT", "RUN", "SHELL", "HEALTHCHECK"})
_HEREDOC = frozenset({"ADD", "COPY", "RUN"})

_BLANKS = "\t\v\f\r "
_BLANK_RUN = re.compile(r"[\t\v\f\r ]+")
_NOT_BLANK = re.compile(r"[^\t\v\f\r ]+")
_HEREDOC_WORD = re.compile(r"(\d*)<<(-?)\s*([^<]*)\Z")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """`<<NAME`. `content` is as in the file; `expand` is false if any of the name was quoted."""

    name: str
    content: str
    expand: bool
    strip_tabs: bool
    descriptor: int
    line: int
    """Line of the first line of the content."""

    @property
    def text(self) -> str:
        """The content, with leading tabs taken away if `<<-` says so."""
        return _LEADING_TABS.sub("", self.content) if self.strip_tabs else self.content


@dataclass(frozen=True, slots=True)
class Pair:
    """KEY=VALUE of ENV and LABEL, quotes and variables as written; `old` is the form KEY VALUE."""

    key: Word
    value: Word
    old: bool = False


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    `name` is in capitals, `keyword` as written. `flags` are the words `--name=value` with quotes and escapes taken
    away. `text` stands after them, continuations joined. `words` are the arguments: those of the JSON form (`json`), or
    what the instruction's own form splits `text` into (for CMD, RUN and the like that is one word). ENV and LABEL have
    `pairs` instead, ONBUILD has `trigger`.
    """

    name: str
    keyword: Word
    flags: tuple[Word, ...]
    text: str
    words: tuple[Word, ...]
    json: bool
    pairs: tuple[Pair, ...]
    heredocs: tuple[Heredoc, ...]
    trigger: Instruction | None
    comments: tuple[Word, ...]
    line: int
    end_line: int
    """The last line, that of its heredocs' end too."""
    empty_continuation: bool
    original: str
    """The joined line, from the keyword on."""
    path: str
    source: tuple[str, ...]
    """The physical lines, without heredocs."""


@dataclass(frozen=True, slots=True)
class Dockerfile:
    path: str
    escape: str
    directives: tuple[Directive, ...]
    instructions: tuple[Instruction, ...]

    def directive(self, name: str) -> Directive | None:
        return next((each for each in self.directives if each.name == name), None)


def parse(text: str, path: str = "Dockerfile") -> Dockerfile:
    """Raises Invalid with `path:line:column`, the source line and what to do."""
    return _parse(physical.reader(text, path))


def _parse(reader: physical.Reader) -> Dockerfile:
    path = reader.path
    instructions = []
    while (logical := reader.next()) is not None:
        each = _instruction(logical, reader)
        if _may_have_heredocs(each) and "<<" in logical.text:
            each = _with_heredocs(each, logical, reader)
        instructions.append(each)
        if len(instructions) > MAX_INSTRUCTIONS:
            raise error(
                each, f"more than {MAX_INSTRUCTIONS} instructions", "join RUNs with &&, or use stages of images"
            )
    if not instructions:
        raise Invalid(f"{path}: file with no instructions", "a Dockerfile begins with FROM")
    return Dockerfile(path, reader.escape, tuple(reader.directives), tuple(instructions))


def parse_one(text: str, path: str, escape: str = "\\") -> Instruction:
    """One instruction, heredocs included: a trigger of ONBUILD that an image's config has kept. Raises Invalid."""
    found = _parse(physical.reader(text, path, escape)).instructions
    if len(found) != 1:
        raise Invalid(f"{path}: {len(found)} instructions where one is wanted")
    return found[0]


def error(instruction: Instruction, message: str, hint: str = "", *, at: Word | None = None) -> Invalid:
    """An error that names file, line and column, and shows the source line; at a word, or at the instruction."""
    line, column = (at.line, at.column) if at else (instruction.keyword.line, instruction.keyword.column)
    return Invalid(where(instruction, message, line, column), physical.printable(hint))


def where(instruction: Instruction, message: str, line: int, column: int) -> str:
    index = line - instruction.line
    source = instruction.source[index] if 0 <= index < len(instruction.source) else ""
    return physical.located(instruction.path, line, column, message, source)


def parse_heredoc(word: str) -> Heredoc | None:
    """A heredoc's opening word, without a content; None if it is none. Raises `WordError`."""
    found = _HEREDOC_WORD.match(word)
    if not found or not found.group(3):
        return None
    plain = shell.split_raw(found.group(3), unquote=True)
    if len(plain) != 1:
        return None
    raw = shell.split_raw(found.group(3))[0]
    expand = sum(map(plain[0].count, "'\"")) == sum(map(raw.count, "'\""))
    descriptor = int(found.group(1)[:9] or 0)
    return Heredoc(plain[0], "", expand, bool(found.group(2)), descriptor, 0)


class _Line:
    """A logical line being read: an offset into it, and places for what is found."""

    def __init__(self, logical: Logical, reader: physical.Reader, begin: int = 0) -> None:
        self.logical = logical
        self.reader = reader
        self.text = logical.text
        self.begin = begin
        self.end = len(self.text.rstrip(SPACES))

    def fail(self, message: str, at: int, hint: str = "") -> Invalid:
        return physical.mistake(self.reader.path, self.reader.lines, *self.logical.place(at), message, hint)


def _instruction(logical: Logical, reader: physical.Reader, begin: int = 0) -> Instruction:
    line = _Line(logical, reader, begin)
    text = line.text
    found = _NOT_BLANK.match(text, begin, line.end)
    keyword_end = found.end() if found else begin
    flags, at = _flags(line, keyword_end)
    while at < line.end and text[at] in SPACES:
        at += 1
    keyword = logical.word(begin, keyword_end)
    name = keyword.text.upper()
    words, is_json = _arguments(line, name, at)
    return Instruction(
        name=name,
        keyword=keyword,
        flags=flags,
        text=text[at : line.end],
        words=words,
        json=is_json,
        pairs=_pairs(line, name, at) if name in ("ENV", "LABEL") else (),
        heredocs=(),
        trigger=_instruction(logical, reader, at) if name == "ONBUILD" and at < line.end and begin == 0 else None,
        comments=logical.comments,
        line=logical.line,
        end_line=logical.end_line,
        empty_continuation=logical.empty_continuation,
        original=text[begin : line.end],
        path=reader.path,
        source=tuple(reader.lines[logical.line - 1 : logical.end_line]),
    )


def _flags(line: _Line, at: int) -> tuple[tuple[Word, ...], int]:
    """The words that begin with `--`, up to one that doesn't or that is `--`. (words, where the rest begins)."""
    found: list[Word] = []
    while True:
        while at < line.end and line.text[at] in SPACES:
            at += 1
        if not line.text.startswith("--", at, line.end):
            return tuple(found), at
        begin = at
        word, at = _flag(line, at)
        if word == "--":
            return tuple(found), at
        found.append(Word(word, *line.logical.place(begin)))


def _flag(line: _Line, at: int) -> tuple[str, int]:
    """One flag, its quotes and escapes taken away. Also in single quotes the escape character escapes."""
    text, escape = line.text, line.reader.escape
    out: list[str] = []
    quote = ""
    while at < line.end:
        char = text[at]
        if not quote and char in SPACES:
            break
        at += 1
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char == escape:
            if at < line.end:
                out.append(text[at])
                at += 1
        else:
            out.append(char)
    return "".join(out), at


def _arguments(line: _Line, name: str, at: int) -> tuple[tuple[Word, ...], bool]:
    """(the arguments, whether they came as JSON)."""
    end = line.end
    if at >= end:
        return (), False
    if name in _JSON_OR_LIST or name in _JSON_OR_TEXT:
        lead: tuple[Word, ...] = ()
        if name == "HEALTHCHECK":
            lead, at = _first_word(line, at)
            if at >= end:
                return lead, False
        found = _json_form(line, at)
        if found is not None:
            return lead + found, True
        if name in _JSON_OR_TEXT:
            return (*lead, line.logical.word(at, end)), False
        return _blank_separated(line, at), False
    if name in ("FROM", "EXPOSE"):
        return _blank_separated(line, at), False
    if name == "ARG":
        return tuple(line.logical.word(*span) for span in _quoted_words(line, at)), False
    if name in ("ENV", "LABEL", "ONBUILD") or name not in INSTRUCTIONS:
        return (), False
    return (line.logical.word(at, end),), False


def _first_word(line: _Line, at: int) -> tuple[tuple[Word, ...], int]:
    begin = at
    while at < line.end and line.text[at] not in SPACES:
        at += 1
    first = line.logical.word(begin, at)
    while at < line.end and line.text[at] in SPACES:
        at += 1
    return (first,), at


def _blank_separated(line: _Line, at: int) -> tuple[Word, ...]:
    return tuple(line.logical.word(*found.span()) for found in _NOT_BLANK.finditer(line.text, at, line.end))


def _json_form(line: _Line, at: int) -> tuple[Word, ...] | None:
    """The exec form; None for what isn't JSON, which then is the shell form. JSON of anything but texts is an error."""
    text = line.text[at : line.end]
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text, parse_constant=_no_constant, parse_int=float)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in found):
        message = "when using JSON array syntax, arrays must be comprised of strings only"
        raise line.fail(message, at, "put each argument in double quotes")
    starts = _json_starts(text)
    clean = (word.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for word in found)
    return tuple(Word(word, *line.logical.place(at + start)) for word, start in zip(clean, starts, strict=True))


_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _json_starts(text: str) -> list[int]:
    return [found.start() for found in _JSON_TEXT.finditer(text)]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _quoted_words(line: _Line, at: int) -> list[tuple[int, int]]:
    """Where the words are, quotes and escapes respected and kept."""
    text, end, escape = line.text, line.end, line.reader.escape
    found: list[tuple[int, int]] = []
    begin = -1
    quote = ""
    while at < end:
        char = text[at]
        if begin < 0:
            if char in SPACES:
                at += 1
                continue
            begin = at
        if not quote and char in SPACES:
            found.append((begin, at))
            begin = -1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char == escape and quote != "'":
            if at + 1 == end:  # at the very end it means nothing
                break
            at += 1
        at += 1
    if begin >= 0 and at > begin:
        found.append((begin, at))
    return found


def _pairs(line: _Line, name: str, at: int) -> tuple[Pair, ...]:
    """`KEY=value …`, or the old `KEY the rest of the line`; the first word's `=` decides."""
    spans = _quoted_words(line, at)
    if not spans:
        return ()
    logical, text = line.logical, line.text
    if "=" not in text[slice(*spans[0])]:
        gap = _BLANK_RUN.search(text, at, line.end)
        if not gap:
            raise line.fail(f"{name} must have two arguments", at, f"{name} KEY=VALUE")
        return (Pair(logical.word(at, gap.start()), logical.word(gap.end(), line.end), old=True),)
    pairs = []
    for begin, end in spans:
        equals = text.find("=", begin, end)
        if equals < 0:
            word = text[begin:end]
            message = f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            raise line.fail(message, begin, f'a value with spaces is put in quotes: {name} KEY="a b"')
        pairs.append(Pair(logical.word(begin, equals), logical.word(equals + 1, end)))
    return tuple(pairs)


def _may_have_heredocs(each: Instruction) -> bool:
    inner = each.trigger or each
    return inner.name in _HEREDOC and not inner.json


def _with_heredocs(each: Instruction, logical: Logical, reader: physical.Reader) -> Instruction:
    try:
        written = shell.split_raw(logical.text)
    except shell.WordError:
        return each  # as in BuildKit: a line that is no shell words has no heredocs
    found: list[Heredoc] = []
    for word in written:
        try:
            heredoc = parse_heredoc(word)
        except shell.WordError as e:
            raise error(each, str(e)) from e
        if heredoc is None:
            continue
        first = reader.line + 1
        content = reader.heredoc(heredoc.name, strip_tabs=heredoc.strip_tabs)
        if content is None:
            hint = f"a line that is {heredoc.name} and nothing else ends it"
            raise error(each, f"unterminated heredoc {heredoc.name}", hint)
        found.append(replace(heredoc, content=content, line=first))
    if not found:
        return each
    trigger = replace(each.trigger, heredocs=tuple(found), end_line=reader.line) if each.trigger else None
    return replace(each, heredocs=tuple(found), trigger=trigger, end_line=reader.line)
