"""A plan to an image. Steps that make a layer are keyed by everything they depend on, so that equal steps run once.

The key of a step is SHA-256 over the key of the step before it (the first one's is the base image's id), the step
itself, and for COPY the names, modes and contents of the files. Times and owners of context files are not in it, nor in
the layer: the same inputs give the same bytes. A key stays valid as long as its layer does (table `build_step`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limpet.build import copy, dockerfile, plan
from limpet.build.context import Context
from limpet.containers import attach, changes, create, start, stop
from limpet.containers.options import Options
from limpet.errors import Invalid, LimpetError, NotFound
from limpet.images import catalog, ensure, importer
from limpet.layers import driver
from limpet.oci import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.build.plan import Config, Copy, Plan, Run, Step
    from limpet.images.catalog import Image
    from limpet.progress import Progress
    from limpet.store.store import Store

EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
"""The time of every file and of the image itself (reproducible-builds.org), unless a RUN step sets an earlier one."""

_PLATFORM = ("architecture", "os", "variant", "os.version", "os.features")
_HISTORY = "limpet.build.v1"


@dataclass
class _Building:
    """What grows while the steps are gone through."""

    layers: list[str]
    key: str
    history: list[dict[str, Any]] = field(default_factory=list)


def build(
    store: Store,
    directory: str,
    names: Sequence[str],
    *,
    file: str = "",
    labels: dict[str, str] | None = None,
    no_cache: bool = False,
    check_ports: Callable[[tuple[str, ...]], None] | None = None,
    say: Callable[[str], None],
    progress: Progress,
) -> Image:
    """Builds `directory`'s Dockerfile (or `file`) and gives the image the `names`. Raises LimpetError.

    `check_ports` gets what the image will expose before the first step runs, and may raise: nobody has to wait for a
    build of which the result can't be started.
    """
    if directory == "-" or "://" in directory or directory.startswith("git@"):
        raise Invalid(f"{directory}: a context from standard input or a URL is not supported yet", "give a directory")
    if not os.path.isdir(directory):
        raise NotFound(f"{directory}: no such directory", "the build context is a directory")
    path = file or os.path.join(directory, "Dockerfile")
    parsed = dockerfile.parse(_read(path), os.path.relpath(path))
    targets = [reference.parse(name) for name in names]
    context = Context(directory)
    try:
        with store.lease():  # from here on: nothing stands on an implicit base yet, and a collection would take it
            base = ensure.ensure(store, plan.base_name(parsed), progress=progress, implicit=True)
            made = plan.make(parsed, base_config(base.config))
            if check_ports is not None:
                check_ports(made.config.exposed)
            state = _Building(catalog.layers(store, base.id), base.id)
            for number, step in enumerate(made.steps, 1):
                head = f"[{number}/{len(made.steps)}] "
                _step(store, state, step, base, context, no_cache, lambda text, head=head: say(head + text))  # type: ignore[misc]
            config = image_config(base.config, made, state.layers, state.history, labels or {})
            image = importer.add_image(store, config, state.layers, targets)
    finally:
        context.close()
    return image


def base_config(config: dict[str, Any]) -> Config:
    """What a base image's config says, as a plan's."""
    inner = config.get("config") or {}
    pairs = (entry.partition("=") for entry in inner.get("Env") or [])
    return plan.Config(
        env=tuple((key, value) for key, _, value in pairs),
        workdir=inner.get("WorkingDir") or "",
        exposed=tuple(inner.get("ExposedPorts") or ()),
        entrypoint=tuple(inner["Entrypoint"]) if inner.get("Entrypoint") else None,
        command=tuple(inner["Cmd"]) if inner.get("Cmd") else None,
    )


def image_config(
    base: dict[str, Any], made: Plan, layers: list[str], history: list[dict[str, Any]], labels: dict[str, str]
) -> bytes:
    """The config blob of the image: the base's, with what the plan changes (OCI image spec, config.md)."""
    inner = dict(base.get("config") or {})
    values: dict[str, Any] = {
        "Env": [f"{key}={value}" for key, value in made.config.env],
        "WorkingDir": made.config.workdir,
        "ExposedPorts": {port: {} for port in made.config.exposed},
        "Entrypoint": list(made.config.entrypoint or ()),
        "Cmd": list(made.config.command or ()),
        "Labels": {**(inner.get("Labels") or {}), **labels},
    }
    for name, value in values.items():
        if value:
            inner[name] = value
        else:
            inner.pop(name, None)
    config = {
        **{
            str(key): base[key] for key in ("architecture", "os", "variant", "os.version", "os.features") if key in base
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH)),
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": [*(base.get("history") or []), *history],
    }
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read(dockerfile.MAX_SIZE + 1)
    except FileNotFoundError as e:
        raise NotFound(f"{path}: no such Dockerfile", "name another one with -f") from e
    except OSError as e:
        raise NotFound(f"{path}: {(e.strerror or '').lower()}") from e


