"""`limpet build`: a directory and a Dockerfile in, an image out. Reads, plans, executes; says what it does."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import field, replace
from typing import TYPE_CHECKING

from limpet.build import execute as executor
from limpet.build import reading
from limpet.build.bases import image_for
from limpet.build.caching.caches import Caches
from limpet.build.copying.ahead import ReadAhead
from limpet.build.copying.context import context as open_context
from limpet.build.copying.digests import Digests
from limpet.build.explain.explainer import Explainer
from limpet.build.language import notes, program, variables
from limpet.build.language.checks import check_program
from limpet.build.language.nearest import did_you_mean
from limpet.build.outputs import deliver as outputs
from limpet.build.outputs.deliver import Result
from limpet.build.planning import merging, planner
from limpet.build.planning.copyplan import without_login
from limpet.build.planning.plan import Copy, Run
from limpet.build.planning.planner import Base, Request, canonical
from limpet.build.reporting.report import Planned, now, steps
from limpet.build.sources import contexts
from limpet.build.sources.named import Named
from limpet.build.steps.conditions import Conditions, applied
from limpet.build.steps.stepmounts import Given
from limpet.errors import Invalid, LimpetError
from limpet.frozen import dataclass
from limpet.images import catalog, ensure
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from limpet.build.attest.statement import Attestation
    from limpet.build.caching.specs import Caching
    from limpet.build.language.dockerfile import Dockerfile
    from limpet.build.outputs.deliver import Delivered
    from limpet.build.outputs.request import Wanted
    from limpet.build.planning.plan import Plan
    from limpet.build.reading import Read
    from limpet.build.reporting.report import Report
    from limpet.build.reproducible.twice import Second
    from limpet.build.steps.runner import Runner
    from limpet.progress import Progress
    from limpet.store.store import Store


@dataclass(frozen=True, slots=True)
class Asked:
    """What a build is asked for. `directory` may be a URL too, or "-", standard input (`sources.contexts`).

    `file` "" is the context's Dockerfile, "-" standard input. `contexts`: name → source (`sources.named`).
    `pull`: images are asked for again, even if they are here.
    `platform` "" is this machine's; several are separated by commas.
    """

    directory: str
    file: str = ""
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    contexts: Mapping[str, str] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=Conditions)
    pull: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """What the build checks found, in the file's order; `is_error`: the file wants them to fail the build.

    `error` is what keeps the file from being built at all, if anything does: what was found before it is there too.
    """

    findings: tuple[notes.Finding, ...]
    is_error: bool
    error: LimpetError | None


def build(
    store: Store,
    asked: Asked,
    wanted: Wanted,
    *,
    labels: Mapping[str, str] | None = None,
    no_cache: bool = False,
    caching: Caching | None = None,
    given: Given | None = None,
    check_ports: Callable[[tuple[str, ...]], None] | None = None,
    explain: Callable[[str], None] | None = None,
    second: Second | None = None,
    runner: Runner | None = None,
    report: Report,
) -> Delivered:
    """Builds, and brings the result to the outputs that are `wanted`. Raises LimpetError. What happens is told to
    `report`, findings of the checks too.

    `caching`: which caches to read and to write. `check_ports` gets what the image will expose before the first step
    runs, and may raise: nobody has to wait for a build of which the result can't be started. `explain` gets, line by
    line, why each step was cached or not. `second` does all again and compares. `runner`: for RUN steps, if the caller
    made one before it grew.
    """
    names = merging.requested(asked.platform)
    outputs.check(wanted, len(names))
    _check_apart(wanted, caching)
    epoch = _epoch(asked.arguments)
    given = given or Given()
    started = time.time()
    with ExitStack() as stack:
        local = stack.enter_context(contexts.opened(store, asked, given, report.say, report))
        named = stack.enter_context(Named(store, asked.contexts, given, report.say, report))
        read = reading.read(local, asked.arguments)
        digests = None if local.foreign else Digests(store, local.directory)
        context = open_context(local.directory, read.ignored, digests, title=local.title)
        stack.callback(context.close)
        with store.lease():  # from here on: nothing stands on an implicit base yet, and a collection would take it
            with ReadAhead(context) as ahead:
                copies = any(each.name in ("COPY", "ADD") for each in read.file.instructions)
                bases = _bringing(store, report, pull=asked.pull, ahead=ahead if copies else None)
                made, checked = _plans(read, asked, names, bases, named)
            for finding in checked.findings:
                text, rule = f"{finding.rule.name}: {finding.text}", finding.rule
                report.say(text, warning=True, rule=rule.name, url=rule.url, line=finding.line)
            if made is None or checked.error is not None:
                raise checked.error or AssertionError
            made = applied(made, asked.conditions)
            if asked.pull:
                for image in _copied_from(made):
                    bases(*image)
            for text in _unused(read.file, asked.arguments):
                report.say(text, warning=True)
            if checked.findings and checked.is_error:
                rules = ", ".join(sorted({finding.rule.name for finding in checked.findings}))
                message = f"{read.file.path}: lint violation found for rules: {rules}"
                raise Invalid(message, "# check=error=true makes it an error")
            if check_ports is not None:
                check_ports(tuple(made.target.config.get("ExposedPorts") or ()))
            shown = tuple(steps(made, {each.line: each.end_line for each in read.file.instructions}).values())
            planned = Planned(now(), read.file.path, without_login(read.text), len(made.stages), shown)
            report.emit(planned)
            caches = Caches(store, caching, epoch, no_cache=no_cache, platform=names[0], report=report)
            explainer = Explainer(
                store, made, local.title or local.directory, read.file.path, epoch, no_cache=no_cache, say=explain
            )
            with caches as cache:
                with explainer:
                    found = executor.execute(
                        store,
                        made,
                        context,
                        labels=labels or {},
                        epoch=epoch,
                        cache=cache.steps,
                        given=given,
                        to=report,
                        inspector=explainer,
                        runner=runner,
                        named=named.tree,
                    )
                said: Sequence[tuple[Attestation, ...]] = [()] * len(found)
                if wanted.attests:
                    from limpet.build.attest import make, provenance

                    facts = provenance.Facts(
                        path=_within(read.file.path, local.directory),
                        source=read.text,
                        context=local.title if local.foreign else "",
                        target=asked.target,
                        arguments=asked.arguments,
                        labels=labels or {},
                        fetched=make.fetched(explainer.fetched),
                        epoch=epoch,
                        started=started,
                    )
                    called = wanted.names[0].familiar if wanted.names else "image"
                    stacks = [one.layers for one in found]
                    said = make.attestations(store, wanted.attests, made, stacks, facts, called)
                results = [
                    Result(cache.carried(one.config, one.layers), one.layers, statements)
                    for one, statements in zip(found, said, strict=True)
                ]
                done = outputs.deliver(store, results, wanted, report)
                cache.built([one.layers for one in results], done.kept)
            if second is not None:
                second.run(
                    store,
                    made,
                    local.directory,
                    read.ignored,
                    found,
                    labels=labels or {},
                    epoch=epoch,
                    given=given,
                    to=report,
                    named=named.tree,
                )
    if cache.steps.grew:
        from limpet.build.caching.usage import bound

        bound(store, report.say)
    return done


def _within(path: str, directory: str) -> str:
    """A Dockerfile's path as it is the same wherever the context lies; of one outside its name."""
    relative = os.path.relpath(path, directory)
    return os.path.basename(path) if relative.startswith("..") else relative


