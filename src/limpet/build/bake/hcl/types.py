"""Type constraints of variables (hashicorp/hcl ext/typeexpr/README.md): parsed, shown, and values made to fit them."""

from __future__ import annotations

import json
from dataclasses import field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from limpet.build.bake.hcl import values
from limpet.build.bake.hcl.syntax import Call, Literal, Name, Object, Template, Tuple
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from limpet.build.bake.hcl.syntax import Expression, Value

_SIMPLE = ("string", "number", "bool", "any")
_OF_ONE = ("list", "set", "map")


@dataclass(frozen=True, slots=True)
class Type:
    """`name`: string, number, bool, any, list, set, map, tuple, object. `optional`: attributes that may be missing."""

    name: str
    of: tuple[Type, ...] = ()
    attributes: dict[str, Type] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    def __str__(self) -> str:
        if self.name in _OF_ONE:
            return f"{self.name}({self.of[0]})"
        if self.name == "tuple":
            return f"tuple([{', '.join(map(str, self.of))}])"
        if self.name == "object":
            return f"object({{{', '.join(f'{key}={value}' for key, value in self.attributes.items())}}})"
        return self.name


def parse(expression: Expression) -> Type:
    """Raises ValueError for what is no type."""
    if isinstance(expression, Template) and len(expression.parts) == 1 and isinstance(expression.parts[0], Literal):
        expression = Name(str(expression.parts[0].value))  # the JSON form, and old files, quote it
    if isinstance(expression, Literal) and isinstance(expression.value, str):
        expression = Name(expression.value)
    if isinstance(expression, Name) and expression.name in _SIMPLE:
        return Type(expression.name)
    if isinstance(expression, Name) and expression.name in _OF_ONE:
        raise ValueError(f"the type {expression.name} needs one argument: {expression.name}(string)")
    if isinstance(expression, Call) and len(expression.arguments) == 1:
        argument = expression.arguments[0]
        if expression.name in _OF_ONE:
            return Type(expression.name, (parse(argument),))
        if expression.name == "tuple" and isinstance(argument, Tuple):
            return Type("tuple", tuple(map(parse, argument.items)))
        if expression.name == "object" and isinstance(argument, Object):
            return _object(argument)
    raise ValueError("no type: string, number, bool, list(…), set(…), map(…), tuple([…]), object({…}) and any are")


def _object(argument: Object) -> Type:
    attributes: dict[str, Type] = {}
    optional = set()
    for key, value in argument.items:
        if not isinstance(key, Literal):
            raise ValueError("an attribute of an object type is a name")
        if isinstance(value, Call) and value.name == "optional" and value.arguments:
            optional.add(str(key.value))
            value = value.arguments[0]
        attributes[str(key.value)] = parse(value)
    return Type("object", (), attributes, frozenset(optional))


def convert(value: Value, wanted: Type) -> Value:
    """The value as one of the type. Raises ValueError. null is of every type."""
    if value is None or wanted.name == "any":
        return value
    if wanted.name == "string":
        return values.text(value)
    if wanted.name == "number":
        return values.number(value)
    if wanted.name == "bool":
        return values.truth(value)
    if wanted.name in ("list", "set"):
        if not isinstance(value, list):
            raise ValueError(f"{values.kind(value)} where a {wanted.name} is needed")
        found = [convert(each, wanted.of[0]) for each in value]
        return values.member_set(found) if wanted.name == "set" else found
    if wanted.name == "tuple":
        if not isinstance(value, list) or len(value) != len(wanted.of):
            raise ValueError(f"a list of {len(wanted.of)} is needed")
        return [convert(each, kind) for each, kind in zip(value, wanted.of, strict=True)]
    if not isinstance(value, dict):
        raise ValueError(f"{values.kind(value)} where a {wanted.name} is needed")
    if wanted.name == "map":
        return {key: convert(each, wanted.of[0]) for key, each in value.items()}
    for key in wanted.attributes:
        if key not in value and key not in wanted.optional:
            raise ValueError(f"the attribute '{key}' is missing")
    return {key: convert(value.get(key), kind) for key, kind in wanted.attributes.items()}


def of_environment(text: str, wanted: Type) -> Value:
    """What a variable of the environment says: a primitive, or a list as one line of CSV. Raises ValueError."""
    if wanted.name in ("string", "number", "bool"):
        return convert(text, wanted)
    kinds = wanted.of or (Type("any"),)
    if wanted.name in ("list", "set", "tuple") and all(each.name in ("string", "number", "bool") for each in kinds):
        import csv

        row = next(csv.reader([text], strict=True)) if text else []
        return convert(list(row), wanted)
    raise ValueError(f"a variable of type {wanted} can't be a plain text: give it as JSON, in NAME_JSON")


def of_json(text: str, wanted: Type) -> Value:
    """Raises ValueError."""
    try:
        return convert(plain(json.loads(text, parse_float=Decimal)), wanted)
    except RecursionError:
        raise ValueError("too many levels within each other") from None


def plain(value: Any) -> Value:
    """Numbers of JSON as values have them."""
    if isinstance(value, Decimal):
        return values.simple(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if value is None or isinstance(value, str | bool | int):
        return value
    raise ValueError("a number that is too large")
