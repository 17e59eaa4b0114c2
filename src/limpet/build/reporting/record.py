"""A build as it was seen: what the events of `report` add up to. Tables, pictures and error reports are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from limpet.build.reporting import report

if TYPE_CHECKING:
    from limpet.build.reporting.report import Event, Step, Transfer

TAIL = 64 << 10
"""Bytes of a step's output that are kept in memory: the last ones."""


@dataclass(slots=True)
class Seen:
    """One step. Times are CLOCK_MONOTONIC in seconds; `result` is "" as long as it goes on."""

    step: Step
    began: float = 0.0
    making: float | None = None
    ended: float = 0.0
    result: str = ""
    why: str = ""
    error: str = ""
    layer: str = ""
    size: int = 0
    cpu: float = -1.0
    written: int = 0
    """Bytes of output."""
    tail: bytearray = field(default_factory=bytearray)

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended - self.began)


@dataclass(slots=True)
class Fetched:
    """One transfer; `ended` is 0 as long as it goes on."""

    last: Transfer
    began: float
    ended: float = 0.0


class Record:
    """`take` each event, in the order in which they come; not from several threads at once."""

    def __init__(self) -> None:
        self.began = self.ended = report.now()
        self.path = ""
        self.source = ""
        self.stages = 1
        self.steps: dict[int, Seen] = {}
        self.fetched: list[Fetched] = []
        self.open: dict[str, Fetched] = {}

    def take(self, event: Event) -> Seen | None:
        """The step that it is about, None if it is about none of those that were planned."""
        self.ended = max(self.ended, event.at)
        if isinstance(event, report.Planned):
            self.path, self.source, self.stages = event.path, event.source, event.stages
            self.steps = {step.number: Seen(step) for step in event.steps}
            return None
        if isinstance(event, report.Transfer):
            self._transfer(event)
        seen = self.steps.get(event.step)
        if seen is None:
            return None
        if isinstance(event, report.Began):
            seen.began = event.at
        elif isinstance(event, report.Making):
            seen.making, seen.why = event.at, event.why
        elif isinstance(event, report.Output):
            seen.written += len(event.data)
            seen.tail += event.data[-TAIL:]
            if len(seen.tail) > 2 * TAIL:
                del seen.tail[:-TAIL]
        elif isinstance(event, report.Ended):
            seen.began = seen.began or event.at
            seen.ended, seen.result, seen.error = event.at, event.result, event.error
            seen.layer, seen.size, seen.cpu = event.layer, event.size, event.cpu
            if event.result != report.FAILED:
                seen.tail = bytearray()
        return seen

    def _transfer(self, event: Transfer) -> None:
        there = self.open.get(event.key)
        if there is None:
            there = self.open[event.key] = Fetched(event, event.at)
            self.fetched.append(there)
        there.last = event
        if event.status:
            there.ended = event.at
            del self.open[event.key]

    def running(self) -> list[Seen]:
        return [seen for seen in self.steps.values() if seen.began and not seen.result]

    def with_result(self, *results: str) -> list[Seen]:
        return [seen for seen in self.steps.values() if seen.result in results]
