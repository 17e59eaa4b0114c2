"""Sizes and ages in words, as go-units has them: `HumanSize`, `BytesSize`, `HumanDuration`."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size_decimal(count: float) -> str:
    """12345678 → "12.3MB" (three digits, go-units HumanSizeWithPrecision(size, 3))."""
    return _size(count, 1000.0, _DECIMAL, 3)


def size_binary(count: float) -> str:
    """17825792 → "17MiB" (four digits, go-units BytesSize)."""
    return _size(count, 1024.0, _BINARY, 4)


def _size(count: float, base: float, units: Sequence[str], digits: int) -> str:
    unit = 0
    # As it will be shown: go-units compares before it rounds, and Docker prints 999.6 kB as "1e+03kB".
    while float(f"{count:.{digits}g}") >= base and unit < len(units) - 1:
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
