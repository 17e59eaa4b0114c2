"""Where COPY and the mounts of RUN take their files: the context, another stage, an image."""

from __future__ import annotations

import posixpath
from contextlib import closing
from typing import TYPE_CHECKING

from limpet.build.bases import image_for
from limpet.build.copying.context import Tree, escaped
from limpet.build.copying.copy import Copying
from limpet.build.planning import plan
from limpet.build.solver import keys
from limpet.build.steps.stepmounts import Bound
from limpet.errors import LimpetError
from limpet.images import catalog
from limpet.layers.driver import driver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.build.planning.plan import Copy, Origin, Run
    from limpet.build.solver.job import Job
    from limpet.build.sources.added import Added
    from limpet.images.catalog import Image


def open_tree(job: Job, origin: Origin) -> Tree:
    """The root of a stage or an image, mounted, or a named context; the caller closes it."""
    if origin.kind == "context":
        return _named(job, origin.context)
    if origin.kind == "stage":
        title = f"the stage {job.plan.stage(origin.stage).title}"
        layers = job.states[origin.stage].layers
    elif origin.kind == "scratch":
        title, layers = "scratch", []
    else:
        image = _image(job, origin)
        title, layers = f"the image {origin.image}", catalog.layers(job.store, image.id)
    return Tree(driver(job.store).mount(layers), title, owners=True)


def added(job: Job, step: Copy) -> Sequence[Added]:
    """What an ADD fetches, looked up but not fetched yet. Raises LimpetError."""
    if not step.remotes:
        return ()
    from limpet.build.sources.added import Fetching  # most builds fetch nothing

    return Fetching(job.store, job.given, job.report.say, job.report).added(step)


def bounds(job: Job, step: Run) -> dict[int, Bound]:
    """Where the binds and caches of a RUN take their files, by the mount's place."""
    found = {}
    for number, each in enumerate(step.mounts):
        origin = each.origin
        if each.mount.type not in ("bind", "cache"):
            continue
        if origin.kind == "context" and origin.context:
            with closing(_named(job, origin.context)) as tree:
                found[number] = _of_context(job, step, each.mount.source, tree)
        elif origin.kind == "context":
            found[number] = _of_context(job, step, each.mount.source, job.context)
        elif origin.kind == "stage":
            before = job.states[origin.stage]
            found[number] = Bound(tuple(before.layers), before.key)
        elif origin.kind == "image":
            image = _image(job, origin)
            found[number] = Bound(tuple(catalog.layers(job.store, image.id)), image.id)
    return found


def _image(job: Job, origin: Origin) -> Image:
    try:
        with job.fetching:
            return image_for(job.store, origin.image, origin.platform or job.plan.platform, job.report)
    except LimpetError as e:
        if not origin.near:
            raise
        message = f"there is no stage {origin.image}, and as an image: {e.message}"
        raise type(e)(message, f"did you mean the stage {origin.near}?", exit_code=e.exit_code) from e


def _named(job: Job, name: str) -> Tree:
    with job.fetching:
        return job.named(name)


def _of_context(job: Job, step: Run, source: str, tree: Tree) -> Bound:
    """A layer of the part of a context that a bind names, made as COPY would: kept as a step's result is."""
    path = posixpath.normpath("/" + source).strip("/")
    target = f"/{path}" if path and tree.is_file(path) else f"/{path}/".replace("//", "/")
    copy = plan.Copy(step.place, plan.Origin("context"), (escaped(path),), (), (), target)
    with closing(Copying(job.store, [], copy, tree, job.epoch)) as copying:
        key = keys.key("bind", f"{job.epoch} {copying.digest()}")
        diff_id = job.cache.content(key)
        if diff_id is None:
            diff_id = copying.write()
            job.cache.keep_content(key, diff_id, f"--mount=type=bind,source={path or '.'}")
    return Bound((diff_id,), key)
