"""RUN: a step in a container of its own, and a layer of what it changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from limpet.build.stageplan import SCRIPTS
from limpet.build.stubs import Stubs
from limpet.containers import attach, changes, create, removal, start, stop
from limpet.containers.options import Options
from limpet.errors import LimpetError
from limpet.images.catalog import Image
from limpet.layers import driver
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.build.plan import Run
    from limpet.build.stepmounts import StepMounts
    from limpet.store.store import Store

HOSTNAME = "limpet-build"
"""The same on every machine: what steps write would differ otherwise."""


def run_step(
    store: Store,
    layers: list[str],
    step: Run,
    document: dict[str, Any],
    image_id: str,
    epoch: int,
    ready: StepMounts,
    output: Callable[[int, bytes], None],
    *,
    debug: bool = False,
) -> str:
    """The diff ID of the layer. Raises LimpetError if the command fails, with `debug` after a shell in what it left.

    `output` gets what it writes, as it comes: 1 or 2 (standard output, standard error), and the bytes.

    `document` is the base image's config, for its platform. Of its inner object nothing counts that the step doesn't
    say, volumes least of all: what the step writes there belongs to the layer. `ready`: its mounts.
    """
    image = Image(image_id, {**document, "config": {}}, [], 0)
    scripts = _write_scripts(store, step)
    try:
        return _run(store, layers, step, image, scripts, epoch, ready, output, debug)
    finally:
        if scripts:
            remove_tree(scripts)


def _run(
    store: Store,
    layers: list[str],
    step: Run,
    image: Image,
    scripts: str,
    epoch: int,
    ready: StepMounts,
    output: Callable[[int, bytes], None],
    debug: bool,
) -> str:
    env = {**dict(step.proxies), **dict(step.env)}
    secrets = [f"{key}={value}" for key, value in ready.env.items()]
    stubs = Stubs(store, layers, ready.targets)
    options = Options(
        image=image.id,
        entrypoint=[],
        command=list(step.argv),
        env=[f"{key}={value}" for key, value in env.items()],
        workdir=step.workdir,
        user=step.user,
        labels={"limpet.build": "step"},
        network="none" if step.network == "none" else "host",
        hostname=HOSTNAME,
        tmpfs=ready.tmpfs,
        mounts=[*ready.mounts, *([f"type=bind,source={scripts},target={SCRIPTS},readonly"] if scripts else [])],
        init=True,
        auto_remove=True,  # nothing of it has to survive a crash
    )
    container = create.create(store, image, options, layers=layers)
    try:
        connection = start.launch(store, container, client=True, unwritten=secrets)
        code = attach.attach(store, container, connection=connection, stdin=False, proxy_signals=False, sink=output)
        if code and debug:
            from limpet.build import debugshell

            debugshell.open_shell(store, container, image, options, layers, step, secrets, code)
        if code:
            raise LimpetError(f"the command failed with exit code {code}", exit_code=1)
        stubs.remove(f"{store.container_path(container.id)}/upper")
        diff_id = changes.write_layer(store, container, max_mtime=epoch, empty=True)
        assert diff_id is not None
        driver.driver(store).seal([*layers, diff_id])
        # It has ended, and its monitor leaves the removal to the first client.
        removal.remove_container(store, container.id, with_volumes=True, durable=False)
        if connection is not None:
            connection.close()
        return diff_id
    except BaseException:
        stop.remove(store, container, force=True, volumes=True)
        raise


def _write_scripts(store: Store, step: Run) -> str:
    """A directory with the scripts, "" if there are none."""
    if not step.scripts:
        return ""
    directory = store.temporary("scripts")
    os.mkdir(directory, 0o755)
    for file in step.scripts:
        # The name is a heredoc's: only its last part can be a file's name.
        path = os.path.join(directory, os.path.basename(file.name) or "script")
        with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
            out.write(file.content)
        os.chmod(path, 0o755)
    return directory
