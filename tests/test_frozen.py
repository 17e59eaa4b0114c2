"""The quick way to make frozen data gives what the standard one gives."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from limpet.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Quick:
    """Its own words."""

    name: str
    size: int = 0
    parts: tuple[str, ...] = ()
    more: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def double(self) -> int:
        return self.size * 2


@dataclass(frozen=True, slots=True)
class Single:
    value: int


@dataclass(frozen=True, slots=True)
class Equal:
    value: int

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


def standard() -> Any:
    fields = [
        ("name", str),
        ("size", int, dataclasses.field(default=0)),
        ("parts", tuple, dataclasses.field(default=())),
        ("more", dict, dataclasses.field(default_factory=dict)),
    ]
    return dataclasses.make_dataclass("Quick", fields, frozen=True, slots=True)


def test_it_is_as_the_standard_one() -> None:
    other = standard()
    for arguments, named in ((("a",), {}), (("a", 1, ("x",)), {"more": {"k": 1}}), ((), {"name": "b", "size": 3})):
        mine, theirs = Quick(*arguments, **named), other(*arguments, **named)  # type: ignore[arg-type]
        assert repr(mine) == repr(theirs)
        assert dataclasses.asdict(mine) == dataclasses.asdict(theirs)
        assert dataclasses.astuple(mine) == dataclasses.astuple(theirs)
        assert repr(dataclasses.replace(mine, size=9)) == repr(dataclasses.replace(theirs, size=9))
        assert mine == Quick(*arguments, **named)  # type: ignore[arg-type]
        assert mine != dataclasses.replace(mine, size=10)
        assert mine != theirs
        for again in (copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
            assert again == mine
    assert [field.name for field in dataclasses.fields(Quick)] == ["name", "size", "parts", "more"]
    assert dataclasses.is_dataclass(Quick)
    assert repr(Quick.__dataclass_params__) == repr(other.__dataclass_params__)  # type: ignore[attr-defined]
    assert Quick.__match_args__ == ("name", "size", "parts", "more")
    assert Quick.__doc__ == "Its own words."
    assert Quick("a", 2).double == 4
    assert Quick("a").more is not Quick("a").more
    assert {Single(1), Single(1), Single(2)} == {Single(1), Single(2)}
    assert repr(Single(1)) == "Single(value=1)"
    match Single(7):
        case Single(value):
            assert value == 7


def test_it_is_frozen_and_takes_no_more_than_it_has() -> None:
    made: Any = Quick("a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'name'"):
        made.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'name'"):
        del made.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.other = 1
    assert not hasattr(made, "__dict__")
    loose: Any = Quick
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        loose()
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        loose("a", nothing=1)


def test_what_a_class_says_itself_counts() -> None:
    assert Equal(1) == Equal(2)
    assert hash(Equal(5)) == 1


def test_what_asks_for_more_is_made_by_the_standard_module() -> None:
    @dataclass(frozen=True, slots=True, order=True)
    class Ordered:
        value: int

    assert Ordered(1) < Ordered(2)

    with pytest.raises(ValueError, match="mutable default"):

        @dataclass(frozen=True, slots=True)
        class Wrong:
            values: list[int] = []  # noqa: RUF012
