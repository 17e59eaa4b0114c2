"""HCL and JSON files to groups and targets (docker/buildx bake/hclparser/hclparser.go, bake/bake.go).

Everything is evaluated when it is asked for: variables may use each other, functions and attributes of targets in any
order; what uses itself is an error.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING, Any

from limpet.build.bake import fields
from limpet.build.bake.hcl import jsonbody, parser, types, values
from limpet.build.bake.hcl.evaluate import Evaluation, Inner
from limpet.build.bake.hcl.functions import FUNCTIONS
from limpet.build.bake.hcl.syntax import Literal, Name, Tuple, Wrong
from limpet.frozen import dataclass
from limpet.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limpet.build.bake.fields import Attributes
    from limpet.build.bake.hcl.evaluate import Scope
    from limpet.build.bake.hcl.syntax import Block, Body, Set, Value
    from limpet.build.bake.hcl.types import Type

BLOCKS: dict[str, dict[str, Any]] = {"variable": {"validation": {}}, "function": {}, "group": {}, "target": {}}
_OF_TARGET = {*fields.FIELDS, "matrix", "name"}
_OF_GROUP = {"targets", "description"}
_OF_VARIABLE = {"default", "type", "description"}
_OF_FUNCTION = {"params", "variadic_params", "result"}
_LABEL = re.compile(r"[a-zA-Z0-9_-]+")
MAX_TARGETS = 10_000


@dataclass(frozen=True, slots=True)
class Group:
    targets: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """`value` as a person reads it; None for null."""

    name: str
    type: str
    value: str | None
    description: str


@dataclass
class Definition:
    """All that files define, by name, in their order."""

    targets: dict[str, Attributes] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)

    def add_target(self, name: str, found: Attributes) -> None:
        self.targets[name] = fields.merge(self.targets.get(name, {}), found)

    def add_group(self, name: str, group: Group) -> None:
        before = self.groups.get(name, Group(()))
        targets = tuple(dict.fromkeys([*before.targets, *group.targets]))
        self.groups[name] = Group(targets, group.description or before.description)


def parse(text: str, name: str) -> Body:
    """A file by its name: `.json` is JSON, all else HCL. Raises Wrong."""
    if name.lower().endswith(".json"):
        return jsonbody.parse(text, name, BLOCKS)
    return parser.parse(text, name)


def define(
    bodies: Sequence[Body], into: Definition, environment: Mapping[str, str], builtins: Mapping[str, str]
) -> None:
    """Adds what the files define. `environment` overrides variables, `builtins` are always there. Raises Wrong."""
    files = _Files(bodies, environment, builtins)
    files.validate()
    for name, description, targets in files.groups():
        into.add_group(name, Group(tuple(targets), description))
    for label, names in files.matrices():
        if names != [label]:
            into.add_group(label, Group(tuple(names)))
    for name, found in files.targets():
        into.add_target(name, found)
    into.variables += files.variables()


@dataclass(frozen=True)
class _Made:
    """One target of a block: `known` are the matrix's values."""

    block: Block
    name: str
    known: Mapping[str, Value]


