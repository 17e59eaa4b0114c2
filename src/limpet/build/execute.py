"""A plan to an image's config and layers: the way into `solver`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from limpet.build.inspector import Inspector
from limpet.build.reporting import report
from limpet.build.solver import schedule
from limpet.build.solver import stage as stages
from limpet.build.solver.job import Job, Runners
from limpet.errors import NotFound
from limpet.frozen import dataclass
from limpet.layers import durable
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from limpet.build.caching.steps import StepCache
    from limpet.build.copying.context import Tree
    from limpet.build.planning.plan import Plan, Stage
    from limpet.build.reporting.report import Report
    from limpet.build.steps.runner import Runner
    from limpet.build.steps.stepmounts import Given
    from limpet.store.store import Store

_PLATFORM = ("architecture", "os", "variant", "os.version", "os.features")


@dataclass(frozen=True, slots=True)
class Made:
    """What a plan came to: the config blob and the layers, bottom first. No image of the store yet."""

    config: bytes
    layers: tuple[str, ...]


def execute(
    store: Store,
    made: Plan,
    context: Tree,
    *,
    labels: Mapping[str, str],
    epoch: int,
    cache: StepCache,
    given: Given,
    to: Report,
    inspector: Inspector | None = None,
    runner: Runner | None = None,
    named: Callable[[str], Tree] | None = None,
) -> tuple[Made, ...]:
    """Runs the plan: what its targets came to, in their order. The caller holds a lease. Raises LimpetError.

    What happens is told `to` the report; `cache` is asked for each step and told of each; the `inspector` may have a
    say. `runner` was made earlier; it is closed here. `named` opens a context that the plan has a name for. `epoch`, in
    Unix seconds, is the time of every file and of the image itself, unless a RUN step sets an earlier one.
    """
    numbers = {key: step.number for key, step in report.steps(made).items()}
    runners = Runners(runner)
    try:
        inspector, named = inspector or Inspector(), named or _none
        job = Job(
            store, made, context, epoch, cache, given, to, numbers, inspector, runners, named, stages.bases(store, made)
        )
        schedule.solve(job, given.parallel)
    finally:
        runners.close()
    durable.settle(store)  # one sync for the layers of all steps
    found = []
    for target in made.results:
        state = job.states[target.number]
        config = image_config(target, state.document, state.layers, state.history, labels, made, epoch)
        found.append(Made(config, tuple(state.layers)))
    return tuple(found)


def _none(name: str) -> Tree:
    raise NotFound(f"the context {name} was not given", f"--build-context {name}=SOURCE")


def image_config(
    stage: Stage,
    base: dict[str, Any],
    layers: list[str],
    history: list[dict[str, Any]],
    labels: Mapping[str, str],
    made: Plan,
    epoch: int,
) -> bytes:
    """The config blob of the image (OCI image spec, config.md)."""
    inner = dict(stage.config)
    if labels:
        inner["Labels"] = {**(inner.get("Labels") or {}), **labels}
    known = {key: base[key] for key in _PLATFORM if key in base}
    config = {
        **(known or platforms.parse(stage.platform or made.platform).to_dict()),
        "created": stages.timestamp(epoch),
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": history,
    }
    if stage.author:
        config["author"] = stage.author
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
