"""Instructions to a plan: one base, steps that make layers, and the config that the image gets. Plain data, no I/O.

`Copy` and `Run` each make one layer; everything else only changes the config. A plan says all that a result depends
on but for the contents of the base and of the context.
"""

from __future__ import annotations

import difflib
import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from limpet.build import words as shell
from limpet.build.dockerfile import INSTRUCTIONS, error

if TYPE_CHECKING:
    from limpet.build.dockerfile import Dockerfile, Instruction

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Config:
    """What the instructions add to the base's config; None where they say nothing."""

    env: tuple[tuple[str, str], ...] = ()
    workdir: str = ""
    exposed: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """`sources` are relative to the context; `target` is absolute, with a trailing slash if it must be a directory."""

    sources: tuple[str, ...]
    target: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """`config` is what holds at this point: environment and working directory."""

    argv: tuple[str, ...]
    config: Config
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """A step without a layer: it stands in the image's history."""

    line: int
    text: str


Step = Copy | Run | Note


@dataclass(frozen=True, slots=True)
class Plan:
    base: str
    steps: tuple[Step, ...]
    config: Config


def make(file: Dockerfile, base_config: Config) -> Plan:
    """`base_config` is what the base image sets (its ENV and WORKDIR take part in expansion). Raises Invalid."""
    base = base_name(file)
    config = base_config
    command_set = False
    steps: list[Step] = []
    for each in file.instructions[1:]:
        _refuse(each)
        text = f"{each.name} {each.text}"
        match each.name:
            case "FROM":
                raise error(each, "more than one stage is not supported yet")
            case "COPY":
                steps.append(_copy(each, config, file.escape))
                continue
            case "RUN":
                argv = _argv(each)
                steps.append(Run(argv, config, each.line, text))
                continue
            case "ENV":
                config = replace(config, env=_with_env(config.env, _env(each, config, file.escape)))
            case "WORKDIR":
                place = posixpath.join(config.workdir or "/", expand(each, each.text, config.env, file.escape))
                config = replace(config, workdir=posixpath.normpath(place))
            case "EXPOSE":
                words = expand(each, each.text, config.env, file.escape).split()
                ports = tuple(port for word in words for port in _ports(word, each))
                config = replace(config, exposed=tuple(dict.fromkeys(config.exposed + ports)))
            case "CMD":
                command_set = True
                config = replace(config, command=_argv(each))
            case "ENTRYPOINT":
                # The base's CMD belonged to its own entry point (Dockerfile reference, "CMD and ENTRYPOINT interact").
                command = config.command if command_set else None
                config = replace(config, entrypoint=_argv(each), command=command)
        steps.append(Note(each.line, text))
    return Plan(base, tuple(steps), config)


_LATER = frozenset(
    {"ADD", "ARG", "LABEL", "USER", "VOLUME", "STOPSIGNAL", "HEALTHCHECK", "SHELL", "ONBUILD", "MAINTAINER"}
)


def _refuse(each: Instruction) -> None:
    """What is parsed and can't be built yet."""
    if each.name in _LATER:
        raise error(each, f"{each.name} is not supported yet")
    if each.name not in INSTRUCTIONS:
        near = difflib.get_close_matches(each.name, INSTRUCTIONS, 1)
        raise error(each, f"unknown instruction: {each.keyword.text}", f"did you mean {near[0]}?" if near else "")
    if not each.text:
        raise error(each, f"{each.name} needs a value")
    if each.heredocs:
        raise error(each, "heredocs are not supported yet", "join the lines with && \\")
    if each.flags:
        raise error(each, f"{each.name} {each.flags[0].text.partition('=')[0]} is not supported yet", at=each.flags[0])


def base_name(file: Dockerfile) -> str:
    """The image that FROM names."""
    first = file.instructions[0]
    words = first.text.split()
    if first.name != "FROM":
        raise error(first, "the first instruction must be FROM")
    if len(words) == 3 and words[1].upper() == "AS":
        words = words[:1]
    if len(words) != 1:
        raise error(first, "FROM takes one image", "FROM IMAGE [AS NAME]")
    return words[0]


def expand(each: Instruction, text: str, env: tuple[tuple[str, str], ...], escape: str) -> str:
    """One word, its quotes and variables by the environment. Raises Invalid."""
    try:
        return shell.expand(text, dict(env), escape).text
    except shell.WordError as e:
        raise error(each, e.message) from e


def _argv(each: Instruction) -> tuple[str, ...]:
    return _words(each) if each.json else ("/bin/sh", "-c", each.text)


def _words(each: Instruction) -> tuple[str, ...]:
    return tuple(word.text for word in each.words)


def _copy(each: Instruction, config: Config, escape: str) -> Copy:
    words = [expand(each, word, config.env, escape) for word in _words(each)]
    if len(words) < 2:
        raise error(each, "COPY needs a source and a destination")
    *sources, target = words
    slash = target.endswith(("/", "/.")) or target == "." or len(sources) > 1
    absolute = posixpath.normpath(posixpath.join(config.workdir or "/", target))
    clean = [posixpath.normpath(source.lstrip("/") or ".") for source in sources]
    for source, normal in zip(sources, clean, strict=True):
        if normal.startswith(".."):
            raise error(each, f"{source} lies outside the build context", "copy it into the directory first")
    return Copy(tuple(clean), absolute.rstrip("/") + ("/" if slash else "") or "/", each.line, f"COPY {each.text}")


def _env(each: Instruction, config: Config, escape: str) -> tuple[tuple[str, str], ...]:
    if any(not pair.key.text for pair in each.pairs):
        raise error(each, "ENV names can not be blank")
    return tuple(
        (expand(each, pair.key.text, config.env, escape), expand(each, pair.value.text, config.env, escape))
        for pair in each.pairs
    )


def _with_env(old: tuple[tuple[str, str], ...], new: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple({**dict(old), **dict(new)}.items())


def _ports(text: str, each: Instruction) -> list[str]:
    """`80`, `53/udp`, `8000-8010/tcp`."""
    numbers, slash, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    low = _port(first + slash + protocol, each)
    if not dash:
        return [low]
    high = _port(last + slash + protocol, each)
    begin, end = int(low.partition("/")[0]), int(high.partition("/")[0])
    if begin > end:
        raise error(each, f"EXPOSE: {text!r} is a range that ends before it begins")
    return [f"{number}/{low.partition('/')[2]}" for number in range(begin, end + 1)]


def _port(text: str, each: Instruction) -> str:
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if (
        not number.isascii()
        or not number.isdigit()
        or not 0 < int(number) < 65536
        or protocol not in ("tcp", "udp", "sctp")
    ):
        raise error(each, f"EXPOSE: {text!r} is not a port", "EXPOSE 8080 or 53/udp")
    return f"{int(number)}/{protocol}"
