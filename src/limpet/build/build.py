"""`limpet build`: a directory and a Dockerfile in, an image out. Reads, plans, executes; says what it does."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from limpet.build import dockerfile, ignore, notes, planner, variables
from limpet.build import execute as executor
from limpet.build.context import context as open_context
from limpet.build.instructions import Arg
from limpet.build.nearest import did_you_mean
from limpet.build.planner import Base, Request
from limpet.build.typed import program
from limpet.errors import Invalid, LimpetError, NotFound
from limpet.images import catalog
from limpet.oci import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limpet.build.dockerfile import Dockerfile
    from limpet.build.ignore import Ignore
    from limpet.build.instructions import Program
    from limpet.build.plan import Plan
    from limpet.images.catalog import Image
    from limpet.progress import Progress
    from limpet.store.store import Store


@dataclass(frozen=True, slots=True)
class Asked:
    """What a build is asked for. `file` "" is the directory's Dockerfile, "-" standard input."""

    directory: str
    file: str = ""
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    file: Dockerfile
    program: Program
    ignored: Ignore
    checks: notes.Options


def build(
    store: Store,
    asked: Asked,
    names: Sequence[str],
    *,
    labels: Mapping[str, str] | None = None,
    no_cache: bool = False,
    check_ports: Callable[[tuple[str, ...]], None] | None = None,
    say: Callable[[str], None],
    progress: Progress,
) -> Image:
    """Builds, and gives the image the `names`. Findings of the checks are said. Raises LimpetError.

    `check_ports` gets what the image will expose before the first step runs, and may raise: nobody has to wait for a
    build of which the result can't be started.
    """
    targets = [reference.parse(name) for name in names]
    read = _read(asked)
    context = open_context(asked.directory, read.ignored)
    try:
        with store.lease():  # from here on: nothing stands on an implicit base yet, and a collection would take it
            made, found = _plan(store, asked, read, progress)
            for finding in found:
                say(f"warning: {finding.rule.name}: {finding.text}")
            for text in _unused(read.program, asked.arguments):
                say(f"warning: {text}")
            if found and read.checks.error:
                rules = ", ".join(sorted({finding.rule.name for finding in found}))
                message = f"{read.file.path}: lint violation found for rules: {rules}"
                raise Invalid(message, "# check=error=true makes it an error")
            if check_ports is not None:
                check_ports(tuple(made.target.config.get("ExposedPorts") or ()))
            return executor.execute(
                store, made, context, targets, labels=labels or {}, no_cache=no_cache, say=say, progress=progress
            )
    finally:
        context.close()


def make_plan(store: Store, asked: Asked, *, progress: Progress) -> Plan:
    """What `build` would execute (`--print=plan`). Base images are brought in, as their config is part of it."""
    read = _read(asked)
    with store.lease():
        return _plan(store, asked, read, progress)[0]


def check(store: Store, asked: Asked) -> tuple[list[notes.Finding], bool]:
    """The findings of the build checks, in the file's order, and whether they count as errors. Nothing is fetched."""
    read = _read(asked)
    collected = _notes(read)

    def base(name: str, platform: str) -> Base | None:
        try:
            image = catalog.find(store, name)
        except LimpetError:
            return None
        return Base(image.id, image.config)

    request = Request(asked.target, asked.arguments, asked.platform)
    planner.make(read.program, base, request, notes=collected, ignored=read.ignored, every_stage=True)
    return sorted(collected.findings, key=lambda each: (each.line, each.column)), read.checks.error


def _plan(store: Store, asked: Asked, read: _Read, progress: Progress) -> tuple[Plan, list[notes.Finding]]:
    def base(name: str, platform: str) -> Base:
        image = executor.image_for(store, name, platform, progress)
        return Base(image.id, image.config)

    collected = _notes(read)
    request = Request(asked.target, asked.arguments, asked.platform)
    made = planner.make(read.program, base, request, notes=collected, ignored=read.ignored)
    return made, sorted(collected.findings, key=lambda each: (each.line, each.column))


def _read(asked: Asked) -> _Read:
    directory = asked.directory
    if directory == "-" or "://" in directory or directory.startswith("git@"):
        raise Invalid(f"{directory}: a context from standard input or a URL is not supported yet", "give a directory")
    if not os.path.isdir(directory):
        raise NotFound(f"{directory}: no such directory", "the build context is a directory")
    path = asked.file or os.path.join(directory, "Dockerfile")
    if path == "-":
        text, shown = _text(sys.stdin.buffer.read(dockerfile.MAX_SIZE + 1)), "<standard input>"
        ignored = ignore.read(directory)
    else:
        text, shown = _read_file(path), os.path.relpath(path)
        ignored = ignore.read(directory, path)
    file = dockerfile.parse(text, shown)
    directive = file.directive("check")
    try:
        checks = notes.options(directive.value.split(" ")[0]) if directive else notes.Options()
    except ValueError as e:
        line = directive.line if directive else 1
        raise Invalid(f"{shown}:{line}:1: {e}", "as in # check=skip=JSONArgsRecommended;error=true") from None
    return _Read(file, program(file), ignored, checks)


def _unused(program: Program, arguments: Mapping[str, str]) -> list[str]:
    """What is to be said of each --build-arg that no ARG takes."""
    declared = {
        one.key.text
        for arg in (*program.arguments, *(each for stage in program.stages for each in stage.instructions))
        if isinstance(arg, Arg)
        for one in arg.arguments
    }
    found = []
    for key in arguments:
        if key not in declared and not variables.is_predefined(key):
            hint = did_you_mean(key, declared)
            found.append(f"--build-arg {key}: no ARG takes it" + (f"; {hint}" if hint else ""))
    return found


def _notes(read: _Read) -> notes.Notes:
    from limpet.build.checks import check_program

    collected = notes.Notes(read.checks.skip, read.checks.experimental)
    check_program(read.program, collected)
    return collected


def _read_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return _text(file.read(dockerfile.MAX_SIZE + 1))
    except FileNotFoundError as e:
        raise NotFound(f"{path}: no such Dockerfile", "name another one with -f") from e
    except OSError as e:
        raise NotFound(f"{path}: {(e.strerror or '').lower()}") from e


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
