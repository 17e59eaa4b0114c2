"""Characters of an HCL text, one place at a time: blanks, comments, numbers, names (hclsyntax/spec.md, "Lexical")."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limpet.build.bake.hcl.syntax import Source, Wrong

_NAME = re.compile(r"[^\W\d][\w-]*")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_MAX_DIGITS = 400
MAX_DEPTH = 50
"""Of expressions and blocks within each other."""


class Scanner:
    """Reads `source.text` from `at` on. In brackets (`flat` > 0) a line feed is a blank."""

    def __init__(self, source: Source, at: int = 0, end: int | None = None) -> None:
        self.source = source
        self.text = source.text
        self.at = at
        self.end = len(source.text) if end is None else end
        self.flat = 0
        self.depth = 0

    def wrong(self, message: str, hint: str = "", at: int | None = None) -> Wrong:
        return self.source.wrong(self.at if at is None else at, message, hint)

    def blanks(self) -> None:
        """Passes over blanks and comments."""
        text = self.text
        while self.at < self.end:
            letter = text[self.at]
            if letter in " \t\r\ufeff" or (letter == "\n" and self.flat):
                self.at += 1
            elif letter == "#" or text.startswith("//", self.at):
                found = text.find("\n", self.at, self.end)
                self.at = self.end if found < 0 else found
            elif text.startswith("/*", self.at):
                found = text.find("*/", self.at + 2, self.end)
                if found < 0:
                    raise self.wrong("a comment without an end", "write */ behind it")
                self.at = found + 2
            else:
                return

    def lines(self) -> None:
        """Passes over blanks and line feeds."""
        self.flat += 1
        self.blanks()
        self.flat -= 1

    def peek(self, *texts: str) -> str:
        """Which of the texts comes next, "" for none."""
        self.blanks()
        return next((each for each in texts if self.text.startswith(each, self.at, self.end)), "")

    def take(self, *texts: str) -> str:
        found = self.peek(*texts)
        self.at += len(found)
        return found

    def expect(self, text: str, where: str) -> None:
        if not self.take(text):
            raise self.wrong(f"{self.shown()} where '{text}' is expected, {where}")

    def shown(self) -> str:
        """What comes next, for a message."""
        self.blanks()
        if self.at >= self.end:
            return "the end"
        letter = self.text[self.at]
        return "the end of the line" if letter == "\n" else f"'{self.name() or letter}'"

    def name(self) -> str:
        """A name that comes next, not taken; "" for none."""
        self.blanks()
        found = _NAME.match(self.text, self.at, self.end)
        return found.group() if found else ""

    def take_name(self, what: str) -> str:
        found = self.name()
        if not found:
            raise self.wrong(f"{self.shown()} where {what} is expected")
        self.at += len(found)
        return found

    def keyword(self, word: str) -> bool:
        """Takes the word if it is the name that comes next."""
        if self.name() != word:
            return False
        self.at += len(word)
        return True

    def number(self) -> int | Decimal | None:
        self.blanks()
        found = _NUMBER.match(self.text, self.at, self.end)
        if found is None:
            return None
        if len(found.group()) > _MAX_DIGITS:
            raise self.wrong("a number of too many digits")
        value = Decimal(found.group())
        if abs(value.adjusted()) > _MAX_DIGITS:
            raise self.wrong("a number that is too large")
        self.at = found.end()
        return int(value) if value == value.to_integral_value() else value

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong(f"more than {MAX_DEPTH} levels within each other")
