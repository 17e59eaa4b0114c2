"""Text of a Dockerfile to instructions: comments, continuations, the JSON and the shell form. No I/O, no meaning.

Grammar: the Dockerfile reference, "Format" and "Parser directives". A line that begins with `#` after blanks is a
comment, also between continued lines; the escape character at the end of a line joins it with the next; blank lines
within a continuation are skipped (old files have them).
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field

from limpet.errors import Invalid

MAX_SIZE = 1 << 20
"""Bytes of a Dockerfile; more is refused."""

INSTRUCTIONS = frozenset({"FROM", "COPY", "ENV", "WORKDIR", "EXPOSE", "RUN", "CMD", "ENTRYPOINT"})
"""What `build` executes."""

_LATER = frozenset(
    {"ADD", "ARG", "LABEL", "USER", "VOLUME", "STOPSIGNAL", "HEALTHCHECK", "SHELL", "ONBUILD", "MAINTAINER"}
)


@dataclass(frozen=True, slots=True)
class Instruction:
    """`text` stands after the name and the flags, continuations joined; `words` is the JSON form, if it is one."""

    name: str
    text: str
    line: int
    source: str
    flags: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] | None = None


def parse(text: str, path: str = "Dockerfile") -> list[Instruction]:
    """Raises Invalid with `path:line`, the line itself and what to do."""
    if len(text) > MAX_SIZE:
        raise Invalid(f"{path}: larger than {MAX_SIZE >> 20} MiB")
    lines = text.removeprefix("\ufeff").splitlines()
    escape = _escape_directive(lines, path)
    instructions = []
    for number, logical in _logical_lines(lines, escape):
        instructions.append(_instruction(logical, number, path))
    if not instructions:
        raise Invalid(f"{path}: no instructions", "a Dockerfile begins with FROM")
    return instructions


def error(instruction: Instruction, path: str, message: str, hint: str = "") -> Invalid:
    """An error that names file, line and source line."""
    return Invalid(f"{path}:{instruction.line}: {message} >>> {instruction.source.strip()}", hint)


def _escape_directive(lines: list[str], path: str) -> str:
    escape = "\\"
    for line in lines:
        name, equals, value = line.removeprefix("#").partition("=")
        name = name.strip().lower()
        if not line.startswith("#") or not equals or name not in ("syntax", "escape", "check"):
            break
        if name == "escape":
            escape = value.strip()
            if escape not in ("\\", "`"):
                raise Invalid(f"{path}: escape={escape!r} is not an escape character", "use \\ or `")
    return escape


def _logical_lines(lines: list[str], escape: str) -> list[tuple[int, str]]:
    """(number of the first physical line, joined text), comments and blank lines left out."""
    result: list[tuple[int, str]] = []
    pending: list[str] = []
    first = 0
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        if not pending:
            first = number
        bare = line.rstrip()
        if bare.endswith(escape):
            pending.append(bare[:-1])
            continue
        pending.append(line)
        result.append((first, "".join(pending).strip()))
        pending = []
    if pending:
        result.append((first, "".join(pending).strip()))
    return result


def _instruction(logical: str, number: int, path: str) -> Instruction:
    head, _, rest = logical.partition(" ") if " " in logical else logical.partition("\t")
    name, rest = head.upper(), rest.strip()
    plain = Instruction(name, rest, number, logical)
    if name in _LATER:
        raise error(plain, path, f"{name} is not supported yet")
    if name not in INSTRUCTIONS:
        near = difflib.get_close_matches(name, INSTRUCTIONS | _LATER, 1)
        raise error(plain, path, f"unknown instruction {head}", f"did you mean {near[0]}?" if near else "")
    if not rest:
        raise error(plain, path, f"{name} needs a value")
    if name in ("COPY", "RUN") and re.search(r"<<-?[\"']?[A-Za-z_]", rest):
        raise error(plain, path, "heredocs are not supported yet", "join the lines with && \\")
    flags: dict[str, str] = {}
    while rest.startswith("--") and name in ("COPY", "RUN", "FROM"):
        flag, _, rest = rest.partition(" ")
        key, _, value = flag[2:].partition("=")
        flags[key] = value
        rest = rest.strip()
    if flags:
        raise error(plain, path, f"{name} --{next(iter(flags))} is not supported yet")
    return Instruction(name, rest, number, logical, flags, _json_form(rest))


def _json_form(text: str) -> tuple[str, ...] | None:
    """A JSON list of strings is the exec form; anything else, broken JSON too, is the shell form, as in Docker."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return tuple(words)
    return None
