"""The spelling that was probably meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like this one, case aside; "" if none is."""
    by_lower: dict[str, str] = {}
    for each in known:
        by_lower.setdefault(each.lower(), each)
    if len(word) > 200:
        return ""
    exact = by_lower.get(word.lower())
    if exact is not None:
        return exact
    import difflib  # only for a mistake

    found = difflib.get_close_matches(word.lower(), by_lower, 1, 0.7)
    return by_lower[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str], form: str = "{}") -> str:
    """A hint, or ""."""
    found = nearest(word, known)
    return f"did you mean {form.format(found)}?" if found else ""
