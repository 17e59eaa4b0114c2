"""`.dockerignore`: which files of a context don't count (moby's patternmatcher and ignorefile).

One pattern a line; blanks around it, `/` before and after it, `.` and `..` in it go; `#` begins a comment line; `!`
makes an exception. The last pattern that matches a file or a directory above it decides; but an exception is tried only
on what an earlier pattern ignores, so that `a/b` and then `!a` leaves `a/b` out (BuildKit since 0.9; not before).

    *      any run of characters but `/`         ?      one character but `/`
    **     any run of characters, `/` too; `**/` matches no directory, too
    [a-z]  [^a-z]  one of these, one of the others             \\x    x itself
"""

from __future__ import annotations

import functools
import os
import posixpath
import re

from limpet.build.language.words import SPACES
from limpet.errors import Invalid
from limpet.frozen import dataclass

MAX_SIZE = 4 << 20
MAX_PATTERNS = 10_000

State = tuple[bool, ...]
"""Which patterns match a directory or one above it."""


class PatternError(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class Pattern:
    """`text` is cleaned, without `!`."""

    text: str
    exception: bool
    regex: re.Pattern[str]

    def matches(self, path: str) -> bool:
        return self.regex.match(path) is not None

    def reaches(self, directory: str) -> bool:
        """Whether something below the directory may match. True is allowed to be wrong, False is not."""
        parts = self.text.split("/")
        for index, name in enumerate(directory.split("/")):
            if index == len(parts) or "**" in parts[index]:
                return True
            if not glob(parts[index]).match(name):
                return False
        return True


class Ignore:
    """The patterns of one file, in order. With none, nothing is ignored."""

    def __init__(self, patterns: tuple[Pattern, ...] = (), source: str = ".dockerignore") -> None:
        self.patterns = patterns
        self.source = source
        self.has_exceptions = any(each.exception for each in patterns)

    def step(self, path: str, parent: State = ()) -> tuple[bool, State]:
        """(whether the file is ignored, what to hand on to the files below it); `parent` is its directory's."""
        ignored = False
        state = []
        for index, pattern in enumerate(self.patterns):
            hit = bool(parent) and parent[index]
            if not hit and pattern.exception == ignored:
                hit = pattern.matches(path)
            state.append(hit)
            if hit:
                ignored = not pattern.exception
        return ignored, tuple(state)

    def state(self, path: str) -> tuple[bool, State]:
        """As `step`, for a path whose directories were not asked for; "" is the root, never ignored."""
        ignored, state = False, (False,) * len(self.patterns)
        if not self.patterns or path in ("", "."):
            return ignored, state
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            ignored, state = self.step("/".join(parts[:end]), state)
        return ignored, state

    def ignores(self, path: str) -> bool:
        return self.state(path)[0]

    def reaches(self, directory: str) -> bool:
        """Whether an exception may be below an ignored directory."""
        return any(each.exception and each.reaches(directory) for each in self.patterns)


def parse(text: str, source: str = ".dockerignore") -> Ignore:
    """Raises Invalid, naming the line."""
    lines = text.removeprefix("\ufeff").split("\n")
    patterns = []
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r")
        if line.startswith("#"):
            continue
        line = line.strip(SPACES)
        if not line:
            continue
        try:
            patterns.append(pattern(_relative(line)))
        except PatternError as e:
            hint = "as in !docs/*.md" if line.startswith("!") else "a backslash makes a character stand for itself"
            raise Invalid(f"{source}:{number}: {e} >>> {line[:120]}", hint) from None
    if len(patterns) > MAX_PATTERNS:
        raise Invalid(f"{source}: {len(patterns)} patterns", f"the limit is {MAX_PATTERNS}")
    return Ignore(tuple(patterns), source)


def read(context: str, dockerfile: str = "") -> Ignore:
    """`<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` of the context. Raises Invalid."""
    for path in (f"{dockerfile}.dockerignore" if dockerfile else "", os.path.join(context, ".dockerignore")):
        if not path:
            continue
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
                text = file.read(MAX_SIZE + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as e:
            raise Invalid(f"{path}: {(e.strerror or '').lower()}", "make it readable, or take it away") from e
        if len(text) > MAX_SIZE:
            raise Invalid(f"{path}: larger than {MAX_SIZE >> 20} MiB")
        return parse(text, os.path.basename(path))
    return Ignore()


def pattern(text: str) -> Pattern:
    """Raises PatternError."""
    text = text.strip(SPACES)
    exception = text.startswith("!")
    text = clean(text)
    if exception:
        text = text[1:]
        if not text:
            raise PatternError('illegal exclusion pattern: "!"')
    return Pattern(text, exception, glob(text))


def clean(path: str) -> str:
    """Go's path.Clean: posixpath.normpath, but for two slashes in front."""
    found = posixpath.normpath(path)
    return found[1:] if found.startswith("//") else found


def _relative(line: str) -> str:
    exception = line.startswith("!")
    rest = line[1:].strip(SPACES) if exception else line
    if rest:
        rest = clean(rest)
        if len(rest) > 1 and rest.startswith("/"):
            rest = rest[1:]
    return "!" + rest if exception else rest


@functools.lru_cache(4096)
def glob(text: str) -> re.Pattern[str]:
    """What a pattern means, to be matched against a whole path. Raises PatternError."""
    return re.compile(_translate(text) + r"\Z", re.DOTALL)


def _translate(text: str) -> str:
    if text.startswith("**") and not any(char in text[2:] for char in "*?[\\"):
        # A plain end: `**file` matches `a/some-file` too, unlike `**file*`; `**/file` a whole name.
        return ("(?:.*/)?" + re.escape(text[3:])) if text[2:3] == "/" else (".*" + re.escape(text[2:]))
    out: list[str] = []
    chunk: list[str] = []  # since the last star of one `*`: with it, one alternative that need not be taken back
    starred = False
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*" and text[at : at + 1] == "*":
            at += 1
            if text[at : at + 1] == "/":
                at += 1
            out.append(_joined(chunk, starred))
            chunk, starred = [], False
            out.append(".*" if at >= len(text) else "(?:.*/)?")
        elif char == "*":
            if not (starred and not chunk):
                # The first place where the chunk fits is as good as any later one, as the next star takes the rest,
                # unless it has a class, which may match a `/`.
                atomic = not any(each.startswith("[") and each != "[^/]" for each in chunk)
                out.append(f"(?{'>' if atomic else ':'}{_joined(chunk, starred)})")
            chunk, starred = [], True
        elif char == "?":
            chunk.append("[^/]")
        elif char == "\\":
            if at == len(text):
                raise PatternError("syntax error in pattern")
            chunk.append(re.escape(text[at]))
            at += 1
        elif char == "[":
            found, at = _class(text, at)
            chunk.append(found)
        else:
            chunk.append(re.escape(char))
    out.append(_joined(chunk, starred, greedy=True))
    return "".join(out)


def _joined(chunk: list[str], starred: bool, *, greedy: bool = False) -> str:
    if not starred:
        return "".join(chunk)
    return ("[^/]*" if greedy or not chunk else "[^/]*?") + "".join(chunk)


def _class(text: str, at: int) -> tuple[str, int]:
    """What stands after `[`, as filepath.Match has it: (the class, where the rest begins)."""
    negated = text[at : at + 1] == "^"
    at += negated
    out: list[str] = []
    while True:
        if text[at : at + 1] == "]" and out:
            return f"[{'^' if negated else ''}{''.join(out)}]", at + 1
        low, at = _class_character(text, at)
        high = low
        if text[at : at + 1] == "-":
            high, at = _class_character(text, at + 1)
        # A range the wrong way round matches nothing, and no name has a zero byte.
        out.append(f"{_in_class(low)}-{_in_class(high)}" if low <= high else "\\x00")


def _class_character(text: str, at: int) -> tuple[str, int]:
    char = text[at : at + 1]
    if char == "\\":
        at += 1
        char = text[at : at + 1]
        if char:
            return char, at + 1
    if char in ("", "-", "]"):
        raise PatternError("syntax error in pattern")
    return char, at + 1


def _in_class(char: str) -> str:
    return "\\" + char if char in "\\]^-[&~|" else char
