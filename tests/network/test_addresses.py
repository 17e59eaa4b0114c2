"""Which addresses containers may have, and which one each gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.errors import Invalid, LimpetError
from limpet.network import addresses

IDS = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(IDS)
def test_a_chosen_address_is_of_the_range(container_id: str) -> None:
    parts = [int(part) for part in addresses.choose(container_id, lambda address: False).split(".")]
    assert parts[0] == 127
    assert 64 <= parts[1] < 128
    assert parts[3] not in (0, 255)


def test_ids_are_spread() -> None:
    found = {addresses.choose(f"{number * 2654435761 % 2**32:08x}", lambda address: False) for number in range(1000)}
    assert len(found) > 990


def test_what_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(addresses.VARIABLE, "127.77.7.16/28")
    taken: set[str] = set()
    for _ in range(16):
        taken.add(addresses.choose("c0ffee00" * 8, lambda address: address in taken))
    assert taken == {f"127.77.7.{number}" for number in range(16, 32)}
    with pytest.raises(LimpetError, match="there is no free address left"):
        addresses.choose("0" * 64, lambda address: address in taken)


@pytest.mark.parametrize(
    "text", ["127.0.0.0/16", "127.0.0.0/8", "10.0.0.0/16", "127.64.0.1/16", "127.64.0.0", "127.64.0.0/29", "x", "::/64"]
)
def test_a_range_that_can_not_be(text: str) -> None:
    with pytest.raises(Invalid, match="can't be the containers' range"):
        addresses.range_(text)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], ("", "")),
        (["0.0.0.0"], ("0.0.0.0", "::")),
        (["::"], ("0.0.0.0", "::")),
        (["0.0.0.0", "[::]"], ("0.0.0.0", "::")),
        (["127.64.0.9"], ("127.64.0.9", "")),
        (["192.0.2.1", "2001:DB8::1"], ("192.0.2.1", "2001:db8::1")),
    ],
)
def test_what_may_be_said(texts: list[str], found: tuple[str, str]) -> None:
    assert addresses.parse(texts) == found


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        (["localhost"], "is not an IP address"),
        (["127.1"], "is not an IP address"),
        (["0.0.0.0", "::1"], "is the plain host"),
        (["127.64.0.1", "127.64.0.2"], "one of this family already"),
        (["2001:db8::1"], "an IPv4 address belongs to it"),
    ],
)
def test_what_may_not(texts: list[str], error: str) -> None:
    with pytest.raises(Invalid, match=error):
        addresses.parse(texts)


def test_the_ipv6_address_follows() -> None:
    assert addresses.ipv6_of("127.64.0.9") == "fd6c:696d:7065:7400::7f40:9"
