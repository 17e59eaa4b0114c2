"""Stages at once: each has a thread of its own, and waits where it takes something from another one.

A stage begins when the one that it stands on is done; a step waits for the stages that it copies or mounts from, not
the whole stage. How many steps are done at the same time is limited, waiting is not. Each thread has a `Store` of its
own, since a connection to the database belongs to one thread. The first error ends all: steps that run are killed,
and that error is the one that is reported.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.planning import plan
from limpet.build.solver import stage as stages
from limpet.build.steps.cancelled import Cancelled
from limpet.layers.driver import keeping
from limpet.store.store import Store

if TYPE_CHECKING:
    from limpet.build.planning.plan import Plan, Stage, Step
    from limpet.build.solver.job import Job

_PATIENCE = 0.7
"""Seconds for threads to notice that Ctrl-C ended all."""

_LONGEST = 10.0
"""Seconds for them to notice that another one failed: who waits for a server does not."""


def solve(job: Job, parallel: int) -> None:
    """All stages of the plan. `parallel`: steps at once, 0 for what suits this machine. Raises LimpetError."""
    limit = parallel or max(4, os.cpu_count() or 1)
    if limit == 1 or job.given.debug or _is_chain(job.plan):  # the debug shell needs the main thread
        with keeping(job.store):
            for stage in job.plan.stages:
                stages.run(job, stage)
        return
    if any(isinstance(step, plan.Run) for stage in job.plan.stages for step in stage.steps):
        job.runners.get()  # it forks, which is better done by a process of one thread
    _Schedule(job, limit).run()


def needs(step: Step) -> set[int]:
    """The numbers of the stages that a step takes from."""
    if isinstance(step, plan.Copy):
        origins = [step.origin]
    elif isinstance(step, plan.Run):
        origins = [each.origin for each in step.mounts]
    else:
        origins = []
    return {origin.stage for origin in origins if origin.kind == "stage"}


def _is_chain(made: Plan) -> bool:
    """Whether no two stages could be done at once: each stands on the one before it."""
    return all(
        stage.base.kind == "stage" and stage.base.stage == before.number
        for before, stage in zip(made.stages, made.stages[1:], strict=False)
    )


class _Schedule:
    def __init__(self, job: Job, limit: int) -> None:
        self._job = job
        self._slots = threading.Semaphore(limit)
        self._changed = threading.Condition()
        self._done: set[int] = set()
        self._error: BaseException | None = None
        self._stopping = False

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._stage, args=(stage,), name=stage.title, daemon=True)
            for stage in self._job.plan.stages
        ]
        for thread in threads:
            thread.start()
        try:
            with self._changed:
                while len(self._done) < len(threads) and self._error is None:
                    self._changed.wait()
        except BaseException:
            self._stop()
            for thread in threads:
                thread.join(_PATIENCE / len(threads))
            raise
        deadline = time.monotonic() + _LONGEST
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._error is not None:
            raise self._error

    def _stage(self, stage: Stage) -> None:
        store = Store(self._job.store.root, self._job.store.run)
        store.stopped = self._job.runners.check
        try:
            if stage.base.kind == "stage":
                self._wait({stage.base.stage})
            with keeping(store):
                stages.run(replace(self._job, store=store), stage, self)
        except Cancelled:
            pass
        except BaseException as e:
            with self._changed:
                if self._error is None and not self._stopping:
                    self._error = e
            self._stop()
        else:
            with self._changed:
                self._done.add(stage.number)
                self._changed.notify_all()
        finally:
            store.close()

    def enter(self, step: Step) -> None:
        """Before a step: returns when it may be done. Raises Cancelled."""
        self._wait(needs(step))
        self._slots.acquire()
        if self._stopping:
            self._slots.release()
            raise Cancelled

    def leave(self) -> None:
        self._slots.release()

    def _wait(self, numbers: set[int]) -> None:
        with self._changed:
            while not numbers <= self._done and not self._stopping:
                self._changed.wait()
        if self._stopping:
            raise Cancelled

    def _stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._job.runners.cancel()