def _step(
    store: Store,
    state: _Building,
    step: Step,
    base: Image,
    context: Context,
    no_cache: bool,
    say: Callable[[str], None],
) -> None:
    entry: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH)),
        "created_by": step.text,
        "comment": _HISTORY,
    }
    state.history.append(entry)
    if isinstance(step, plan.Note):
        entry["empty_layer"] = True
        state.key = _key(state.key, step.text)
        return
    begin = time.monotonic()
    if isinstance(step, plan.Copy):
        make, inputs = _copy(store, state, step, context)
    else:
        make, inputs = _run(store, state, step, base)
    state.key = _key(state.key, inputs)
    row = store.db.row("SELECT diff_id FROM build_step WHERE key = ?", state.key)
    if row is not None and not no_cache:
        state.layers.append(row[0])
        say(f"{step.text}: cached")
        return
    say(step.text)
    diff_id = make()
    with store.db.transaction(durable=False):
        store.db.run("INSERT OR REPLACE INTO build_step (key, diff_id) VALUES (?, ?)", state.key, diff_id)
    state.layers.append(diff_id)
    say(f"ran in {time.monotonic() - begin:.1f} s")


def _key(parent: str, inputs: str) -> str:
    return hashlib.sha256(f"{parent}\0{inputs}".encode(errors="surrogateescape")).hexdigest()


def _copy(store: Store, state: _Building, step: Copy, context: Context) -> tuple[Callable[[], str], str]:
    target, is_directory = copy.resolve(store, state.layers, step.target)
    entries = context.copies(step.sources, target, target_is_directory=is_directory)
    return (
        lambda: copy.write_copy(store, state.layers, context, entries, EPOCH),
        f"COPY {target} {context.digest(entries)}",
    )


def _run(store: Store, state: _Building, step: Run, base: Image) -> tuple[Callable[[], str], str]:
    env = [f"{key}={value}" for key, value in step.config.env]
    options = Options(
        image=base.id,
        entrypoint=[],
        command=list(step.argv),
        env=env,
        workdir=step.config.workdir,
        labels={"limpet.build": "step"},
        init=True,
    )
    return (
        lambda: _run_container(store, state.layers, options, base, step),
        f"RUN {json.dumps([step.argv, env, step.config.workdir, base.config.get('architecture')])}",
    )


def _run_container(store: Store, layers: list[str], options: Options, base: Image, step: Run) -> str:
    """Runs one step in a container of its own, its output on standard error, and makes a layer of what it changed."""
    container = create.create(store, base, options, layers=layers)
    try:
        connection = start.launch(store, container, client=True)
        code = attach.attach(store, container, connection=connection, stdin=False, stdout=2, proxy_signals=False)
        if code:
            raise LimpetError(f"the command of line {step.line} failed with exit code {code}: {step.text}", exit_code=1)
        diff_id = changes.write_layer(store, container, max_mtime=EPOCH, durable=True, empty=True)
        assert diff_id is not None
        driver.driver(store).seal([*layers, diff_id])
        return diff_id
    finally:
        stop.remove(store, container, force=True, volumes=True)
