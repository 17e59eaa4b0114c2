"""Go templates for --format."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.cli.template import compile, render
from limpet.cli.template_functions import typed
from limpet.errors import Invalid

DATA = {
    "Id": "abc",
    "State": {"Running": True, "Pid": 5, "Error": ""},
    "List": ["a", "b"],
    "Map": {"x": {"IP": "1.2"}, "y": {"IP": "3"}},
    "None": None,
    "Float": 1.5,
    "Html": "<&>",
    "Config": {"Labels": {}},
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Id}}", "abc"),
        ("plain", "plain"),
        ("{{json .State}}", '{"Running":true,"Pid":5,"Error":""}'),
        ("{{json .Html}}", '"<&>"'),
        ("{{.State.Running}} {{.List}} {{.None}} {{.Float}}", "true [a b] <nil> 1.5"),
        ("{{.Map}}", "map[x:map[IP:1.2] y:map[IP:3]]"),
        ("{{range $k, $v := .Map}}{{$k}}={{$v.IP}} {{end}}", "x=1.2 y=3 "),
        ("{{range .List}}<{{.}}>{{else}}none{{end}}", "<a><b>"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $e := .List}}{{if $i}},{{end}}{{$e}}{{end}}", "a,b"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if eq .State.Pid 4}}4{{else if eq .State.Pid 5}}5{{else}}?{{end}}", "5"),
        ("{{with .State}}{{.Pid}}{{end}}{{with .None}}x{{else}}y{{end}}", "5y"),
        ("{{index .List 1}}{{len .List}}{{slice .Id 1}}", "b2bc"),
        ('{{.Id | upper | printf "%-6s|"}}', "ABC   |"),
        ('{{(index .Map "x").IP}}', "1.2"),
        ("a {{- .Id -}} b", "aabcb"),
        ("{{/* a comment */}}x", "x"),
        ('{{join .List ","}} {{split "a:b" ":"}} {{title "ab cd"}} {{lower "AB"}}', "a,b [a b] Ab Cd ab"),
        ("{{$x := .Id}}{{$x}}{{$.Id}}", "abcabc"),
        ('{{printf "%d %q %05.1f %v%%" .State.Pid .Id .Float true}}', '5 "abc" 001.5 true%'),
        ("{{and .Id .List}} {{or .None .Id}} {{not .None}}", "[a b] abc true"),
        ('{{if and (eq .Id "abc") (gt .State.Pid 3)}}yes{{end}}', "yes"),
        ("{{.State.Health}}", "<nil>"),
        ("{{.Config.Labels.nope}}", "<no value>"),
        ('{{ `raw \\n` }}{{ "tab\\t" }}', "raw \\ntab\t"),
        ('{{pad .Id 1 2}}|{{truncate .Id 2}}|{{println "x"}}', " abc  |ab|x\n"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    assert render(template, DATA) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Id", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{nope}}", 'function "nope" not defined'),
        ("{{end}}", "unexpected {{end}}"),
        ("{{if .Id}}", "unexpected EOF"),
        ("{{if .Id}}{{else}}{{else}}{{end}}", "expected {{end}}"),
        ("{{.Nope}}", "can't evaluate field Nope"),
        ("{{.State.Nope}}", "can't evaluate field Nope"),
        ("{{.State.Nope.More}}", "can't evaluate field Nope"),
        ("{{.Id.More}}", "can't evaluate field More"),
        ("{{.None.More}}", "nil pointer evaluating"),
        ("{{index .List 9}}", "index out of range"),
        ("{{index}}", "error calling index"),
        ("{{eq .Id 1}}", "incompatible types"),
        ("{{$x}}", "undefined variable"),
        ("{{(.Id}}", "unclosed left paren"),
        ('{{"abc}}', "unclosed action"),
        ('{{template "x"}}', "not supported"),
        ("{{.Id | }}", "missing value"),
        ("{{1 2}}", "no function"),
    ],
)
def test_mistakes_have_docker_s_exit_code(template: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        render(template, DATA)
    assert message in caught.value.message
    assert caught.value.exit_code == 64


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_json_is_json(value: Any) -> None:
    assert json.loads(render("{{json .}}", value)) == value


@given(st.text(alphabet='{}.|$"` ()abif:=0-', max_size=30))
def test_any_text_compiles_or_is_one_clear_error(text: str) -> None:
    try:
        compile(text).render(DATA)
    except Invalid as e:
        code = e.exit_code
    else:
        code = 64
    assert code == 64


@given(st.text(alphabet="ab \n\t{", max_size=20).filter(lambda text: "{{" not in text))
def test_text_without_actions_stays(text: str) -> None:
    assert render(text, DATA) == text


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{json 1.0}} {{json 1.5}} {{json 1e20}} {{json .Size}}", "1 1.5 100000000000000000000 3"),
        ("{{.Config.Cmd}} {{.Config.Labels}} {{.Config.User}} {{.Health}}", "[] map[] <nil> <nil>"),
        ("{{json .Config.Cmd}} {{json .Config.Labels}}", "null null"),
        (
            "{{len .Config.Cmd}} {{range .Config.Env}}x{{else}}none{{end}} {{if .Config.Env}}y{{else}}n{{end}}",
            "0 none n",
        ),
        ("{{json .Config}}", '{"Cmd":null,"Env":null,"Labels":null,"User":null}'),
        ("{{.Full.Labels.Cmd}}", "<nil>"),
    ],
)
def test_what_is_null_in_a_document_is_an_empty_list_or_map_in_go(template: str, expected: str) -> None:
    document = {
        "Config": {"Cmd": None, "Env": None, "Labels": None, "User": None},
        "Health": None,
        "Size": 3.0,
        "Full": {"Labels": {"Cmd": None}},
    }
    assert render(template, typed(document)) == expected
