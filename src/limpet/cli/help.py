"""Help texts, from the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.cli.commands import ALIASES, COMMANDS, GROUPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.cli.table import Command, Option

_COMMON = ("up", "down", "run", "exec", "ps", "logs", "build", "pull", "images")


def overview(options: Sequence[Option]) -> str:
    """`limpet --help`."""
    rest = [n for n in COMMANDS if n not in _COMMON and not n.startswith("_") and " " not in n]
    parts = [
        "Usage:  limpet [OPTIONS] COMMAND",
        "A container engine without a daemon",
        _rows("Common commands:", [(name, COMMANDS[name][1]) for name in _COMMON]),
        _rows("Groups:", [(f"{name} …", GROUPS[name]) for name in GROUPS]),
        _rows("Commands:", [(name, COMMANDS[name][1]) for name in sorted(rest)]),
        _options("Global options:", options),
        "Examples:\n  limpet up -d examples/hello\n  limpet run --rm -it debian:12 bash",
        "Run 'limpet COMMAND --help' for more about a command.",
    ]
    return "\n\n".join(parts)


def group(name: str) -> str:
    """`limpet image --help`."""
    names = sorted(n for n in [*COMMANDS, *ALIASES] if n.startswith(f"{name} "))
    rows = [(n.partition(" ")[2], COMMANDS[ALIASES.get(n, n)][1]) for n in names]
    return "\n\n".join(
        [
            f"Usage:  limpet {name} COMMAND",
            GROUPS[name],
            _rows("Commands:", rows),
            f"Run 'limpet {name} COMMAND --help' for more about a command.",
        ]
    )


def command(command: Command, title: str) -> str:
    """`limpet run --help`."""
    names = [command.name, *sorted(alias for alias, target in ALIASES.items() if target == command.name)]
    parts = [f"Usage:  {title} {command.usage}".rstrip(), command.summary]
    if len(names) > 1:
        parts.append("Aliases:\n  " + ", ".join(f"limpet {name}" for name in names))
    if any(not option.hidden for option in command.options):
        parts.append(_options("Options:", command.options))
    parts.append("Examples:\n" + "\n".join(f"  {example}" for example in command.examples))
    return "\n\n".join(parts)


def _options(title: str, options: Sequence[Option]) -> str:
    rows = []
    for option in sorted(options, key=lambda option: option.name):
        if option.hidden:
            continue
        short = f"-{option.short}, " if option.short else "    "
        value = "" if option.kind == "bool" else f" {option.metavar or 'VALUE'}"
        if option.kind == "optional":
            value = f"[={option.metavar or 'VALUE'}]"
        rows.append((f"{short}--{option.name}{value}", option.help))
    return _rows(title, rows)


def _rows(title: str, rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(left) for left, _ in rows), default=0) + 3
    return "\n".join([title, *(f"  {left:{width}s}{right}".rstrip() for left, right in rows)])
