"""Instructions to a plan: one base, steps that make layers, and the config that the image gets. Plain data, no I/O.

`Copy` and `Run` each make one layer; everything else only changes the config. A plan says all that a result depends
on but for the contents of the base and of the context.
"""

from __future__ import annotations

import posixpath
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from limpet.build.dockerfile import error

if TYPE_CHECKING:
    from limpet.build.dockerfile import Instruction

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


def make(instructions: list[Instruction], base_config: Config, path: str = "Dockerfile") -> Plan:
    """`base_config` is what the base image sets (its ENV and WORKDIR take part in expansion). Raises Invalid."""
    base = base_name(instructions, path)
    config = base_config
    command_set = False
    steps: list[Step] = []
    for each in instructions[1:]:
        text = f"{each.name} {each.text}"
        match each.name:
            case "FROM":
                raise error(each, path, "more than one stage is not supported yet")
            case "COPY":
                steps.append(_copy(each, config, path))
                continue
            case "RUN":
                argv = each.words or ("/bin/sh", "-c", each.text)
                steps.append(Run(argv, config, each.line, text))
                continue
            case "ENV":
                config = replace(config, env=_with_env(config.env, _env(each, config, path)))
            case "WORKDIR":
                place = posixpath.join(config.workdir or "/", expand(each.text, config.env))
                config = replace(config, workdir=posixpath.normpath(place))
            case "EXPOSE":
                words = expand(each.text, config.env).split()
                ports = tuple(port for word in words for port in _ports(word, each, path))
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


def base_name(instructions: list[Instruction], path: str = "Dockerfile") -> str:
    """The image that FROM names."""
    first = instructions[0]
    words = first.text.split()
    if first.name != "FROM":
        raise error(first, path, "the first instruction must be FROM")
    if len(words) == 3 and words[1].upper() == "AS":
        words = words[:1]
    if len(words) != 1:
        raise error(first, path, "FROM takes one image", "FROM IMAGE [AS NAME]")
    return words[0]


def expand(text: str, env: tuple[tuple[str, str], ...]) -> str:
    """`$NAME` and `${NAME}` by the environment; a backslash keeps a dollar as it is; an unknown name is empty."""
    values = dict(env)
    out: list[str] = []
    i = 0
    while i < len(text):
        char = text[i]
        if char == "\\" and text[i + 1 : i + 2] == "$":
            out.append("$")
            i += 2
            continue
        if char != "$":
            out.append(char)
            i += 1
            continue
        end = i + 1
        if text[end : end + 1] == "{" and "}" in text[end:]:
            close = text.index("}", end)
            out.append(values.get(text[end + 1 : close], ""))
            i = close + 1
            continue
        while end < len(text) and ((text[end].isascii() and text[end].isalnum()) or text[end] == "_"):
            end += 1
        out.append(values.get(text[i + 1 : end], "") if end > i + 1 else "$")
        i = max(end, i + 1)
    return "".join(out)


def _argv(each: Instruction) -> tuple[str, ...]:
    return each.words if each.words is not None else ("/bin/sh", "-c", each.text)


def _copy(each: Instruction, config: Config, path: str) -> Copy:
    words = list(each.words) if each.words is not None else each.text.split()
    words = [expand(word, config.env) for word in words]
    if len(words) < 2:
        raise error(each, path, "COPY needs a source and a destination")
    *sources, target = words
    slash = target.endswith(("/", "/.")) or target == "." or len(sources) > 1
    absolute = posixpath.normpath(posixpath.join(config.workdir or "/", target))
    clean = [posixpath.normpath(source.lstrip("/") or ".") for source in sources]
    for source, normal in zip(sources, clean, strict=True):
        if normal.startswith(".."):
            raise error(each, path, f"{source} lies outside the build context", "copy it into the directory first")
    return Copy(tuple(clean), absolute.rstrip("/") + ("/" if slash else "") or "/", each.line, f"COPY {each.text}")


def _env(each: Instruction, config: Config, path: str) -> tuple[tuple[str, str], ...]:
    """`KEY=value …`, or the old `KEY the rest of the line`."""
    first = each.text.split(maxsplit=1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise error(each, path, "ENV needs a value", "ENV KEY=VALUE")
        return ((first[0], expand(first[1], config.env)),)
    try:
        words = shlex.split(each.text.replace("\\$", "\\\\$"))
    except ValueError as e:
        raise error(each, path, f"ENV: {str(e).lower()}") from e
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise error(each, path, f"ENV: {word!r} is not KEY=VALUE")
        pairs.append((key, expand(value, config.env)))
    return tuple(pairs)


def _with_env(old: tuple[tuple[str, str], ...], new: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple({**dict(old), **dict(new)}.items())


def _ports(text: str, each: Instruction, path: str) -> list[str]:
    """`80`, `53/udp`, `8000-8010/tcp`."""
    numbers, slash, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    low = _port(first + slash + protocol, each, path)
    if not dash:
        return [low]
    high = _port(last + slash + protocol, each, path)
    begin, end = int(low.partition("/")[0]), int(high.partition("/")[0])
    if begin > end:
        raise error(each, path, f"EXPOSE: {text!r} is a range that ends before it begins")
    return [f"{number}/{low.partition('/')[2]}" for number in range(begin, end + 1)]


def _port(text: str, each: Instruction, path: str) -> str:
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if (
        not number.isascii()
        or not number.isdigit()
        or not 0 < int(number) < 65536
        or protocol not in ("tcp", "udp", "sctp")
    ):
        raise error(each, path, f"EXPOSE: {text!r} is not a port", "EXPOSE 8080 or 53/udp")
    return f"{int(number)}/{protocol}"
