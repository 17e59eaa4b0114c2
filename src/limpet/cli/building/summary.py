"""After the last step: where the time went, or which step failed, its last output, its place in the Dockerfile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from limpet.build.reporting import report
from limpet.cli.building.screen import Lines, harmless
from limpet.cli.building.tree import spent
from limpet.units import size_decimal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.build.reporting.record import Record, Seen

_OUTPUT = 30
"""Lines of a failed step that are shown again."""

_AROUND = 2
"""Lines of the Dockerfile before and after an instruction."""

_INSTRUCTION = 14
"""Lines of an instruction; of a longer one the middle is left out."""

_ROWS = 10
"""Of the table."""

_WORTHWHILE = 3.0
"""Seconds of a build that has a table."""

_WIDE = 160


def failure(record: Record, log: str, *, whole: bool) -> Iterator[str]:
    """Of each step that failed. `log`: the file that has all of the output; `whole`: it was all shown, just above."""
    for seen in record.with_result(report.FAILED):
        if seen.written and not whole:
            lines = Lines(_OUTPUT)
            lines.feed(bytes(seen.tail))
            yield f"------ the end of what {_title(record, seen)} wrote:"
            yield from lines.last(_OUTPUT)
            yield f"------ all of it: {log}" if log else "------"
        yield from _excerpt(record, seen)


def _title(record: Record, seen: Seen) -> str:
    stage = f"{harmless(seen.step.stage)}: " if seen.step.stage else ""
    return f"[{seen.step.number}/{len(record.steps)}] {stage}{seen.step.text[:_WIDE]}"


def _excerpt(record: Record, seen: Seen) -> Iterator[str]:
    """The instruction in the Dockerfile, marked as BuildKit marks it, with carets beneath the word that is named."""
    lines = [line.rstrip("\r") for line in record.source.removeprefix("\ufeff").split("\n")]
    first, last = seen.step.line, max(seen.step.line, seen.step.end_line)
    if not 0 < first <= len(lines):
        return
    last = min(last, len(lines))
    numbers = [*range(max(1, first - _AROUND), min(len(lines), last + _AROUND) + 1)]
    if last - first >= _INSTRUCTION:
        half = _INSTRUCTION // 2
        numbers = [number for number in numbers if not first + half <= number <= last - half]
    while numbers and not lines[numbers[-1] - 1].strip() and numbers[-1] > last:
        numbers.pop()
    wide = len(str(numbers[-1]))
    word = _named(seen.error)
    yield f"{harmless(record.path)}:{first}"
    before = numbers[0] - 1
    for number in numbers:
        if number != before + 1:
            yield f"{'':>{wide}} | …"
        before = number
        text = harmless(lines[number - 1][:_WIDE])
        inside = first <= number <= last
        yield f"{number:>{wide}} | {'>>>' if inside else '   '} {text}".rstrip()
        if inside and word:
            at = re.search(rf"(?<![\w./-]){re.escape(word)}(?![\w./-])", text)
            if at is not None:
                yield f"{'':>{wide}} |     {' ' * at.start()}{'^' * (at.end() - at.start())}"
                word = ""


def _named(error: str) -> str:
    """The word that an error begins with, as in `greting: not in the context`."""
    word, colon, _ = error.partition(": ")
    return word if colon and word and " " not in word and len(word) < _WIDE else ""


def times(record: Record, saved: float, *, table: bool) -> Iterator[str]:
    """One line of what was done; for those who saw no times beside the steps a table before it, if it can help.

    `saved`: the seconds that the cached steps once took.
    """
    ran, cached = record.with_result(report.RAN), record.with_result(report.CACHED)
    empty = record.with_result(report.EMPTY)
    total = record.ended - record.began
    if table and len(ran) > 1 and total >= _WORTHWHILE:
        yield "    TIME       CPU    LAYER  STEP"
        longest = sorted(ran, key=lambda each: -each.seconds)
        for seen in longest[:_ROWS]:
            cpu = spent(seen.cpu) if seen.cpu >= 0 else ""
            yield f"{spent(seen.seconds):>8}  {cpu:>8}  {size_decimal(seen.size):>7}  {_title(record, seen)}"
        if len(ran) > _ROWS:
            rest = longest[_ROWS:]
            size = size_decimal(sum(seen.size for seen in rest))
            yield f"{spent(sum(seen.seconds for seen in rest)):>8}  {'':>8}  {size:>7}  {len(rest)} more"
    if not record.steps:
        return
    words = [f"{len(ran)} ran"] if ran else []
    if cached:
        words.append(f"{len(cached)} cached" + (f" (that saved {spent(saved)})" if saved >= 0.1 else ""))
    if empty:
        words.append(f"{len(empty)} there already")
    size = f"; {size_decimal(sum(seen.size for seen in ran))} of new layers" if ran else ""
    yield f"{len(record.steps)} steps in {spent(total)}: {', '.join(words)}{size}"
