"""A plan to an image, one step after another. Steps that make a layer are keyed by everything they depend on.

The key of a step is SHA-256 over the key of the step before it (the first one's is the base image's id and the epoch),
the step itself, and for COPY the names, modes, owners and contents of the files. Times are not in it, and owners of
context files neither: the same inputs give the same bytes. A key stays valid as long as its layer does (table
`build_step`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import posixpath
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limpet.build import plan, refusals, report
from limpet.build.context import Tree, escaped
from limpet.build.copy import Copying
from limpet.build.place import write_directory
from limpet.build.stepmounts import Bound, StepMounts
from limpet.errors import LimpetError
from limpet.images import catalog, ensure
from limpet.layers import durable
from limpet.layers.driver import driver
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.plan import Copy, Origin, Plan, Run, Stage, Step
    from limpet.build.report import Report
    from limpet.build.stepmounts import Given
    from limpet.images.catalog import Image
    from limpet.progress import Progress
    from limpet.store.store import Store

_PLATFORM = ("architecture", "os", "variant", "os.version", "os.features")
_HISTORY = "limpet.build.v1"


@dataclass
class _State:
    """A stage as far as it has come. `document` is the base image's config."""

    layers: list[str]
    key: str
    document: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)


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
    no_cache: bool,
    given: Given,
    to: Report,
) -> Made:
    """Runs the plan. The caller holds a lease. Raises LimpetError.

    What happens is told `to` the report. `epoch`, in Unix seconds, is the time of every file and of the image itself,
    unless a RUN step sets an earlier one.
    """
    refusals.check(made)
    return _Execution(store, made, context, epoch, no_cache, given, to).run(labels)


