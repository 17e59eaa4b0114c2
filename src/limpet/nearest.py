"""What somebody probably meant: the nearest known word within two typing errors."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word with the fewest typing errors between, at most two and fewer than it has letters; "" if none."""
    best, least = "", min(3, len(word.strip("-")))
    for candidate in known:
        errors = distance(word, candidate)
        if errors < least or (errors == least < 3 and not best):
            best, least = candidate, errors
    return best


def distance(left: str, right: str) -> int:
    """Edit distance with neighbouring letters swapped counted as one; 3 stands for all that is above two."""
    if abs(len(left) - len(right)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, previous, row = row, before, [i]
        for j, b in enumerate(right, 1):
            cost = min(row[j - 1] + 1, before[j] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, previous[j - 2] + 1)
            row.append(cost)
    return min(row[-1], 3)
