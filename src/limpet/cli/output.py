"""Tables as Docker prints them (Go's tabwriter with a padding of 3), and `--format` for every list."""

from __future__ import annotations

import os
import sys

from limpet import jsontext
from limpet.errors import Exit
from limpet.units import age, duration, seconds_of, size_binary, size_decimal

__all__ = [
    "age",
    "confirm",
    "duration",
    "formatted",
    "say",
    "seconds_of",
    "size_binary",
    "size_decimal",
    "table",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_PADDING = 3


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], keep: int | None = None) -> str:
    """Aligned columns. On a terminal too narrow, columns are cut with "…", the widest first; column `keep` never is."""
    lines = [list(headers), *[[_one_line(cell) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    room = _terminal_width()
    if room:
        excess = sum(widths) + _PADDING * (len(widths) - 1) - room
        while excess > 0:
            candidates = [i for i in range(len(widths)) if i != keep and widths[i] > max(len(headers[i]), 4)]
            if not candidates:
                break
            widest = max(candidates, key=lambda i: widths[i])
            widths[widest] -= 1
            excess -= 1
        lines = [
            [cell if len(cell) <= w else cell[: w - 1] + "…" for cell, w in zip(line, widths, strict=True)]
            for line in lines
        ]
    return "\n".join(
        "".join(cell.ljust(width + _PADDING) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def formatted(
    template: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[tuple[str, str]],
    keep: str = "",
) -> str:
    """A list in the form that `--format` asks for. `columns`: (header, field) of the default table.

    "" or "table": that table; "json": an object per line; "table TEMPLATE": headers and aligned rows; else a template
    per row. Headers of a template are those of `columns`, or the field's name in capitals.
    """
    headers = {field: header for header, field in columns}
    if template in ("", "table"):
        fields = [field for _, field in columns]
        cells = [[str(row[field]) for field in fields] for row in rows]
        return table([headers[f] for f in fields], cells, fields.index(keep) if keep else None)
    if template == "json":
        return "\n".join(jsontext.dumps(dict(row)) for row in rows)
    from limpet.cli import template as templates

    text = template.replace("\\t", "\t").replace("\\n", "\n")
    if text.startswith("table "):
        compiled = templates.compile(text.removeprefix("table ").lstrip())
        names = {name: headers.get(name, name.upper()) for name in (rows[0] if rows else headers)}
        lines = [compiled.render(names), *[compiled.render(row) for row in rows]]
        cells = [line.split("\t") for line in lines]
        width = max(len(line) for line in cells)
        cells = [line + [""] * (width - len(line)) for line in cells]
        return table(cells[0], cells[1:])
    compiled = templates.compile(text)
    return "\n".join(compiled.render(row) for row in rows)


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
    return text.replace("\n", " ").replace("\t", " ")


def _terminal_width() -> int:
    """Columns of the terminal on standard output; 0 where there is none, so that nothing is cut."""
    try:
        return os.get_terminal_size(1).columns if os.isatty(1) else 0
    except OSError:
        return 0
