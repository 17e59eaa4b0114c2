"""What HCL text is made of, as data. `at` is the offset in the text, for messages."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from limpet.errors import Invalid
from limpet.frozen import dataclass

Value = str | bool | int | Decimal | None | list[Any] | dict[str, Any]


class Wrong(Invalid):
    """Something in a file, with its place: `file:line:column: what`."""


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    text: str

    def wrong(self, at: int, message: str, hint: str = "") -> Wrong:
        """The error for a place, with the source line."""
        at = min(max(at, 0), len(self.text))
        begin = self.text.rfind("\n", 0, at) + 1
        end = self.text.find("\n", at)
        line = self.text[begin : end if end >= 0 else len(self.text)].strip()
        place = f"{self.name}:{self.text.count(chr(10), 0, at) + 1}:{at - begin + 1}"
        shown = line if len(line) <= 120 else f"{line[:117]}…"
        return Wrong(f"{place}: {message}" + (f" >>> {shown}" if shown else ""), hint, exit_code=1)


@dataclass(frozen=True, slots=True)
class Literal:
    value: Value
    at: int = 0


@dataclass(frozen=True, slots=True)
class Template:
    """Texts and expressions that become one text. `wrapped`: it is one interpolation alone, whose value it has."""

    parts: tuple[Expression, ...]
    at: int = 0
    wrapped: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    name: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class Attribute:
    of: Expression
    name: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class Index:
    of: Expression
    key: Expression
    at: int = 0


@dataclass(frozen=True, slots=True)
class Splat:
    """`of.*.rest` and `of[*].rest`: `each` is an expression over the name `item`, which no file can write."""

    of: Expression
    each: Expression
    at: int = 0


ITEM = "*"
"""The name of a splat's element."""


@dataclass(frozen=True, slots=True)
class Call:
    """`expand`: the last argument's elements are arguments."""

    name: str
    arguments: tuple[Expression, ...]
    expand: bool = False
    at: int = 0


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: Expression
    at: int = 0


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Expression
    right: Expression
    at: int = 0


@dataclass(frozen=True, slots=True)
class Conditional:
    condition: Expression
    yes: Expression
    no: Expression
    at: int = 0


@dataclass(frozen=True, slots=True)
class Tuple:
    items: tuple[Expression, ...]
    at: int = 0


@dataclass(frozen=True, slots=True)
class Object:
    items: tuple[tuple[Expression, Expression], ...]
    at: int = 0


@dataclass(frozen=True, slots=True)
class For:
    """`[for key, item in of : value if condition]`; with `result_key` an object, whose values `group` collects.

    `joined`: it is a template's `%{ for }`, of which the results become one text.
    """

    key: str
    item: str
    of: Expression
    value: Expression
    result_key: Expression | None = None
    condition: Expression | None = None
    group: bool = False
    joined: bool = False
    at: int = 0


Expression = (
    Literal | Template | Name | Attribute | Index | Splat | Call | Unary | Binary | Conditional | Tuple | Object | For
)


@dataclass(frozen=True, slots=True)
class Set:
    """`name = expression` in a body."""

    name: str
    expression: Expression
    source: Source
    at: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    kind: str
    labels: tuple[str, ...]
    body: Body
    source: Source
    at: int = 0


@dataclass(frozen=True, slots=True)
class Body:
    attributes: dict[str, Set]
    blocks: tuple[Block, ...]
