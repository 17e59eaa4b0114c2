"""TOML that knows where it stands: each complaint about a file names file, line, key, and the key that was meant."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

MAX_BYTES = 1 << 20

Path = tuple["str | int", ...]
"""Keys and places in arrays, from the top."""

_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_KEYS = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*\]")
_ONE_KEY = re.compile(_KEY)
_UNQUOTED = re.compile(r"\s*\[([A-Za-z0-9_-]+)\.([A-Za-z0-9._:/*-]*[:/*][A-Za-z0-9._:/*-]*)\]\s*(?:#.*)?$")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


class Table:
    """One table of a file. Values are taken out by their kind; each method raises Invalid for another kind."""

    def __init__(self, file: str, lines: dict[Path, int], path: Path, values: dict[str, Any]) -> None:
        self.file = file
        self._lines = lines
        self._path = path
        self._values = values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def at(self, key: str | int | None = None) -> str:
        """FILE:LINE of a key, or of the table itself."""
        path = self._path if key is None else (*self._path, key)
        while path and path not in self._lines:
            path = path[:-1]
        return f"{self.file}:{self._lines.get(path, 1)}"

    def wrong(self, key: str, what: str, hint: str = "") -> Invalid:
        return Invalid(f"{self.at(key)}: {self._name(key)}: {what}", hint)

    def check(self, known: Sequence[str]) -> None:
        """Raises Invalid for a key that is not among these."""
        for key in self._values:
            if key not in known:
                near = nearest(key, known)
                meant = f"did you mean {near}?" if near else f"there are: {', '.join(known)}"
                raise Invalid(f"{self.at(key)}: unknown key {self._name(key)}", meant)

    def string(self, key: str, default: str = "") -> str:
        value = self._values.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "not a string")
        return value

    def flag(self, key: str) -> bool | None:
        """None if it is not there."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "neither true nor false")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.wrong(key, "not a list of strings")
        return tuple(values)

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """The first one if it is not there."""
        value = self.string(key, choices[0])
        if value not in choices:
            near = nearest(value, choices)
            raise self.wrong(
                key, f"{value[:60]!r} is none of {', '.join(choices)}", f"did you mean {near}?" if near else ""
            )
        return value

    def table(self, key: str) -> Table:
        """Empty if it is not there."""
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "not a table", f"write [{key}]")
        return Table(self.file, self._lines, (*self._path, key), value)

    def tables(self, key: str) -> list[Table]:
        """An array of tables, or of strings where a string stands for a table with that `location`."""
        values = self._values.get(key, [])
        if not isinstance(values, list):
            raise self.wrong(key, "not a list of tables", f"write [[{key}]]")
        found = []
        for number, value in enumerate(values):
            if isinstance(value, str):
                value = {"location": value}
            if not isinstance(value, dict):
                raise self.wrong(key, "not a list of tables", f"write [[{key}]]")
            found.append(Table(self.file, self._lines, (*self._path, key, number), value))
        return found

    def is_table(self, key: str) -> bool:
        return isinstance(self._values.get(key), dict)

    def is_array(self, key: str) -> bool:
        """Whether it is written as `[[key]]`."""
        value = self._values.get(key)
        return isinstance(value, list) and all(isinstance(one, dict) for one in value)

    def only(self, keys: Sequence[str]) -> Table:
        """The same table with some of its keys."""
        return Table(self.file, self._lines, self._path, {key: self._values[key] for key in keys})

    def _name(self, key: str) -> str:
        parts = [str(part) for part in (*self._path, key) if isinstance(part, str)]
        return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"' for part in parts)[:200]


def read(file: str) -> Table | None:
    """A file's top table, None if there is no such file. Raises Invalid."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise Invalid(f"{file}: {e.strerror}") from None
    if len(data) > MAX_BYTES:
        raise Invalid(f"{file}: larger than {MAX_BYTES} bytes")
    try:
        text = data.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as e:
        raise Invalid(f"{file}:{data[: e.start].count(10) + 1}: not UTF-8") from None
    except tomllib.TOMLDecodeError as e:
        said = str(e)
        place = _AT_LINE.search(said)
        line = int(place[1]) if place is not None else text.count("\n") + 1
        raise Invalid(f"{file}:{line}: not TOML: {_AT_LINE.sub('', said)}", _quoted(text, line)) from None
    except RecursionError:
        raise Invalid(f"{file}: nested too deeply") from None
    return Table(file, _lines(text), (), values)


def _quoted(text: str, number: int) -> str:
    """The right spelling of a header whose last name has what only quotes allow: `[registry.localhost:5000]`."""
    found = _UNQUOTED.match("".join(text.split("\n")[number - 1 : number]))
    return f'write [{found[1]}."{found[2]}"]' if found is not None else ""


def _lines(text: str) -> dict[Path, int]:
    """The line of each header and of each key that begins a line; what stands inside a value has its key's line."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}  # of the tables of an array so far
    current: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            current = ()
            names = _parts(header[2])
            for i, name in enumerate(names, 1):
                current = (*current, name)
                if header[1] == "[[" and i == len(names):
                    counts[current] = counts.get(current, 0) + 1
                    found.setdefault(current, number)
                if current in counts:
                    current = (*current, counts[current] - 1)
                found.setdefault(current, number)
            continue
        key = _KEYS.match(line)
        if key is not None:
            path = current
            for name in _parts(key[1]):
                path = (*path, name)
                found.setdefault(path, number)
    return found


def _parts(text: str) -> list[str]:
    return [part.strip("\"'") for part in _ONE_KEY.findall(text)]
