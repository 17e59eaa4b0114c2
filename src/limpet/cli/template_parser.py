"""Go's template language, from text to nodes (pkg.go.dev/text/template, parse/lex.go and parse/parse.go).

The whole language but for templates by name ({{define}}, {{template}}, {{block}}), which are refused, complex numbers
and methods. Actions are read character by character, so that a `}}` in a string ends nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any

    Token = tuple[str, Any, int]
    """Kind, value, place. Kinds: field, variable, chain (fields behind a parenthesis), name, value, and signs."""
    Operand = tuple[str, Any]
    """field: names; variable: (name, fields); value: itself; function: name; pipeline: (commands, fields)."""
    Command = list[Operand]

_SPACES = " \t\r\n"
_DIGITS = "0123456789"
_START = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "nil": None}
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_BLOCKS = ("if", "with", "range")
_MOST_NESTED = 60
_LONGEST_NUMBER = 40


class Mistake(Exception):
    """What is wrong with a template; `place` is an offset into its text, None for "where the evaluation is"."""

    def __init__(self, message: str, place: int | None = None) -> None:
        super().__init__(message)
        self.place = place


class Node:
    """`kind`: text, value, if, with, range, break, continue.

    `value`: the text, or a pipeline (commands). `names`: the variables that the pipeline declares, or with `assigns`
    gives a new value to. `place`: the offset of the action.
    """

    __slots__ = ("assigns", "body", "kind", "names", "otherwise", "place", "value")

    def __init__(self, kind: str, value: Any, place: int) -> None:
        self.kind = kind
        self.value = value
        self.place = place
        self.names: tuple[str, ...] = ()
        self.assigns = False
        self.body: list[Node] = []
        self.otherwise: list[Node] = []


def parse(text: str, functions: Container[str]) -> list[Node]:
    """`functions`: the names that may be called. Raises Mistake."""
    return _Parser(text, functions).parse()


class _Parser:
    def __init__(self, text: str, functions: Container[str]) -> None:
        self._text = text
        self._functions = functions
        self._at = 0
        self._trim = False  # the action before ended in -}}
        self._loops = 0

    def parse(self) -> list[Node]:
        nodes, end = self._nodes(0)
        if end:
            raise Mistake(f"unexpected {{{{{end[0][1]}}}}}", end[0][2])
        return nodes

    def _nodes(self, depth: int) -> tuple[list[Node], list[Token]]:
        """Nodes up to an {{end}} or {{else …}}, and the tokens of that."""
        if depth > _MOST_NESTED:
            raise Mistake("nested too deeply", self._at)
        nodes: list[Node] = []
        while True:
            begin = self._text.find("{{", self._at)
            plain = self._text[self._at : begin if begin >= 0 else len(self._text)]
            if self._trim:
                plain, self._trim = plain.lstrip(_SPACES), False
            if begin >= 0 and self._text[begin + 2 : begin + 3] == "-" and self._is_space(begin + 3):
                plain = plain.rstrip(_SPACES)
            if plain:
                nodes.append(Node("text", plain, self._at))
            if begin < 0:
                self._at = len(self._text)
                return nodes, []
            tokens = self._action(begin)
            if tokens is None:
                continue
            if not tokens:
                raise Mistake("missing value for command", begin)
            word = tokens[0][1] if tokens[0][0] == "name" else ""
            if word in ("end", "else"):
                return nodes, tokens
            nodes.append(self._node(word, tokens, depth))

    def _node(self, word: str, tokens: list[Token], depth: int) -> Node:
        if word in ("define", "template", "block"):
            raise Mistake(f"{{{{{word}}}}} is not supported", tokens[0][2])
        if word in ("break", "continue"):
            if len(tokens) > 1 or not self._loops:
                raise Mistake(f"{{{{{word}}}}} outside {{{{range}}}}, or with something behind it", tokens[0][2])
            return Node(word, None, tokens[0][2])
        if word in _BLOCKS:
            return self._block(word, tokens, depth)
        node = Node("value", None, tokens[0][2])
        self._pipeline(node, tokens)
        return node

    def _block(self, kind: str, tokens: list[Token], depth: int) -> Node:
        node = Node(kind, None, tokens[0][2])
        self._pipeline(node, tokens[1:])
        self._loops += kind == "range"
        node.body, end = self._nodes(depth + 1)
        self._loops -= kind == "range"
        if end and end[0][1] == "else":
            if len(end) == 1:
                node.otherwise, end = self._nodes(depth + 1)
            else:
                word = end[1][1] if end[1][0] == "name" else ""
                if word not in ("if", "with"):
                    raise Mistake("unexpected word behind {{else}}", end[1][2])
                node.otherwise = [self._block(word, end[1:], depth + 1)]
                return node
        if not end:
            raise Mistake("unexpected EOF: {{end}} is missing", node.place)
        if len(end) > 1 or end[0][1] != "end":
            raise Mistake(f"expected {{{{end}}}}, found {{{{{end[0][1]}}}}}", end[0][2])
        return node

    def _pipeline(self, node: Node, tokens: list[Token]) -> None:
        """The commands into `node.value`, what they are given to into `node.names`."""
        signs = [at for at, token in enumerate(tokens[:4]) if token[0] in (":=", "=")]
        if signs:
            targets, tokens = tokens[: signs[0] + 1], tokens[signs[0] + 1 :]
            node.assigns = targets.pop()[0] == "="
            kinds = [token[0] for token in targets]
            most = 2 if node.kind == "range" else 1
            if kinds not in (["variable"], ["variable", ",", "variable"]) or any(t[1][1] for t in targets[::2]):
                raise Mistake("bad declaration", node.place)
            node.names = tuple(token[1][0] for token in targets[::2])
            if len(node.names) > most:
                raise Mistake(f"too many declarations in {node.kind}", node.place)
        commands, rest = self._commands(tokens, 0, node.place, 0)
        if rest < len(tokens):
            raise Mistake(f"unexpected {tokens[rest][1]!r}", tokens[rest][2])
        node.value = commands

    def _commands(self, tokens: list[Token], at: int, place: int, depth: int) -> tuple[list[Command], int]:
        if depth > _MOST_NESTED:
            raise Mistake("nested too deeply", place)
        commands: list[Command] = [[]]
        while at < len(tokens) and tokens[at][0] != ")":
            kind, value, where = tokens[at]
            at += 1
            if kind == "|":
                commands.append([])
            elif kind == "(":
                inner, at = self._commands(tokens, at, where, depth + 1)
                if at == len(tokens):
                    raise Mistake("unclosed left paren", where)
                at += 1
                fields: list[str] = []
                if at < len(tokens) and tokens[at][0] == "chain":
                    fields = tokens[at][1]
                    at += 1
                commands[-1].append(("pipeline", (inner, fields)))
            elif kind == "name":
                if value not in self._functions:
                    raise Mistake(f'function "{value}" not defined', where)
                commands[-1].append(("function", value))
            elif kind in (",", ":=", "="):
                raise Mistake(f"unexpected {value!r}", where)
            else:
                commands[-1].append((kind, value))
        if not all(commands):
            raise Mistake("missing value for command", place)
        return commands, at

    # Text to tokens

    def _is_space(self, at: int) -> bool:
        return self._text[at : at + 1] in tuple(_SPACES)

    def _action(self, begin: int) -> list[Token] | None:
        """The tokens of the action that begins there; None for a comment. Goes on behind it."""
        text, at = self._text, begin + 2
        if text[at : at + 1] == "-" and self._is_space(at + 1):
            at += 2
        tokens: list[Token] | None = []
        if text.startswith("/*", at):
            end = text.find("*/", at + 2)
            if end < 0:
                raise Mistake("unclosed comment", begin)
            tokens, at = None, end + 2
        while True:
            spaced = False
            while self._is_space(at):
                spaced, at = True, at + 1
            if spaced and text.startswith("-}}", at):
                self._trim, self._at = True, at + 3
                return tokens
            if text.startswith("}}", at):
                self._at = at + 2
                return tokens
            if at >= len(text):
                raise Mistake("unclosed action", begin)
            if tokens is None:
                raise Mistake("comment ends before closing delimiter", at)
            token, at = self._token(at)
            tokens.append(token)

    def _token(self, at: int) -> tuple[Token, int]:
        text, char = self._text, self._text[at]
        if char == ")" and self._is_field(at + 1):
            # The fields belong to the parenthesis: they come as a token of their own, in the next turn.
            return (char, char, at), at + 1
        if char == "." and at and text[at - 1] == ")" and self._is_field(at):
            fields, end = self._fields(at)
            return ("chain", fields, at), end
        if char in "()|,=":
            return (char, char, at), at + 1
        if text.startswith(":=", at):
            return (":=", ":=", at), at + 2
        if char in "\"`'":
            return self._string(at)
        if char == "$":
            name, end = self._name(at + 1)
            fields, end = self._fields(end)
            return ("variable", (f"${name}", fields), at), end
        if char in _DIGITS or (char in "+-." and text[at + 1 : at + 2] in tuple(_DIGITS)):
            return self._number(at)
        if char == ".":
            fields, end = self._fields(at)
            return ("field", fields, at), end if fields else at + 1
        if char in _START or char.isalpha():
            name, end = self._name(at)
            if name in _CONSTANTS:
                return ("value", _CONSTANTS[name], at), end
            return ("name", name, at), end
        raise Mistake(f"unexpected {char!r} in an action", at)

    def _is_field(self, at: int) -> bool:
        after = self._text[at + 1 : at + 2]
        return self._text[at : at + 1] == "." and (after == "_" or after.isalpha())

    def _fields(self, at: int) -> tuple[list[str], int]:
        fields = []
        while self._is_field(at):
            name, at = self._name(at + 1)
            fields.append(name)
        return fields, at

    def _name(self, at: int) -> tuple[str, int]:
        end = at
        while end < len(self._text) and (self._text[end] == "_" or self._text[end].isalnum()):
            end += 1
        return self._text[at:end], end

    def _number(self, at: int) -> tuple[Token, int]:
        text, end = self._text, at + 1
        while end < len(text) and (
            text[end].isalnum() or text[end] in "._" or (text[end] in "+-" and text[end - 1] in "eE")
        ):
            end += 1
        written = text[at:end]
        if len(written) > _LONGEST_NUMBER:
            raise Mistake(f"bad number syntax: {written[:_LONGEST_NUMBER]}… is too long", at)
        try:
            digits = written.lstrip("+-")
            octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
            value: int | float = int(written, 8) if octal else int(written, 0)
        except ValueError:
            try:
                value = float(written)
            except ValueError:
                raise Mistake(f"bad number syntax: {written!r}", at) from None
        return ("value", value, at), end

    def _string(self, at: int) -> tuple[Token, int]:
        text, quote = self._text, self._text[at]
        out: list[str] = []
        end = at + 1
        while True:
            char = text[end : end + 1]
            if not char or (char == "\n" and quote != "`"):
                raise Mistake("unclosed action: unterminated quoted string", at)
            end += 1
            if char == quote:
                break
            if char == "\\" and quote != "`":
                char, end = self._escape(end)
            out.append(char)
        value = "".join(out)
        if quote != "'":
            return ("value", value, at), end
        if len(value) != 1:
            raise Mistake(f"malformed character constant: {value!r}", at)
        return ("value", ord(value), at), end

    def _escape(self, at: int) -> tuple[str, int]:
        """Behind a backslash (Go spec, "Rune literals"); a byte is taken for the character of that number."""
        char = self._text[at : at + 1]
        if char in ("\\", '"', "'"):
            return char, at + 1
        if char in _ESCAPES:
            return _ESCAPES[char], at + 1
        width, base = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}.get(char, (3, 8))
        begin = at + 1 if base == 16 else at
        digits = self._text[begin : begin + width]
        try:
            if len(digits) < width or not digits.isalnum():
                raise ValueError
            return chr(int(digits, base)), begin + width
        except (ValueError, OverflowError):
            raise Mistake("bad escape in a string", at - 1) from None
