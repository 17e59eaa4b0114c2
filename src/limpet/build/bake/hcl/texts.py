"""Functions of the standard library about texts, encodings, hashes and times. All raise ValueError."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import posixpath
import re
import time
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from limpet.build.bake.hcl import types, values
from limpet.build.bake.hcl.formats import formatted, timestamp_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from limpet.build.bake.hcl.syntax import Value

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")


def string(value: Value) -> str:
    return values.text(value)


def join(separator: Value, *lists: Value) -> str:
    return string(separator).join(string(each) for one in lists for each in values.items(one))


def split(separator: Value, text: Value) -> list[Any]:
    return string(text).split(string(separator)) if separator else list(string(text))


def substr(text: Value, offset: Value, length: Value) -> str:
    whole, begin, count = string(text), values.whole(offset), values.whole(length)
    if begin < 0:
        begin = max(0, len(whole) + begin)
    return whole[begin:] if count < 0 else whole[begin : begin + count]


def indent(spaces: Value, text: Value) -> str:
    return string(text).replace("\n", "\n" + " " * min(values.whole(spaces), 1000))


def title(text: Value) -> str:
    return re.sub(r"(^|[^\w])(\w)", lambda found: found.group(1) + found.group(2).upper(), string(text))


def regex(pattern: Value, text: Value) -> Value:
    found = compiled(pattern).search(string(text))
    if found is None:
        raise ValueError(f"the pattern '{string(pattern)[:80]}' is not in the text")
    return _captures(found)


def regexall(pattern: Value, text: Value) -> list[Any]:
    return [_captures(found) for found in compiled(pattern).finditer(string(text))]


def regex_replace(text: Value, pattern: Value, replacement: Value) -> str:
    """`$1` and `${name}` in the replacement are groups, `$$` is a dollar (Go's regexp.Expand)."""

    def one(found: re.Match[str]) -> str:
        def group(reference: re.Match[str]) -> str:
            if reference.group() == "$$":
                return "$"
            name = reference.group(1) or reference.group(2)
            try:
                return found.group(int(name) if name.isdecimal() else name) or ""
            except IndexError:
                return ""

        return re.sub(r"\$\$|\$\{(\w+)\}|\$(\w+)", group, string(replacement))

    return compiled(pattern).sub(one, string(text))


def compiled(pattern: Value) -> re.Pattern[str]:
    """Go's syntax (RE2) is Python's but for a few classes."""
    text = string(pattern)
    classes = {"[:alpha:]": "a-zA-Z", "[:digit:]": "0-9", "[:alnum:]": "a-zA-Z0-9", "[:space:]": r"\s"}
    classes |= {"[:upper:]": "A-Z", "[:lower:]": "a-z", "[:word:]": r"\w", "[:xdigit:]": "0-9a-fA-F"}
    for name, letters in classes.items():
        text = text.replace(name, letters)
    try:
        return re.compile(text.replace(r"\z", r"\Z"), re.ASCII)
    except re.error as e:
        raise ValueError(f"the pattern '{text[:80]}' is wrong: {e}") from None


def _captures(found: re.Match[str]) -> Value:
    if found.re.groupindex:
        return dict(found.groupdict())
    return list(found.groups()) if found.re.groups else found.group()


def replace(text: Value, old: Value, new: Value) -> str:
    return string(text).replace(string(old), string(new))


def sanitize(text: Value) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", string(text))


def jsonencode(value: Value) -> str:
    def plain(each: Any) -> Any:
        if isinstance(each, dict):
            return {key: plain(each[key]) for key in sorted(each)}
        if isinstance(each, list):
            return [plain(one) for one in each]
        return float(each) if isinstance(each, Decimal) else each

    text = json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # as Go's encoder


def jsondecode(text: Value) -> Value:
    try:
        return types.plain(json.loads(string(text), parse_float=Decimal))
    except RecursionError:
        raise ValueError("too many levels within each other") from None


def csvdecode(text: Value) -> list[Any]:
    rows = list(csv.reader(io.StringIO(string(text)), strict=True))
    if not rows:
        raise ValueError("the text has no header line")
    if any(len(row) != len(rows[0]) for row in rows if row):
        raise ValueError("a line has another number of fields than the header")
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if row]


