"""HCL: what the specification says of expressions, templates, functions and types (hclsyntax/spec.md)."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.build.bake.definition import Definition, define, parse
from limpet.build.bake.hcl import types
from limpet.build.bake.hcl.evaluate import Evaluation
from limpet.build.bake.hcl.functions import FUNCTIONS
from limpet.build.bake.hcl.parser import Parser
from limpet.build.bake.hcl.syntax import Source, Wrong


class Scope:
    """A few names."""

    known: ClassVar[dict[str, Any]] = {
        "s": "text",
        "n": 3,
        "yes": True,
        "nothing": None,
        "list": ["a", "b", "c"],
        "map": {"x": 1, "y": {"z": "deep"}},
        "people": [{"name": "Ann", "age": 30}, {"name": "Bob", "age": 20}],
    }

    def value(self, name: str) -> Any:
        return self.known[name]

    def names(self) -> list[str]:
        return list(self.known)

    def function(self, name: str) -> Any:
        return FUNCTIONS[name]

    def member(self, kind: str, name: str, attribute: str) -> Any:
        raise ValueError(f"no {kind} {name}")


def evaluate(text: str) -> Any:
    source = Source("t.hcl", text)
    parser = Parser(source)
    found = parser.expression()
    parser.lines()
    assert parser.at == len(text), text[parser.at :]
    return Evaluation(source).value(found, Scope())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 / 4", Decimal("2.5")),
        ("0.1 + 0.2", Decimal("0.3")),
        ("7 % 3", 1),
        ("-n + 1", -2),
        ("1e3", 1000),
        ('"5" + 1', 6),
        ("!yes || n > 2 && n <= 3", True),
        ("1 == 1.0", True),
        ('"1" == 1', False),
        ("true != false", True),
        ('n > 2 ? "big" : "small"', "big"),
        ('nothing == null ? "none" : nothing', "none"),
        ("list[1]", "b"),
        ("map.y.z", "deep"),
        ('map["y"].z', "deep"),
        ("list.0", "a"),
        ("people[*].name", ["Ann", "Bob"]),
        ("people.*.age", [30, 20]),
        ("s[*]", ["text"]),
        ("nothing[*]", []),
        ("[for x in list : upper(x)]", ["A", "B", "C"]),
        ('[for i, x in list : "${i}${x}" if i != 1]', ["0a", "2c"]),
        ("{for p in people : p.name => p.age}", {"Ann": 30, "Bob": 20}),
        ('{for k, v in map : k => v if k == "x"}', {"x": 1}),
        ('{for p in people : p.age > 25 ? "old" : "young" => p.name...}', {"old": ["Ann"], "young": ["Bob"]}),
        ('{a = 1, "b" : 2\n c = 3\n (s) = 4}', {"a": 1, "b": 2, "c": 3, "text": 4}),
        ("[1,\n 2,\n]", [1, 2]),
        ("max([1, 5, 3]...)", 5),
        ("length(list) // a comment\n", 3),
        ("1 /* inside */ + 1 # behind", 2),
        ('"a${n}b"', "a3b"),
        ('"${list}"', ["a", "b", "c"]),
        ('"${n}"', 3),
        (r'"q\"\\\n\u00e9"', 'q"\\\né'),
        ('"$${n} %%{if}"', "${n} %{if}"),
        ('"a  ${~ s ~}  b"', "atextb"),
        ('"%{ if yes }one%{ else }two%{ endif }"', "one"),
        ('"%{ for x in list }<${x}>%{ endfor }"', "<a><b><c>"),
        ('"%{ for x in list ~}  ${x} %{~ endfor }"', "abc"),
        ('"${"in ${"side"}"}"', "in side"),
        ("<<EOT\none ${n}\n  two\nEOT\n", "one 3\n  two\n"),
        ("<<-EOT\n    one\n      two\n    EOT\n", "one\n  two\n"),
        ('<<EOT\na\\n"b"\nEOT\n', 'a\\n"b"\n'),
        ('try(map.nothing, "other")', "other"),
        ("can(map.nothing)", False),
    ],
)
def test_an_expression_has_its_value(text: str, value: Any) -> None:
    found = evaluate(text)
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lenght(list)", "no function 'lenght'"),
        ("lsit", "did you mean list?"),
        ("map.w", "no attribute 'w'"),
        ("list[3]", "no element 3 in a list of 3"),
        ("1 / 0", "division by zero"),
        ('"${nothing}x"', "null in a text"),
        ('"a" + 1', "'a' is not a number"),
        ("[1, 2", "where ']' is expected"),
        ("{a = 1", "an object without an end"),
        ('"open', "a text without an end"),
        ("<<EOT\nno end", "<<EOT without its end"),
        (r'"\w"', "unknown escape \\w"),
        ('"%{ if yes }x"', "without its endif"),
        ("/* open", "a comment without an end"),
        ("{for p in people : s => p.name}", "two items have the key 'text'"),
        ("upper(1, 2)", "arguments"),
        ("(" * 200 + "1" + ")" * 200, "levels within each other"),
        ("9" * 1000, "too many digits"),
        ("2e999999999", "too large"),
        ("range(0, 1e9)", "more than 100000 numbers"),
        ("range(0, 5, -1)", "the step leads away"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(Wrong) as error:
        evaluate(text)
    assert said in str(error.value)
    assert str(error.value).startswith("t.hcl")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('cidrsubnet("10.0.0.0/16", 4, 2)', "10.0.32.0/20"),
        ('cidrsubnets("10.1.0.0/16", 4, 4, 8, 4)', ["10.1.0.0/20", "10.1.16.0/20", "10.1.32.0/24", "10.1.48.0/20"]),
        ('cidrhost("10.12.112.0/20", 16)', "10.12.112.16"),
        ('format("%s-%03d %q %5.1f|%-4s|%%", "a", 7, "x", 2.25, "b")', 'a-007 "x"   2.2|b   |%'),
        ('formatlist("%s:%s", ["a", "b"], "1")', ["a:1", "b:1"]),
        ('formattimestamp("X", "2015-10-21T00:00:00Z")', "1445385600"),
        ('formatdate("DD MMM YYYY hh:mm \'at\' ZZZ", "2018-01-02T23:12:01Z")', "02 Jan 2018 23:12 at UTC"),
        ('timeadd("2025-09-24T12:00:00Z", "1h30m")', "2025-09-24T13:30:00Z"),
        ('regex("h.llo", "hello")', "hello"),
        ('regex("(\\\\d+)-(\\\\d+)", "a 12-34")', ["12", "34"]),
        ('regex("(?P<year>\\\\d+)", "in 2024")', {"year": "2024"}),
        ('regexall("[a-z]+", "abc123xyz")', ["abc", "xyz"]),
        ('regex_replace("hello", "(l+)", "[$1]")', "he[ll]o"),
        ('sanitize("My App! v1.0")', "My_App__v1_0"),
        ('title("hello world-from_docker")', "Hello World-From_docker"),
        ('setproduct(["x","y"], [1,2])', [["x", 1], ["x", 2], ["y", 1], ["y", 2]]),
        ('split(",", "a,b")', ["a", "b"]),
        ('join("-", ["a", "b"], ["c"])', "a-b-c"),
        ('substr("abcdef", 2, 3)', "cde"),
        ('jsonencode({b = [1, 2.5], a = "<"})', '{"a":"\\u003c","b":[1,2.5]}'),
        ('jsondecode("{\\"a\\": [1, 2.5, null]}")', {"a": [1, Decimal("2.5"), None]}),
        ('csvdecode("a,b\\n1,2")', [{"a": "1", "b": "2"}]),
        ('uuidv5("dns", "example.com")', "cfbff0d1-9375-5685-968c-48ce8b15ae17"),
        ('sha256("a")', "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        ("merge({a = 1}, {a = 2, b = 3})", {"a": 2, "b": 3}),
        ('flatten([["a"], [["b"], "c"]])', ["a", "b", "c"]),
        ('slice(["a","b","c","d"], 1, 3)', ["b", "c"]),
        ('chunklist(["a","b","c"], 2)', [["a", "b"], ["c"]]),
        ('distinct(["a","b","a"])', ["a", "b"]),
        ('coalesce(null, "x")', "x"),
        ('compact(["a", "", "b"])', ["a", "b"]),
        ("range(3)", [0, 1, 2]),
        ("range(5, 0, -2)", [5, 3, 1]),
        ("ceil(1.2) + floor(-1.2)", 0),
        ("int(3.75)", 3),
        ("pow(2, 10)", 1024),
        ("log(100, 10)", 2),
        ('parseint("ff", 16)', 255),
        ('dirname("/a/b/c")', "/a/b"),
        ('basename("/a/b/c")', "c"),
        ('indent(2, "a\\nb")', "a\n  b"),
        ('trimprefix("v1.2", "v")', "1.2"),
        ('urlencode("a b&c")', "a+b%26c"),
        ('semvercmp("1.2.3", "^1.2")', True),
        ('semvercmp("2.0.0", ">= 1.0, < 2.0")', False),
        ('semvercmp("1.4.9", "~1.4")', True),
        ('semvercmp("1.5.0-rc1", ">=1.0")', False),
        ('lookup({a = "apple"}, "c", "none")', "none"),
        ('zipmap(["a", "b"], [1, 2])', {"a": 1, "b": 2}),
        ('index({foo = "bar"}, "foo")', "bar"),
        ('contains(list, "b") && !contains(list, "z")', True),
        ("keys(map)", ["x", "y"]),
        ("setintersection([1, 2, 3], [2, 3, 4])", [2, 3]),
    ],
)
def test_a_function_does_what_its_page_says(text: str, value: Any) -> None:
    assert evaluate(text) == value


def test_a_body_has_attributes_blocks_and_labels() -> None:
    body = parse('a = 1\nblock "one" two {\n  b = [\n    1\n  ]\n  inner {}\n}\nempty {}\n', "t.hcl")
    assert list(body.attributes) == ["a"]
    assert [(block.kind, block.labels) for block in body.blocks] == [("block", ("one", "two")), ("empty", ())]
    assert [inner.kind for inner in body.blocks[0].body.blocks] == ["inner"]
    with pytest.raises(Wrong, match=r"t.hcl:2:1: 'a' is set twice"):
        parse("a = 1\na = 2\n", "t.hcl")
    with pytest.raises(Wrong, match=r"t.hcl:1:7: 'b' where the end of the line is expected"):
        parse("a = 1 b = 2\n", "t.hcl")
    one_line = parse('variable "A" { default = "x" }', "t.hcl")
    assert one_line.blocks[0].labels == ("A",)


def test_types_are_read_shown_and_applied() -> None:
    def type_of(text: str) -> types.Type:
        return types.parse(Parser(Source("t", text)).expression())

    wanted = type_of("object({a = list(number), b = optional(map(string)), c = tuple([string, bool])})")
    assert str(wanted) == "object({a=list(number), b=map(string), c=tuple([string, bool])})"
    assert types.convert({"a": ["1", 2], "c": [1, "true"]}, wanted) == {"a": [1, 2], "b": None, "c": ["1", True]}
    with pytest.raises(ValueError, match="attribute 'a' is missing"):
        types.convert({}, wanted)
    with pytest.raises(ValueError, match="needs one argument"):
        type_of("list")
    assert types.of_environment('1,2,"3"', type_of("list(number)")) == [1, 2, 3]
    assert types.of_json('{"x": [true]}', type_of("map(list(bool))")) == {"x": [True]}


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(Wrong):
        define([parse(text, "t.hcl")], Definition(), {}, {})


@given(st.text(alphabet='ab01"${}%~[](),.=<>:?!&|+-*/\n \\', max_size=80))
def test_no_expression_breaks_the_evaluation(text: str) -> None:
    with contextlib.suppress(Wrong):
        define(
            [parse(f"a = {text}\n", "t.hcl"), parse('target "t" { args = { a = a } }', "u.hcl")], Definition(), {}, {}
        )
