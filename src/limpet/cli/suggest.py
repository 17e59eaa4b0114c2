"""What somebody probably meant: the nearest known word within two typing errors."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word with the fewest typing errors between, at most two and fewer than it has letters; "" if none."""
    from limpet.images.catalog import distance

    best, least = "", min(3, len(word.strip("-")))
    for candidate in known:
        errors = distance(word, candidate)
        if errors < least or (errors == least < 3 and not best):
            best, least = candidate, errors
    return best
