"""`--chmod`: octal (`755`) or symbolic (`u=rwX,go=rX`), as chmod(1) has it without an umask."""

from __future__ import annotations

_SHIFTS = {"u": 6, "g": 3, "o": 0}


def changed(mode: int, text: str, *, is_directory: bool) -> int:
    """The permission bits after the change. `text` was checked by the planner."""
    if text[0].isdigit():
        return int(text, 8)
    for clause in text.split(","):
        end = next(index for index, char in enumerate(clause) if char in "+-=")
        who = clause[:end] or "a"
        classes = "ugo" if "a" in who else who
        rest = clause[end:]
        while rest:
            operator = rest[0]
            stop = next((index for index, char in enumerate(rest[1:], 1) if char in "+-="), len(rest))
            mode = _apply(mode, classes, operator, rest[1:stop], is_directory)
            rest = rest[stop:]
    return mode


def _apply(mode: int, classes: str, operator: str, letters: str, is_directory: bool) -> int:
    bits = 0
    special = 0
    if letters in _SHIFTS:  # the permissions that another class has
        bits = mode >> _SHIFTS[letters] & 7
    else:
        for letter in letters:
            if letter in "rwx":
                bits |= {"r": 4, "w": 2, "x": 1}[letter]
            elif letter == "X" and (is_directory or mode & 0o111):
                bits |= 1
            elif letter == "s":
                special |= (0o4000 if "u" in classes else 0) | (0o2000 if "g" in classes else 0)
            elif letter == "t":
                special |= 0o1000
    mask = sum(bits << _SHIFTS[each] for each in dict.fromkeys(classes)) | special
    if operator == "+":
        return mode | mask
    if operator == "-":
        return mode & ~mask
    cleared = sum(7 << _SHIFTS[each] for each in dict.fromkeys(classes))
    if "u" in classes:
        cleared |= 0o4000
    if "g" in classes:
        cleared |= 0o2000
    return mode & ~cleared | mask
