"""An expression to a value (hclsyntax/spec.md, "Expressions"). Errors have the place of the part that is wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from limpet.build.bake.hcl import values
from limpet.build.bake.hcl.syntax import (
    ITEM,
    Attribute,
    Binary,
    Call,
    Conditional,
    Index,
    Literal,
    Name,
    Object,
    Splat,
    Template,
    Tuple,
    Unary,
    Wrong,
)
from limpet.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from limpet.build.bake.hcl.syntax import (
        Expression,
        For,
        Source,
        Value,
    )

    class Scope(Protocol):
        """Where names and functions come from. Both raise KeyError for one that there isn't."""

        def value(self, name: str) -> Value: ...

        def function(self, name: str) -> Callable[..., Value]:
            """Takes values, raises ValueError."""

        def names(self) -> list[str]: ...

        def member(self, kind: str, name: str, attribute: str) -> Value:
            """One attribute of a block, `target.app.tags`, without the others. Raises ValueError."""


LAZY = ("try", "can")
"""Functions whose arguments may fail."""


class Inner:
    """A scope with some names more."""

    def __init__(self, outer: Scope, known: Mapping[str, Value]) -> None:
        self._outer = outer
        self._known = known

    def value(self, name: str) -> Value:
        return self._known[name] if name in self._known else self._outer.value(name)

    def function(self, name: str) -> Callable[..., Value]:
        return self._outer.function(name)

    def names(self) -> list[str]:
        return [*self._known, *self._outer.names()]

    def member(self, kind: str, name: str, attribute: str) -> Value:
        if kind in self._known:
            return index(index(self._known[kind], name), attribute)
        return self._outer.member(kind, name, attribute)


class Evaluation:
    def __init__(self, source: Source) -> None:
        self._source = source

    def value(self, expression: Expression, scope: Scope) -> Value:
        """Raises Wrong."""
        try:
            return self._value(expression, scope)
        except RecursionError:
            raise self._source.wrong(expression.at, "too many levels within each other") from None

    def _value(self, expression: Expression, scope: Scope) -> Value:
        try:
            return self._plain(expression, scope)
        except Wrong:
            raise
        except (ValueError, ArithmeticError, IndexError, TypeError) as e:
            message = str(e) if isinstance(e, ValueError) else "these values don't fit"
            raise self._source.wrong(expression.at, message) from None

    def _plain(self, expression: Expression, scope: Scope) -> Value:
        if isinstance(expression, Literal):
            return expression.value
        if isinstance(expression, Name):
            return self._name(expression, scope)
        if isinstance(expression, Template):
            return self._template(expression, scope)
        if isinstance(expression, Attribute | Index):
            path = _member(expression)
            if path is not None:
                return scope.member(*path)
        if isinstance(expression, Attribute):
            return self._attribute(self._value(expression.of, scope), expression.name)
        if isinstance(expression, Index):
            return index(self._value(expression.of, scope), self._value(expression.key, scope))
        if isinstance(expression, Splat):
            return self._splat(expression, scope)
        if isinstance(expression, Call):
            return self._call(expression, scope)
        if isinstance(expression, Unary):
            operand = self._value(expression.operand, scope)
            return not values.truth(operand) if expression.operator == "!" else arithmetic("-", 0, operand)
        if isinstance(expression, Binary):
            return self._binary(expression, scope)
        if isinstance(expression, Conditional):
            chosen = values.truth(self._value(expression.condition, scope))
            return self._value(expression.yes if chosen else expression.no, scope)
        if isinstance(expression, Tuple):
            return [self._value(each, scope) for each in expression.items]
        if isinstance(expression, Object):
            return {values.text(self._value(key, scope)): self._value(value, scope) for key, value in expression.items}
        return self._for(expression, scope)

    def _name(self, expression: Name, scope: Scope) -> Value:
        try:
            return scope.value(expression.name)
        except KeyError:
            hint = nearest(expression.name, [each for each in scope.names() if each != ITEM])
            shown = f"did you mean {hint}?" if hint else 'declare it: variable "NAME" { default = … }'
            raise self._source.wrong(expression.at, f"no variable '{expression.name}'", shown) from None

    def _template(self, expression: Template, scope: Scope) -> Value:
        if expression.wrapped:
            return self._value(expression.parts[0], scope)
        parts = []
        for part in expression.parts:
            found = self._value(part, scope)
            if found is None:
                raise self._source.wrong(part.at or expression.at, "null in a text", 'coalesce(x, "") gives another')
            parts.append(values.text(found))
        whole = "".join(parts)
        if len(whole) > values.MAX_TEXT:
            raise ValueError(f"a text of more than {values.MAX_TEXT} letters")
        return whole

    def _attribute(self, value: Value, name: str) -> Value:
        if isinstance(value, dict):
            if name in value:
                inner: Value = value[name]
                return inner
            hint = nearest(name, list(value))
            raise ValueError(f"no attribute '{name}'" + (f", did you mean {hint}?" if hint else ""))
        raise ValueError(f"{values.kind(value)} has no attribute '{name}'")

    def _splat(self, expression: Splat, scope: Scope) -> Value:
        found = self._value(expression.of, scope)
        elements = found if isinstance(found, list) else [] if found is None else [found]
        return [self._value(expression.each, Inner(scope, {ITEM: each})) for each in elements]

    def _call(self, expression: Call, scope: Scope) -> Value:
        name = expression.name
        if name in LAZY:
            return self._lazy(expression, scope)
        try:
            function = scope.function(name)
        except KeyError:
            raise self._source.wrong(expression.at, f"no function '{name}'", "docs/bake.md lists them") from None
        arguments = [self._value(each, scope) for each in expression.arguments]
        if expression.expand:
            last = arguments.pop()
            arguments += values.items(last)
        try:
            return function(*arguments)
        except (ValueError, TypeError, ArithmeticError, IndexError, OverflowError) as e:
            message = str(e) if isinstance(e, ValueError) else "these arguments don't fit"
            if isinstance(e, TypeError) and "argument" in str(e):
                message = f"{len(arguments)} arguments are not as many as it takes"
            raise self._source.wrong(expression.at, f"{name}: {message}") from None

    def _lazy(self, expression: Call, scope: Scope) -> Value:
        error: Wrong | None = None
        for each in expression.arguments:
            try:
                found = self._value(each, scope)
            except Wrong as e:
                error = e
                continue
            return True if expression.name == "can" else found
        if expression.name == "can":
            return False
        raise error or ValueError("try: needs an argument")

    def _binary(self, expression: Binary, scope: Scope) -> Value:
        operator = expression.operator
        left = self._value(expression.left, scope)
        if operator in ("&&", "||"):
            if values.truth(left) == (operator == "||"):
                return operator == "||"
            return values.truth(self._value(expression.right, scope))
        right = self._value(expression.right, scope)
        if operator in ("==", "!="):
            return values.equal(left, right) == (operator == "==")
        if operator in ("<", ">", "<=", ">="):
            one, other = values.number(left), values.number(right)
            known = {"<": one < other, ">": one > other, "<=": one <= other, ">=": one >= other}
            return known[operator]
        return arithmetic(operator, left, right)

    def _for(self, expression: For, scope: Scope) -> Value:
        of = self._value(expression.of, scope)
        if isinstance(of, dict):
            pairs = [(key, of[key]) for key in sorted(of)]
        elif isinstance(of, list):
            pairs = list(enumerate(of))  # type: ignore[arg-type]
        else:
            raise ValueError(f"{values.kind(of)} where a list or an object is needed")
        found: list[Value] = []
        collected: dict[str, Value] = {}
        for key, item in pairs:
            known: dict[str, Value] = {expression.item: item}
            if expression.key:
                known[expression.key] = key
            inner = Inner(scope, known)
            if expression.condition is not None and not values.truth(self._value(expression.condition, inner)):
                continue
            value = self._value(expression.value, inner)
            if expression.result_key is None:
                found.append(value)
                continue
            name = values.text(self._value(expression.result_key, inner))
            if expression.group:
                group = collected.setdefault(name, [])
                assert isinstance(group, list)
                group.append(value)
            elif name in collected:
                raise ValueError(f"two items have the key '{name}': write … after the value to collect them in lists")
            else:
                collected[name] = value
        if expression.result_key is not None:
            return collected
        return "".join(values.text(each) for each in found) if expression.joined else found


