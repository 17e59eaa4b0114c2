"""The build checks that need no plan: how a Dockerfile is written. `planner` notes those that need variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from limpet.build.language.instructions import Arg, Maintainer
from limpet.build.language.lines import Word

if TYPE_CHECKING:
    from limpet.build.language.dockerfile import Instruction
    from limpet.build.language.instructions import From, Program
    from limpet.build.language.notes import Notes

_KNOWN_SYNTAX = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?:[:@]\S*)?(?:\s|\Z)")
_RESERVED = ("context", "scratch")


def check_program(program: Program, notes: Notes) -> None:
    """Notes what is found, in the order of the file."""
    syntax = program.file.directive("syntax")
    if syntax and not _KNOWN_SYNTAX.match(syntax.value):
        message = f"the syntax {syntax.value.split(' ')[0]} is not known, the file is read as docker/dockerfile:1"
        notes.add("UnknownSyntax", message, program.file.instructions[0], Word("", syntax.line, 1))
    for each in program.file.instructions:
        if each.empty_continuation:
            notes.add("NoEmptyContinuation", "Empty continuation line", each)
    _casing(program, notes)
    names: set[str] = set()
    for arg in program.arguments:
        _description(arg.source, [one.key.text for one in arg.arguments], notes)
    for stage in program.stages:
        _stage(stage.begin, names, notes)
        for one in stage.instructions:
            if isinstance(one, Maintainer):
                message = "Maintainer instruction is deprecated in favor of using label"
                notes.add("MaintainerDeprecated", message, one.source)
            elif isinstance(one, Arg):
                _description(one.source, [argument.key.text for argument in one.arguments], notes)


def _stage(begin: From, names: set[str], notes: Notes) -> None:
    source = begin.source
    if not begin.name:
        return
    _description(source, [begin.name], notes)
    written, keyword = source.words[2], source.words[1]
    if written.text != written.text.lower():
        notes.add("StageNameCasing", f"Stage name '{written.text}' should be lowercase", source, written)
    name = source.keyword.text
    if name in (name.lower(), name.upper()) and keyword.text != (
        keyword.text.lower() if name == name.lower() else keyword.text.upper()
    ):
        message = f"'{keyword.text}' and '{name}' keywords' casing do not match"
        notes.add("FromAsCasing", message, source, keyword)
    if begin.name in _RESERVED:
        message = f'Stage name should not use the same name as reserved stage "{begin.name}"'
        notes.add("ReservedStageName", message, source, written)
    if begin.name in names:
        message = f'Duplicate stage name "{begin.name}", stage names should be unique'
        notes.add("DuplicateStageName", message, source, written)
    names.add(begin.name)


def _casing(program: Program, notes: Notes) -> None:
    """The majority decides; an instruction in mixed case counts for neither side."""
    found: list[Instruction] = []
    for stage in program.stages:
        found.append(stage.begin.source)
        found += [one.source for one in stage.instructions]
    words = [each.keyword.text for each in found]
    lower = sum(word == word.lower() for word in words)
    upper = sum(word == word.upper() for word in words)
    is_lower = lower > upper
    for each in found:
        word = each.keyword.text
        if word != (word.lower() if is_lower else word.upper()):
            casing = "lowercase" if is_lower else "uppercase"
            message = f"Command '{word}' should match the case of the command majority ({casing})"
            notes.add("ConsistentInstructionCasing", message, each)


def _description(source: Instruction, names: list[str], notes: Notes) -> None:
    if not source.comments or source.comments[-1].text.split(" ")[0] in names:
        return
    example = names[0] if len(names) == 1 else "<arg_key>"
    message = f"Comment for {source.name} should follow the format: `# {example} <description>`"
    notes.add("InvalidDefinitionDescription", message, source, source.comments[-1])
