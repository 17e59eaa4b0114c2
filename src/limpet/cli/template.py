"""Go's text/template, as far as `--format` needs it (pkg.go.dev/text/template), with Docker's functions.

    {{.A.B}} {{$x := .A}} {{$x = .B}} {{json .}} {{.A | upper}} {{if}} {{else if}} {{else}} {{with}} {{end}}
    {{range $k, $v := .M}} {{break}} {{continue}} {{/* comment */}} {{- trimming -}}

A mistake raises Invalid with its place, line and column, and Docker's exit code, 64. In Go a field that an object lacks
is an error, a key that a map lacks is `<no value>`; in JSON both are objects, so the maps are known by their names.
What is missing at the end of a path that begins at a loop's element is `<no value>`.
"""

from __future__ import annotations

from limpet.cli.template_functions import FUNCTIONS, MISSING, Missing, brief, call, show, truth
from limpet.cli.template_parser import Mistake, parse
from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.cli.template_parser import Command, Node, Operand

EXIT_CODE = 64

_MAPS = frozenset(
    {
        "Annotations",
        "Attributes",
        "Data",
        "DriverOpts",
        "ExposedPorts",
        "Extra",
        "Labels",
        "Networks",
        "Options",
        "Ports",
    }
    | {"StorageOpt", "Sysctls", "Tmpfs", "Volumes"}
)
"""Of the objects that Docker shows, those that are maps (moby `api/types`)."""

_OPTIONAL = frozenset({"Health", "Healthcheck"})
"""Fields that Docker leaves out of its JSON where there is nothing; a template sees nil."""


def compile(text: str) -> Template:
    """Raises Invalid with the place of a mistake."""
    try:
        return Template(text, parse(text, {"and", "or", *FUNCTIONS}))
    except Mistake as e:
        raise _invalid(text, e, 0) from None


def render(text: str, data: object) -> str:
    return compile(text).render(data)


class Template:
    def __init__(self, text: str, nodes: list[Node]) -> None:
        self._text = text
        self._nodes = nodes

    def render(self, data: object) -> str:
        """`data` is what JSON gives: dicts, lists, strings, numbers. Raises Invalid for a bad field or call."""
        runner = _Runner(data)
        try:
            runner.run(self._nodes, data)
        except Mistake as e:
            raise _invalid(self._text, e, runner.place) from None
        except RecursionError:
            raise _invalid(self._text, Mistake("the data are nested too deeply"), runner.place) from None
        return "".join(runner.out)


def _invalid(text: str, mistake: Mistake, place: int) -> Invalid:
    place = place if mistake.place is None else mistake.place
    line = text.count("\n", 0, place) + 1
    column = place - (text.rfind("\n", 0, place) + 1) + 1
    return Invalid(f"template parsing error: template: :{line}:{column}: {mistake}", exit_code=EXIT_CODE)


class _Leave(Exception):
    """{{break}} or {{continue}}."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__()
        self.ends = ends


class _Runner:
    def __init__(self, root: object) -> None:
        self.out: list[str] = []
        self.place = 0
        self._root = root
        self._variables: list[tuple[str, Any]] = [("$", root)]

    def run(self, nodes: list[Node], dot: Any) -> None:
        depth = len(self._variables)
        for node in nodes:
            if node.kind == "text":
                self.out.append(node.value)
            elif node.kind in ("break", "continue"):
                raise _Leave(ends=node.kind == "break")
            else:
                self.place = node.place
                self._run(node, self._pipeline(node.value, dot), dot)
        del self._variables[depth:]

    def _run(self, node: Node, value: Any, dot: Any) -> None:
        if node.kind == "range":
            self._range(node, value, dot)
            return
        inner = len(self._variables)
        for name in node.names:
            self._set(name, value, node.assigns)
        if node.kind == "value":
            if not node.names:
                self.out.append(show(value))
            return
        if truth(value):
            self.run(node.body, value if node.kind == "with" else dot)
        else:
            self.run(node.otherwise, dot)
        del self._variables[inner:]

    def _range(self, node: Node, value: Any, dot: Any) -> None:
        if isinstance(value, dict):
            items: list[tuple[Any, Any]] = sorted(value.items())
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(i, i) for i in range(min(value, 1_000_000))]
        elif value is None or isinstance(value, Missing):
            items = []
        else:
            raise Mistake(f"range can't iterate over {brief(value)}")
        if not items:
            self.run(node.otherwise, dot)
        for key, item in items:
            inner = len(self._variables)
            given = (key, item) if len(node.names) == 2 else (item,)
            for name, what in zip(node.names, given, strict=False):
                self._set(name, what, node.assigns)
            try:
                self.run(node.body, item)
            except _Leave as e:
                if e.ends:
                    break
            finally:
                del self._variables[inner:]

    def _set(self, name: str, value: Any, assigns: bool) -> None:
        if not assigns:
            self._variables.append((name, value))
            return
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return
        raise Mistake(f'undefined variable "{name}"')

    def _pipeline(self, commands: list[Command], dot: Any) -> Any:
        value: Any = MISSING
        for at, command in enumerate(commands):
            value = self._command(command, dot, [value] if at else [])
        return value

    def _command(self, command: Command, dot: Any, last: list[Any]) -> Any:
        kind, what = command[0]
        if kind == "function":
            if what in ("and", "or"):  # they stop at the first operand that decides
                return self._logic(what, command[1:], dot, last)
            return call(what, [self._operand(operand, dot) for operand in command[1:]] + last)
        if len(command) > 1 or last:
            label = getattr(dot, "label", None)  # Docker's one method: see `output.Labelled`
            if label is not None and kind == "field" and list(what) == ["Label"] and len(command) + len(last) == 2:
                return label(str([*(self._operand(operand, dot) for operand in command[1:]), *last][0]))
            raise Mistake("can't give an argument to what is no function")
        return self._operand(command[0], dot)

    def _logic(self, name: str, operands: list[Operand], dot: Any, last: list[Any]) -> Any:
        if not operands and not last:
            raise Mistake(f"wrong number of args for {name}")
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if truth(value) == (name == "or"):
                return value
        return last[0] if last else value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        kind, what = operand
        if kind == "value":
            return what
        if kind == "field":
            return self._walk(dot, what)
        if kind == "variable":
            name, fields = what
            for known, value in reversed(self._variables):
                if known == name:
                    return self._walk(value, fields)
            raise Mistake(f'undefined variable "{name}"')
        if kind == "pipeline":
            commands, fields = what
            return self._walk(self._pipeline(commands, dot), fields)
        if kind == "function":
            return self._command([operand], dot, [])
        raise Mistake("unexpected field behind what has none")

    def _walk(self, value: Any, fields: list[str]) -> Any:
        for at, field in enumerate(fields):
            if isinstance(value, dict):
                if field in value:
                    value = value[field]
                elif field in _OPTIONAL:
                    value = None
                elif value is self._root or at < len(fields) - 1 or (at and fields[at - 1] not in _MAPS):
                    raise Mistake(f"can't evaluate field {field}: there is no such field")
                else:
                    return MISSING
            elif value is None or isinstance(value, Missing):
                raise Mistake(f"nil pointer evaluating {'.'.join(fields[: at + 1])}")
            else:
                raise Mistake(f"can't evaluate field {field} of {brief(value)}")
        return value