def _member(expression: Expression) -> tuple[str, str, str] | None:
    """(kind, name, attribute) of `target.name.attribute` and `target["name"].attribute`."""
    keys: list[str] = []
    at = expression
    while isinstance(at, Attribute | Index):
        key = Literal(at.name) if isinstance(at, Attribute) else at.key
        if isinstance(key, Template) and len(key.parts) == 1:
            key = key.parts[0]
        if not isinstance(key, Literal) or not isinstance(key.value, str):
            return None
        keys.insert(0, key.value)
        at = at.of
    if isinstance(at, Name) and at.name in ("target", "group") and len(keys) == 2:
        return at.name, keys[0], keys[1]
    return None


def index(value: Value, key: Value) -> Value:
    """Raises ValueError."""
    found: Value
    if isinstance(value, list):
        place = values.whole(key)
        if not 0 <= place < len(value):
            raise ValueError(f"no element {place} in a list of {len(value)}")
        found = value[place]
        return found
    if isinstance(value, dict):
        name = values.text(key)
        if name not in value:
            raise ValueError(f"no key '{name}'")
        found = value[name]
        return found
    raise ValueError(f"{values.kind(value)} has no elements")


def arithmetic(operator: str, left: Value, right: Value) -> Value:
    """+ - * / %. Raises ValueError."""
    one, other = values.number(left), values.number(right)
    if operator in ("/", "%") and not other:
        raise ValueError("division by zero")
    context = values.ARITHMETIC
    first, second = Decimal(one), Decimal(other)
    if operator == "+":
        found = context.add(first, second)
    elif operator == "-":
        found = context.subtract(first, second)
    elif operator == "*":
        found = context.multiply(first, second)
    elif operator == "/":
        found = context.divide(first, second)
    else:
        found = context.remainder(first, second)
    return values.simple(found)
