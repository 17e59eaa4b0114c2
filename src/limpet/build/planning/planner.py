"""A Dockerfile to a plan: which stages the target needs, and what each instruction comes to there.

Scopes are BuildKit's: FROM sees the ARGs before the first FROM and the platform's; a stage sees the environment of its
base and what its own ENV and ARG add, the last one winning; an ARG without a value takes that of the global scope.
"""

from __future__ import annotations

import re
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from limpet.build.language import variables
from limpet.build.language.dockerfile import error, parse_one
from limpet.build.language.instructions import Copy, From, Onbuild, Run
from limpet.build.language.nearest import did_you_mean, nearest
from limpet.build.language.notes import Notes
from limpet.build.language.typed import typed
from limpet.build.planning import plan
from limpet.build.planning.stageplan import StagePlanner
from limpet.errors import Invalid, LimpetError
from limpet.frozen import dataclass
from limpet.oci import platform as platforms
from limpet.oci import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from limpet.build.language.ignore import Ignore
    from limpet.build.language.instructions import Program, Stage, Typed
    from limpet.build.language.lines import Word
    from limpet.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Base:
    """An image that a stage stands on: its id and its config document."""

    id: str
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for beside the Dockerfile. `platform` "" is this machine's.

    `contexts`: what names mean for this build, by `canonical` names: an image, "" for files.
    """

    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    contexts: Mapping[str, str] = field(default_factory=dict)


def make(
    program: Program,
    bases: Callable[[str, str], Base | None],
    request: Request | None = None,
    *,
    notes: Notes | None = None,
    ignored: Ignore | None = None,
    every_stage: bool = False,
) -> plan.Plan:
    """The plan for a target. `bases(reference, platform)` gives the image, None if it is not to be had.

    Without an image (`--check` fetches none) its environment is unknown and nothing is said about variables.
    `every_stage`: those too that the target doesn't need, the target last. Raises Invalid, and what `bases` raises.
    """
    request = request or Request()
    return _Planner(program, bases, request, notes or Notes(frozenset(), frozenset()), ignored, every_stage).make()


@dataclass(slots=True)
class _Needed:
    """A stage in the making. `triggers` come from the ONBUILD of its base."""

    stage: Stage
    image: str
    name: str
    platform: str
    base: int | None
    """The stage that it stands on, if it is one."""
    context: str = ""
    """The named context that it is, or stands on, if that has files only."""
    found: Base | None = None
    triggers: tuple[Typed, ...] = ()


class _Planner:
    def __init__(
        self,
        program: Program,
        bases: Callable[[str, str], Base | None],
        request: Request,
        notes: Notes,
        ignored: Ignore | None,
        every_stage: bool,
    ) -> None:
        self.program = program
        self.bases = bases
        self.request = request
        self.notes = notes
        self.ignored = ignored
        self.every_stage = every_stage
        self.escape = program.file.escape
        self.here = platforms.host()
        self.target_platform = platforms.parse(request.platform) if request.platform else self.here
        self.stages: list[_Needed] = []
        self.names: dict[str, int] = {}

    def make(self) -> plan.Plan:
        target_name = self.request.target or self.program.stages[-1].begin.name
        start = variables.predefined(self.here, self.target_platform, target_name, self.request.arguments)
        self.globals = variables.global_scope(self.program.arguments, start, self.request.arguments, self.escape)
        self.declared = {each.key.text for arg in self.program.arguments for each in arg.arguments} | set(start)
        self._check_default_names(start)
        for number, stage in enumerate(self.program.stages):
            self._enter(number, stage)
        target = self._target()
        order = self._needed(target)
        made: dict[int, StagePlanner] = {}
        for number in order:
            each = self.stages[number]
            made[number] = self._dispatch(number, each, made)
        if order[-1] != target:
            order.remove(target)
            order.append(target)
        stages = tuple(made[number].result() for number in order)
        return plan.Plan(self.program.file.path, str(self.target_platform), stages)

    def _enter(self, number: int, stage: Stage) -> None:
        begin = stage.begin
        found = variables.expand(begin.source, begin.image, self.globals, self.escape)
        self._undeclared(begin, found.unset, begin.image)
        if not found.text:
            hint = "give the ARG a value, or write a default: ${NAME:-VALUE}"
            raise error(begin.source, f"base name ({begin.image.text}) should not be blank", hint, at=begin.image)
        base = self.names.get(found.text.lower())
        each = _Needed(stage, found.text, begin.name, self._platform(begin), base)
        context = self._context(begin.name)
        if context:  # all of the stage is something else
            each.stage, each.base = replace(stage, instructions=()), None
        elif base is None:
            context = self._context(found.text)
        if context:
            each.image = self.request.contexts[context] or found.text
            each.context = "" if self.request.contexts[context] else context
        self.stages.append(each)
        if begin.name:
            self.names[begin.name] = number

    def _context(self, name: str) -> str:
        """The canonical name of the context that is called so, or ""."""
        found = canonical(name) if name and self.request.contexts else ""
        return found if found in self.request.contexts else ""

    def _platform(self, begin: From) -> str:
        if not begin.platform:
            return ""
        at = next((word for word in begin.source.flags if word.text.startswith("--platform")), begin.image)
        word = type(at)(begin.platform, at.line, at.column + len("--platform="))
        found = variables.expand(begin.source, word, self.globals, self.escape)
        self._undeclared(begin, found.unset, at)
        if not found.text:
            near = next((nearest(name, self.globals) for name in sorted(found.unset)), "")
            hint = f"did you mean ${near}?" if near else "as in --platform=$BUILDPLATFORM"
            raise error(begin.source, f"empty platform value from expression {begin.platform}", hint, at=at)
        try:
            platform = platforms.parse(found.text)
        except Invalid as e:
            raise error(
                begin.source, f"failed to parse platform {begin.platform}: {e.message}", e.hint, at=at
            ) from None
        if found.used == {"TARGETPLATFORM"} and found.text == self.globals["TARGETPLATFORM"]:
            message = (
                f"Setting platform to predefined {begin.platform} in FROM is redundant as this is the default behavior"
            )
            self.notes.add("RedundantTargetPlatform", message, begin.source, at)
        constant = not found.used and not found.unset
        if constant and platform.os not in begin.name and platform.architecture not in begin.name:
            message = f'FROM --platform flag should not use constant value "{found.text}"'
            self.notes.add("FromPlatformFlagConstDisallowed", message, begin.source, at)
        return str(platform)

    def _undeclared(self, begin: From, unset: frozenset[str], at: Word) -> None:
        for name in sorted(unset - self.declared):
            near = nearest(name, self.declared)
            message = f"FROM argument '{name}' is not declared" + (f" (did you mean {near}?)" if near else "")
            self.notes.add("UndefinedArgInFrom", message, begin.source, at)

    def _check_default_names(self, start: Mapping[str, str]) -> None:
        """Whether every base has a name when nobody gives a --build-arg."""
        try:
            values = variables.global_scope(self.program.arguments, start, {}, self.escape)
            for stage in self.program.stages:
                begin = stage.begin
                name = variables.expand(begin.source, begin.image, values, self.escape).text
                if not _is_reference(name):
                    message = f"Default value for ARG {begin.image.text} results in empty or invalid base image name"
                    self.notes.add("InvalidDefaultArgInFrom", message, begin.source, begin.image)
        except Invalid:
            return  # it is said when the words are needed

    def _target(self) -> int:
        wanted = self.request.target
        if not wanted:
            return len(self.stages) - 1
        number = self.names.get(wanted.lower())
        if number is None and wanted.isascii() and wanted.isdigit() and int(wanted[:9]) < len(self.stages):
            number = int(wanted[:9])
        if number is None:
            known = ", ".join(self.names)
            hint = did_you_mean(wanted, self.names) or (f"there is {known}" if known else "no stage has a name")
            raise Invalid(f'{self.program.file.path}: target stage "{wanted}" could not be found', hint)
        return number

    def _needed(self, target: int) -> list[int]:
        """The numbers of the stages that count, in order. A stage needs only earlier ones."""
        needed = set(range(len(self.stages))) if self.every_stage else {target}
        for number in range(len(self.stages) - 1, -1, -1):
            if number not in needed:
                continue
            each = self.stages[number]
            if each.base is not None:
                needed.add(each.base)
                texts = [one.text for one in self.stages[each.base].stage.instructions if isinstance(one, Onbuild)]
            else:
                each.found = self._base(each)
                texts = list(((each.found.config.get("config") or {}) if each.found else {}).get("OnBuild") or [])
            each.triggers = tuple(self._trigger(each, text) for text in texts)
            for one in (*each.triggers, *each.stage.instructions):
                needed.update(self._stages_of(number, one))
        return sorted(needed)

    def _base(self, each: _Needed) -> Base | None:
        if each.image.lower() == "scratch" or each.context:
            return Base("", {})
        begin = each.stage.begin
        try:
            return self.bases(each.image, each.platform or self.request.platform)
        except LimpetError as e:
            near = nearest(each.image, self.names)
            hint = f"did you mean the stage {near}?" if near else e.hint
            raise type(e)(error(begin.source, e.message, at=begin.image).message, hint) from None

    def _trigger(self, each: _Needed, text: str) -> Typed:
        path = f"{self.program.file.path}: ONBUILD of {each.image}"
        found = typed(parse_one(text, path, self.escape))
        if isinstance(found, From | Onbuild):
            raise error(each.stage.begin.source, f"{found.source.name} isn't allowed as an ONBUILD trigger")
        return found

    def _stages_of(self, number: int, each: Typed) -> list[int]:
        if isinstance(each, Copy):
            origin = self.origin(number, each.origin, each, "cannot copy from stage")
            return [origin.stage] if origin.kind == "stage" else []
        if isinstance(each, Run):
            found = []
            for word in each.mounts:
                name = _mount_origin(word.text)
                origin = self.origin(number, name, each, "cannot mount from stage")
                if origin.kind == "stage":
                    found.append(origin.stage)
            return found
        return []

    def origin(self, number: int, name: str, each: Copy | Run, what: str) -> plan.Origin:
        """What `--from` or `from=` means in a stage. Raises Invalid for one that isn't there yet."""
        if not name:
            return plan.Origin("context")
        if name.lower() == "scratch":
            return plan.Origin("scratch")
        title = self.stages[number].name or f"stage-{number}"
        found = None
        if isinstance(each, Copy) and re.fullmatch(r"[+-]?[0-9]{1,9}", name):
            found = int(name)
            if not 0 <= found < len(self.stages):
                hint = f"the stages are 0 to {len(self.stages) - 1}"
                raise error(each.source, f"invalid stage index {found}", hint, at=_from_flag(each))
        if found is None:
            same = [index for index, other in enumerate(self.stages) if other.name == name.lower()]
            # Names may come twice: the nearest stage before this one is meant.
            found = next((index for index in reversed(same) if index < number), same[0] if same else None)
        if found is None:
            if not _is_reference(name):
                hint = did_you_mean(name, self.names) or "a stage's name, its number, or an image"
                raise error(each.source, f'"{name}" is no stage and no image', hint, at=_from_flag(each))
            context = self._context(name)
            if context and not self.request.contexts[context]:
                return plan.Origin("context", context=context)
            name = self.request.contexts[context] if context else name
            near = "" if context else nearest(name, self.names)
            return plan.Origin("scratch") if name == "scratch" else plan.Origin("image", image=name, near=near)
        if found == number:
            raise error(each.source, f"circular dependency detected on stage: {title}", at=_from_flag(each))
        if found > number:
            message = f'{what} "{name}", it needs to be defined before current stage "{title}"'
            raise error(each.source, message, "move that stage up", at=_from_flag(each))
        return plan.Origin("stage", stage=found)

    def _dispatch(self, number: int, each: _Needed, made: Mapping[int, StagePlanner]) -> StagePlanner:
        base = made[each.base] if each.base is not None else None
        planner = StagePlanner(
            number=number,
            begin=each.stage.begin,
            parent=base,
            image=each.image,
            found=each.found,
            platform="" if base else each.platform or self.request.platform,  # a stage has that of the one below
            escape=self.escape,
            globals=self.globals,
            given=self.request.arguments,
            notes=self.notes,
            ignored=self.ignored,
            origin=lambda name, one, what: self.origin(number, name, one, what),
        )
        if each.context:
            planner.add_files(each.context)
        for one in each.triggers:
            planner.take(one, trigger=True)
        for one in each.stage.instructions:
            planner.take(one)
        if each.found and each.found.id:
            self._check_platform(each, each.found)
        return planner

    def _check_platform(self, each: _Needed, found: Base) -> None:
        wanted = platforms.parse(each.platform) if each.platform else self.target_platform
        actual = _platform_of(found.config)
        if actual is not None and (actual.os, actual.architecture) != (wanted.os, wanted.architecture):
            message = (
                f'Base image {each.image} was pulled with platform "{actual}", expected "{wanted}" for current build'
            )
            self.notes.add("InvalidBaseImagePlatform", message, each.stage.begin.source, each.stage.begin.image)


def _platform_of(config: dict[str, Any]) -> Platform | None:
    try:
        found = platforms.Platform.from_dict(config)
    except Invalid:
        return None
    return found if found.architecture else None


def canonical(name: str) -> str:
    """A name of an image, or what may be one, in whole (`docker.io/library/alpine:latest`); "" if it can't be one."""
    try:
        return reference.parse(name).canonical
    except LimpetError:
        return ""


def _is_reference(name: str) -> bool:
    return bool(canonical(name))


def _from_flag(each: Copy | Run) -> Word | None:
    wanted = "--from" if isinstance(each, Copy) else "--mount"
    return next((word for word in each.source.flags if word.text.startswith(wanted)), None)


def _mount_origin(flag: str) -> str:
    from limpet.build.language import mounts

    return mounts.origin(flag.partition("=")[2])