def decode64(text: Value) -> str:
    try:
        return base64.b64decode(string(text), validate=True).decode()
    except ValueError:
        raise ValueError("not base64 of a text") from None


def bcrypt(text: Value, cost: Value = 10) -> str:
    import bcrypt as library

    rounds = values.whole(cost)
    if not 4 <= rounds <= 15:
        raise ValueError("the cost is 4 to 15")
    return library.hashpw(string(text).encode(), library.gensalt(rounds, prefix=b"2a")).decode()


def moment(text: Value) -> datetime:
    try:
        found = datetime.fromisoformat(string(text))
    except ValueError:
        raise ValueError(
            f"'{string(text)[:40]}' is no time",
        ) from None
    if found.tzinfo is None:
        raise ValueError(f"'{string(text)[:40]}' has no time zone")
    return found


def timeadd(text: Value, duration: Value) -> str:
    rest, seconds = string(duration), 0.0
    sign = -1.0 if rest.startswith("-") else 1.0
    rest = rest.lstrip("+-")
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|ns))+", rest):
        raise ValueError(f"'{string(duration)[:40]}' is no duration: write it as 1h30m")
    for count, unit in re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)", rest):
        seconds += float(count) * _UNITS[unit]
    try:
        return timestamp_text(moment(text) + timedelta(seconds=sign * seconds))
    except OverflowError:
        raise ValueError("a time that is too far away") from None


def timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def formattimestamp(layout: Value, when: Value) -> str:
    found = _when(when)
    return str(int(found.timestamp())) if string(layout) == "X" else formatted(string(layout), found)


def _when(value: Value) -> datetime:
    if isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
        return moment(value)
    try:
        return datetime.fromtimestamp(values.whole(value), UTC)
    except (OverflowError, OSError):
        raise ValueError("a time that is too far away") from None


def unixtimestampparse(value: Value) -> dict[str, Any]:
    found = _when(values.whole(value))
    year, week, _ = found.isocalendar()
    return {
        "year": found.year,
        "year_day": found.timetuple().tm_yday,
        "day": found.day,
        "month": found.month,
        "month_name": found.strftime("%B"),
        "weekday": found.isoweekday() % 7,
        "weekday_name": found.strftime("%A"),
        "hour": found.hour,
        "minute": found.minute,
        "second": found.second,
        "rfc3339": timestamp_text(found),
        "iso_year": year,
        "iso_week": week,
    }


def semvercmp(version: Value, constraint: Value) -> bool:
    """Constraints as Masterminds/semver has them: =, !=, <, <=, >, >=, ~, ^, `,` for and, `||` for or."""
    found = _version(string(version))
    return any(
        all(_fits(found, one) for one in re.split(r",\s*|(?<=[\w*])\s+(?=[<>=!~^\d])", part.strip()) if one)
        for part in string(constraint).split("||")
    )


def _version(text: str) -> tuple[Any, ...]:
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"'{text[:40]}' is no version")
    numbers = tuple(int(each or 0) for each in found.groups()[:3])
    pre = found.group(4)
    parts = tuple((0, int(each), "") if each.isdecimal() else (1, 0, each) for each in pre.split(".")) if pre else ()
    return (*numbers, not pre, parts)


