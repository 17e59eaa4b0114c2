"""Kinds of values and what becomes what (zclconf/go-cty convert, docs/types.md). Raises ValueError, without a place."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from limpet.build.bake.hcl.syntax import Value

ARITHMETIC = Context(prec=60, rounding=ROUND_HALF_EVEN)
MAX_TEXT = 4 << 20
MAX_ITEMS = 100_000


def kind(value: Value) -> str:
    """Its kind as messages call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | Decimal):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, list) else "object"


def text(value: Value) -> str:
    """A text of a primitive value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    raise ValueError(f"{kind(value)} where a string is needed")


def number(value: Value) -> int | Decimal:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            found = Decimal(value)
        except ArithmeticError:
            found = Decimal("nan")
        if found.is_finite() and abs(found.adjusted()) < 1000:
            return simple(found)
        raise ValueError(f"'{value[:40]}' is not a number")
    raise ValueError(f"{kind(value)} where a number is needed")


def simple(value: Decimal) -> int | Decimal:
    """Whole numbers are int."""
    if not value.is_finite() or abs(value.adjusted()) > 1000:
        raise ValueError("a number that is too large")
    return int(value) if value == value.to_integral_value() else value


def truth(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in ("true", "false", "1", "0"):
        return value in ("true", "1")
    raise ValueError(f"{kind(value) if not isinstance(value, str) else repr(value[:40])} where true or false is needed")


def whole(value: Value) -> int:
    found = number(value)
    if not isinstance(found, int):
        raise ValueError(f"{text(found)} is not a whole number")
    return found


def items(value: Value) -> list[Any]:
    """The elements of a list, or the values of an object in the order of its keys."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return [value[key] for key in sorted(value)]
    raise ValueError(f"{kind(value)} where a list is needed")


def mapping(value: Value) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"{kind(value)} where an object is needed")


def equal(left: Value, right: Value) -> bool:
    """Values of several kinds are never equal; true is not 1."""
    if kind(left) != kind(right):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return left == right


def distinct(found: list[Any]) -> list[Any]:
    seen: list[Any] = []
    texts: set[str] = set()
    for each in found:
        if isinstance(each, str):
            if each not in texts:
                texts.add(each)
                seen.append(each)
        elif not any(equal(each, other) for other in seen):
            seen.append(each)
    return seen


def member_set(found: list[Any]) -> list[Any]:
    """As a set shows itself: each once, in order where they have one."""
    unique = distinct(found)
    if all(isinstance(each, str) for each in unique):
        return sorted(unique)
    if all(isinstance(each, int | Decimal) and not isinstance(each, bool) for each in unique):
        return sorted(unique)
    return unique
