"""What a user asks for: kept as JSON, checked by Docker's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet import jsontext
from limpet.containers import names
from limpet.containers.options import Options, parse_size, restart_policy
from limpet.errors import Invalid


def test_options_survive_their_json() -> None:
    options = Options(image="a", command=["x", "ü"], tty=True, labels={"k": "v"}, entrypoint=[], init=False)
    again = Options.from_json(options.to_json())
    assert {name: getattr(again, name) for name in Options.__slots__} == {
        name: getattr(options, name) for name in Options.__slots__
    }


def test_json_has_only_what_differs_from_the_default() -> None:
    assert jsontext.loads(Options(image="a").to_json()) == {"image": "a"}


def test_a_field_of_a_newer_version_is_left_out() -> None:
    assert Options.from_json('{"image":"a","from_the_future":1}').image == "a"


def test_defaults_are_not_shared() -> None:
    Options().env.append("A=1")
    assert Options().env == []


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="no such option: colour"):
        Options(colour="red")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("no", 0)),
        ("no", ("no", 0)),
        ("always", ("always", 0)),
        ("unless-stopped", ("unless-stopped", 0)),
        ("on-failure", ("on-failure", 0)),
        ("on-failure:3", ("on-failure", 3)),
    ],
)
def test_restart_policies(text: str, expected: tuple[str, int]) -> None:
    assert restart_policy(text) == expected


@pytest.mark.parametrize("text", ["sometimes", "always:3", "on-failure:x", "on-failure:", "on-failure:-1"])
def test_wrong_restart_policies(text: str) -> None:
    with pytest.raises(Invalid):
        restart_policy(text)


@pytest.mark.parametrize(
    ("text", "decimal", "expected"),
    [
        ("64m", False, 64 << 20),
        ("1g", False, 1 << 30),
        ("100", False, 100),
        ("1.5k", False, 1536),
        ("2MiB", False, 2 << 20),
        ("3kb", False, 3072),
        ("10m", True, 10_000_000),
        ("1k", True, 1000),
        ("5b", True, 5),
    ],
)
def test_sizes(text: str, decimal: bool, expected: int) -> None:
    assert parse_size(text, "x", decimal=decimal) == expected


@pytest.mark.parametrize("text", ["", "m", "1x", "-1m", "1mm", "nan", "inf", "1e400", "0x10"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(Invalid, match="invalid size"):
        parse_size(text, "shm-size")


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    try:
        assert parse_size(text, "x") >= 0
    except Invalid:
        pass


@pytest.mark.parametrize("name", ["ab", "a1", "A_b.c-d", "/web", "0a"])
def test_names(name: str) -> None:
    assert names.check(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["", "a", "-a", ".ab", "a b", "a/b", "ä1", "a" * 254, "a\n"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(Invalid, match="invalid container name"):
        names.check(name)


def test_generated_names_and_ids_are_valid() -> None:
    for attempt in range(50):
        assert names.check(names.generate(attempt % 2))
        identity = names.container_id()
        assert len(identity) == 64
        assert not identity[:12].isdecimal()
