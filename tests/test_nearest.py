"""What is offered for a slip, and that nothing is that only has the length in common."""

from __future__ import annotations

import pytest

from limpet.nearest import near, nearest


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("PS", ["rm", "ps", "run"], ["ps"]),
        ("wk", ["ci", "tt", "web"], []),
        ("wk", ["wp", "tt"], ["wp"]),
        ("wbe", ["bee", "web"], ["web"]),
        ("wxy", ["web"], []),
        ("x", ["y", "X"], ["X"]),
        ("wesbit", ["website", "wesbits"], ["wesbits", "website"]),
        ("--rmm", ["--rm", "--no-rm"], ["--rm"]),
        ("--nmae", ["--name", "--label"], ["--name"]),
        ("--xyz", ["--abc"], []),
        ("", ["", "a"], [""]),
    ],
)
def test_near(word: str, known: list[str], found: list[str]) -> None:
    assert near(word, known) == found
    assert nearest(word, known) == (found[0] if found else "")
