"""Templates: `"…${x}…"`, `<<EOF`, `%{ if }`, `%{ for }` (hclsyntax/spec.md, "Templates")."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from limpet.build.bake.hcl.syntax import Conditional, For, Literal, Source, Template

if TYPE_CHECKING:
    from limpet.build.bake.hcl.parser import Parser
    from limpet.build.bake.hcl.scanner import Scanner
    from limpet.build.bake.hcl.syntax import Expression

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_HEREDOC = re.compile(r"<<(-?)([^\W\d][\w-]*)[ \t]*\r?\n")


class Templates:
    """One template, read by the parser it is in. `stop` ends it, or else the end of the text does."""

    def __init__(self, parser: Parser, stop: str, *, escapes: bool) -> None:
        self._parser = parser
        self._stop = stop
        self._escapes = escapes
        self._strip = False  # the marker before was ~}: blanks that follow go

    def read(self, begin: int) -> Template:
        parts, word = self._parts(())
        assert not word
        wrapped = len(parts) == 1 and not isinstance(parts[0], Literal) and not _is_directive(parts[0])
        return Template(tuple(parts), begin, wrapped)

    def _parts(self, ends: tuple[str, ...]) -> tuple[list[Expression], str]:
        """Up to the end, or up to a directive that is one of `ends`: which one."""
        parser = self._parser
        parts: list[Expression] = []
        literal: list[str] = []

        def flush(*, strip: bool) -> None:
            text = "".join(literal)
            literal.clear()
            if self._strip:
                text = text.lstrip()
            if strip:
                text = text.rstrip()
            if text:
                parts.append(Literal(text, parser.at))

        while True:
            if parser.at >= parser.end:
                if self._stop:
                    raise parser.wrong("a text without an end", f"write {self._stop} behind it")
                break
            if self._stop and parser.text.startswith(self._stop, parser.at):
                parser.at += len(self._stop)
                break
            if parser.text.startswith(("$${", "%%{"), parser.at):
                literal.append(parser.text[parser.at : parser.at + 1] + "{")
                parser.at += 3
            elif parser.text.startswith(("${", "%{"), parser.at):
                begin, directive = parser.at, parser.text[parser.at] == "%"
                parser.at += 2
                flush(strip=self._tilde())
                parser.flat += 1
                if directive:
                    word = parser.take_name("if, for, else, endif or endfor")
                    if word in ends:
                        self._close()
                        return parts, word
                    parts.append(self._directive(word, begin))
                else:
                    parts.append(parser.expression())
                    self._close()
            else:
                literal.append(self._letter())
        flush(strip=False)
        self._strip = False
        if ends:
            raise parser.wrong(f"a directive without its {ends[-1]}")
        return parts, ""

    def _directive(self, word: str, begin: int) -> Expression:
        parser = self._parser
        parser.deeper()
        if word == "if":
            condition = parser.expression()
            self._close()
            yes, end = self._parts(("else", "endif"))
            no = self._parts(("endif",))[0] if end == "else" else []
            found: Expression = Conditional(condition, Template(tuple(yes), begin), Template(tuple(no), begin), begin)
        elif word == "for":
            key, item = parser.for_names()
            of = parser.expression()
            self._close()
            body = Template(tuple(self._parts(("endfor",))[0]), begin)
            found = For(key, item, of, body, joined=True, at=begin)
        else:
            raise parser.wrong(f"unknown directive '{word}'", "if and for are known", begin)
        parser.depth -= 1
        return found

    def _tilde(self) -> bool:
        if self._parser.text.startswith("~", self._parser.at):
            self._parser.at += 1
            return True
        return False

    def _close(self) -> None:
        """The end of an interpolation or a directive."""
        parser = self._parser
        self._strip = bool(parser.take("~"))
        parser.expect("}", "at the end of an interpolation")
        parser.flat -= 1

    def _letter(self) -> str:
        parser = self._parser
        letter = parser.text[parser.at]
        if letter == "\n" and self._stop == '"':
            raise parser.wrong("a text goes over the end of its line", 'close it with ", or write it as <<EOF … EOF')
        parser.at += 1
        if letter != "\\" or not self._escapes:
            return letter
        escape = parser.text[parser.at : parser.at + 1]
        parser.at += 1
        if escape in _ESCAPES:
            return _ESCAPES[escape]
        count = {"u": 4, "U": 8}.get(escape, 0)
        digits = parser.text[parser.at : parser.at + count]
        if count and re.fullmatch(f"[0-9a-fA-F]{{{count}}}", digits) and int(digits, 16) < 0x110000:
            parser.at += count
            return chr(int(digits, 16))
        raise parser.wrong(f"unknown escape \\{escape}", "write \\\\ for a backslash", parser.at - 2)


def _is_directive(part: Expression) -> bool:
    return (isinstance(part, For) and part.joined) or (isinstance(part, Conditional) and isinstance(part.yes, Template))


def quoted(parser: Parser) -> Template:
    """The parser stands behind the opening quote."""
    begin, flat = parser.at - 1, parser.flat
    parser.flat = 0
    found = Templates(parser, '"', escapes=True).read(begin)
    parser.flat = flat
    return found


def heredoc(parser: Parser) -> Template | None:
    """`<<NAME` up to a line with the name alone; `<<-` takes away what all of its lines are indented by."""
    found = _HEREDOC.match(parser.text, parser.at, parser.end)
    if found is None:
        return None
    end = re.compile(rf"^[ \t]*{re.escape(found.group(2))}[ \t]*\r?$", re.MULTILINE).search(parser.text, found.end())
    if end is None:
        raise parser.wrong(f"<<{found.group(2)} without its end", f"write {found.group(2)} on a line of its own")
    text = parser.text[found.end() : end.start()]
    if found.group(1):
        text = textwrap.dedent(text)
    begin, parser.at = parser.at, end.end()
    return of_text(text, parser.source, begin, parser)


def of_text(text: str, source: Source, at: int, outer: Scanner) -> Template:
    """A template that is a text of its own; errors are at the place where it stands."""
    from limpet.build.bake.hcl.parser import Parser

    inner = Parser(Source(f"{source.name} (text at line {source.text.count(chr(10), 0, at) + 1})", text))
    inner.depth = outer.depth
    template = Templates(inner, "", escapes=False).read(0)
    return Template(template.parts, at, template.wrapped)