def _epoch(arguments: Mapping[str, str]) -> int:
    """SOURCE_DATE_EPOCH (reproducible-builds.org), as a build argument or in the environment; 0 if unset."""
    text = arguments.get("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", "")) or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise Invalid(f"SOURCE_DATE_EPOCH={text[:40]} is no time", "Unix seconds, as `date +%s` prints them")
    return int(text)


def make_plan(store: Store, asked: Asked, *, given: Given | None = None, progress: Progress) -> Plan:
    """What `build` would execute (`--print=plan`). Base images are brought in, as their config is part of it."""
    given = given or Given()
    with (
        contexts.opened(store, asked, given, progress.note, progress) as local,
        Named(store, asked.contexts, given, progress.note, progress) as named,
        store.lease(),
    ):
        read = reading.read(local, asked.arguments)
        names = merging.requested(asked.platform)
        made, checked = _plans(read, asked, names, _bringing(store, progress), named)
    if made is None:
        raise checked.error or AssertionError
    return made


def check(store: Store, asked: Asked, *, given: Given | None = None, progress: Progress) -> Checked:
    """The build checks (`--check`), of all stages. No base is fetched: of one that isn't here nothing is known."""

    def base(name: str, platform: str) -> Base | None:
        try:
            image = catalog.find(store, name)
        except LimpetError:
            return None
        return Base(image.id, image.config)

    first = merging.requested(asked.platform)[0]
    given = given or Given()
    with (
        contexts.opened(store, asked, given, progress.note, progress) as local,
        Named(store, asked.contexts, given, progress.note, progress) as named,
    ):
        return _plan(reading.read(local, asked.arguments), asked, first, base, named, every_stage=True)[1]


