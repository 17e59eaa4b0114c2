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
    Option("user", "u", kind="string", default="", aliases=("usr",)),
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
        ("-e= x", {"env": ["="]}, ["x"]),  # pflag: only more than one letter after = is taken as the value
        ("-n=5 x", {"count": 5}, ["x"]),
        ("-it=false x", {"interactive": True}, ["x"]),
        ("-n 0x10 x", {"count": 16}, ["x"]),
        ("-n 010 x", {"count": 8}, ["x"]),
        ("-n 1_000 x", {"count": 1000}, ["x"]),
        ("--usr u x", {"user": "u"}, ["x"]),
        ("--usr=u x", {"user": "u"}, ["x"]),
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
        ("-n 9223372036854775808", 'invalid argument "9223372036854775808" for "-n, --count" flag'),
        ("-n " + "9" * 5000, 'invalid argument "999'),
        ("-n 09", 'invalid argument "09" for "-n, --count" flag'),
        ("-n --5", 'invalid argument "--5" for "-n, --count" flag'),
        ("-i= x", "unknown shorthand flag: '=' in -="),
        ("---x", "bad flag syntax: ---x"),
        ("--=x", "bad flag syntax: --=x"),
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


NAMES = {option.name: option for option in TABLE}


@st.composite
def spellings(draw: st.DrawFn) -> tuple[list[str], dict[str, Any]]:
    """Some options in one of the ways that pflag takes, and what they mean."""
    words: list[str] = []
    values: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(NAMES)), max_size=8)):
        option = NAMES[name]
        if option.kind == "bool":
            value: Any = draw(st.booleans())
            text = draw(st.sampled_from(["1", "t", "T", "true", "TRUE", "True"] if value else ["0", "f", "False"]))
            ways = [[f"--{name}={text}"]]
            ways += [[f"--{name}"]] if value else []
            ways += [[f"-{option.short}={text}"]] if option.short else []
            ways += [[f"-{option.short}"]] if option.short and value else []
        elif option.kind == "optional":
            value = draw(st.text(max_size=5))
            ways = [[f"--{name}={value}"]] + ([[f"--{name}"]] if not value else [])
        else:
            value = draw(
                st.integers(-(2**63), 2**63 - 1)
                if option.kind == "int"
                else st.sampled_from(option.choices)
                if option.choices
                else st.text(max_size=5)
            )
            ways = [[f"--{name}={value}"], [f"--{name}", str(value)]]
            if option.short:
                ways.append([f"-{option.short}", str(value)])
                if str(value) and not str(value).startswith("="):
                    ways += [[f"-{option.short}{value}"], [f"-{option.short}={value}"]]
        words += draw(st.sampled_from(ways))
        if option.kind == "list":
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    return words, values


@given(spellings(), st.booleans())
def test_every_spelling_means_the_same(spelt: tuple[list[str], dict[str, Any]], interspersed: bool) -> None:
    words, values = spelt
    found, arguments = scan(TABLE, [*words, "image", "-x"] if not interspersed else [*words, "--", "image", "-x"],
                            "limpet test", interspersed=interspersed)  # fmt: skip
    assert {name: found[name] for name in values} == values
    assert arguments == ["image", "-x"]
