"""Words of a Dockerfile: quotes, escapes and variables, by the rules of BuildKit's shell words. Pure; no I/O.

    $NAME  ${NAME}                the value, nothing if unset
    ${NAME:-word}  ${NAME-word}   `word` if unset (with a colon: or empty)
    ${NAME:+word}  ${NAME+word}   `word` if set (with a colon: and not empty)
    ${NAME:?word}  ${NAME?word}   the error `word` if unset (with a colon: or empty)
    ${NAME#glob}  ${NAME##glob}   without the shortest, longest beginning that the glob matches
    ${NAME%glob}  ${NAME%%glob}   without the shortest, longest end
    ${NAME/glob/word}  ${NAME//glob/word}    the first match, all matches replaced

A glob knows `*`, `?` and `\\` only. (Dockerfile reference, "Environment replacement"; POSIX shell, 2.6.2.) Words nest
to `MAX_DEPTH`; globs are matched in time proportional to glob times value, whatever they are.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from limpet.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH = 64
"""Expansions within expansions; more is an error."""

MAX_EXPANDED = 16 << 20
"""Characters that the variables of one word may bring; more is an error (`ENV A=$A$A`, again and again)."""

MAX_GLOB = 1 << 16
"""Characters of a value in which a glob may be replaced."""

SPACES = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""What Go's unicode.IsSpace takes for a space; str.isspace() takes more."""

_SPACE_RUNS = re.compile(f"([{re.escape(SPACES)}]+)")
_NAME = re.compile(r"[0-9]+|[@*#?$!-]|[^\W0-9]\w*")
_GAP = re.compile(r"-?[\t\r ]*")


class WordError(ValueError):
    """`message` says what is wrong, `at` where: an offset into the word."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message = message
        self.at = at


@dataclass(frozen=True, slots=True)
class Expansion:
    """`used` and `unset` are the names of the variables that were there and that weren't."""

    text: str
    used: frozenset[str]
    unset: frozenset[str]


def expand(text: str, values: Mapping[str, str], escape: str = "\\", *, quotes: bool = True) -> Expansion:
    """One word, whatever spaces are in it. `quotes` off leaves quotes alone (heredocs). Raises WordError."""
    lexer = _Lexer(text, values, escape)
    lexer.quotes = quotes
    result = "".join(piece for piece, _ in lexer.pieces())
    return Expansion(result, frozenset(lexer.used), frozenset(lexer.unset))