class _Files:
    """The scope of all files together."""

    def __init__(self, bodies: Sequence[Body], environment: Mapping[str, str], builtins: Mapping[str, str]) -> None:
        self._environment = environment
        self._values: dict[str, Value] = dict(builtins)
        self._builtins = builtins
        self._types: dict[str, Type | None] = {}
        self._attributes: dict[str, Set] = {}
        self._variables: dict[str, list[Block]] = {}
        self._functions: dict[str, Block] = {}
        self._groups: list[Block] = []
        self._targets: list[Block] = []
        self._made: list[_Made] | None = None
        self._members: dict[tuple[int, str, str], Any] = {}
        self._going: set[object] = set()
        for body in bodies:
            self._attributes |= body.attributes
            for block in body.blocks:
                self._enter(block)

    def _enter(self, block: Block) -> None:
        wrong = block.source.wrong
        if block.kind not in BLOCKS:
            hint = nearest(block.kind, BLOCKS)
            raise wrong(block.at, f"unknown block '{block.kind}'", f"did you mean {hint}?" if hint else "")
        if len(block.labels) != 1:
            raise wrong(block.at, f"a {block.kind} has one name", f'as in {block.kind} "app" {{ … }}')
        known = {
            "variable": _OF_VARIABLE,
            "function": _OF_FUNCTION,
            "group": _OF_GROUP,
            "target": _OF_TARGET,
        }[block.kind]
        for name, each in block.body.attributes.items():
            if name not in known:
                hint = nearest(name, known)
                shown = f"did you mean {hint}?" if hint else f"a {block.kind} has {', '.join(sorted(known))}"
                raise wrong(each.at, f"unknown attribute '{name}' of the {block.kind} '{block.labels[0]}'", shown)
        for inner in block.body.blocks:
            if inner.kind not in BLOCKS[block.kind]:
                raise wrong(inner.at, f"a {block.kind} has no block '{inner.kind}'", f"write it as {inner.kind} = …")
        label = block.labels[0]
        if block.kind == "variable":
            self._variables.setdefault(label, []).append(block)
        elif block.kind == "function":
            self._functions[label] = block
        else:
            if not _LABEL.fullmatch(label):
                raise wrong(block.at, f"the name '{label}' of a {block.kind}", "letters, digits, _ and - are allowed")
            (self._groups if block.kind == "group" else self._targets).append(block)

    # The scope.

    def names(self) -> list[str]:
        return [*self._builtins, *self._attributes, *self._variables, "target", "group"]

    def value(self, name: str) -> Value:
        if name in self._values:
            return self._values[name]
        if name == "target":
            return {made.name: {"name": made.name, **self._whole(made)} for made in self._all_made()}
        if name == "group":
            return {block.labels[0]: {"targets": self._group_targets(block)} for block in self._groups}
        if name in self._attributes:
            found = self._attributes[name]
            with _Once(self._going, ("attribute", name), found):
                value = Evaluation(found.source).value(found.expression, self)
        elif name in self._variables:
            with _Once(self._going, ("variable", name), self._variables[name][-1]):
                value = self._variable(name)
        else:
            raise KeyError(name)
        self._values[name] = value
        return value

    def member(self, kind: str, name: str, attribute: str) -> Value:
        """`target.name.attribute`, without the other ones; null if it isn't set. Raises ValueError."""
        if kind == "group":
            block = next((each for each in self._groups if each.labels[0] == name), None)
            if block is None or attribute != "targets":
                raise ValueError(f"no {attribute} of a group '{name}'")
            return list(self._group_targets(block))
        found = [made for made in self._all_made() if made.name == name]
        if not found:
            raise ValueError(f"no target '{name}' in the files")
        if attribute == "name":
            return name
        if attribute not in fields.FIELDS:
            raise ValueError(f"a target has no '{attribute}'")
        merged: Attributes = {}
        for made in found:
            if attribute in made.block.body.attributes:
                merged = fields.merge(merged, {attribute: self._attribute(made, attribute)})
        return merged.get(attribute)

    def function(self, name: str) -> Callable[..., Value]:
        if name in FUNCTIONS:
            return FUNCTIONS[name]
        block = self._functions[name]
        wrong = block.source.wrong
        attributes = block.body.attributes
        if "result" not in attributes or "params" not in attributes:
            raise wrong(block.at, f"the function '{name}' needs params and result")
        params = attributes["params"].expression
        rest = attributes["variadic_params"].expression if "variadic_params" in attributes else None
        if not isinstance(params, Tuple) or not all(_word(each) for each in params.items) or (rest and not _word(rest)):
            raise wrong(attributes["params"].at, "params are a list of names")
        names = [_word(each) for each in params.items]
        last = _word(rest) if rest is not None else ""

        def call(*arguments: Value) -> Value:
            if len(arguments) < len(names) or (len(arguments) > len(names) and not last):
                raise ValueError(f"{len(arguments)} arguments for {len(names)}")
            known: dict[str, Value] = dict(zip(names, arguments, strict=False))
            if last:
                known[last] = list(arguments[len(names) :])
            if len(self._going) > 200:
                raise ValueError("calls itself without an end")
            with _Once(self._going, object(), block):
                return Evaluation(block.source).value(attributes["result"].expression, Inner(self, known))

        return call

    # Variables.

    def _variable(self, name: str) -> Value:
        """Its default, or what the environment says (bake-reference.md, "Variable")."""
        blocks = self._variables[name]
        attributes = {key: each for block in blocks for key, each in block.body.attributes.items()}
        wrong = blocks[-1].source.wrong
        wanted: Type | None = None
        if "type" in attributes:
            try:
                wanted = types.parse(attributes["type"].expression)
            except ValueError as e:
                raise attributes["type"].source.wrong(attributes["type"].at, str(e)) from None
        self._types[name] = wanted
        default = attributes.get("default")
        value: Value = None if wanted is not None else ""
        if default is not None:
            value = Evaluation(default.source).value(default.expression, self)
            if wanted is not None:
                try:
                    value = types.convert(value, wanted)
                except ValueError as e:
                    raise default.source.wrong(default.at, f"default of {name}: {e}") from None
        text, is_json = self._overridden(name, prefer_json=wanted is not None)
        if text is None:
            return value
        try:
            if wanted is not None:
                return types.of_json(text, wanted) if is_json else types.of_environment(text, wanted)
            if default is None or value is None or isinstance(value, str):
                return text
            if isinstance(value, bool):
                return values.truth(text)
            if isinstance(value, list | dict):
                raise ValueError("its default is no text: give the variable a type, as in type = list(string)")
            return values.number(text)
        except ValueError as e:
            raise wrong(blocks[-1].at, f"{name} of the environment: {e}") from None

    def _overridden(self, name: str, *, prefer_json: bool) -> tuple[str | None, bool]:
        text = self._environment.get(name)
        if text is None or prefer_json:
            key = f"{name}_JSON"
            if key not in self._variables and key not in self._builtins and key in self._environment:
                return self._environment[key], True
        return text, False

    def validate(self) -> None:
        """The `validation` blocks of all variables. Raises Wrong with the first message."""
        for name, blocks in self._variables.items():
            self.value(name)
            for block in blocks:
                for rule in block.body.blocks:
                    self._check_rule(rule)

    def _check_rule(self, rule: Block) -> None:
        attributes = rule.body.attributes
        if attributes.keys() != {"condition", "error_message"}:
            raise rule.source.wrong(rule.at, "a validation has condition and error_message")
        evaluation = Evaluation(rule.source)
        result = evaluation.value(attributes["condition"].expression, self)
        try:
            valid = values.truth(result)
        except ValueError as e:
            raise rule.source.wrong(attributes["condition"].at, str(e)) from None
        if not valid:
            message = evaluation.value(attributes["error_message"].expression, self)
            text = message if isinstance(message, str) else "the condition is false"
            raise rule.source.wrong(attributes["condition"].at, f"validation failed: {text}")

    def variables(self) -> list[Variable]:
        found = []
        for name, blocks in self._variables.items():
            value = self.value(name)
            description = ""
            for block in blocks:
                each = block.body.attributes.get("description")
                if each is not None:
                    description = values.text(Evaluation(each.source).value(each.expression, self))
            kind = self._types.get(name)
            shown = None if value is None else value if isinstance(value, str) else FUNCTIONS["jsonencode"](value)
            found.append(
                Variable(
                    name, str(kind) if kind is not None else "", None if shown is None else str(shown), description
                )
            )
        return found

    # Groups and targets.

    def groups(self) -> list[tuple[str, str, list[str]]]:
        found = []
        for block in self._groups:
            each = block.body.attributes.get("description")
            description = values.text(Evaluation(each.source).value(each.expression, self)) if each else ""
            found.append((block.labels[0], description, self._group_targets(block)))
        return found

    def _group_targets(self, block: Block) -> list[str]:
        each = block.body.attributes.get("targets")
        if each is None:
            raise block.source.wrong(block.at, f"the group '{block.labels[0]}' has no targets")
        with _Once(self._going, ("group", id(block)), block):
            value = Evaluation(each.source).value(each.expression, self)
        try:
            return [values.text(name) for name in values.items(value)]
        except ValueError as e:
            raise each.source.wrong(each.at, f"targets: {e}") from None

    def matrices(self) -> list[tuple[str, list[str]]]:
        """(label, names of its targets) of each block."""
        found: dict[str, list[str]] = {}
        for made in self._all_made():
            names = found.setdefault(made.block.labels[0], [])
            if made.name not in names:
                names.append(made.name)
        return list(found.items())

    def targets(self) -> list[tuple[str, Attributes]]:
        return [(made.name, self._whole(made)) for made in self._all_made()]

    def _whole(self, made: _Made) -> Attributes:
        names = [name for name in made.block.body.attributes if name in fields.FIELDS]
        return {name: self._attribute(made, name) for name in names}

    def _attribute(self, made: _Made, name: str) -> Any:
        key = (id(made.block), made.name, name)
        if key not in self._members:
            each = made.block.body.attributes[name]
            with _Once(self._going, key, each, f"target.{made.name}.{name}"):
                scope: Scope = Inner(self, made.known) if made.known else self
                value = Evaluation(each.source).value(each.expression, scope)
            try:
                self._members[key] = fields.decode(name, value)
            except ValueError as e:
                raise each.source.wrong(each.at, f"{name}: {e}") from None
        return self._members[key]

    def _all_made(self) -> list[_Made]:
        if self._made is None:
            found: list[_Made] = []
            with _Once(self._going, "matrices", self._targets[0] if self._targets else None, "target"):
                for block in self._targets:
                    found += self._of_block(block)
            if len(found) > MAX_TARGETS:
                raise self._targets[0].source.wrong(0, f"more than {MAX_TARGETS} targets")
            self._made = found
        return self._made

    def _of_block(self, block: Block) -> list[_Made]:
        attributes, label = block.body.attributes, block.labels[0]
        wrong = block.source.wrong
        if "matrix" not in attributes:
            if "name" in attributes:
                raise wrong(attributes["name"].at, "name needs a matrix")
            return [_Made(block, label, {})]
        each = attributes["matrix"]
        matrix = Evaluation(each.source).value(each.expression, self)
        if not isinstance(matrix, dict) or not all(isinstance(value, list) for value in matrix.values()):
            raise wrong(each.at, "a matrix is an object of lists")
        rows: list[dict[str, Value]] = [{}]
        for key in sorted(matrix):
            rows = [{**row, key: value} for value in matrix[key] for row in rows]
            if len(rows) > MAX_TARGETS:
                raise wrong(each.at, f"more than {MAX_TARGETS} targets")
        name = attributes.get("name")
        if name is None and len(rows) > 1:
            raise wrong(each.at, f"the matrix of '{label}' needs a name", 'as in name = "app-${version}"')
        found: list[_Made] = []
        for row in rows:
            given = label if name is None else Evaluation(name.source).value(name.expression, Inner(self, row))
            at = each.at if name is None else name.at
            value = values.text(given) if isinstance(given, str | int) else ""
            if not _LABEL.fullmatch(value):
                hint = "letters, digits, _ and - are allowed: sanitize(x) replaces others"
                raise wrong(at, f"the name {given!r} of a target", hint)
            if any(value == other.name for other in found):
                raise wrong(at, f"two targets of the matrix have the name '{value}'")
            found.append(_Made(block, value, row))
        return found


class _Once:
    """`with _Once(…):` an evaluation that must not come to itself again."""

    def __init__(self, going: set[object], key: object, at: Set | Block | None, shown: str = "") -> None:
        self._going = going
        self._key = key
        self._at = at
        self._shown = shown

    def __enter__(self) -> None:
        if self._key in self._going and self._at is not None:
            what = self._shown or (self._at.labels[0] if hasattr(self._at, "labels") else self._at.name)
            raise self._at.source.wrong(self._at.at, f"'{what}' needs itself")
        self._going.add(self._key)

    def __exit__(self, *error: object) -> None:
        self._going.discard(self._key)


def _word(expression: object) -> str:
    """The name that an expression is, "" for others. In JSON it is a text."""
    if isinstance(expression, Name):
        return expression.name
    return str(expression.value) if isinstance(expression, Literal) else ""


__all__ = ["Definition", "Group", "Variable", "Wrong", "define", "parse"]
