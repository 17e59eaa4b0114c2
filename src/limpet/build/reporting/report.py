"""What a build tells of itself while it runs: events, as plain data, of which a renderer makes lines, a picture, JSON.

    Planned     once: the Dockerfile and the steps that will be shown, numbered from 1
    Began       a step is looked at: its key is computed
    Making      it is not in the cache and is done now
    Output      bytes of a RUN step
    Ended       it is done, was cached, had nothing to do, or failed
    Transfer    something is fetched, for a step or (step 0) for all of them
    Note        a line for the reader: a warning of the checks, a remark

All are tuples of str, int, float and bytes: they can be pickled, and `encode`d as a line of JSON, so that a step in
another process tells through a pipe. `at` is CLOCK_MONOTONIC in seconds, which processes of one machine share.
Each step's events come in the order above; those of several steps may be mixed.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from limpet.build.language.lines import printable
from limpet.build.planning import plan
from limpet.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.planning.plan import Plan

_LONGEST = 2000
"""Characters of an instruction that are shown."""

RAN, CACHED, EMPTY, FAILED, CANCELLED = "ran", "cached", "empty", "failed", "cancelled"
"""How a step ends. EMPTY: what it would make is there already. CANCELLED: another one failed, or Ctrl-C."""


class Step(NamedTuple):
    """A step that is shown: one that makes a layer. `number` counts from 1 over all stages of the plan.

    `text` is the instruction's first line, harmless on a terminal; `line` and `column` its place in the Dockerfile,
    `end_line` the last one of it.
    `inputs` are the numbers of the steps that it stands on, the one before it and those of stages that it takes from.
    """

    number: int
    stage: str
    kind: str
    text: str
    line: int
    column: int
    end_line: int = 0
    inputs: tuple[int, ...] = ()


class Planned(NamedTuple):
    """`source` is the Dockerfile's text; `stages` how many of them are built."""

    at: float
    path: str
    source: str
    stages: int
    steps: tuple[Step, ...]


class Began(NamedTuple):
    at: float
    step: int


class Making(NamedTuple):
    """`why` it is not in the cache, if that is known."""

    at: float
    step: int
    why: str = ""


class Output(NamedTuple):
    """`stream`: 1 standard output, 2 standard error. Pieces end anywhere, in the middle of a character too."""

    at: float
    step: int
    stream: int
    data: bytes


class Ended(NamedTuple):
    """`result` is RAN, CACHED, EMPTY, FAILED or CANCELLED; `error` one line.

    `layer` is the diff ID of its layer ("" for none), `size` that layer's bytes. `cpu`: seconds of all its processes,
    -1 if not counted.
    """

    at: float
    step: int
    result: str
    error: str = ""
    layer: str = ""
    size: int = 0
    cpu: float = -1.0


class Transfer(NamedTuple):
    """`done` and `total` (-1: not known) in bytes; `status` is "" until its last word ("done", "already here")."""

    at: float
    step: int
    key: str
    label: str
    done: int
    total: int
    status: str = ""


class Note(NamedTuple):
    """`rule` is a build check's name, "" for a remark. `warning`: worth reading even if all goes well."""

    at: float
    step: int
    text: str
    warning: bool = False
    rule: str = ""
    url: str = ""
    line: int = 0


Event = Planned | Began | Making | Output | Ended | Transfer | Note

_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (Planned, Began, Making, Output, Ended, Transfer, Note)
}


class Report(Progress):
    """Takes the events of a build; nothing is shown by this one. `emit` may be called from any thread."""

    def __init__(self) -> None:
        self._transfers: dict[str, Transfer] = {}
        self._transfer_lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """One event. What it costs is paid by the build, so it is little."""

    def say(self, text: str, *, warning: bool = False, rule: str = "", url: str = "", line: int = 0) -> None:
        self.emit(Note(now(), 0, text, warning, rule, url, line))

    # What fetches tells by `Progress`.

    def begin(self, key: str, label: str, total: int | None = None) -> None:
        event = Transfer(now(), 0, key, label, 0, -1 if total is None else total)
        with self._transfer_lock:
            self._transfers[key] = event
        self.emit(event)

    def advance(self, key: str, count: int) -> None:
        with self._transfer_lock:
            before = self._transfers.get(key) or Transfer(0.0, 0, key, key, 0, -1)
            event = self._transfers[key] = before._replace(at=now(), done=before.done + count)
        self.emit(event)

    def finish(self, key: str, status: str) -> None:
        with self._transfer_lock:
            before = self._transfers.pop(key, None) or Transfer(0.0, 0, key, key, 0, -1)
        self.emit(before._replace(at=now(), status=status))

    def note(self, line: str) -> None:
        self.say(line)


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def steps(made: Plan, ends: Mapping[int, int] | None = None) -> dict[tuple[int, int], Step]:
    """The steps that are shown, in order: (stage's number, place in its steps) → step.

    Those of which the only trace is the config have nothing to tell. `ends`: where an instruction begins → its last
    line.
    """
    ends = ends or {}
    found: dict[tuple[int, int], Step] = {}
    last: dict[int, int] = {}  # a stage's number → its last step, that of the stage below if it has none
    number = 0
    for stage in made.stages:
        before = last.get(stage.base.stage, 0) if stage.base.kind == "stage" else 0
        for place, step in enumerate(stage.steps):
            if isinstance(step, plan.Note):
                continue
            number += 1
            origins = [step.origin] if isinstance(step, plan.Copy) else []
            if isinstance(step, plan.Run):
                origins = [each.origin for each in step.mounts]
            inputs = {before, *(last.get(origin.stage, 0) for origin in origins if origin.kind == "stage")} - {0}
            at = step.place
            text = printable(at.text.partition("\n")[0][:_LONGEST])
            title = stage.title if len(made.stages) > 1 else ""
            kind = {plan.Copy: "copy", plan.Run: "run"}.get(type(step), "workdir")
            found[stage.number, place] = Step(
                number, title, kind, text, at.line, at.column, ends.get(at.line, at.line), tuple(sorted(inputs))
            )
            before = number
        last[stage.number] = before
    return found


def encode(event: Event) -> bytes:
    """A line of JSON, with its line feed."""
    fields = event._asdict()
    if isinstance(event, Output):
        fields["data"] = event.data.decode("latin-1")
    return json.dumps([type(event).__name__, *fields.values()]).encode() + b"\n"


def decode(line: bytes) -> Event:
    """What `encode` made. Raises ValueError, or TypeError for fields that are missing."""
    name, *fields = json.loads(line)
    kind = _KINDS.get(name)
    if kind is None:
        raise ValueError(f"no event {name}")
    if kind is Planned:
        at, path, source, stages, rows = fields
        return Planned(at, path, source, stages, tuple(Step._make([*row[:-1], tuple(row[-1])]) for row in rows))
    if kind is Output:
        fields[-1] = fields[-1].encode("latin-1")
    return kind(*fields)
