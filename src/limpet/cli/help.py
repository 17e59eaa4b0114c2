"""Help texts, from the tables."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from limpet.cli import output
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
        _rows("Groups:", list(GROUPS.items())),
        _rows("Commands:", [(name, COMMANDS[name][1]) for name in sorted(rest)]),
        _rows("Global options:", option_rows(options)),
        "Examples:\n  limpet up -d examples/hello\n  limpet run --rm -it debian:12 bash",
        "Run 'limpet COMMAND --help' for more about a command.",
    ]
    return "\n\n".join(parts)


def group(name: str) -> str:
    """`limpet image --help`."""
    members = sorted(n for n in COMMANDS if n.startswith(f"{name} "))
    members += sorted(n for n in ALIASES if n.startswith(f"{name} ") and not _second_name(n))
    rows = sorted((n.partition(" ")[2], COMMANDS[ALIASES.get(n, n)][1]) for n in members)
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
    known = names(command.name)
    parts = [f"Usage:  {title} {command.usage}".rstrip(), command.summary]
    if len(known) > 1:
        parts.append("Aliases:\n  " + ", ".join(f"limpet {name}" for name in known))
    if any(not option.hidden for option in command.options):
        parts.append(_rows("Options:", option_rows(command.options)))
    parts.append("Examples:\n" + "\n".join(f"  {example}" for example in command.examples))
    return "\n\n".join(parts)


def names(name: str) -> list[str]:
    """The command's own name, then its aliases."""
    return [name, *sorted(alias for alias, target in ALIASES.items() if target == name)]


def option_rows(options: Sequence[Option]) -> list[tuple[str, str]]:
    """("-e, --env KEY=VALUE", what it does) of all that are shown, by name."""
    rows = []
    for option in sorted(options, key=lambda option: option.name):
        if option.hidden:
            continue
        short = f"-{option.short}, " if option.short else "    "
        value = "" if option.kind == "bool" else f" {option.metavar or 'VALUE'}"
        if option.kind == "optional":
            value = f"[={option.metavar or 'VALUE'}]"
        default = " (default true)" if option.default is True else ""
        rows.append((f"{short}--{option.name}{value}", option.help + default))
    return rows


def _second_name(name: str) -> bool:
    """`image list` beside `image ls`: one of them is enough."""
    target = ALIASES[name]
    same_group = [n for n in names(target) if n.partition(" ")[0] == name.partition(" ")[0]]
    return name != min(same_group, key=lambda n: (n not in COMMANDS, len(n), n))


def _rows(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Two columns; on a terminal the second is wrapped."""
    indent = max((len(left) for left, _ in rows), default=0) + 5
    room = output.terminal_width() - indent
    lines = [title]
    for left, right in rows:
        first, *more = textwrap.wrap(right, room) if 20 <= room < len(right) else [right]
        lines.append(f"  {left:{indent - 2}s}{first}".rstrip())
        lines += [" " * indent + line for line in more]
    return "\n".join(lines)
