"""Tables, sizes and ages, as Docker prints them; and `--format` for every list.

Sizes: go-units `HumanSize` (decimal, four significant digits at most) and `BytesSize` (binary). Ages: go-units
`HumanDuration`. Tables: Go's tabwriter with a padding of 3, as docker/cli uses it.
"""

from __future__ import annotations

import os
import sys
import time

from limpet import jsontext
from limpet.errors import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_PADDING = 3
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_decimal(count: float) -> str:
    """12345678 → "12.3MB" (three digits, go-units HumanSizeWithPrecision(size, 3))."""
    return _size(count, 1000.0, _DECIMAL, 3)


def size_binary(count: float) -> str:
    """17825792 → "17MiB" (four digits, go-units BytesSize)."""
    return _size(count, 1024.0, _BINARY, 4)


def _size(count: float, base: float, units: Sequence[str], digits: int) -> str:
    unit = 0
    while count >= base and unit < len(units) - 1:
        count /= base
        unit += 1
    return f"{count:.{digits}g}{units[unit]}"


def duration(seconds: float) -> str:
    """go-units HumanDuration: "About a minute", "2 hours"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def age(moment: float) -> str:
    """Unix seconds → "2 hours ago"."""
    return f"{duration(time.time() - moment)} ago"


def seconds_of(text: str) -> float:
    """RFC 3339 in UTC → Unix seconds; 0 for what is none."""
    main, _, rest = text.rstrip("Z").partition(".")
    try:
        year, month, day = int(main[:4]), int(main[5:7]), int(main[8:10])
        # Days since 1970 of a proleptic Gregorian date; `strptime` would import `re` and `datetime`.
        y = year - (month <= 2)
        days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 719469
        clock = int(main[11:13]) * 3600 + int(main[14:16]) * 60 + int(main[17:19])
        return days * 86400 + clock + float(f"0.{rest}" if rest.isdigit() else 0)
    except ValueError:
        return 0.0


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
