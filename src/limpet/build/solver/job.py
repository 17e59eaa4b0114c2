"""What the stages of one build share, and what each of them has come to."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limpet.build.steps.cancelled import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limpet.build.caching.steps import StepCache
    from limpet.build.copying.context import Tree
    from limpet.build.inspector import Inspector
    from limpet.build.planning.plan import Plan
    from limpet.build.reporting.report import Report
    from limpet.build.steps.runner import Runner
    from limpet.build.steps.stepmounts import Given
    from limpet.store.store import Store


@dataclass
class State:
    """A stage as far as it has come. `document` is the base image's config."""

    layers: list[str]
    key: str
    document: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """`epoch` in Unix seconds. `numbers`: of the steps that are shown, by the stage's number and the step's place.

    `states`: of the stages that have begun, by their number. `named` opens a named context, by its canonical name.
    `bases`: of the images that stages stand on, the config and the layers by the image's id.
    """

    store: Store
    plan: Plan
    context: Tree
    epoch: int
    cache: StepCache
    given: Given
    report: Report
    numbers: dict[tuple[int, int], int]
    inspector: Inspector
    runners: Runners
    named: Callable[[str], Tree]
    bases: Mapping[str, tuple[dict[str, Any], Sequence[str]]]
    states: dict[int, State] = field(default_factory=dict)
    fetching: threading.Lock = field(default_factory=threading.Lock)
    """What is fetched for steps is fetched by one thread at a time."""


class Runners:
    """The process that starts RUN steps, made when the first one is to be run if nobody made it before."""

    def __init__(self, runner: Runner | None) -> None:
        self._runner = runner
        self._lock = threading.Lock()
        self._cancelled = False

    def get(self) -> Runner:
        with self._lock:
            if self._runner is None:
                from limpet.build.steps.runner import Runner

                self._runner = Runner()
            return self._runner.ready()

    def check(self) -> None:
        """Raises Cancelled after `cancel`."""
        if self._cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """Kills what runs, and what is started from now on."""
        with self._lock:
            self._cancelled = True
            if self._runner is not None:
                self._runner.cancel()

    def close(self) -> None:
        """Ends what still runs."""
        if self._runner is not None:
            self._runner.close()
