"""`format` and `formatdate` (zclconf/go-cty function/stdlib/format.go, datetime.go). Raise ValueError."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from limpet.build.bake.hcl import values

if TYPE_CHECKING:
    from datetime import datetime

    from limpet.build.bake.hcl.syntax import Value

_VERB = re.compile(r"%(?:%|([-+# 0]*)(\d+)?(?:\.(\d+))?(?:\[(\d+)\])?([a-zA-Z]))")
_MAX_WIDTH = 10_000
_PART = re.compile(r"'(?:[^']|'')*'|([A-Za-z])\1*|[^A-Za-z']+")
_MONTHS = "January February March April May June July August September October November December".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def format_text(text: Value, *arguments: Value) -> str:
    place, used = 0, 0

    def one(found: re.Match[str]) -> str:
        nonlocal place, used
        if found.group() == "%%":
            return "%"
        flags, width, precision, explicit, verb = found.groups()
        if explicit:
            place = int(explicit) - 1
        if not 0 <= place < len(arguments):
            raise ValueError(f"{found.group()} has no argument")
        value = arguments[place]
        place += 1
        used = max(used, place)
        if int(width or 0) > _MAX_WIDTH or int(precision or 0) > _MAX_WIDTH:
            raise ValueError(f"{found.group()[:20]} is too wide")
        return _padded(_one(value, verb, flags, precision), flags, int(width or 0))

    result = _VERB.sub(one, values.text(text))
    if used < len(arguments) and not any("[" in each.group() for each in _VERB.finditer(values.text(text))):
        raise ValueError(f"{len(arguments)} arguments for {used} verbs")
    return result


def _one(value: Value, verb: str, flags: str, precision: str | None) -> str:
    if verb == "v":
        if isinstance(value, list | dict) or value is None or (isinstance(value, str) and "#" in flags):
            from limpet.build.bake.hcl.texts import jsonencode

            return jsonencode(value)
        return values.text(value)
    if verb == "t":
        return "true" if values.truth(value) else "false"
    if verb == "s":
        found = values.text(value)
        return found if precision is None else found[: int(precision)]
    if verb == "q":
        return json.dumps(values.text(value), ensure_ascii=False)
    number = values.number(value)
    if verb in "bdoxX":
        return format(int(number), ("+" if "+" in flags else "") + ("#" if "#" in flags else "") + verb)
    if verb in "eEfFgG":
        return format(
            float(number), f"{'+' if '+' in flags else ''}.{precision or 6}{verb}" if verb not in "gG" else "g"
        )
    raise ValueError(f"unknown verb %{verb}")


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    return text.zfill(width) if "0" in flags else text.rjust(width)


def timestamp_text(when: datetime) -> str:
    """RFC 3339, with Z for UTC and whole seconds."""
    return when.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def formatted(layout: str, when: datetime) -> str:
    """Terraform's and Bake's letters: YYYY, MM, DD, EEE, hh, mm, ss, ZZZ; text in single quotes is as it stands."""
    out = []
    position = 0
    while position < len(layout):
        found = _PART.match(layout, position)
        if found is None:
            raise ValueError("a quote without its end in the layout")
        part, position = found.group(), found.end()
        out.append(part[1:-1].replace("''", "'") if part.startswith("'") else _part(part, when))
    return "".join(out)


def _part(part: str, when: datetime) -> str:
    hour = when.hour % 12 or 12
    zone = when.strftime("%z") or "+0000"
    known = {
        "YYYY": f"{when.year:04d}",
        "YY": f"{when.year % 100:02d}",
        "MMMM": _MONTHS[when.month - 1],
        "MMM": _MONTHS[when.month - 1][:3],
        "MM": f"{when.month:02d}",
        "M": str(when.month),
        "DD": f"{when.day:02d}",
        "D": str(when.day),
        "EEEE": _DAYS[when.weekday()],
        "EEE": _DAYS[when.weekday()][:3],
        "hh": f"{when.hour:02d}",
        "h": str(when.hour),
        "HH": f"{hour:02d}",
        "H": str(hour),
        "AA": "AM" if when.hour < 12 else "PM",
        "aa": "am" if when.hour < 12 else "pm",
        "mm": f"{when.minute:02d}",
        "m": str(when.minute),
        "ss": f"{when.second:02d}",
        "s": str(when.second),
        "ZZZZZ": f"{zone[:3]}:{zone[3:5]}",
        "ZZZZ": zone[:5],
        "ZZZ": "UTC" if zone == "+0000" else zone[:5],
        "Z": "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:5]}",
    }
    if part in known:
        return known[part]
    if part[0].isascii() and part[0].isalpha():
        raise ValueError(f"'{part[:20]}' is no part of a layout: text stands in single quotes")
    return part
