"""What somebody probably meant: the nearest known words, as few typing errors away as the word's length excuses."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The nearest known word; "" if none is near."""
    return next(iter(near(word, known)), "")


def near(word: str, known: Iterable[str]) -> list[str]:
    """The known words that may have been meant, the nearest first; case is no error."""
    letters = len(word.strip("-"))
    most = 0 if letters < 2 else 1 if letters < 5 else 2  # two errors in a short word leave nothing of it
    found = []
    for candidate in known:
        errors = distance(word.lower(), candidate.lower())
        if errors <= most:
            found.append((errors, candidate))
    return [candidate for _, candidate in sorted(found, key=lambda each: each[0])]


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
