"""What differs between the parts of two steps, in words: the most telling first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.language.lines import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.build.explain.parts import Parts

SHOWN = 10
"""Files of one kind that are named."""

_WIDTH = 60


def differences(before: Parts, now: Parts, inside: Callable[[str, str], list[str]]) -> list[str]:
    """[] if nothing does. `inside` names the files that differ between two layers (diff IDs), [] if it can't."""
    found = [*_files(_by_path(before), _by_path(now)), *_named(before.named, now.named, inside)]
    return [printable(each) for each in found]


def _by_path(parts: Parts) -> dict[str, tuple[str, str]]:
    """Path in the source, or the target of what has none → (target, the other fields)."""
    found = {}
    for path, line in parts.files:
        target, _, rest = line.partition("\0")
        found[path or target] = target, rest
    return found


def _files(before: dict[str, tuple[str, str]], now: dict[str, tuple[str, str]]) -> Iterator[str]:
    changes: dict[str, list[str]] = {"changed": [], "added": [], "removed": []}
    for path in sorted({*before, *now}):
        one, two = before.get(path), now.get(path)
        if one is None:
            changes["added"].append(f"{path}: added")
        elif two is None:
            changes["removed"].append(f"{path}: removed")
        elif one != two:
            changes["changed"].append(f"{path}: {_file(one, two)}")
    for kind, lines in changes.items():
        yield from lines[:SHOWN]
        if len(lines) > SHOWN:
            yield f"and {len(lines) - SHOWN} more {kind}"


def _file(one: tuple[str, str], two: tuple[str, str]) -> str:
    """Both as `Copying.described` has them: mode, uid, gid, device, link to, implied, content, attributes."""
    (target, before), (goal, now) = one, two
    if target != goal:
        return f"goes to {goal} instead of {target}"
    first, second = before.split("\0"), now.split("\0")
    said = []
    if first[0][:-4] != second[0][:-4]:
        return "is of another kind"
    if first[0] != second[0]:
        said.append(f"mode {first[0][-4:]} → {second[0][-4:]}")
    if first[1:3] != second[1:3]:
        said.append(f"owner {':'.join(first[1:3])} → {':'.join(second[1:3])}")
    if first[6:7] != second[6:7]:
        said.append("content")
    return ", ".join(said) or "attributes"


def _named(before: dict[str, str], now: dict[str, str], inside: Callable[[str, str], list[str]]) -> Iterator[str]:
    for name in sorted({*before, *now}, key=_rank):
        one, two = before.get(name), now.get(name)
        if one == two:
            continue
        if one is None:
            told = "" if name.startswith(("mount", "files", "heredoc", "content")) else f", {_value(two)}"
            yield f"{name}: new{told}"
        elif two is None:
            yield f"{name}: gone"
        elif name.startswith("files of "):
            yield from _tree(name, one, two, inside)
        elif name.startswith(("heredoc", "mount ", "content of ")):
            yield f"{name}: changed"
        elif one.startswith("sha256:") and two.startswith("sha256:"):
            yield f"{name}: another value"
        else:
            yield f"{name}: {_around(one, two)}"


def _rank(name: str) -> tuple[bool, bool, str]:
    return name not in ("instruction", "command"), name.startswith("files of"), name


def _tree(name: str, one: str, two: str, inside: Callable[[str, str], list[str]]) -> Iterator[str]:
    lines = inside(one.partition(" ")[2], two.partition(" ")[2])
    if not lines:
        yield f"{name}: changed"
    yield from (f"{name}: {line}" for line in lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"{name}: and {len(lines) - SHOWN} more"


def _around(one: str, two: str) -> str:
    """Both values; of long ones what is around the first character that differs."""
    one, two = (" ".join(each.split("\0")) for each in (one, two))
    if max(len(one), len(two)) <= _WIDTH:
        return f"{_value(one)} → {_value(two)}"
    start = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    begin = max(0, start - _WIDTH // 3)
    lead = "…" if begin else ""
    return f"{lead}{_value(one[begin:])} → {lead}{_value(two[begin:])}"


def _value(text: str | None) -> str:
    text = text or ""
    if len(text) > _WIDTH:
        text = text[: _WIDTH - 1] + "…"
    return text if text else "(empty)"
