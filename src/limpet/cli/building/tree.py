"""A build on a terminal: what is done stays as a line, below it stands what goes on, by stage, with its last output.

A thread draws ten times a second, so that times run on while a step says nothing.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from limpet.build.reporting import report
from limpet.cli.building.screen import Lines, Screen, cut, harmless
from limpet.units import size_decimal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.build.reporting.record import Fetched, Record, Seen
    from limpet.build.reporting.report import Event

_PAUSE = 0.1
"""Seconds between two frames."""

_OUTPUT = 6
"""Lines of output of a step that are shown at most."""

_BAR = 20

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _CYAN = "1", "2", "31", "32", "33", "36"


class Tree:
    def __init__(self, record: Record, lock: threading.Lock, fd: int = 2) -> None:
        """`lock` is held by who calls `show`: the thread that draws takes it too."""
        self._record = record
        self._screen = Screen(fd)
        self._above: list[str] = []
        self._outputs: dict[int, Lines] = {}
        self._lock = lock
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, event: Event, seen: Seen | None) -> None:
        if isinstance(event, report.Output):
            self._outputs.setdefault(event.step, Lines(_OUTPUT)).feed(event.data)
        elif isinstance(event, report.Ended) and seen is not None:
            self._outputs.pop(event.step, None)
            self._above.append(self._ended(seen))
        elif isinstance(event, report.Note):
            text = f"[{event.step}/{len(self._record.steps)}] {event.text}" if seen is not None else event.text
            text = harmless(text)
            self._above.append(self._screen.coloured(f"warning: {text}", _YELLOW) if event.warning else text)
        elif isinstance(event, report.Transfer) and event.status:
            size = f" ({size_decimal(event.done)})" if event.done else ""
            self._above.append(f"{harmless(event.label)}: {event.status}{size}")
        if self._thread is None:
            self._thread = threading.Thread(target=self._draw_on, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Draws what is left, without the region."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock, suppress(OSError):
            self._frame(())

    def _draw_on(self) -> None:
        try:
            while not self._stopped.wait(_PAUSE):
                with self._lock:
                    self._frame(self._region())
        except OSError:
            pass  # the terminal is gone; the build is not

    def _frame(self, region: Iterator[tuple[str, str]] | tuple[()]) -> None:
        above, self._above = self._above, []
        self._screen.draw(above, region)

    def _ended(self, seen: Seen) -> str:
        columns, _ = self._screen.size()
        mark, colour = {
            report.RAN: ("✓", _GREEN),
            report.CACHED: ("✓", _CYAN),
            report.EMPTY: ("✓", _CYAN),
            report.FAILED: ("✗", _RED),
        }.get(seen.result, ("-", _DIM))
        words = {report.CACHED: "cached", report.EMPTY: "there", report.CANCELLED: "cancelled"}
        time = words.get(seen.result) or spent(seen.seconds)
        size = size_decimal(seen.size) if seen.result == report.RAN else ""
        text = cut(f"{time:>9} {size:>7} {self._title(seen)}", max(columns - 3, 8))
        return f"{self._screen.coloured(mark, colour)} {text}"

    def _title(self, seen: Seen) -> str:
        stage = f"{harmless(seen.step.stage)}: " if seen.step.stage else ""
        return f"[{seen.step.number}/{len(self._record.steps)}] {stage}{seen.step.text}"

    # The region.

    def _region(self) -> Iterator[tuple[str, str]]:
        _, rows = self._screen.size()
        now = report.now()
        room = rows - 2  # the header, and the row where the cursor stands
        if room < 0:
            return
        yield self._header(now), _BOLD
        parts = [*self._transfers(now), *self._stages(now)]
        outputs = sum(isinstance(each, Lines) for each in parts)
        free = room - (len(parts) - outputs)
        if free < 0:  # not even a row for each: the first ones, and how many there are
            rest = [each for each in parts if not isinstance(each, Lines)]
            yield from rest[: max(room - 1, 0)]
            if room:
                yield f"  … and {len(rest) - room + 1} more", _DIM
            return
        for each in parts:
            if isinstance(each, Lines):
                yield from ((f"    │ {line}", _DIM) for line in each.last(min(_OUTPUT, free // outputs)))
            else:
                yield each

    def _header(self, now: float) -> str:
        steps = self._record.steps.values()
        done = sum(seen.result != "" for seen in steps)
        cached = sum(seen.result == report.CACHED for seen in steps)
        text = f"Building {spent(now - self._record.began)}"
        if steps:
            text += f", {done} of {len(steps)} steps" + (f", {cached} cached" if cached else "")
        return text

    def _transfers(self, now: float) -> Iterator[tuple[str, str]]:
        for each in self._record.open.values():
            yield f"  {_transfer(each, now)}", ""

    def _stages(self, now: float) -> Iterator[tuple[str, str] | Lines]:
        """Each stage in which something goes on, its running steps, and what they wrote."""
        several = self._record.stages > 1
        stage = None
        for seen in self._record.running():
            if several and seen.step.stage != stage:
                stage = seen.step.stage
                of = [each for each in self._record.steps.values() if each.step.stage == stage]
                yield f" {harmless(stage)}: {sum(each.result != '' for each in of)} of {len(of)} done", ""
            elapsed = spent(now - seen.began)
            yield f"• {elapsed:>9}         [{seen.step.number}/{len(self._record.steps)}] {seen.step.text}", _CYAN
            if seen.step.number in self._outputs:
                yield self._outputs[seen.step.number]


def spent(seconds: float) -> str:
    """ "0.31 s", "12.3 s", "2 m 05 s", "1 h 02 m"."""
    if seconds < 10:
        return f"{max(seconds, 0):.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} m {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"


def _transfer(each: Fetched, now: float) -> str:
    last = each.last
    rate = f"{size_decimal(last.done / max(now - each.began, 0.1))}/s"
    if last.total <= 0:
        return f"{harmless(last.label)}  {size_decimal(last.done)}  {rate}"
    filled = min(_BAR, _BAR * last.done // last.total)
    bar = "━" * filled + "─" * (_BAR - filled)
    return f"{harmless(last.label)}  {bar}  {size_decimal(last.done)} of {size_decimal(last.total)}  {rate}"
