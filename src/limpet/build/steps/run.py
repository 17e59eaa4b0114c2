"""RUN: a step in a container of its own, and a layer of what it changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from limpet.build.planning.stageplan import SCRIPTS
from limpet.build.reporting import copyups, hints
from limpet.build.reporting.masking import Masking
from limpet.build.steps import secrecy
from limpet.build.steps.stubs import Stubs
from limpet.containers.plan.hostfiles import ENGINE_FILES
from limpet.errors import LimpetError
from limpet.kernel import mounts
from limpet.layers import diff
from limpet.layers.driver import driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.build.planning.plan import Run
    from limpet.build.steps.runner import Outcome, Runner
    from limpet.build.steps.stepmounts import StepMounts
    from limpet.store.store import Store

HOSTNAME = "limpet-build"
"""The same on every machine: what steps write would differ otherwise."""


def run_step(
    store: Store,
    runner: Runner,
    layers: list[str],
    step: Run,
    document: dict[str, Any],
    epoch: int,
    ready: StepMounts,
    output: Callable[[int, bytes], None],
    *,
    debug: bool = False,
    memory: int = 0,
) -> tuple[str, float]:
    """The diff ID of the layer, and the seconds of processor time.

    Raises LimpetError if the command fails, with `debug` after a shell in what it left.

    `output` gets what it writes, as it comes: 1 or 2 (standard output, standard error), and the bytes.

    `document` is the base image's config, for its platform. Of its inner object nothing counts that the step doesn't
    say, volumes least of all: what the step writes there belongs to the layer. `ready`: its mounts. `memory`: bytes of
    a tmpfs for what it changes, instead of the disk, which lists directories in another order.
    """
    directory = store.temporary("step")
    os.mkdir(directory, 0o700)
    entries = 1000  # of what failed nobody knows
    held = mounts.tmpfs(mode="700", size=str(memory)) if memory else -1
    try:
        _make_directories(directory, held)
        if step.scripts:
            _write_scripts(f"{directory}/scripts", step)
            ready.scripts(f"{directory}/scripts", SCRIPTS)
        stubs = Stubs(store, layers, ready.targets)
        tail = bytearray()

        def follow(stream: int, data: bytes) -> None:
            tail.extend(data)
            del tail[: -hints.TAIL]
            output(stream, data)

        outcome = _run(store, runner, layers, step, document, directory, ready, follow)
        if outcome.code and not outcome.error:
            outcome.hint = _hint(store, layers, step, ready, directory, outcome, bytes(tail))
        if outcome.code and debug and not outcome.error:
            from limpet.build.steps import debugshell

            debugshell.open_shell(store, directory, document, layers, step, ready, outcome.code)
        _check(outcome)
        stubs.remove(f"{directory}/upper")
        for name, path in secrecy.left(f"{directory}/upper", ready.secrets) if ready.secrets else ():
            text = f"the secret {name} is in the image now, in {path}: whoever has the image can read it"
            ready.say(f"{text}; remove the file in the same RUN", warning=True)
        home = driver(store)
        with home.ingest() as ingest:
            leave_out = [*ENGINE_FILES, *(target.strip("/") for target in ready.targets)]
            entries = diff.write_tar(f"{directory}/upper", ingest.write, leave_out=leave_out, max_mtime=epoch)
            ingested = ingest.finish()
            diff_id = ingested.diff_id
        if ingested.size >= copyups.LEAST and layers:
            _look_for_copies(store, layers, directory, ready)
        home.seal([*layers, diff_id], len(layers))
        return diff_id, outcome.cpu
    finally:
        runner.throw_away(directory, entries)
        if held >= 0:
            os.close(held)


def _run(
    store: Store,
    runner: Runner,
    layers: list[str],
    step: Run,
    document: dict[str, Any],
    directory: str,
    ready: StepMounts,
    output: Callable[[int, bytes], None],
) -> Outcome:
    request = {
        "store": [store.root, store.run],
        "directory": directory,
        "image": {**document, "config": {}},
        "options": {**options(step, ready), "init": True},
        "binds": [[bind.target, bind.read_only] for bind in ready.binds],
    }
    root = driver(store).mount(layers, f"{directory}/upper", f"{directory}/work", volatile=True)
    try:
        running = runner.start(request, root, [bind.tree for bind in ready.binds])
    finally:
        os.close(root)
    try:
        return running.follow(output)
    finally:
        runner.ended(running)


def _make_directories(directory: str, held: int) -> None:
    """`held`: a detached file system for upper and work, which must be on one; -1 for the directory's own."""
    # The root directory's own mode and owner come from the upper: those of an ordinary root file system.
    for name, mode in (("upper", 0o755), ("work", 0o700), ("rootfs", 0o755)):
        place = f"{directory}/{name}"
        if held >= 0 and name != "rootfs":
            place = f"/proc/{os.getpid()}/fd/{held}/{name}"
            os.symlink(place, f"{directory}/{name}")
        os.mkdir(place)
        os.chmod(place, mode)


def options(step: Run, ready: StepMounts) -> dict[str, Any]:
    """Of `containers.options`: what a step says, but for its bind mounts."""
    env = {**dict(step.proxies), **dict(step.env), **ready.env}
    found: dict[str, Any] = {
        "entrypoint": [],
        "command": list(step.argv),
        "env": [f"{key}={value}" for key, value in env.items()],
        "workdir": step.workdir,
        "user": step.user,
        "network": "none" if step.network == "none" else "host",
        "hostname": HOSTNAME,
        "tmpfs": ready.tmpfs,
        "devices": ready.devices,
        "privileged": step.security == "insecure",
        "add_host": list(step.hosts),
        "ulimits": list(step.ulimits),
        "limits": dict(ready.limits),
    }
    if step.shm_size:
        found["shm_size"] = step.shm_size
    return found


def _check(outcome: Outcome) -> None:
    """Raises LimpetError for what did not end well."""
    if outcome.error:
        raise LimpetError(outcome.error, outcome.hint, exit_code=outcome.code if outcome.code in (126, 127) else 125)
    if outcome.code:
        raise LimpetError(f"the command failed with exit code {outcome.code}", outcome.hint, exit_code=1)


def _hint(
    store: Store, layers: list[str], step: Run, ready: StepMounts, directory: str, outcome: Outcome, tail: bytes
) -> str:
    """What is known of a failure. Never a failure of its own."""
    from limpet.build.steps import stepfiles

    masking = Masking(ready.secrets.values())  # a hint may have a word of it
    said = masking.feed(0, 1, tail if len(tail) < hints.TAIL else tail.partition(b"\n")[2])
    said += b"".join(data for _, data in masking.rest(0))
    limited = bool(ready.limits)
    oom, forks = outcome.oom, outcome.forks
    with stepfiles.root(store, layers, f"{directory}/upper") as files:
        return hints.hint(outcome.code, step, said, files, oom=oom, forks=forks, limited=limited)


def _look_for_copies(store: Store, layers: list[str], directory: str, ready: StepMounts) -> None:
    lower = driver(store).mount(layers)
    try:
        text = copyups.warning(copyups.count(f"{directory}/upper", lower))
    finally:
        os.close(lower)
    if text:
        ready.say(text, warning=True)


def _write_scripts(directory: str, step: Run) -> None:
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    for file in step.scripts:
        # The name is a heredoc's: only its last part can be a file's name.
        path = os.path.join(directory, os.path.basename(file.name) or "script")
        with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
            out.write(file.content)
        os.chmod(path, 0o755)
