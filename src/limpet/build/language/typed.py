"""Instructions as text to instructions as meaning: arguments and flags checked.

The messages are BuildKit's, so that what people find about them on the net holds; each says in addition where, and what
to do. Nothing is expanded here, so that a mistake in a stage that isn't needed is found too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from limpet.build.language import flags as values
from limpet.build.language import mounts
from limpet.build.language import words as shell
from limpet.build.language.dockerfile import INSTRUCTIONS, error, parse_heredoc
from limpet.build.language.flags import Flags
from limpet.build.language.instructions import (
    Arg,
    Argument,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from limpet.build.language.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.build.language.dockerfile import Instruction
    from limpet.build.language.instructions import (
        Typed,
    )
    from limpet.build.language.lines import Word

_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*\Z")
_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)

_COPY_FLAGS = {"from": "text", "chown": "text", "chmod": "text", "link": "bool", "parents": "bool", "exclude": "list"}
_ADD_FLAGS = {
    "chown": "text",
    "chmod": "text",
    "link": "bool",
    "exclude": "list",
    "checksum": "text",
    "keep-git-dir": "bool",
    "unpack": "bool",
}
_RUN_FLAGS = {"mount": "list", "network": "text", "security": "text", "device": "list"}
_HEALTH_FLAGS = dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), "text")


def typed(each: Instruction) -> Typed | From:
    """One instruction. Raises Invalid."""
    make = _TABLE.get(each.name)
    if make is None:
        hint = did_you_mean(each.name, INSTRUCTIONS)
        raise error(each, f"unknown instruction: {each.keyword.text}", hint)
    return make(each)


def _no_flags(each: Instruction) -> None:
    Flags(each, {})


def _one(each: Instruction, example: str) -> Word:
    if not each.words:
        raise error(each, f"{each.name} requires exactly one argument", f"as in {each.name} {example}")
    _no_flags(each)
    return each.words[0]


def _some(each: Instruction, example: str) -> tuple[Word, ...]:
    if not each.words:
        raise _nothing(each, example)
    _no_flags(each)
    return each.words


def _nothing(each: Instruction, example: str) -> Exception:
    return error(each, f"{each.name} requires at least one argument", f"as in {each.name} {example}")


def _from(each: Instruction) -> From:
    flags = Flags(each, {"platform": "text"})
    words = each.words
    name = ""
    if len(words) == 3 and words[1].text.lower() == "as":
        name = words[2].text.lower()
        if not _STAGE_NAME.match(name):
            message = (
                f'invalid name for build stage: "{words[2].text}", name can\'t start with a number or contain symbols'
            )
            raise error(each, message, "letters first, then letters, digits, - _ .", at=words[2])
    elif len(words) != 1:
        hint = "FROM IMAGE, or FROM IMAGE AS NAME"
        raise error(each, "FROM requires either one or three arguments", hint, at=words[1] if words else None)
    return From(each, words[0], name, flags.text("platform"))


def _arg(each: Instruction) -> Arg:
    found = []
    for word in _some(each, "NAME=VALUE"):
        key, equals, value = word.text.partition("=")
        if not key:
            raise error(each, "ARG names can not be blank", at=word)
        after = len(key) + 1
        found.append(
            Argument(
                _part(word, 0, len(key)),
                _part(word, after, after + len(value)) if equals else None,
                _description(each, key),
            )
        )
    return Arg(each, tuple(found))


def _part(word: Word, begin: int, end: int) -> Word:
    return type(word)(word.text[begin:end], word.line, word.column + begin)


def _description(each: Instruction, name: str) -> str:
    """From a comment directly above: `# NAME what it is`."""
    return next((c.text[len(name) + 1 :] for c in each.comments if c.text.startswith(name + " ")), "")


def _pairs(each: Instruction) -> None:
    if not each.pairs:
        raise _nothing(each, "KEY=VALUE")
    _no_flags(each)
    for pair in each.pairs:
        if not pair.key.text:
            raise error(each, f"{each.name} names can not be blank", at=pair.key)


def _env(each: Instruction) -> Env:
    _pairs(each)
    return Env(each, each.pairs)


def _label(each: Instruction) -> Label:
    _pairs(each)
    return Label(each, each.pairs)


def _copy(each: Instruction) -> Copy:
    is_add = each.name == "ADD"
    if len(each.words) < 2:
        message = f"{each.name} requires at least two arguments"
        if each.words:
            message += ", but only one was provided. Destination could not be determined"
        raise error(each, message, f"{each.name} SOURCE … DESTINATION")
    flags = Flags(each, _ADD_FLAGS if is_add else _COPY_FLAGS)
    contents = {heredoc.name: heredoc for heredoc in each.heredocs}
    *sources, target = each.words
    if not each.json and _heredoc_name(target.text) is not None:
        raise error(
            each, f"{each.name} cannot accept a heredoc as a destination", "name the destination last", at=target
        )
    origin = flags.text("from")
    if _has_variable(origin):
        message = (
            "variable expansion is not supported for --from, "
            "define a new stage with FROM using ARG from global scope as a workaround"
        )
        raise error(each, message, f"write FROM {origin} AS NAME above, and --from=NAME here", at=_flag(each, "from"))
    plain, files = [], []
    for word in sources:
        heredoc = contents.get(_heredoc_name(word.text) or "")
        if heredoc is None:  # in the JSON form a file may be called `<<EOF`
            plain.append(word)
        else:
            files.append(heredoc)
    return Copy(
        source=each,
        sources=tuple(plain),
        files=tuple(files),
        target=target,
        is_add=is_add,
        origin=origin,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.bool("link")),
        parents=bool(flags.bool("parents")),
        excludes=flags.list("exclude"),
        checksum=flags.text("checksum"),
        keep_git=flags.bool("keep-git-dir"),
        unpack=flags.bool("unpack"),
    )


def _heredoc_name(word: str) -> str | None:
    try:
        found = parse_heredoc(word)
    except shell.WordError:
        return None
    return found.name if found else None


def _has_variable(text: str) -> bool:
    try:
        return shell.expand(text, {}).text != text
    except shell.WordError:
        return True


def _flag(each: Instruction, name: str) -> Word | None:
    return next((word for word in each.flags if word.text.startswith(f"--{name}")), None)


def _command(each: Instruction, skip: int = 0) -> Command:
    return Command(tuple(word.text for word in each.words[skip:]), not each.json, each.heredocs)


def _run(each: Instruction) -> Run:
    flags = Flags(each, _RUN_FLAGS)
    if not each.words:
        raise _nothing(each, "COMMAND")
    for word, text in zip(flags.words("mount"), flags.list("mount"), strict=True):
        try:
            mounts.origin(text)
            if "$" not in text:
                mounts.parse(text, str)
        except mounts.MountError as e:
            raise error(each, e.message, e.hint, at=word) from None
    devices = []
    for word, text in zip(flags.words("device"), flags.list("device"), strict=True):
        try:
            devices.append(mounts.device(text))
        except mounts.MountError as e:
            raise error(each, e.message, e.hint, at=word) from None
    network, security = flags.text("network", "default"), flags.text("security", "sandbox")
    if network not in ("default", "none", "host"):
        hint = did_you_mean(network, ("default", "none", "host")) or "default, none or host is wanted"
        raise flags.fail("network", f'invalid network mode "{network}"', hint)
    if security not in ("sandbox", "insecure"):
        hint = did_you_mean(security, ("sandbox", "insecure")) or "sandbox or insecure is wanted"
        raise flags.fail("security", f'security "{security}" is not valid', hint)
    return Run(each, _command(each), flags.words("mount"), network, security, tuple(devices))


def _cmd(each: Instruction) -> Cmd:
    _no_flags(each)
    return Cmd(each, _command(each))


def _entrypoint(each: Instruction) -> Entrypoint:
    _no_flags(each)
    return Entrypoint(each, _command(each))


def _healthcheck(each: Instruction) -> Healthcheck:
    if not each.words:
        raise _nothing(each, "CMD COMMAND, or NONE")
    first, *rest = each.words
    kind = first.text.upper()
    if kind == "NONE":
        if rest:
            raise error(each, "HEALTHCHECK NONE takes no arguments", at=rest[0])
        _no_flags(each)
        return Healthcheck(each, ("NONE",))
    flags = Flags(each, _HEALTH_FLAGS)
    if kind != "CMD":
        raise error(
            each, f'Unknown type "{kind}" in HEALTHCHECK (try CMD)', "HEALTHCHECK CMD COMMAND, or NONE", at=first
        )
    if not rest:
        raise error(each, "Missing command after HEALTHCHECK CMD", "HEALTHCHECK CMD COMMAND")
    command = _command(each, 1)
    retries = flags.text("retries")
    count = 0
    if retries:
        count = int(retries) if re.fullmatch(r"[+-]?[0-9]{1,10}", retries) else 1 << 31
        if count >= 1 << 31:
            raise flags.fail("retries", f"--retries={retries} is not a number", "a whole number is wanted")
        if count < 0:
            raise flags.fail("retries", f"--retries cannot be negative ({count})")
    return Healthcheck(
        each,
        ("CMD-SHELL" if command.shell else "CMD", *command.words),
        interval=_time(flags, "interval"),
        timeout=_time(flags, "timeout"),
        start_period=_time(flags, "start-period"),
        start_interval=_time(flags, "start-interval"),
        retries=count,
    )


def _time(flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        found = values.duration(text)
    except ValueError as e:
        raise flags.fail(name, str(e), "as in 30s, 1m30s, 500ms") from None
    if found != 0 and found < 10**6:
        raise flags.fail(name, f'Interval "{name}" cannot be less than 1ms', "as in 30s, 1m30s, 500ms")
    return found


def _expose(each: Instruction) -> Expose:
    return Expose(each, _some(each, "8080"))


def _user(each: Instruction) -> User:
    return User(each, _one(each, "NAME[:GROUP]"))


def _workdir(each: Instruction) -> Workdir:
    return Workdir(each, _one(each, "/srv"))


def _stopsignal(each: Instruction) -> Stopsignal:
    return Stopsignal(each, _one(each, "SIGTERM"))


def _maintainer(each: Instruction) -> Maintainer:
    return Maintainer(each, _one(each, "NAME").text)


def _volume(each: Instruction) -> Volume:
    for word in _some(each, "/var/lib/data"):
        if not word.text.strip():
            raise error(each, "VOLUME specified can not be an empty string", at=word)
    return Volume(each, each.words)


def _shell(each: Instruction) -> Shell:
    _no_flags(each)
    if not each.words:
        raise _nothing(each, '["/bin/bash", "-c"]')
    if not each.json:
        raise error(each, f"SHELL requires the arguments to be in JSON form: {each.text}", 'SHELL ["/bin/bash", "-c"]')
    return Shell(each, tuple(word.text for word in each.words))


def _onbuild(each: Instruction) -> Onbuild:
    trigger = each.trigger
    if trigger is None:
        raise _nothing(each, "RUN COMMAND")
    _no_flags(each)
    if trigger.name == "ONBUILD":
        raise error(each, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", at=trigger.keyword)
    if trigger.name in ("FROM", "MAINTAINER"):
        raise error(each, f"{trigger.name} isn't allowed as an ONBUILD trigger", at=trigger.keyword)
    typed(trigger)
    text = _ONBUILD.sub("", each.original, count=1)
    for heredoc in each.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return Onbuild(each, text)


_TABLE: dict[str, Callable[[Instruction], Typed | From]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