def _check_apart(wanted: Wanted, caching: Caching | None) -> None:
    """Raises Invalid for a cache that would be written over the image that is pushed."""
    pushed = {
        name.canonical
        for each in wanted.outputs
        if each.push and not each.by_digest
        for name in each.names or wanted.names
    }
    for target in caching.targets if caching is not None else ():
        if target.type == "registry" and target.place in pushed:
            message = f"--cache-to {target.place}: it would replace the image, which is pushed under this name"
            raise Invalid(message, "give the cache another tag, or --cache-to type=inline")


def _bringing(
    store: Store, progress: Progress, *, pull: bool = False, ahead: ReadAhead | None = None
) -> Callable[[str, str], Base | None]:
    """`pull`: each image is asked for again, once. `ahead` begins when one is not here."""
    asked_for: set[tuple[str, str]] = set()

    def base(name: str, platform: str) -> Base:
        if pull and (name, platform) not in asked_for and not name.startswith("sha256:"):
            asked_for.add((name, platform))
            if canonical(name) != ensure.HOST:  # no registry has it
                ensure.bring(store, name, progress=progress, platform=platform)
        if ahead is not None and ensure.known(store, name) is None:
            ahead.begin()
        image = image_for(store, name, platform, progress)
        return Base(image.id, image.config)

    return base


def _copied_from(made: Plan) -> Iterator[tuple[str, str]]:
    """(image, platform) of those that no stage stands on, and files are taken from."""
    for stage in made.stages:
        for step in stage.steps:
            origins = [step.origin] if isinstance(step, Copy) else []
            if isinstance(step, Run):
                origins = [mount.origin for mount in step.mounts]
            for origin in origins:
                if origin.kind == "image":
                    yield origin.image, origin.platform or made.platform


def _plans(
    read: Read, asked: Asked, wanted: Sequence[str], bases: Callable[[str, str], Base | None], named: Named
) -> tuple[Plan | None, Checked]:
    """The plan for all platforms, and what the checks found, of each thing once; no plan if there is an error."""
    found: dict[str, Plan] = {}
    findings: dict[notes.Finding, None] = {}
    # This machine's first: a base that is brought in has its name from then on for that platform.
    for platform in sorted(wanted, key=lambda each: each != str(platforms.host())):
        made, checked = _plan(read, asked, platform, bases, named)
        findings.update(dict.fromkeys(checked.findings))
        checked = replace(checked, findings=tuple(findings))
        if made is None or checked.error is not None:
            return None, checked
        found[platform] = made
    return merging.merged([found[each] for each in wanted]), checked


def _plan(
    read: Read,
    asked: Asked,
    platform: str,
    bases: Callable[[str, str], Base | None],
    named: Named,
    *,
    every_stage: bool = False,
) -> tuple[Plan | None, Checked]:
    """The plan, and what the checks found; no plan if there is an error."""
    collected = notes.Notes(read.checks.skip, read.checks.experimental)
    made, error = None, None
    try:
        whole = program.program(read.file)
        check_program(whole, collected)
        request = Request(asked.target, asked.arguments, platform, named.images(platform))
        made = planner.make(whole, bases, request, notes=collected, ignored=read.ignored, every_stage=every_stage)
    except LimpetError as e:
        error = e
        part = program.beginning(read.file)
        if part is not None and not collected.findings:
            check_program(part, collected)
    findings = tuple(sorted(collected.findings, key=lambda each: (each.line, each.column)))
    return made, Checked(findings, read.checks.error, error)


def _unused(file: Dockerfile, arguments: Mapping[str, str]) -> list[str]:
    """What is to be said of each --build-arg that no ARG takes."""
    declared = {word.text.partition("=")[0] for each in file.instructions if each.name == "ARG" for word in each.words}
    found = []
    for key in arguments:
        if key not in declared and not variables.is_predefined(key):
            hint = did_you_mean(key, declared)
            found.append(f"--build-arg {key}: no ARG takes it" + (f"; {hint}" if hint else ""))
    return found
