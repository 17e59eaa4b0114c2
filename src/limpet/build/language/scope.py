"""The variables of a stage as they stand at an instruction, and what is to be said about those that aren't there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.language import variables
from limpet.build.language.lines import Word
from limpet.build.language.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.language.dockerfile import Heredoc, Instruction
    from limpet.build.language.notes import Notes


class Scope:
    """`env` is what RUN sees: ENV and ARG, the last one winning. `arguments` are the ARGs alone, None without a value.

    `unknown`: the base image is not to be had, so that nothing is said about variables.
    """

    def __init__(self, escape: str, notes: Notes, parent: Scope | None = None, *, unknown: bool = False) -> None:
        self.escape = escape
        self.notes = notes
        self.env: dict[str, str] = dict(parent.env) if parent else {}
        self.arguments: dict[str, str | None] = dict(parent.arguments) if parent else {}
        self.unknown: bool = parent.unknown if parent else unknown

    def declare(self, key: str, written: str | None, given: Mapping[str, str], outer: Mapping[str, str]) -> str | None:
        """ARG: `--build-arg` wins, then the value that is written, then the global scope's. Its value, or None."""
        value = given[key] if key in given else written if written is not None else outer.get(key)
        if value is not None and key not in variables.NOT_ENVIRONMENT:
            self.env[key] = value
        self.arguments[key] = value
        return value

    def expand(self, source: Instruction, word: Word) -> str:
        """Raises Invalid."""
        if not word.text:
            return ""
        found = variables.expand(source, word, self.env, self.escape)
        self.undefined(source, found.unset, word)
        return found.text

    def content(self, source: Instruction, heredoc: Heredoc) -> str:
        """The text of a file that COPY makes of a heredoc. Raises Invalid."""
        if not heredoc.expand:
            return heredoc.text
        found = variables.expand(source, Word(heredoc.text, heredoc.line, 1), self.env, "\\", quotes=False)
        self.undefined(source, found.unset, None)
        return found.text

    def undefined(self, source: Instruction, unset: frozenset[str], at: Word | None) -> None:
        if self.unknown:
            return
        for name in sorted(unset - set(self.arguments) - set(variables.NOT_ENVIRONMENT)):
            near = nearest(name, self.env)
            message = f"Usage of undefined variable '${name}'" + (f" (did you mean ${near}?)" if near else "")
            self.notes.add("UndefinedVar", message, source, at)

    def shown(self) -> str:
        """`|2 A=1 B=2 `: the ARGs that a RUN sees, as Docker's history has them."""
        if not self.arguments:
            return ""
        shown = (f"{key}={self.env.get(key, value or '')}" for key, value in self.arguments.items())
        return f"|{len(self.arguments)} {' '.join(shown)} "
