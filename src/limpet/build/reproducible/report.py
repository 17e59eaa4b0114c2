"""What a second build found, for a person: steps in order, the files of each by the reason why they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.language.lines import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.build.reproducible.reasons import Reason
    from limpet.build.reproducible.twice import Fault, Found, Second

_FILES = 10
_RANGES = 3
_UNKNOWN = "no usual reason is known"


def lines(second: Second) -> Iterator[str]:
    """One after another, without an end of line."""
    steps = "1 step" if second.steps == 1 else f"{second.steps} steps"
    if second.ok:
        yield f"Reproducible: {steps} done again, in other conditions, gave the same bytes"
        return
    if not second.faults:
        yield "Not reproducible: the layers are the same, but the image's config is not"
        return
    count = len(second.faults)
    yield f"Not reproducible: {count} of {steps} {'gives' if count == 1 else 'give'} something else each time"
    for fault in second.faults:
        yield ""
        place = fault.step.place
        yield f"{second.path}:{place.line}:{place.column}: {printable(place.text.partition(chr(10))[0])}"
        yield from _fault(fault)


def _fault(fault: Fault) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Found]] = {}
    for found in fault.found:
        groups.setdefault(_title(found.reason), []).append(found)
    for (why, remedy), members in groups.items():
        yield f"  {why}: {'1 file' if len(members) == 1 else f'{len(members)} files'}"
        if remedy:
            yield f"  → {remedy}"
        for found in members[:_FILES]:
            yield from _file(found)
        if len(members) > _FILES:
            yield f"    and {len(members) - _FILES} more"
    if fault.count > len(fault.found):
        yield f"  and {fault.count - len(fault.found)} more files"


def _title(reason: Reason | None) -> tuple[str, str]:
    return (reason.why, reason.remedy) if reason is not None else (_UNKNOWN, "")


def _file(found: Found) -> Iterator[str]:
    difference = found.difference
    path = printable(f"/{difference.path}")
    if difference.kind in ("first only", "second only"):
        other = "first" if difference.kind == "first only" else "second"
        yield f"    {path}: {difference.one}, in the {other} build only"
        return
    if difference.kind != "content":
        yield f"    {path}: {difference.kind} {printable(difference.one)} / {printable(difference.two)}"
        return
    shown = ", ".join(_range(each.start, each.end, each.other) for each in difference.ranges[:_RANGES])
    if len(difference.ranges) > _RANGES:
        shown += f" and {len(difference.ranges) - _RANGES} more places"
    sizes = difference.one if difference.one == difference.two else f"{difference.one} / {difference.two}"
    yield f"    {path}: bytes {shown} of {sizes}"
    if found.reason is not None and found.reason.notes:
        yield from (f"      {printable(note)}" for note in found.reason.notes)
    elif found.samples is not None:
        yield from (f"      {sign} {_sample(data)}" for sign, data in zip("-+", found.samples, strict=True))


def _range(start: int, end: int, other: int) -> str:
    """The first and the last byte, counted from 0; of files of two sizes both ends."""

    def span(stop: int) -> str:
        return f"{start}-{stop - 1}" if stop > start + 1 else str(start) if stop > start else f"none at {start}"

    return span(end) if end == other else f"{span(end)} / {span(other)}"


def _sample(data: bytes) -> str:
    """Text as it is, up to the end of its line; else hexadecimal."""
    line = data.partition(b"\n")[0]
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and text:
        return text
    return data[:16].hex(" ")
