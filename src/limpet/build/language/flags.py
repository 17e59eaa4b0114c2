"""Flags of an instruction (`--name=value`) by its table; the small values that they and --mount have in them."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from limpet.build.language.dockerfile import error
from limpet.build.language.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.language.dockerfile import Instruction
    from limpet.build.language.lines import Word
    from limpet.errors import Invalid


class Flags:
    """`table`: name → "bool", "text" or "list". Raises Invalid for what isn't in it, comes twice or has a bad value."""

    def __init__(self, instruction: Instruction, table: Mapping[str, str]) -> None:
        self._lists: dict[str, list[Word]] = {}
        self._texts: dict[str, str] = {}
        self._bools: dict[str, bool] = {}
        self._words: dict[str, Word] = {}
        for word in instruction.flags:
            flag, equals, value = word.text.partition("=")
            name = flag[2:]
            kind = table.get(name)
            if kind is None:
                hint = did_you_mean(name, table, "--{}")
                if not hint:
                    known = ", ".join(f"--{each}" for each in table)
                    hint = f"{instruction.name} has {known}" if known else f"{instruction.name} has no flags"
                raise error(instruction, f"unknown flag: {flag}", hint, at=word)
            if name in self._words and kind != "list":
                raise error(instruction, f"duplicate flag specified: {flag}", "keep one of them", at=word)
            self._words[name] = word
            if (kind != "bool" and not equals) or (kind == "bool" and equals and not value):
                raise error(instruction, f"missing a value on flag: {flag}", f"write {flag}=VALUE", at=word)
            if kind == "bool":
                if value.lower() not in ("", "true", "false"):
                    message = f"expecting boolean value for flag {flag}, not: {value}"
                    raise error(instruction, message, "true or false is wanted", at=word)
                self._bools[name] = value.lower() != "false"
            elif kind == "text":
                self._texts[name] = value
            else:
                self._lists.setdefault(name, []).append(word)
        self._instruction = instruction

    def text(self, name: str, default: str = "") -> str:
        return self._texts.get(name, default)

    def bool(self, name: str) -> bool | None:
        """None if not given."""
        return self._bools.get(name)

    def list(self, name: str) -> tuple[str, ...]:
        return tuple(word.text.partition("=")[2] for word in self._lists.get(name, ()))

    def words(self, name: str) -> tuple[Word, ...]:
        """The flags themselves, `--name=` and all: for their places."""
        return tuple(self._lists.get(name, ()))

    def fail(self, name: str, message: str, hint: str = "") -> Invalid:
        return error(self._instruction, message, hint, at=self._words.get(name))


def fields(text: str) -> list[str]:
    """`a,"b,c"` → ["a", "b,c"]. Raises ValueError."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as e:
        raise ValueError(str(e)) from e
    return rows[0] if rows else []


def boolean(text: str) -> bool:
    """Go's strconv.ParseBool. Raises ValueError."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def number(text: str, base: int, bits: int) -> int:
    """Go's strconv.ParseUint for bases 8 and 10. Raises ValueError."""
    if not re.fullmatch("[0-7]{1,40}" if base == 8 else "[0-9]{1,40}", text) or int(text, base) >= 1 << bits:
        raise ValueError(f"{text!r} is not a number")
    return int(text, base)


_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?) ?([kKmMgGtTpP])?[iI]?[bB]?")


def size(text: str) -> int:
    """Bytes: 64m, 1.5GiB, 100 (go-units RAMInBytes: every unit is binary). Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a size")
    return int(float(found.group(1)) * 1024 ** " kmgtp".index((found.group(2) or " ").lower()))


_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION_PART = re.compile(r"(\d{0,20})(\.\d{0,20})?(ns|us|µs|μs|ms|s|m|h)")


def duration(text: str) -> int:
    """Nanoseconds: 1m30s, 1.5h, 0 (Go's time.ParseDuration). Raises ValueError."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    total = 0
    at = 0
    while at < len(rest):
        found = _DURATION_PART.match(rest, at)
        if not found or not (found.group(1) or len(found.group(2) or "") > 1):
            break
        digits = (found.group(2) or ".")[1:]
        unit = _UNITS[found.group(3)]
        total += int(found.group(1) or 0) * unit + (int(digits) * unit // 10 ** len(digits) if digits else 0)
        at = found.end()
    if not rest or at < len(rest) or total >= 1 << 63:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * total