def split(text: str, values: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Words at spaces, those in values too unless they are quoted; empty ones are left out. Raises WordError."""
    return _words(_Lexer(text, values, escape).pieces())


def split_raw(text: str, *, unquote: bool = False) -> list[str]:
    """Words with variables, and quotes and escapes unless `unquote`, as they are written. Raises WordError."""
    lexer = _Lexer(text, {}, "\\")
    lexer.keep_unset = True
    lexer.raw_quotes = not unquote
    return _words(lexer.pieces(raw=not unquote))


def _words(pieces: list[tuple[str, bool]]) -> list[str]:
    words: list[str] = []
    current: list[str] = []
    for piece, splits in pieces:
        if not splits:
            current.append(piece)
            continue
        for part in _SPACE_RUNS.split(piece):
            if part and part[0] in SPACES:
                if any(current):
                    words.append("".join(current))
                    current = []
            else:
                current.append(part)
    if any(current):
        words.append("".join(current))
    return words


@functools.cache
def _plain(escape: str) -> re.Pattern[str]:
    """A run of characters that mean only themselves, wherever they stand."""
    return re.compile(rf"[^{re.escape(escape)}$<'\"}}/]+")


class _Lexer:
    """Goes through `text` once. A piece is (text, whether spaces in it separate words)."""

    def __init__(self, text: str, values: Mapping[str, str], escape: str) -> None:
        self.text = text
        self.values = values
        self.escape = escape
        self.quotes = True
        self.raw_quotes = False
        self.keep_unset = False
        self.used: set[str] = set()
        self.unset: set[str] = set()
        self.at = 0
        self.depth = 0
        self.brought = 0

    def pieces(self, stop: str = "", *, raw: bool = False) -> list[tuple[str, bool]]:
        """To the end, or past the character `stop`. `raw` keeps the escape characters."""
        found: list[tuple[str, bool]] = []
        plain = _plain(self.escape)
        begin = self.at
        while self.at < len(self.text):
            run = plain.match(self.text, self.at)
            if run:
                found.append((run.group(), True))
                self.at = run.end()
                continue
            char = self._take()
            if char == stop:
                return found
            if char == self.escape:
                found.append(((char if raw else "") + self._take(), False))
            elif char == "$":
                found.append((self._dollar(raw), True))
            elif char == "'" and self.quotes:
                found.append((self._single(), False))
            elif char == '"' and self.quotes:
                found.append((self._double(raw), False))
            elif char == "<" and self._next() == "<":
                # `<< EOF` and `<<- EOF` are one word: the name of a heredoc may stand after spaces.
                gap = _GAP.match(self.text, self.at + 1)
                assert gap
                found.append(("<<" + gap.group(), False))
                self.at = gap.end()
            else:
                found.append((char, True))
        if stop:
            raise WordError(f"unexpected end of statement while looking for matching {stop}", begin)
        return found

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += len(char)
        return char

    def _single(self) -> str:
        begin = self.at
        end = self.text.find("'", begin)
        if end < 0:
            self.at = len(self.text)
            raise WordError("unexpected end of statement while looking for matching single-quote", begin - 1)
        self.at = end + 1
        content = self.text[begin:end]
        return f"'{content}'" if self.raw_quotes else content

    def _double(self, raw: bool) -> str:
        begin = self.at - 1
        out = ['"'] if self.raw_quotes else []
        plain = re.compile(rf'[^{re.escape(self.escape)}$"]+')
        while self.at < len(self.text):
            run = plain.match(self.text, self.at)
            if run:
                out.append(run.group())
                self.at = run.end()
                continue
            char = self._take()
            if char == '"':
                return "".join([*out, '"'] if self.raw_quotes else out)
            if char == "$":
                out.append(self._dollar(raw))
            elif self._next() in ('"', "$", self.escape) and self._next():
                out.append((char if raw else "") + self._take())
            else:
                out.append(char)
        raise WordError("unexpected end of statement while looking for matching double-quote", begin)

    def _dollar(self, raw: bool) -> str:
        """What stands after a `$`."""
        begin = self.at - 1
        if self._next() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._value(name)
            return f"${name}" if value is None and self.keep_unset else value or ""
        self.at += 1
        if not self._next():
            raise WordError("syntax error: missing '}'", begin)
        if self._next() in "{}:":
            raise WordError("syntax error: bad substitution", begin)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise WordError(f"variables nested more than {MAX_DEPTH} deep", begin)
        result = self._braces(self._name(), begin)
        self.depth -= 1
        return result

    def _braces(self, name: str, begin: int) -> str:
        operator = self._take()
        if operator == "}":
            value = self._value(name)
            return f"${{{name}}}" if value is None and self.keep_unset else value or ""
        if operator == "/":
            return self._replace(name, begin)
        if not operator:
            raise WordError("syntax error: missing '}'", begin)
        sign = operator
        if operator == ":":
            sign = self._take()
            operator += sign
        if sign not in ("-", "+", "?", "#", "%") and not operator.startswith(":"):
            raise WordError(f"unsupported modifier ({operator}) in substitution", begin)
        if operator in (":#", ":%"):
            raise WordError(f"unsupported modifier ({operator}) in substitution", begin)
        word = self._until("}", begin, raw=sign in ("#", "%"))
        if sign not in ("-", "+", "?", "#", "%"):
            raise WordError(f"unsupported modifier ({operator}) in substitution", begin)
        value = self._value(name)
        if value is None and self.keep_unset:
            return f"${{{name}{operator}{word}}}"
        there = value is not None and (operator == sign or value != "")
        if sign == "-":
            return value or "" if there else word
        if sign == "+":
            return word if there else ""
        if sign == "?":
            if not there:
                unset = "is not allowed to be unset" if value is None else "is not allowed to be empty"
                raise WordError(f"{name}: {word or unset}", begin)
            return value or ""
        longest = word.startswith(sign)
        pattern = _pattern(word[1:] if longest else word, begin)
        return _cut(pattern, value or "", from_end=sign == "%", longest=longest)

    def _replace(self, name: str, begin: int) -> str:
        everywhere = self._next() == "/"
        if everywhere:
            self.at += 1
        pattern = self._until("/", begin, raw=True, missing="syntax error: missing '/' in ${}")
        word = self._until("}", begin, raw=True)
        value = self._value(name)
        if value is None and self.keep_unset:
            return f"${{{name}/{pattern}/{word}}}"
        tokens = _pattern(pattern, begin)
        value = value or ""
        if len(value) > MAX_GLOB:
            raise WordError(f"{name} is too long ({len(value)} characters) to replace something in it", begin)
        result = _substitute(tokens, value, word, everywhere=everywhere)
        self.brought += len(result)
        return result

    def _until(self, stop: str, begin: int, *, raw: bool, missing: str = "syntax error: missing '}'") -> str:
        try:
            return "".join(piece for piece, _ in self.pieces(stop, raw=raw))
        except WordError:
            if self.at < len(self.text):
                raise
            raise WordError(missing, begin) from None

    def _name(self) -> str:
        """Letters, digits and `_`; digits alone; or one of the shell's special parameters. "" if none stands here."""
        found = _NAME.match(self.text, self.at)
        if not found:
            return ""
        self.at = found.end()
        return found.group()

    def _value(self, name: str) -> str | None:
        value = self.values.get(name)
        self.brought += len(value or "")
        if self.brought > MAX_EXPANDED:
            raise WordError(f"the variables bring more than {MAX_EXPANDED >> 20} MiB", self.at)
        (self.unset if value is None else self.used).add(name)
        return value


_STAR = None
_ANY = ""


def _pattern(text: str, begin: int) -> list[str | None]:
    """A glob as one entry per character: itself, `_ANY` (one) or `_STAR` (any number, none of them a line's end)."""
    found: list[str | None] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            found.append(_STAR)
        elif char == "?":
            found.append(_ANY)
        elif char != "\\":
            found.append(char)
        else:
            char = text[at : at + 1]
            at += 1
            if char not in ("}", "/", "*", "?", "\\"):  # the first two were escaped for the expansion, not for the glob
                raise WordError(f"invalid pattern ({text}) in substitution: invalid escape '\\{char}'", begin)
            found.append(char)
    return found


def _match(pattern: list[str | None], value: str, at: int, *, longest: bool) -> int | None:
    """The end of the shortest or longest match that begins at `at`. All ways are followed at once."""
    states = _close(pattern, {0})
    best = None
    goal = len(pattern)
    while True:
        if goal in states:
            best = at
            if not longest:
                return best
        if at == len(value) or not states:
            return best
        char = value[at]
        following = set()
        for state in states:
            if state == goal:
                continue
            want = pattern[state]
            if want is _STAR:
                if char != "\n":
                    following.add(state)
            elif want == char or (want == _ANY and char != "\n"):
                following.add(state + 1)
        states = _close(pattern, following)
        at += 1


def _close(pattern: list[str | None], states: set[int]) -> set[int]:
    """A star may match nothing."""
    for state in list(states):
        while state < len(pattern) and pattern[state] is _STAR:
            state += 1
            states.add(state)
    return states


def _cut(pattern: list[str | None], value: str, *, from_end: bool, longest: bool) -> str:
    if from_end:
        return _cut(pattern[::-1], value[::-1], from_end=False, longest=longest)[::-1]
    end = _match(pattern, value, 0, longest=longest)
    return value if end is None else value[end:]


def _substitute(pattern: list[str | None], value: str, word: str, *, everywhere: bool) -> str:
    out: list[str] = []
    at = 0
    after_match = False
    while at <= len(value):
        end = _match(pattern, value, at, longest=True)
        if end is not None and not (end == at and after_match):
            out.append(word)
            after_match = True
            if not everywhere:
                return "".join(out) + value[end:]
            if end > at:
                at = end
                continue
        out.append(value[at : at + 1])
        at += 1
        after_match = False
    return "".join(out)
