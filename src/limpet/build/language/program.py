"""A whole Dockerfile as what it means: the ARGs before the first FROM, and the stages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.language.dockerfile import error
from limpet.build.language.instructions import Arg, From, Program, Stage
from limpet.build.language.typed import typed
from limpet.errors import Invalid

if TYPE_CHECKING:
    from limpet.build.language.dockerfile import Dockerfile, Instruction
    from limpet.build.language.instructions import Typed

_MAX_STAGES = 1000


def program(file: Dockerfile) -> Program:
    """Raises Invalid with place, source line and what to do."""
    arguments: list[Arg] = []
    stages: list[Stage] = []
    begin: From | None = None
    body: list[Typed] = []
    for each in file.instructions:
        found = typed(each)
        if isinstance(found, From):
            if begin is not None:
                stages.append(Stage(begin, tuple(body)))
            begin, body = found, []
            if len(stages) >= _MAX_STAGES:
                raise error(each, f"more than {_MAX_STAGES} stages")
        elif begin is not None:
            body.append(found)
        elif isinstance(found, Arg):
            arguments.append(found)
        else:
            raise error(each, "no build stage in current context", "FROM comes first; only ARG may stand before it")
    if begin is None:
        raise error(file.instructions[-1], "dockerfile contains no stages to build", "a Dockerfile needs a FROM")
    stages.append(Stage(begin, tuple(body)))
    return Program(file, tuple(arguments), tuple(stages))


def beginning(file: Dockerfile) -> Program | None:
    """The instructions before the first that is wrong: what can be said of them can be said. None without a stage."""
    good: list[Instruction] = []
    for each in file.instructions:
        try:
            typed(each)
        except Invalid:
            break
        good.append(each)
    try:
        return program(replace(file, instructions=tuple(good))) if good else None
    except Invalid:
        return None
