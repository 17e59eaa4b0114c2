"""Go's text/template, as far as `--format` needs it (pkg.go.dev/text/template).

    {{.A.B}} {{$x := .A}} {{json .}} {{.A | upper}} {{if}} {{else if}} {{else}} {{with}} {{range $k, $v := .M}} {{end}}
    {{/* comment */}} {{- trimming -}}  "strings" `raw` 12 1.5 true nil  (parentheses)

Functions: Go's (and or not len index slice print printf println eq ne lt le gt ge html urlquery) and Docker's (json
split join title lower upper pad truncate). A mistake raises Invalid with Docker's exit code, 64. In Go a field that an
object lacks is an error, a key that a map lacks is `<no value>`; in JSON both are objects, so a missing key is an error
at the top and in the middle of a path, and `<no value>` at its end.
"""

from __future__ import annotations

from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

EXIT_CODE = 64
_NO_VALUE = "<no value>"
_NAME_START = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
_NAME = _NAME_START + "0123456789"
_MAX_DEPTH = 100


class _Missing:
    """A key that a map lacks."""


_MISSING = _Missing()


def compile(text: str) -> Template:
    """Raises Invalid with the place of a mistake."""
    return Template(_Parser(text).parse())


def render(text: str, data: object) -> str:
    return compile(text).render(data)


class Template:
    def __init__(self, nodes: list[_Node]) -> None:
        self._nodes = nodes

    def render(self, data: object) -> str:
        """`data` is what JSON gives: dicts, lists, strings, numbers. Raises Invalid for a bad field or call."""
        out: list[str] = []
        _Runner(data, out).run(self._nodes, data)
        return "".join(out)