class _Execution:
    def __init__(
        self,
        store: Store,
        made: Plan,
        context: Tree,
        epoch: int,
        no_cache: bool,
        given: Given,
        to: Report,
    ) -> None:
        self.store = store
        self.plan = made
        self.context = context
        self.epoch = epoch
        self.no_cache = no_cache
        self.given = given
        self.report = to
        self.states: dict[int, _State] = {}
        self.numbers = {key: step.number for key, step in report.steps(made).items()}

    def run(self, labels: Mapping[str, str]) -> Made:
        for stage in self.plan.stages:
            state = self.states[stage.number] = self._begin(stage)
            for place, step in enumerate(stage.steps):
                try:
                    self._step(stage, state, step, self.numbers.get((stage.number, place), 0))
                except LimpetError as e:
                    message = step.place.located(self.plan.path, e.message)
                    raise type(e)(message, e.hint, exit_code=e.exit_code) from e
        target = self.plan.target
        state = self.states[target.number]
        durable.settle(self.store)  # one sync for the layers of all steps
        config = image_config(target, state.document, state.layers, state.history, labels, self.plan, self.epoch)
        return Made(config, tuple(state.layers))

    def _begin(self, stage: Stage) -> _State:
        base = stage.base
        if base.kind == "stage":
            before = self.states[base.stage]
            return _State(list(before.layers), before.key, before.document, list(before.history))
        if base.kind == "scratch":
            return _State([], _key("scratch", str(self.epoch)), {})
        image = catalog.find(self.store, base.id)
        layers = catalog.layers(self.store, image.id)
        history = list(image.config.get("history") or [])
        return _State(layers, _key(image.id, str(self.epoch)), image.config, history)

    def _step(self, stage: Stage, state: _State, step: Step, number: int) -> None:
        """One step, told from its begin to its end. `number`: as it is shown, 0 if it isn't."""
        entry: dict[str, Any] = {"created": _time(self.epoch), "created_by": step.created_by, "comment": _HISTORY}
        state.history.append(entry)
        if isinstance(step, plan.Note):
            entry["empty_layer"] = True
            return
        emit = self.report.emit
        emit(report.Began(report.now(), number))
        try:
            result, diff_id = self._result(stage, state, step, number)
        except LimpetError as e:
            emit(report.Ended(report.now(), number, report.FAILED, e.message))
            raise
        except BaseException as e:
            kind = report.CANCELLED if isinstance(e, KeyboardInterrupt) else report.FAILED
            emit(report.Ended(report.now(), number, kind, str(e)))
            raise
        if diff_id is None:
            entry["empty_layer"] = True
            emit(report.Ended(report.now(), number, result))
            return
        state.layers.append(diff_id)
        row = self.store.db.row("SELECT size FROM layer WHERE diff_id = ?", diff_id)
        emit(report.Ended(report.now(), number, result, layer=diff_id, size=row[0] if row is not None else 0))

    def _result(
        self, stage: Stage, state: _State, step: Copy | Run | plan.Directory, number: int
    ) -> tuple[str, str | None]:
        """(how it ended, its layer); the state has its key."""
        copying: Copying | None = None
        bound: dict[int, Bound] = {}
        roots: list[Tree] = []
        try:
            if isinstance(step, plan.Copy):
                tree = self._tree(step.origin, roots)
                copying = Copying(self.store, state.layers, step, tree, self.epoch)
                inputs = f"COPY {copying.digest()}"
            elif isinstance(step, plan.Directory):
                inputs = f"WORKDIR {json.dumps([step.path, step.user])}"
            else:
                bound = self._bound(step)
                inputs = _run_inputs(step, state, bound)
            state.key = _key(state.key, inputs)
            row = self.store.db.row("SELECT diff_id FROM build_step WHERE key = ?", state.key)
            if row is not None and not self.no_cache:
                return report.CACHED, row[0]
            self.report.emit(report.Making(report.now(), number))
            diff_id = self._make(stage, state, step, copying, bound, number)
        finally:
            if copying is not None:
                copying.close()
            for root in roots:
                root.close()
        if diff_id is None:
            return report.EMPTY, None
        with self.store.db.transaction(durable=False):
            self.store.db.run("INSERT OR REPLACE INTO build_step (key, diff_id) VALUES (?, ?)", state.key, diff_id)
        return report.RAN, diff_id

    def _make(
        self,
        stage: Stage,
        state: _State,
        step: Copy | Run | plan.Directory,
        copying: Copying | None,
        bound: Mapping[int, Bound],
        number: int,
    ) -> str | None:
        if isinstance(step, plan.Directory):
            return write_directory(self.store, state.layers, step.path, step.user, self.epoch)
        if copying is not None:
            return copying.write()
        from limpet.build.run import run_step  # a build that finds all in the cache needs no containers

        assert isinstance(step, plan.Run)
        image_id = stage.base.id if stage.base.kind == "image" else ""

        def output(stream: int, data: bytes) -> None:
            self.report.emit(report.Output(report.now(), number, stream, data))

        with StepMounts(self.store, step, bound, self.given, self.report.say) as ready:
            return run_step(self.store, state.layers, step, state.document, image_id, self.epoch, ready, output)

    def _bound(self, step: Run) -> dict[int, Bound]:
        """Where the binds and caches of a RUN take their files, by the mount's place."""
        found = {}
        for number, each in enumerate(step.mounts):
            origin = each.origin
            if each.mount.type not in ("bind", "cache"):
                continue
            if origin.kind == "context":
                found[number] = self._of_context(step, each.mount.source)
            elif origin.kind == "stage":
                before = self.states[origin.stage]
                found[number] = Bound(tuple(before.layers), before.key)
            elif origin.kind == "image":
                image = image_for(self.store, origin.image, self.plan.platform, self.report)
                found[number] = Bound(tuple(catalog.layers(self.store, image.id)), image.id)
        return found

    def _of_context(self, step: Run, source: str) -> Bound:
        """A layer of the part of the context that a bind names, made as COPY would: kept as a step's result is."""
        path = posixpath.normpath("/" + source).strip("/")
        target = f"/{path}" if path and self.context.is_file(path) else f"/{path}/".replace("//", "/")
        copy = plan.Copy(step.place, plan.Origin("context"), (escaped(path),), (), (), target)
        copying = Copying(self.store, [], copy, self.context, self.epoch)
        try:
            key = _key("bind", f"{self.epoch} {copying.digest()}")
            row = self.store.db.row("SELECT diff_id FROM build_step WHERE key = ?", key)
            diff_id: str = row[0] if row is not None else copying.write()
        finally:
            copying.close()
        if row is None:
            with self.store.db.transaction(durable=False):
                self.store.db.run("INSERT OR REPLACE INTO build_step (key, diff_id) VALUES (?, ?)", key, diff_id)
        return Bound((diff_id,), key)

    def _tree(self, origin: Origin, roots: list[Tree]) -> Tree:
        """Where a COPY takes its files; one that is opened here is entered in `roots`."""
        if origin.kind == "context":
            return self.context
        if origin.kind == "stage":
            title = f"the stage {self.plan.stage(origin.stage).title}"
            layers = self.states[origin.stage].layers
        elif origin.kind == "scratch":
            title, layers = "scratch", []
        else:
            image = image_for(self.store, origin.image, self.plan.platform, self.report)
            title, layers = f"the image {origin.image}", catalog.layers(self.store, image.id)
        tree = Tree(driver(self.store).mount(layers), title, owners=True)
        roots.append(tree)
        return tree


def image_for(store: Store, name: str, platform: str, progress: Progress) -> Image:
    """An image that a Dockerfile names, for a platform ("" for this machine's). Raises what pulling raises."""
    image = ensure.ensure(store, name, progress=progress, platform=platform, implicit=True)
    wanted = platforms.parse(platform) if platform else platforms.host()
    here = (image.config.get("os"), image.config.get("architecture"))
    if platform and here != (wanted.os, wanted.architecture) and here[1]:
        return ensure.bring(store, name, progress=progress, platform=platform)
    return image


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
        "created": _time(epoch),
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": history,
    }
    if stage.author:
        config["author"] = stage.author
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def _run_inputs(step: Run, state: _State, bound: Mapping[int, Bound]) -> str:
    mounts = []
    for number, each in enumerate(step.mounts):
        content = bound[number].key if number in bound and each.mount.type == "bind" else ""  # a cache's does not count
        mounts.append([*dataclasses.astuple(each.mount), content])
    parts = [
        step.argv,
        step.env,
        step.workdir,
        step.user,
        step.network,
        [(file.name, file.content) for file in step.scripts],
        mounts,
        state.document.get("architecture"),
    ]
    return f"RUN {json.dumps(parts)}"


def _key(parent: str, inputs: str) -> str:
    return hashlib.sha256(f"{parent}\0{inputs}".encode(errors="surrogateescape")).hexdigest()


def _time(epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
