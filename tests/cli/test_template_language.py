"""The template language in detail: as Go itself has it (podman's --format), hostile templates, places of mistakes."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.cli.template import compile, render
from limpet.errors import Invalid

# Without data, so that podman's are not in the way.
CASES = r"""
{{1}} {{-3}} {{+3}} {{0x1f}} {{010}} {{1_000}} {{1.5}} {{1e3}} {{'a'}} {{true}}
{{"a\tb"}}{{"\u00e9\x41\101\"\\"}}
{{printf "%d|%5d|%-5d|%05d|%x|%X|%o|%b|%c|%+d" 1 2 3 4 255 255 8 5 65 7}}
{{printf "%s|%5s|%-5s|%q|%v|%.2s|%x|%X" "a" "b" "c" "d\"" "e" "fgh" "ab" "ab"}}
{{printf "%f|%.2f|%6.1f|%e|%g|%v" 1.5 1.5 2.25 1500.0 1.5 2.0}}
{{printf "%08.3f|%+.1e|%#x|% d" 3.14159 12345.678 255 5}}
{{printf "%t|%v|%d|%s|%t|%s" true false "x" 5 "y" nil}}
{{printf "%d"}} {{printf "%d %d" 1}} {{printf "x" 1 "y"}} {{printf "%"}} {{printf "%%"}} {{printf "%z" 1}}
{{print 1 2}} {{print 1 "a" 2}} {{print "a" "b"}} {{println 1 "x" true}}
{{print 1.0}} {{print 1e21}} {{print 123456789.0}} {{print 0.000001}} {{print 0.00012}}
{{print -12.50}} {{print 100000.0}}
{{len "abc"}} {{index "abc" 1}} {{slice "abcdef" 1 3}} {{slice "abc" 2}}
{{eq 1 1}} {{eq 1 2 1}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 2}} {{eq "a" "a"}} {{lt "a" "b"}}
{{eq 1.5 1.5}}
{{and 1 0 2}} {{or 0 "" 3}} {{not 1}} {{not ""}} {{and 1}} {{or ""}} {{and true false}} {{not (eq 1 2)}}
{{if 0}}a{{else if ""}}b{{else}}c{{end}}{{if true}}d{{end}}{{with "x"}}{{.}}{{end}}{{with ""}}y{{else}}z{{end}}
{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 3}}{{$y}}{{end}}{{$x}}
{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}
{{$n := 0}}{{range split "a,b,c" ","}}{{$n = print $n .}}{{end}}{{$n}}
a {{- 1 -}} b {{ 2 }} c {{/* it's "a }} comment */}} d {{- /* x */ -}} e
{{html "<a href='x'>&\""}} {{urlquery "a b&c/é"}}
{{"x" | printf "%s-%s" "y"}} {{(printf "%d" 3) | printf "%s!"}} {{1 | eq 1}} {{(1)}} {{((2))}}
{{range split "a,b,c" ","}}[{{.}}]{{end}}{{range $i,$e:=split "a,b" ","}}{{$i}}{{$e}}{{end}}
{{range split "a,b,c" ","}}{{if eq . "b"}}{{continue}}{{end}}{{.}}{{end}}
{{range split "a,b,c" ","}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}
{{upper "ab"}} {{lower "AB"}} {{title "ab cd"}} {{join (split "a b" " ") "-"}} {{truncate "abcdef" 3}} |{{pad "x" 1 2}}|
{{json "a<b>&é☃"}} {{json true}} {{json (split "a b" " ")}}
{{if(eq 1 1)}}x{{end}} {{/**/}} {{with $z := 5}}{{$z}}{{end}} {{	if	true	}}y{{ end }}
{{len (split "a b c" " ")}} {{index (split "a b c" " ") 2}} {{printf "%v" (split "a b" " ")}}
""".strip().split("\n")


def test_as_go() -> None:
    if shutil.which("podman") is None:
        pytest.skip("needs podman, which is written in Go")
    command = ["podman", "version", "--format", "\x1f".join(CASES)]
    go = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    for case, expected in zip(CASES, go.split("\x1f"), strict=True):
        assert render(case, {}).rstrip("\n") == expected.rstrip("\n"), case


@pytest.mark.parametrize(
    ("template", "place", "message"),
    [
        ("ab{{", "1:3", "unclosed action"),
        ("a\nb{{nope}}", "2:4", "not defined"),
        ("{{.Id}}\n\n {{.State.No.More}}", "3:4", "can't evaluate field No"),
        ("{{if .Id}}\n{{end}}{{end}}", "2:10", "unexpected {{end}}"),
        ("{{if .Id}}x", "1:3", "{{end}} is missing"),
        ("{{/* a", "1:1", "unclosed comment"),
        ("{{/* a */ x}}", "1:11", "comment ends before"),
        ("{{break}}", "1:3", "outside {{range}}"),
        ("{{if true}}{{continue}}{{end}}", "1:14", "outside {{range}}"),
        ("{{range .List}}{{else}}{{break}}{{end}}", "1:26", "outside {{range}}"),
        ("{{$x = 1}}", "1:3", "undefined variable"),
        ("{{$x, $y := 1}}", "1:3", "too many declarations"),
        ("{{$x.Y := 1}}", "1:3", "bad declaration"),
        ("{{range $a, $b, $c := .List}}{{end}}", "1:11", "unexpected ','"),
        ("{{if true}}{{else if}}{{end}}", "1:19", "missing value"),
        ("{{if true}}{{else nope}}{{end}}", "1:19", "unexpected word"),
        ('{{"a\\q"}}', "1:5", "bad escape"),
        ('{{"\\ud"}}', "1:4", "bad escape"),
        ("{{'ab'}}", "1:3", "malformed character"),
        ("{{1.2.3}}", "1:3", "bad number"),
        ("{{" + "9" * 5000 + "}}", "1:3", "bad number"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "1:63", "nested too deeply"),
        ("{{if 1}}" * 5000, "1:489", "nested too deeply"),
        ("{{true 1}}", "1:3", "no function"),
        ("{{eq true 1}}", "1:3", "incompatible types"),
        ('{{printf "%999999999d" 1}}', "1:3", "width"),
        ("{{pad .Id 99999999 1}}", "1:3", "width"),
        ('{{printf "%c" 99999999}}', "1:3", "error calling printf"),
        ("{{truncate .Id -1}}", "1:3", "negative"),
        ("{{len 5}}", "1:3", "error calling len"),
        ("{{range .Id}}{{end}}", "1:3", "can't iterate"),
        ("{{`a}}", "1:3", "unterminated"),
        ("{{\x00}}", "1:3", "unexpected"),
        ("{{.Id ) }}", "1:7", "unexpected ')'"),
        ("{{1 := 2}}", "1:3", "bad declaration"),
        ("{{.A , .B}}", "1:6", "unexpected ','"),
    ],
)
def test_places_of_mistakes(template: str, place: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        render(template, {"Id": "abc", "State": {}, "List": [1]})
    assert caught.value.message.startswith(f"template parsing error: template: :{place}: ")
    assert message in caught.value.message
    assert caught.value.exit_code == 64
    assert "\n" not in str(caught.value)


def test_nested_data() -> None:
    data: dict[str, Any] = {}
    for _ in range(5000):
        data = {"a": data}
    with pytest.raises(Invalid, match="nested too deeply"):
        render("{{.}}", data)


WORDS = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{{-",
            "-}}",
            " ",
            "\n",
            "text",
            ".",
            ".Id",
            ".Map",
            ".List",
            ".a.b",
            "$",
            "$x",
            "$x.y",
            ":=",
            "=",
            ",",
        ),
        *(
            "if",
            "else",
            "end",
            "with",
            "range",
            "break",
            "continue",
            "define",
            "(",
            ")",
            ").a",
            "|",
            "1",
            "-1",
            "1.5",
            "0x",
        ),
        *('"s"', '"\\x41"', "'c'", "`raw`", '"', "/*", "*/", "true", "nil", "é", "\\"),
        *("json", "printf", "index", "slice", "len", "eq", "lt", "and", "or", "not", "print", "join", "split", "pad"),
    ]
)
DATA = {"Id": "a\nc", "Map": {"a": {"b": 1}, "c": None}, "List": ["x", 2, None, True, [1.5]], "a": {"b": "c"}}


@given(st.lists(WORDS, max_size=40).map(" ".join) | st.lists(WORDS, max_size=40).map("".join))
def test_any_words_give_text_or_one_line(text: str) -> None:
    mistake = Invalid("", exit_code=64)
    try:
        assert isinstance(compile(text).render(DATA), str)
    except Invalid as e:
        mistake = e
    assert mistake.exit_code == 64
    assert "\n" not in str(mistake)


@given(st.text(max_size=20))
def test_strings_come_back(text: str) -> None:
    escaped = "".join(f"\\U{ord(char):08x}" for char in text)
    assert render('{{"' + escaped + '"}}', {}) == text
    assert render("{{.Text}}", {"Text": text}) == text
    if "`" not in text:
        assert render("{{`" + text + "`}}", {}) == text


@given(st.lists(st.text(max_size=5), max_size=6))
def test_ranges_and_joins(items: list[str]) -> None:
    data = {"List": items, "Map": {item: at for at, item in enumerate(items)}}
    assert render('{{join .List "\\n"}}', data) == "\n".join(items)
    assert render("{{range $i, $e := .List}}{{$i}}{{$e}};{{end}}", data) == "".join(
        f"{i}{e};" for i, e in enumerate(items)
    )
    assert render("{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", data) == "".join(
        f"{key}={value};" for key, value in sorted(data["Map"].items())
    )
    assert render("{{len .List}}{{range .List}}{{else}}none{{end}}", data) == f"{len(items)}" + (
        "" if items else "none"
    )


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_comparisons(left: int, right: int) -> None:
    shown = render(
        "{{eq .a .b}} {{ne .a .b}} {{lt .a .b}} {{le .a .b}} {{gt .a .b}} {{ge .a .b}}", {"a": left, "b": right}
    )
    expected = [left == right, left != right, left < right, left <= right, left > right, left >= right]
    assert shown == " ".join("true" if answer else "false" for answer in expected)
