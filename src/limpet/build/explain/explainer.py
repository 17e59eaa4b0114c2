"""Looks on while a plan is executed: says why each step was cached or not, and remembers what keys were made of."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from limpet.build.explain import compare, parts
from limpet.build.explain.records import Built, Done, Records
from limpet.build.inspector import Inspector
from limpet.build.planning import plan
from limpet.errors import LimpetError
from limpet.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.build.inspector import Looked
    from limpet.build.planning.plan import Plan, Stage
    from limpet.store.store import Store

_LAYER_FILES = 50


class Told(NamedTuple):
    """A step, what came of it, and why: the first reason is the main one."""

    number: int
    title: str
    result: str
    why: tuple[str, ...]


class Explainer(Inspector):
    """`with Explainer(…):` around the execution, also of one that fails: at the end it is remembered, and told."""

    def __init__(
        self,
        store: Store,
        made: Plan,
        directory: str,
        file: str,
        epoch: int,
        *,
        no_cache: bool,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`directory`: the context's, `file`: the Dockerfile's path. Without `say` it only remembers."""
        self._store = store
        self._plan = made
        self._epoch = epoch
        self._no_cache = no_cache
        self._say = say
        self._records = Records(store, directory, file)
        self._lock = threading.Lock()
        self._steps: dict[int, list[Done]] = {}  # by the stage's number
        self._changed: dict[int, int] = {}  # a stage's number → the first of its steps with another key than before
        self._new = False
        self.fetched: dict[str, str] = {}
        """By what each address is known that an ADD took (`Copying.fetched`)."""
        self._told: dict[int, Told] = {}

    def looked_up(self, looked: Looked) -> str:
        done = _done(looked)
        with self._lock:
            before = self._before(looked, done)
            self._steps.setdefault(looked.stage.number, []).append(done)
            if isinstance(looked.step, plan.Copy) and looked.copying is not None:
                urls = (remote.url for remote in looked.step.remotes)
                self.fetched.update(zip(urls, looked.copying.fetched, strict=True))
        why: list[str] = []
        if not looked.used:
            now = parts.of(looked)
            if self._say is not None:
                why = self._why(looked, done, before, now)
            self._records.put(looked.key, looked.parent, now)
        with self._lock:
            if before is None or before.key != done.key:
                self._changed.setdefault(looked.stage.number, looked.number)
            self._new = self._new or not looked.used
            result = "cached" if looked.used else "not cached"
            self._told[looked.number] = Told(looked.number, f"{done.kind} {done.text}", result, tuple(why))
        return why[0] if why else ""

    def made(self, looked: Looked, diff_id: str | None) -> str | None:
        with self._lock:
            steps = self._steps[looked.stage.number]
            steps[:] = [each._replace(ok=True) if each.key == looked.key else each for each in steps]
            if diff_id is None:
                told = self._told[looked.number]
                self._told[looked.number] = told._replace(result="is there already", why=())
        return diff_id

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._finish()

    def _finish(self) -> None:
        stages = {}
        for stage in self._plan.stages:
            steps = self._steps.get(stage.number, [])
            count = sum(not isinstance(step, plan.Note) for step in stage.steps)
            before = self._records.stages.get(stage.title)
            if before is not None and len(steps) < count:  # it failed, or was ended: the rest is as it was
                steps = [*steps, *before.steps[len(steps) :]]
            if steps:
                stages[stage.title] = Built(*self._base(stage), self._epoch, tuple(steps))
        self._records.save(stages)
        if self._new:
            self._records.shrink()
        if self._say is not None:
            for line in self._lines():
                self._say(line)

    def _lines(self) -> Iterator[str]:
        """Why each step was cached or not."""
        age = time.time() - self._records.time
        when = f", beside the build of {duration(age).lower()} ago" if self._records.time else ""
        yield f"Why{when}:"
        for _, told in sorted(self._told.items()):
            yield f"[{told.number}] {told.title}: {told.result}"
            yield from (f"      {each}" for each in told.why)

    def _before(self, looked: Looked, done: Done) -> Done | None:
        """The step of the last build that this one is held against."""
        built = self._records.stages.get(looked.stage.title)
        if built is None:
            return None
        same = [each for each in built.steps if each.kind == done.kind]
        likeness = [_likeness(each, done) for each in same]
        if any(likeness):
            best = max(likeness)
            found = [each for each, like in zip(same, likeness, strict=True) if like == best]
            return min(found, key=lambda each: abs(each.line - done.line))
        place = len(self._steps.get(looked.stage.number, []))
        there = built.steps[place : place + 1]
        return there[0] if there and there[0].kind == done.kind else None

    def _why(self, looked: Looked, done: Done, before: Done | None, now: parts.Parts) -> list[str]:
        if self._no_cache:
            return ["--no-cache"]
        if looked.cached:
            return ["asked to be done again"]
        if before is not None and before.key == done.key:
            return ["its layer was removed since" if before.ok else "it failed the last time"]
        earlier = self._records.get(before.key, before.parent) if before is not None else None
        if before is None or earlier is None:
            beside = self._records.beside(looked.parent, done.kind)
            if beside:
                _, earlier = min(beside, key=lambda each: _distance(each[1], now))
                return compare.differences(earlier, now, self._inside) or ["something else"]
        found = compare.differences(earlier, now, self._inside) if earlier is not None else []
        if before is None:
            if not self._records.stages:
                return ["no earlier build of this Dockerfile is known here"]
            return ["a new step, or a new stage"]
        if before.parent != done.parent:
            found.insert(len(found) if found else 0, self._below(looked))
        if not found:
            return ["something in it differs; what it was before is not known any more"]
        return found

    def _below(self, looked: Looked) -> str:
        """Why what the step stands on is not what it was."""
        stage = looked.stage
        first = self._changed.get(stage.number)
        if first is not None:
            return f"step {first}, which comes before it, is not what it was"
        built = self._records.stages.get(stage.title)
        if built is None:
            return "the step before it is not what it was"
        name, image_id = self._base(stage)
        if built.epoch != self._epoch:
            return f"SOURCE_DATE_EPOCH: {built.epoch} → {self._epoch}"
        if built.base != name:
            return f"the base: {built.base} → {name}"
        if built.base_id != image_id:
            return f"the base {name} is another image: {_short(built.base_id)} → {_short(image_id)}"
        if stage.base.kind == "stage" and (number := self._changed.get(stage.base.stage)) is not None:
            return f"step {number}, of the stage that it stands on, is not what it was"
        return "the steps before it are not what they were"

    def _base(self, stage: Stage) -> tuple[str, str]:
        base = stage.base
        if base.kind == "stage":
            return f"stage {self._plan.stage(base.stage).title}", ""
        return (base.image, base.id) if base.kind == "image" else ("scratch", "")

    def _inside(self, one: str, two: str) -> list[str]:
        from limpet.build.reproducible.differ import Differ

        if not one or not two or one == two:
            return []
        try:
            found = []
            with Differ(self._store, one, two) as differ:
                for each in differ.differences():
                    kind = {"first only": "removed", "second only": "added"}.get(each.kind, each.kind)
                    found.append(f"{each.path}: {kind}")
                    if len(found) == _LAYER_FILES:
                        break
            return found
        except (OSError, LimpetError):
            return []  # the earlier one was removed


def _done(looked: Looked) -> Done:
    kind = {plan.Run: "RUN", plan.Copy: "COPY"}.get(type(looked.step), "WORKDIR")
    place = looked.step.place
    text = place.text.partition("\n")[0].partition(" ")[2].strip()
    return Done(looked.key, looked.parent, kind, place.line, text, looked.used)


def _likeness(one: Done, two: Done) -> int:
    """How likely both are one step: 0 if they have nothing in common."""
    if one.key == two.key:
        return 5
    same_text, same_parent = one.text == two.text, one.parent == two.parent
    if same_text:
        return 4 if same_parent else 3
    return 2 if same_parent else 1 if one.line == two.line else 0


def _distance(one: parts.Parts, two: parts.Parts) -> int:
    """How many parts differ."""
    named = sum(one.named.get(name) != two.named.get(name) for name in {*one.named, *two.named})
    return named + len({*one.files} ^ {*two.files})


def _short(image_id: str) -> str:
    return image_id.partition(":")[2][:12]