def _fits(version: tuple[Any, ...], constraint: str) -> bool:
    found = re.fullmatch(r"\s*(=|!=|<=|>=|=<|=>|<|>|~>?|\^)?\s*([\w.*+-]+)\s*", constraint)
    if found is None:
        raise ValueError(f"'{constraint[:40]}' is no constraint of a version")
    operator, text = found.group(1) or "", found.group(2)
    parts = re.split(r"[-+]", text, maxsplit=1)[0].removeprefix("v").split(".")
    known = [part for part in parts if part not in ("x", "X", "*")]
    wild = len(known) < 3
    low = _version(".".join([*known, *["0"] * (3 - len(known))]) + text[len(".".join(parts)) :] if known else "0.0.0")
    if not version[3] and low[3] and operator not in ("!=",):
        return False  # versions before a release fit only constraints that name one
    place = 0 if not known else len(known) - 1
    if operator == "^":
        place = next((at for at in range(3) if low[at] or at == len(known) - 1), 0)
    elif operator in ("~", "~>"):
        place = min(1, len(known) - 1)
    upper = (*low[:place], low[place] + 1, *[0] * (2 - place), False, ())
    within = low <= version < upper if known else True
    if operator in ("^", "~", "~>") or (operator in ("", "=") and wild):
        return within
    if operator == "!=":
        return not within if wild else version != low
    if operator in ("", "="):
        return version == low
    if operator == ">":
        return version >= upper if wild and known else version > low
    if operator in ("<=", "=<"):
        return version < upper if wild else version <= low
    return version >= low if operator in (">=", "=>") else version < low


def _hash(name: str) -> Callable[[Value], str]:
    return lambda text: hashlib.new(name, string(text).encode()).hexdigest()


def _trim(text: Value, letters: Value) -> str:
    return string(text).strip(string(letters))


def _uuid5(space: Value, name: Value) -> str:
    spaces = {"dns": uuid.NAMESPACE_DNS, "url": uuid.NAMESPACE_URL, "oid": uuid.NAMESPACE_OID}
    known = spaces | {"x500": uuid.NAMESPACE_X500}
    found = known.get(string(space).lower())
    return str(uuid.uuid5(found if found is not None else uuid.UUID(string(space)), string(name)))


def _dirname(path: Value) -> str:
    return posixpath.normpath(posixpath.dirname(string(path).rstrip("/") or "/") or ".")


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "base64decode": decode64,
    "bcrypt": bcrypt,
    "base64encode": lambda text: base64.b64encode(string(text).encode()).decode(),
    "basename": lambda path: posixpath.basename(string(path).rstrip("/")) or ("/" if path else "."),
    "byteslen": lambda text: len(string(text).encode()),
    "bytesslice": lambda text, offset, length: (
        string(text)
        .encode()[values.whole(offset) : values.whole(offset) + values.whole(length)]
        .decode("utf-8", "replace")
    ),
    "chomp": lambda text: string(text).rstrip("\r\n"),
    "csvdecode": csvdecode,
    "dirname": _dirname,
    "formatdate": lambda layout, when: formatted(string(layout), moment(when)),
    "formattimestamp": formattimestamp,
    "homedir": lambda: os.path.expanduser("~"),
    "indent": indent,
    "join": join,
    "jsondecode": jsondecode,
    "jsonencode": jsonencode,
    "lower": lambda text: string(text).lower(),
    "md5": _hash("md5"),
    "regex": regex,
    "regex_replace": regex_replace,
    "regexall": regexall,
    "replace": replace,
    "reverse": lambda text: string(text)[::-1],
    "sanitize": sanitize,
    "semvercmp": semvercmp,
    "sha1": _hash("sha1"),
    "sha256": _hash("sha256"),
    "sha512": _hash("sha512"),
    "split": split,
    "strlen": lambda text: len(string(text)),
    "substr": substr,
    "timeadd": timeadd,
    "timestamp": timestamp,
    "title": title,
    "trim": _trim,
    "trimprefix": lambda text, prefix: string(text).removeprefix(string(prefix)),
    "trimspace": lambda text: string(text).strip(),
    "trimsuffix": lambda text, suffix: string(text).removesuffix(string(suffix)),
    "unixtimestampparse": unixtimestampparse,
    "upper": lambda text: string(text).upper(),
    "urlencode": lambda text: quote_plus(string(text), safe="-_.~"),
    "uuidv4": lambda: str(uuid.uuid4()),
    "uuidv5": _uuid5,
}