class _Node:
    """`kind`: text, value, if, with, range. `value` is text or a pipeline; `names` what a pipeline declares."""

    __slots__ = ("body", "kind", "names", "otherwise", "value")

    def __init__(self, kind: str, value: Any, names: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.value = value
        self.names = names
        self.body: list[_Node] = []
        self.otherwise: list[_Node] = []


def _wrong(message: str) -> Invalid:
    return Invalid(f"template parsing error: {message}", exit_code=EXIT_CODE)


# ---------------------------------------------------------------- text → tokens → nodes


class _Parser:
    def __init__(self, text: str) -> None:
        self._pieces = _split(text)
        self._at = 0

    def parse(self) -> list[_Node]:
        nodes, end = self._list(0)
        if end:
            raise _wrong(f"unexpected {{{{{end}}}}}")
        return nodes

    def _list(self, depth: int) -> tuple[list[_Node], str]:
        """Nodes up to an {{end}} or {{else …}}, and that action's words."""
        if depth > _MAX_DEPTH:
            raise _wrong("nested too deeply")
        nodes: list[_Node] = []
        while self._at < len(self._pieces):
            is_action, text = self._pieces[self._at]
            self._at += 1
            if not is_action:
                nodes.append(_Node("text", text))
                continue
            word, _, rest = text.partition(" ") if " " in text else (text, "", "")
            if word in ("end", "else"):
                return nodes, text
            if word in ("if", "with", "range"):
                nodes.append(self._block(word, rest, depth))
            elif word in ("define", "template", "block", "break", "continue"):
                raise _wrong(f"{{{{{word}}}}} is not supported")
            else:
                names, pipeline = _pipeline(text)
                nodes.append(_Node("value", pipeline, names))
        return nodes, ""

    def _block(self, kind: str, head: str, depth: int) -> _Node:
        names, pipeline = _pipeline(head)
        if len(names) > (2 if kind == "range" else 1):
            raise _wrong(f"too many declarations in {kind}")
        node = _Node(kind, pipeline, names)
        node.body, end = self._list(depth + 1)
        if not end:
            raise _wrong("unexpected EOF: {{end}} is missing")
        if end == "end":
            return node
        rest = end[4:].strip()
        if rest:
            word, _, head = rest.partition(" ")
            if word not in ("if", "with"):
                raise _wrong(f"unexpected {{{{{end}}}}}")
            node.otherwise = [self._block(word, head, depth + 1)]
            return node
        node.otherwise, end = self._list(depth + 1)
        if end != "end":
            raise _wrong("expected {{end}}" + (f", found {{{{{end}}}}}" if end else ""))
        return node


def _split(text: str) -> list[tuple[bool, str]]:
    """[(is it an action, its text)], comments gone, trim markers applied."""
    pieces: list[tuple[bool, str]] = []
    at = 0
    trim = False
    while True:
        begin = text.find("{{", at)
        plain = text[at : begin if begin >= 0 else len(text)]
        if trim:
            plain = plain.lstrip(" \t\r\n")
        if begin < 0:
            if plain:
                pieces.append((False, plain))
            return pieces
        end = _action_end(text, begin + 2)
        inner = text[begin + 2 : end]
        if len(inner) > 1 and inner[0] == "-" and inner[1] in " \t\r\n":
            plain, inner = plain.rstrip(" \t\r\n"), inner[1:]
        trim = len(inner) > 1 and inner[-1] == "-" and inner[-2] in " \t\r\n"
        inner = (inner[:-1] if trim else inner).strip()
        if plain:
            pieces.append((False, plain))
        if not inner:
            raise _wrong("missing value for command")
        if not (inner.startswith("/*") and inner.endswith("*/")):
            pieces.append((True, inner))
        at = end + 2


def _action_end(text: str, at: int) -> int:
    quote = ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\" and quote != "`":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "\"`'":
            quote = char
        elif text.startswith("}}", at):
            return at
        at += 1
    raise _wrong("unclosed action")


Token = tuple[str, "Any"]
"""(kind, value): field (list of names), var (name, fields), func (name), value, open, close, pipe, dot."""


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in " \t\r\n":
            at += 1
        elif char in "()|,":
            tokens.append((char, char))
            at += 1
            if char == ")" and text[at : at + 1] == ".":
                fields, at = _fields(text, at)
                tokens.append(("chain", fields))
        elif char in "\"`'":
            value, at = _string(text, at)
            tokens.append(("value", value))
        elif char == "." and text[at + 1 : at + 2] not in tuple(_NAME):
            tokens.append(("field", []))
            at += 1
        elif char == ".":
            fields, at = _fields(text, at)
            tokens.append(("field", fields))
        elif char == "$":
            name, at = _name(text, at + 1)
            fields, at = _fields(text, at)
            tokens.append(("var", (f"${name}", fields)))
        elif text.startswith((":=", "="), at):
            width = 2 if char == ":" else 1
            tokens.append((":=", text[at : at + width]))
            at += width
        elif char in "0123456789+-":
            end = at + 1
            while end < len(text) and text[end] in "0123456789.eExXabcdefABCDEF_":
                end += 1
            tokens.append(("value", _parse_number(text[at:end])))
            at = end
        elif char in _NAME_START:
            name, at = _name(text, at)
            constants: dict[str, Any] = {"true": True, "false": False, "nil": None}
            if name in constants:
                tokens.append(("value", constants[name]))
            elif name in FUNCTIONS or name in ("and", "or"):
                tokens.append(("func", name))
            else:
                raise _wrong(f'function "{name}" not defined')
        else:
            raise _wrong(f"unexpected {char!r} in {{{{{text}}}}}")
    return tokens


def _fields(text: str, at: int) -> tuple[list[str], int]:
    fields = []
    while text[at : at + 1] == "." and text[at + 1 : at + 2] in tuple(_NAME):
        name, at = _name(text, at + 1)
        fields.append(name)
    return fields, at


def _name(text: str, at: int) -> tuple[str, int]:
    end = at
    while end < len(text) and (text[end] in _NAME or text[end].isalpha()):
        end += 1
    return text[at:end], end


def _string(text: str, at: int) -> tuple[Any, int]:
    quote = text[at]
    end = at + 1
    while end < len(text) and text[end] != quote:
        end += 2 if text[end] == "\\" and quote != "`" else 1
    if end >= len(text):
        raise _wrong("unterminated quoted string")
    inner = text[at + 1 : end]
    if quote != "`":
        try:
            inner = inner.encode("latin-1", "backslashreplace").decode("unicode_escape")
        except UnicodeDecodeError:
            raise _wrong(f"bad escape in {inner!r}") from None
    if quote == "'":
        if len(inner) != 1:
            raise _wrong("malformed character constant")
        return ord(inner), end + 1
    return inner, end + 1


def _parse_number(text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise _wrong(f"bad number syntax: {text!r}") from None


def _pipeline(text: str) -> tuple[tuple[str, ...], Any]:
    """(declared variables, commands); a command is a list of operands: tokens, or pipelines in parentheses."""
    tokens = _tokens(text)
    names: tuple[str, ...] = ()
    for i, (kind, _) in enumerate(tokens[:4]):
        if kind == ":=":
            left = [t for t in tokens[:i] if t[0] != ","]
            if not left or any(t[0] != "var" or t[1][1] for t in left):
                raise _wrong(f"bad declaration in {{{{{text}}}}}")
            names = tuple(t[1][0] for t in left)
            tokens = tokens[i + 1 :]
            break
    commands, rest = _commands(tokens, 0)
    if rest != len(tokens):
        raise _wrong(f"unexpected {tokens[rest][1]!r} in {{{{{text}}}}}")
    return names, commands


def _commands(tokens: list[Token], at: int) -> tuple[Any, int]:
    commands: list[list[Any]] = [[]]
    while at < len(tokens):
        kind, value = tokens[at]
        if kind == ")":
            break
        at += 1
        if kind == "|":
            commands.append([])
        elif kind == "(":
            inner, at = _commands(tokens, at)
            if at >= len(tokens):
                raise _wrong("unclosed left paren")
            at += 1
            fields: list[str] = []
            if at < len(tokens) and tokens[at][0] == "chain":
                fields = tokens[at][1]
                at += 1
            commands[-1].append(("pipe", (inner, fields)))
        elif kind in (",", ":="):
            raise _wrong(f"unexpected {value!r}")
        else:
            commands[-1].append((kind, value))
    if not all(commands):
        raise _wrong("missing value for command")
    return commands, at


# ---------------------------------------------------------------- nodes → text


class _Runner:
    def __init__(self, root: object, out: list[str]) -> None:
        self._out = out
        self._variables: list[tuple[str, Any]] = [("$", root)]

    def run(self, nodes: list[_Node], dot: Any) -> None:
        depth = len(self._variables)
        for node in nodes:
            if node.kind == "text":
                self._out.append(node.value)
                continue
            value = self._pipeline(node.value, dot)
            if node.kind == "value":
                if node.names:
                    self._variables.append((node.names[0], value))
                else:
                    self._out.append(show(value))
                continue
            if node.kind == "range":
                self._range(node, value, dot)
                continue
            inner = len(self._variables)
            if node.names:
                self._variables.append((node.names[0], value))
            if _truth(value):
                self.run(node.body, value if node.kind == "with" else dot)
            else:
                self.run(node.otherwise, dot)
            del self._variables[inner:]
        del self._variables[depth:]

    def _range(self, node: _Node, value: Any, dot: Any) -> None:
        if isinstance(value, dict):
            items: list[tuple[Any, Any]] = sorted(value.items())
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(i, i) for i in range(value)]
        elif value is None or isinstance(value, _Missing):
            items = []
        else:
            raise _wrong(f"range can't iterate over {show(value)}")
        if not items:
            self.run(node.otherwise, dot)
        for key, item in items:
            inner = len(self._variables)
            if len(node.names) == 2:
                self._variables += [(node.names[0], key), (node.names[1], item)]
            elif node.names:
                self._variables.append((node.names[0], item))
            self.run(node.body, item)
            del self._variables[inner:]

    def _pipeline(self, commands: list[list[Any]], dot: Any) -> Any:
        value: Any = _MISSING
        for i, command in enumerate(commands):
            value = self._command(command, dot, [value] if i else [])
        return value

    def _command(self, command: list[Any], dot: Any, last: list[Any]) -> Any:
        kind, what = command[0]
        if kind == "func":
            if what in ("and", "or"):  # they stop at the first operand that decides
                return self._logic(what, command[1:], dot, last)
            arguments = [self._operand(operand, dot) for operand in command[1:]] + last
            return _call(what, arguments)
        if len(command) > 1 or last:
            label = getattr(dot, "label", None)
            if label is not None and kind == "field" and list(what) == ["Label"] and len(command) + len(last) == 2:
                return label(str([*(self._operand(operand, dot) for operand in command[1:]), *last][0]))
            raise _wrong("can't give an argument to what is no function")
        return self._operand(command[0], dot)

    def _logic(self, name: str, operands: list[Any], dot: Any, last: list[Any]) -> Any:
        value: Any = None
        if not operands and not last:
            raise _wrong(f"wrong number of args for {name}")
        for operand in operands:
            value = self._operand(operand, dot)
            if _truth(value) == (name == "or"):
                return value
        return last[0] if last else value

    def _operand(self, operand: Any, dot: Any) -> Any:
        kind, what = operand
        if kind == "value":
            return what
        if kind == "field":
            return self._walk(dot, what)
        if kind == "var":
            name, fields = what
            for known, value in reversed(self._variables):
                if known == name:
                    return self._walk(value, fields)
            raise _wrong(f"undefined variable {name!r}")
        if kind == "pipe":
            commands, fields = what
            return self._walk(self._pipeline(commands, dot), fields)
        if kind == "func":
            return _call(what, [])
        raise _wrong("unexpected operand")

    def _walk(self, value: Any, fields: list[str]) -> Any:
        for i, field in enumerate(fields):
            if isinstance(value, dict):
                if field in value:
                    value = value[field]
                elif value is self._variables[0][1] or i < len(fields) - 1:
                    raise _wrong(f"can't evaluate field {field}: there is no such field")
                else:
                    return _MISSING
            elif value is None or isinstance(value, _Missing):
                raise _wrong(f"nil pointer evaluating {'.'.join(fields[: i + 1])}")
            else:
                raise _wrong(f"can't evaluate field {field} of {show(value)[:40]}")
        return value


def show(value: Any) -> str:
    """As Go's fmt prints what JSON gives: maps as map[a:1 b:2], lists as [1 2]."""
    if value is None:
        return "<nil>"
    if isinstance(value, _Missing):
        return _NO_VALUE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(show(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{int(value)}" if value.is_integer() and abs(value) < 1e21 else repr(value)
    return str(value)


def _truth(value: Any) -> bool:
    return not isinstance(value, _Missing) and bool(value)


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except Invalid:
        raise
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as e:
        raise _wrong(f"error calling {name}: {e}") from None


def _json(value: Any) -> str:
    from limpet import jsontext

    text = jsontext.dumps(None if isinstance(value, _Missing) else value)
    if "\\u" not in text:
        return text
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, _MISSING)
        elif isinstance(value, list | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key]
        else:
            raise TypeError(f"can't index {show(value)[:40]}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= low <= high <= len(value):
        raise IndexError("index out of range")
    return value[low:high]


def _equal(first: Any, *rest: Any) -> bool:
    if not rest:
        raise TypeError("missing argument for comparison")
    return any(_comparable(first, other) and first == other for other in rest)


def _comparable(left: Any, right: Any) -> bool:
    if left is None or right is None or isinstance(left, _Missing) or isinstance(right, _Missing):
        return True
    kinds = (bool, str, (int, float), (list, dict))
    if any(isinstance(left, kind) and isinstance(right, kind) for kind in kinds):
        return True
    raise TypeError("incompatible types for comparison")


def _compare(act: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        _comparable(left, right)
        return act(left, right)

    return compare


def _printf(text: str, *values: Any) -> str:
    """%s %v %d %q %x %f %t %%, with width, flags and precision."""
    out: list[str] = []
    rest = list(values)
    at = 0
    while at < len(text):
        if text[at] != "%":
            out.append(text[at])
            at += 1
            continue
        end = at + 1
        while end < len(text) and text[end] in "+-# 0123456789.":
            end += 1
        verb = text[end : end + 1]
        flags = text[at + 1 : end]
        at = end + 1
        if verb == "%":
            out.append("%")
        elif not verb:
            out.append("%!(NOVERB)")
        elif not rest:
            out.append(f"%!{verb}(MISSING)")
        else:
            value = rest.pop(0)
            if verb in "sv":
                out.append(f"%{flags.replace('+', '').replace('#', '')}s" % show(value))
            elif verb == "q":
                out.append(_json(show(value)))
            elif verb == "t":
                out.append(show(value))
            elif verb in "dxXofFeEgGc" and isinstance(value, int | float):
                out.append(f"%{flags}{verb}" % (value if verb in "fFeEgG" else int(value)))
            else:
                out.append(f"%!{verb}({show(value)})")
    return "".join(out)


def _pad(text: str, left: int, right: int) -> str:
    return " " * left + text + " " * right if text else ""


def _html(*values: Any) -> str:
    text = "".join(show(value) for value in values)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(char, entity)
    return text


def _title(text: str) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "json": _json,
    "split": lambda text, separator: str(text).split(separator) if separator else list(text),
    "join": lambda items, separator: separator.join(show(item) for item in items or []),
    "title": lambda text: _title(show(text)),
    "lower": lambda text: show(text).lower(),
    "upper": lambda text: show(text).upper(),
    "pad": _pad,
    "truncate": lambda text, count: show(text)[:count],
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "print": lambda *values: "".join(show(value) for value in values),
    "printf": _printf,
    "len": lambda value: len(value or ()),
    "index": _index,
    "slice": _slice,
    "not": lambda value: not _truth(value),
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _compare(lambda left, right: left < right),
    "le": _compare(lambda left, right: left <= right),
    "gt": _compare(lambda left, right: left > right),
    "ge": _compare(lambda left, right: left >= right),
    "html": _html,
    "urlquery": lambda text: "".join(c if c.isalnum() or c in "-_.~" else f"%{ord(c):02X}" for c in show(text)),
}
