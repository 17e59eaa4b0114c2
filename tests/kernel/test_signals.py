"""Signal names and numbers against the standard library's, and whatever else a user may type."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.errors import Invalid
from limpet.kernel import signals


def test_every_name_of_the_standard_library() -> None:
    for known in signal.Signals:
        if known.name.startswith("SIGRT"):
            continue
        assert signals.number(known.name) == known
        assert signals.number(known.name[3:].lower()) == known
        assert signals.name(known) in (known.name, "SIGIO")  # SIGPOLL is the same
    assert signal.SIGRTMIN == signals.SIGRTMIN
    assert signal.SIGRTMAX == signals.SIGRTMAX


@pytest.mark.parametrize("name", [n for n in dir(signals) if n.startswith("SIG") and n[3].isalpha() and n != "SIG_DFL"])
def test_the_constants(name: str) -> None:
    assert getattr(signals, name) == getattr(signal, name)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("15", 15),
        (" term ", 15),
        ("SigTerm", 15),
        ("64", 64),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX", 64),
        ("rtmax-14", 50),
        ("CLD", 17),
        ("STKFLT", 16),
    ],
)
def test_numbers(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "65", "-9", "15.0", "1e1", "NOSUCH", "SIG", "TERM\0", "\u0661\u0665", "9" * 5000),
        *("RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN+x", "RTMIN+31", "RTMIN+" + "9" * 5000),
    ],
)
def test_no_signals(text: str) -> None:
    with pytest.raises(Invalid, match="invalid signal"):
        signals.number(text)


@given(st.text(max_size=12) | st.from_regex(r"\A(SIG)?(RTMIN|RTMAX)?[+-]?[0-9]{0,6}\Z"))
def test_any_text_is_a_number_or_invalid(text: str) -> None:
    try:
        assert 1 <= signals.number(text) <= 64
    except Invalid:
        pass


def test_names_lead_back() -> None:
    for number in [*range(1, 32), *range(34, 65)]:
        assert signals.number(signals.name(number)) == number
    assert [signals.name(n) for n in (0, 32, 33, 65, -1)] == ["0", "32", "33", "65", "-1"]
