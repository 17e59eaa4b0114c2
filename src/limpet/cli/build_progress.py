"""How a build shows itself, of the events of `build.report`. All of it goes to standard error."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from limpet.build import report

if TYPE_CHECKING:
    from limpet.build.report import Event, Step
    from limpet.progress import Progress


class Lines(report.Report):
    """A line when a step begins and when it ends; what it writes goes through as it is."""

    def __init__(self, transfers: Progress, *, quiet: bool = False) -> None:
        """`transfers` shows what is fetched. `quiet`: only what steps write."""
        super().__init__()
        self._transfers_shown = transfers
        self._quiet = quiet
        self._steps: dict[int, Step] = {}
        self._made: dict[int, float] = {}
        self._lock = threading.Lock()

    def begin(self, key: str, label: str, total: int | None = None) -> None:
        self._transfers_shown.begin(key, label, total)

    def advance(self, key: str, count: int) -> None:
        self._transfers_shown.advance(key, count)

    def finish(self, key: str, status: str) -> None:
        self._transfers_shown.finish(key, status)

    def note(self, line: str) -> None:
        self._transfers_shown.note(line)

    def emit(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, report.Output):
                _write(event.data)
            elif isinstance(event, report.Planned):
                self._steps = {step.number: step for step in event.steps}
            elif isinstance(event, report.Making):
                self._made[event.step] = event.at
                if self._steps[event.step].kind != "workdir":
                    self._say(self._title(event.step))
            elif isinstance(event, report.Ended):
                self._end(event)
            elif isinstance(event, report.Note):
                self._say(f"{'warning: ' if event.warning else ''}{event.text}")

    def _end(self, event: report.Ended) -> None:
        if event.result == report.CACHED:
            self._say(f"{self._title(event.step)}: cached")
        elif event.result == report.EMPTY:
            self._say(f"{self._title(event.step)}: is there already")
        elif event.result == report.RAN:
            if self._steps[event.step].kind == "workdir":
                self._say(self._title(event.step))  # only now it is known to have had anything to do
            self._say(f"{self._head(event.step)}ran in {event.at - self._made[event.step]:.1f} s")

    def _head(self, number: int) -> str:
        stage = self._steps[number].stage
        return f"[{number}/{len(self._steps)}] " + (f"{stage}: " if stage else "")

    def _title(self, number: int) -> str:
        return self._head(number) + self._steps[number].text

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]
