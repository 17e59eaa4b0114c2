"""One stage: its steps, in order, each found by its key or done, and told to the report."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from limpet.build.copying.copy import Copying
from limpet.build.copying.place import write_directory
from limpet.build.inspector import Looked
from limpet.build.planning import plan
from limpet.build.reporting import report
from limpet.build.solver import keys, origins
from limpet.build.solver.job import State
from limpet.build.solver.once import Alone
from limpet.build.steps import foreign
from limpet.build.steps.cancelled import Cancelled
from limpet.build.steps.stepmounts import StepMounts
from limpet.errors import LimpetError
from limpet.images import catalog
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limpet.build.planning.plan import Copy, Directory, Plan, Run, Stage, Step
    from limpet.build.solver.job import Job
    from limpet.build.steps.stepmounts import Bound
    from limpet.store.store import Store

_HISTORY = "limpet.build.v1"


class Turns(Protocol):
    """Says when a step may be done."""

    def enter(self, step: Step) -> None:
        """Raises Cancelled when it may not any more."""

    def leave(self) -> None: ...


def run(job: Job, stage: Stage, turns: Turns | None = None) -> None:
    """Leaves what the stage came to in `job.states`. Raises LimpetError, with the place in the Dockerfile."""
    state = job.states[stage.number] = _begin(job, stage)
    for place, step in enumerate(stage.steps):
        if turns is not None:
            turns.enter(step)
        try:
            _step(job, stage, state, step, job.numbers.get((stage.number, place), 0))
        except LimpetError as e:
            message = step.place.located(job.plan.path, e.message)
            raise type(e)(message, e.hint, exit_code=e.exit_code) from e
        finally:
            if turns is not None:
                turns.leave()


def bases(store: Store, made: Plan) -> dict[str, tuple[dict[str, Any], Sequence[str]]]:
    """What `Job.bases` is. Looked up before the first step: who removes an image meanwhile takes its name only, as its
    layers have to wait for the lease."""
    ids = {stage.base.id for stage in made.stages if stage.base.kind == "image"}
    return {image_id: (catalog.find(store, image_id).config, catalog.layers(store, image_id)) for image_id in ids}


def _begin(job: Job, stage: Stage) -> State:
    base = stage.base
    if base.kind == "stage":
        before = job.states[base.stage]
        return State(list(before.layers), before.key, before.document, list(before.history))
    if base.kind == "scratch":
        return State([], keys.key("scratch", str(job.epoch)), {})
    config, layers = job.bases[base.id]
    return State(list(layers), keys.key(base.id, str(job.epoch)), config, list(config.get("history") or []))


def _step(job: Job, stage: Stage, state: State, step: Step, number: int) -> None:
    """One step, told from its begin to its end. `number`: as it is shown, 0 if it isn't."""
    entry: dict[str, Any] = {"created": timestamp(job.epoch), "created_by": step.created_by, "comment": _HISTORY}
    state.history.append(entry)
    if isinstance(step, plan.Note):
        entry["empty_layer"] = True
        return
    emit, before = job.report.emit, state.key
    emit(report.Began(report.now(), number))
    try:
        done = _done(job, stage, state, step, number)
    except LimpetError as e:
        emit(report.Ended(report.now(), number, report.FAILED, e.message))
        raise
    except BaseException as e:
        kind = report.CANCELLED if isinstance(e, KeyboardInterrupt | Cancelled) else report.FAILED
        emit(report.Ended(report.now(), number, kind, str(e)))
        raise
    # The next step depends on what is there, not on how it came to be: a step that made the same again leaves the rest
    # cached, and a layer is never put on another one than it was made on.
    state.key = keys.key(before, done.layer) if done.layer else before
    if not done.layer:
        entry["empty_layer"] = True
        emit(report.Ended(report.now(), number, done.result))
        return
    state.layers.append(done.layer)
    row = job.store.db.row("SELECT size FROM layer WHERE diff_id = ?", done.layer)
    size = row[0] if row is not None else 0
    emit(report.Ended(report.now(), number, done.result, layer=done.layer, size=size, cpu=done.cpu))


