"""Tables as Docker prints them, and `--format` for every list.

Docker's tables come from Go's `tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)`: a column is as wide as its widest cell and
three blanks, at least ten; the last is as it is (docker/cli `formatter/formatter.go`). Piped output is never cut. On a
terminal too narrow columns are, the widest first; one column, the name, never is.
"""

from __future__ import annotations

import os
import sys

from limpet import jsontext
from limpet.errors import Exit
from limpet.units import age, duration, seconds_of, size_binary, size_decimal

__all__ = [
    "Labelled",
    "age",
    "confirm",
    "duration",
    "formatted",
    "say",
    "seconds_of",
    "size_binary",
    "size_decimal",
    "table",
    "terminal_width",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_PADDING = 3
_LEAST = 10


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], keep: int | None = None) -> str:
    """Aligned columns under their headers. `keep` is the column that is never cut."""
    lines = [list(headers), *[[_one_line(cell) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    room = terminal_width()
    if room:
        _shrink(widths, room, headers, keep)
        lines = [
            [cell if len(cell) <= w else cell[: w - 1] + "…" for cell, w in zip(line, widths, strict=True)]
            for line in lines
        ]
    return "\n".join(
        "".join(cell.ljust(_column(width)) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _column(width: int) -> int:
    return max(width + _PADDING, _LEAST)


def _shrink(widths: list[int], room: int, headers: Sequence[str], keep: int | None) -> None:
    """Takes from the widest column until all fit, or until none can give without its header being cut."""
    last = len(widths) - 1
    least = [max(len(header), _LEAST - _PADDING if i != last else 4) for i, header in enumerate(headers)]
    excess = sum(_column(width) for width in widths[:last]) + widths[last] - room
    while excess > 0:
        candidates = [i for i in range(len(widths)) if i != keep and widths[i] > least[i]]
        if not candidates:
            return
        widths[max(candidates, key=lambda i: widths[i])] -= 1
        excess -= 1


def formatted(
    template: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[tuple[str, str]],
    keep: str = "",
) -> str:
    """A list in the form that `--format` asks for. `columns`: (header, field) of the default table.

    "" or "table": that table. "json": an object per line. "raw": "header: value" lines, a blank line after each row.
    "table TEMPLATE": headers and aligned rows; headers are those of `columns`, or the field's name in capitals.
    All else is a template for each row, in which `\\t` and `\\n` stand for a tab and a new line.
    """
    headers = {field: header for header, field in columns}
    if template in ("", "table"):
        fields = [field for _, field in columns]
        cells = [[str(row[field]) for field in fields] for row in rows]
        return table([headers[f] for f in fields], cells, fields.index(keep) if keep else None)
    if template == "json":
        return "\n".join(jsontext.dumps(dict(row), sort_keys=True) for row in rows)
    if template == "raw" and columns:
        names = [(header.lower().replace(" ", "_"), field) for header, field in columns]
        return "\n".join("".join(f"{name}: {row[field]}\n" for name, field in names) for row in rows)
    from limpet.cli import template as templates

    text = template.replace("\\t", "\t").replace("\\n", "\n")
    if text.startswith("table "):
        compiled = templates.compile(text.removeprefix("table ").lstrip())
        titles = _Titles((name, headers.get(name, name.upper())) for name in (rows[0] if rows else headers))
        lines = [compiled.render(titles), *[compiled.render(row) for row in rows]]
        cells = [line.split("\t") for line in lines]
        width = max(len(line) for line in cells)
        cells = [line + [""] * (width - len(line)) for line in cells]
        return table(cells[0], cells[1:])
    compiled = templates.compile(text)
    return "\n".join(compiled.render(row) for row in rows)


class Labelled(dict[str, "Any"]):
    """A row with the one method that Docker's rows have: `{{.Label "key"}}`."""

    def __init__(self, fields: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        super().__init__(fields)
        self._labels = labels

    def label(self, key: str) -> str:
        return self._labels.get(key, "")


class _Titles(dict[str, str]):
    def label(self, key: str) -> str:
        """com.example.build-date → "build date" (docker/cli `formatter/container.go`)."""
        return key.rpartition(".")[2].replace("-", " ").replace("_", " ")


def say(text: str) -> None:
    """Prints a list's text, nothing at all for none."""
    if text:
        print(text)


def confirm(question: str) -> None:
    """Asks on the terminal, ends the command with 0 unless the answer is yes."""
    print(f"{question}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        if not answer:
            print()
        raise Exit(0)


def _one_line(text: str) -> str:
    """What comes from an image must not move the cursor of who lists it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\t\n" else f"\\x{ord(c):02x}" for c in text)


def terminal_width() -> int:
    """Columns of the terminal on standard output; 0 where there is none, so that nothing is cut."""
    try:
        return os.get_terminal_size(1).columns if os.isatty(1) else 0
    except OSError:
        return 0
