"""pflag's grammar, as Docker's users type it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.cli.parser import scan
from limpet.cli.table import Option
from limpet.errors import Invalid

TABLE = (
    Option("interactive", "i"),
    Option("tty", "t"),
    Option("rm"),
    Option("on", default=True),
    Option("env", "e", kind="list"),
    Option("name", kind="string", default=""),
    Option("user", "u", kind="string", default=""),
    Option("count", "n", kind="int", default=-1),
    Option("pull", kind="string", default="missing", choices=("always", "missing")),
    Option("colour", kind="optional"),
)


def parse(*words: str, interspersed: bool = False) -> tuple[dict[str, Any], list[str]]:
    values, arguments = scan(TABLE, words, "limpet test", interspersed=interspersed)
    defaults = scan(TABLE, [], "", interspersed=False)[0]
    return {name: value for name, value in values.items() if value != defaults.get(name)}, arguments


@pytest.mark.parametrize(
    ("words", "values", "arguments"),
    [
        ("-it image sh", {"interactive": True, "tty": True}, ["image", "sh"]),
        ("-i -t image -it", {"interactive": True, "tty": True}, ["image", "-it"]),
        ("-e A=1 -eB=2 -e=C=3 --env D=4 --env=E=5 x", {"env": ["A=1", "B=2", "C=3", "D=4", "E=5"]}, ["x"]),
        ("-ite A=1 x", {"interactive": True, "tty": True, "env": ["A=1"]}, ["x"]),
        ("--rm=false --on=false x", {"on": False}, ["x"]),
        ("--rm=T --on=0 x", {"rm": True, "on": False}, ["x"]),
        ("-i=false -t x", {"tty": True}, ["x"]),
        ("--name x y", {"name": "x"}, ["y"]),
        ("--name= y", {}, ["y"]),
        ("--name -- y", {"name": "--"}, ["y"]),
        ("-n5 x", {"count": 5}, ["x"]),
        ("-n -7 x", {"count": -7}, ["x"]),
        ("-- -it x", {}, ["-it", "x"]),
        ("- x", {}, ["-", "x"]),
        ("x -- -it", {}, ["x", "--", "-it"]),
        ("--colour x", {"colour": ""}, ["x"]),
        ("--colour=red x", {"colour": "red"}, ["x"]),
        ("--pull always x", {"pull": "always"}, ["x"]),
        ("--help", {"help": True}, []),
        ("-h", {"help": True}, []),
    ],
)
def test_words_to_values(words: str, values: dict[str, Any], arguments: list[str]) -> None:
    assert parse(*words.split()) == (values, arguments)


def test_options_after_arguments_where_that_is_allowed() -> None:
    assert parse("a", "--rm", "b", "--", "--on=false", interspersed=True) == ({"rm": True}, ["a", "b", "--on=false"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--hlep", "unknown flag: --hlep"),
        ("--nmae x", "unknown flag: --nmae; did you mean --name?"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("-itx", "unknown shorthand flag: 'x' in -x"),
        ("--name", "flag needs an argument: --name"),
        ("-iu", "flag needs an argument: 'u' in -u"),
        ("--rm=maybe", 'invalid argument "maybe" for "--rm" flag'),
        ("-n five", 'invalid argument "five" for "-n, --count" flag'),
        ("--pull sometimes", 'invalid argument "sometimes" for "--pull" flag'),
    ],
)
def test_mistakes(words: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(*words.split())
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("See 'limpet test --help'.")
    assert caught.value.exit_code == 125


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_words_give_values_or_one_clear_error(words: list[str]) -> None:
    try:
        values, arguments = parse(*words)
    except Invalid as e:
        message = e.message
    else:
        message = ""
        assert set(values) <= {option.name for option in TABLE} | {"help"}
        assert len(arguments) <= len(words)
    assert "\n" not in message or any("\n" in word for word in words)


@given(st.lists(st.text(min_size=1, max_size=8), max_size=4))
def test_what_follows_the_image_is_never_touched(words: list[str]) -> None:
    assert parse("--rm", "image", *words) == ({"rm": True}, ["image", *words])