class _Done(NamedTuple):
    """How a step ended (`report`'s words), its layer ("" for none), and the processor's seconds (-1: not counted)."""

    result: str
    layer: str = ""
    cpu: float = -1.0


def _done(job: Job, stage: Stage, state: State, step: Copy | Run | Directory, number: int) -> _Done:
    """The state has its key afterwards."""
    with ExitStack() as open_until_done:
        ready = _prepared(job, stage, state, step, number, open_until_done)
        parent, state.key = state.key, keys.key(state.key, ready.inputs)
        linked = isinstance(step, plan.Copy) and step.link
        key = keys.linked(job.epoch, ready.inputs) if linked else state.key
        what = step.created_by or step.place.text
        found, used = job.cache.find(stage.number, stage.name, key, state.layers, what)
        if not used and not job.cache.ignores(stage.number, stage.name):
            text = f"step {number}: is being done by another build or stage: waiting for what comes of it"
            alone = Alone(job.store, key, lambda: job.report.say(text), job.runners.check)
            if open_until_done.enter_context(alone):
                found, used = job.cache.find(stage.number, stage.name, key, state.layers, what)
        looked = Looked(stage, step, number, parent, key, found, used, ready.copying, ready.bound)
        why = job.inspector.looked_up(looked)
        if used:
            return _Done(report.CACHED, found)
        job.report.emit(report.Making(report.now(), number, why))
        made = ready.make()
        diff_id, cpu = made if isinstance(made, tuple) else (made, -1.0)
        diff_id = job.inspector.made(looked, diff_id)
        if diff_id is None:
            return _Done(report.EMPTY)
        job.cache.keep(stage.number, key, state.layers, diff_id, what)
        return _Done(report.RAN, diff_id, cpu)


class _Ready(NamedTuple):
    """A step's inputs for its key, and what makes its layer: the diff ID, None if there is nothing to do.

    Of a RUN the seconds of processor time too.
    """

    inputs: str
    make: Callable[[], tuple[str, float] | str | None]
    copying: Copying | None = None
    bound: Mapping[int, Bound] = {}


def _prepared(
    job: Job, stage: Stage, state: State, step: Copy | Run | Directory, number: int, stack: ExitStack
) -> _Ready:
    if isinstance(step, plan.Copy):
        tree = job.context
        if step.origin.kind != "context" or step.origin.context:
            tree = stack.enter_context(closing(origins.open_tree(job, step.origin)))
        added = origins.added(job, step)
        copying = stack.enter_context(closing(Copying(job.store, state.layers, step, tree, job.epoch, added)))
        return _Ready(keys.copy_inputs(copying.digest()), copying.write, copying)
    if isinstance(step, plan.Directory):
        path, user = step.path, step.user
        inputs = keys.directory_inputs(step)
        return _Ready(inputs, lambda: write_directory(job.store, state.layers, path, user, job.epoch))
    run_it, bound = step, origins.bounds(job, step)
    inputs = keys.run_inputs(step, state.document.get("architecture"), bound)
    return _Ready(inputs, lambda: _run(job, stage, state, run_it, bound, number), bound=bound)


def _run(job: Job, stage: Stage, state: State, step: Run, bound: dict[int, Bound], number: int) -> tuple[str, float]:
    from limpet.build.steps.run import run_step  # a build that finds all in the cache needs no containers

    platform = platforms.parse(stage.platform or job.plan.platform)
    foreign.check(str(state.document.get("architecture") or platform.architecture))

    def output(stream: int, data: bytes) -> None:
        job.report.emit(report.Output(report.now(), number, stream, data))

    def say(text: str, *, warning: bool = False) -> None:
        job.report.emit(report.Note(report.now(), number, text, warning, line=step.place.line))

    runner, debug = job.runners.get(), job.given.debug
    with StepMounts(job.store, step, bound, job.given, say) as ready:
        return run_step(
            job.store, runner, state.layers, step, state.document, job.epoch, ready, output,
            debug=debug, memory=job.given.in_memory(number),
        )  # fmt: skip


def timestamp(epoch: int) -> str:
    """As image configs have it (RFC 3339)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
