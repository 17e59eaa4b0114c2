"""HCL's native syntax: bodies and expressions (hclsyntax/spec.md, "Structural Elements", "Expressions")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.bake.hcl import templates
from limpet.build.bake.hcl.scanner import Scanner
from limpet.build.bake.hcl.syntax import (
    ITEM,
    Attribute,
    Binary,
    Block,
    Body,
    Call,
    Conditional,
    For,
    Index,
    Literal,
    Name,
    Object,
    Set,
    Source,
    Splat,
    Tuple,
    Unary,
)

if TYPE_CHECKING:
    from limpet.build.bake.hcl.syntax import (
        Expression,
        Template,
    )

_LEVELS = (("||",), ("&&",), ("==", "!="), ("<=", ">=", "<", ">"), ("+", "-"), ("*", "/", "%"))
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
MAX_BYTES = 4 << 20


def parse(text: str, name: str) -> Body:
    """A whole file. Raises Wrong, with the place."""
    parser = Parser(Source(name, text))
    body = parser.body("")
    parser.lines()
    if parser.at < parser.end:
        raise parser.wrong(f"{parser.shown()} where a block or an attribute is expected")
    return body


def parse_template(text: str, source: Source) -> Template:
    """A text of the JSON form, which is a template (json/spec.md, "Expressions")."""
    return templates.of_text(text, source, 0, Scanner(source))


class Parser(Scanner):
    def body(self, end: str) -> Body:
        attributes: dict[str, Set] = {}
        blocks: list[Block] = []
        self.deeper()
        while True:
            self.lines()
            if self.at >= self.end or (end and self.peek(end)):
                break
            at = self.at
            name = self.take_name("a block or an attribute")
            if self.peek("=") and not self.peek("=="):
                self.take("=")
                if name in attributes:
                    raise self.wrong(f"'{name}' is set twice", at=at)
                attributes[name] = Set(name, self.expression(), self.source, at)
            else:
                blocks.append(self._block(name, at))
            self._line_end(end)
        self.depth -= 1
        return Body(attributes, tuple(blocks))

    def _line_end(self, end: str) -> None:
        self.blanks()
        if self.at < self.end and self.text[self.at] != "\n" and not (end and self.peek(end)):
            raise self.wrong(f"{self.shown()} where the end of the line is expected")

    def _block(self, kind: str, at: int) -> Block:
        labels = []
        while not self.peek("{"):
            if self.take('"'):
                label = templates.quoted(self)
                if not all(isinstance(part, Literal) for part in label.parts):
                    raise self.wrong("a label can't have a ${…} in it", at=at)
                labels.append("".join(str(part.value) for part in label.parts if isinstance(part, Literal)))
            else:
                labels.append(self.take_name(f"'=', a label or '{{' after '{kind}'"))
        self.take("{")
        flat, self.flat = self.flat, 0
        body = self.body("}")
        self.expect("}", f"at the end of the block '{kind}'")
        self.flat = flat
        return Block(kind, tuple(labels), body, self.source, at)

    def expression(self) -> Expression:
        self.deeper()
        self.blanks()
        at = self.at
        found = self._binary(0)
        if self.take("?"):
            yes = self.expression()
            self.expect(":", "in a condition ? yes : no")
            found = Conditional(found, yes, self.expression(), at)
        self.depth -= 1
        return found

    def _binary(self, level: int) -> Expression:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        count = 0
        while True:
            at, operator = self.at, self.peek(*_LEVELS[level])
            if not operator or self.text.startswith("=>", self.at):
                return left
            self.take(operator)
            left = Binary(operator, left, self._binary(level + 1), at)
            count += 1
            if count > 1000:
                raise self.wrong("more than 1000 operators in one expression")

    def _unary(self) -> Expression:
        at = self.at
        if self.peek("!") and not self.peek("!="):
            self.take("!")
            self.deeper()
            found: Expression = Unary("!", self._unary(), at)
            self.depth -= 1
            return found
        if self.take("-"):
            self.deeper()
            found = Unary("-", self._unary(), at)
            self.depth -= 1
            return found
        return self._suffixes(self._term())

    def _term(self) -> Expression:
        number = self.number()
        at = self.at
        if number is not None:
            return Literal(number, at)
        if self.take('"'):
            return templates.quoted(self)
        if self.peek("<<"):
            found = templates.heredoc(self)
            if found is not None:
                return found
        if self.take("("):
            self.flat += 1
            inner = self.expression()
            self.expect(")", "at the end of a parenthesis")
            self.flat -= 1
            return inner
        if self.take("["):
            return self._tuple(at)
        if self.take("{"):
            return self._object(at)
        name = self.take_name("an expression")
        while self.text.startswith("::", self.at):
            self.at += 2
            name += "::" + self.take_name("a function's name")
        if self.text.startswith("(", self.at):
            return self._call(name, at)
        if name in _WORDS:
            return Literal(_WORDS[name], at)
        return Name(name, at)

    def _suffixes(self, found: Expression) -> Expression:
        count = 0
        while True:
            at = self.at
            count += 1
            if count > 100:
                raise self.wrong("more than 100 indexes on one value")
            if self.text.startswith("[", self.at):
                self.at += 1
                self.flat += 1
                if self.take("*"):
                    self.expect("]", "after [*")
                    self.flat -= 1
                    return Splat(found, self._suffixes(Name(ITEM, at)), at)
                key = self.expression()
                self.expect("]", "at the end of an index")
                self.flat -= 1
                found = Index(found, key, at)
            elif self.text.startswith(".", self.at) and not self.text.startswith("..", self.at):
                self.at += 1
                if self.take("*"):
                    return Splat(found, self._suffixes(Name(ITEM, at)), at)
                digits = ""
                while self.text[self.at : self.at + 1].isdecimal():
                    digits += self.text[self.at]
                    self.at += 1
                if digits:
                    found = Index(found, Literal(int(digits[:18]), at), at)
                else:
                    found = Attribute(found, self.take_name("an attribute's name"), at)
            else:
                return found

    def _call(self, name: str, at: int) -> Expression:
        self.take("(")
        self.flat += 1
        arguments: list[Expression] = []
        expand = False
        while not self.peek(")"):
            arguments.append(self.expression())
            if self.take("..."):
                expand = True
                break
            if not self.take(","):
                break
        self.expect(")", f"at the end of the arguments of {name}")
        self.flat -= 1
        return Call(name, tuple(arguments), expand, at)

    def for_names(self) -> tuple[str, str]:
        """`item in` and `key, item in`."""
        first = self.take_name("a name after for")
        second = self.take_name("a name after for") if self.take(",") else ""
        if not self.keyword("in"):
            raise self.wrong(f"{self.shown()} where 'in' is expected")
        return (first, second) if second else ("", first)

    def _tuple(self, at: int) -> Expression:
        self.flat += 1
        if self.keyword("for"):
            key, item = self.for_names()
            of = self.expression()
            self.expect(":", "in a for expression")
            value = self.expression()
            condition = self.expression() if self.keyword("if") else None
            self.expect("]", "at the end of a for expression")
            self.flat -= 1
            return For(key, item, of, value, None, condition, at=at)
        items: list[Expression] = []
        while not self.peek("]"):
            items.append(self.expression())
            if not self.take(","):
                break
        self.expect("]", "at the end of a list")
        self.flat -= 1
        return Tuple(tuple(items), at)

    def _object(self, at: int) -> Expression:
        flat, self.flat = self.flat, 1
        if self.keyword("for"):
            key, item = self.for_names()
            of = self.expression()
            self.expect(":", "in a for expression")
            result_key = self.expression()
            self.expect("=>", "in a for expression that makes an object")
            value = self.expression()
            group = bool(self.take("..."))
            condition = self.expression() if self.keyword("if") else None
            self.expect("}", "at the end of a for expression")
            self.flat = flat
            return For(key, item, of, value, result_key, condition, group, at=at)
        items: list[tuple[Expression, Expression]] = []
        self.flat = 0
        while True:
            self.lines()
            if self.take("}"):
                break
            items.append((self._object_key(), self._object_value()))
            if self.take(","):
                continue
            self.blanks()
            if self.take("}"):
                break
            if self.at < self.end and self.text[self.at] != "\n":
                raise self.wrong(f"{self.shown()} where ',' or the end of the line is expected, in an object")
            if self.at >= self.end:
                raise self.wrong("an object without an end", "write } behind it", at)
        self.flat = flat
        return Object(tuple(items), at)

    def _object_key(self) -> Expression:
        """A name alone is a text; in parentheses it is an expression."""
        at, name = self.at, self.name()
        if name:
            end = self.at + len(name)
            if self.text[end : end + 1] not in (".", "[", "("):
                self.at = end
                return Literal(name, at)
        return self.expression()

    def _object_value(self) -> Expression:
        if not self.take("=", ":"):
            raise self.wrong(f"{self.shown()} where '=' is expected, in an object")
        return self.expression()
