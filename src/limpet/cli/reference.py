"""The reference page: `python -m limpet.cli.reference > docs/reference.md`. A test says when it is stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.cli import commands, help, missing
from limpet.cli.main import GLOBAL_OPTIONS, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.cli.table import Option

_HEAD = """\
# Command reference

Made by `python -m limpet.cli.reference` from the tables that parse the command line; `limpet COMMAND --help` shows them
too.

Options are written as Docker's are: `-it`, `-e A=1`, `-eA=1`, `--env=A=1`, `--rm=false`; `--` ends them. Where a
command runs another (`run`, `create`, `exec`, `top`), what follows the image's or container's name belongs to that one.
Containers and images are named by their name or by the beginning of their ID.

## Exit codes

| code | means |
|---|---|
| 0 | done |
| 1 | what was asked for failed, an unknown command, a wrong number of arguments |
| 64 | a mistake in a `--format` template |
| 125 | a bad option; with `run` and `create` every failure of limpet itself |
| 126, 127 | `run`, `exec`: the command cannot be executed, was not found |
| 128 + N | ended by signal N: 130 Ctrl-C, 137 KILL, 141 a pipe that nobody reads, 143 TERM |
| else | `run`, `exec`, `attach`, `start -a`: the command's own |

## Environment

| variable | for |
|---|---|
| `LIMPET_ROOT`, `LIMPET_RUN` | as `--root`, `--run` |
| `LIMPET_CGROUP` | the control group of version 2 below which containers have theirs; empty: none |
| `LIMPET_DRIVER` | the storage driver: `erofs`, `dir`; chosen by what the kernel has, and remembered in the store |
| `LIMPET_DEBUG` | as `--debug` |
| `LIMPET_MAX_LAYER_SIZE`, `LIMPET_MAX_LAYER_ENTRIES`, `LIMPET_MAX_LAYER_RATIO` | what a layer may be at most |
| `DOCKER_CONFIG` | as `--config` |
| `REGISTRY_AUTH_FILE` | a file of logins, in place of all others |
| `LIMPET_REGISTRIES` | as `--registries-conf` |
| `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` | how registries are reached |
| `SOURCE_DATE_EPOCH` | the time, in Unix seconds, that `build`, `capture`, `commit` and `import` put into images |
| `NO_COLOR` | no colour, unless it is empty; nor is there any where standard error is no terminal |

## Options before the command
"""


def page() -> str:
    """The whole page, with a new line at its end."""
    parts = [_HEAD, *_options(GLOBAL_OPTIONS)]
    for name in sorted(commands.visible()):
        parts += _command(name)
    parts += ["", "## Commands of Docker's that are not here", "", "| command | instead |", "|---|---|"]
    parts += [f"| `docker {name}` | {missing.command(name)} |" for name in missing.commands()]
    return "\n".join(parts) + "\n"


def _command(name: str) -> list[str]:
    command = load(name)
    lines = ["", f"## limpet {name}", "", f"{command.summary}.", "", "```", f"limpet {name} {command.usage}".rstrip()]
    lines += ["```", ""]
    others = [f"`limpet {other}`" for other in help.names(name) if other != name]
    if others:
        lines += [f"Also: {', '.join(others)}.", ""]
    if any(not option.hidden for option in command.options):
        lines += _options(command.options)
        lines.append("")
    lines += ["```sh", *command.examples, "```"]
    absent = missing.listed(name)
    if absent:
        lines += ["", "Docker has, limpet has not:", ""]
        lines += [f"- {', '.join(f'`--{option}`' for option in options)}: {why}" for options, why in absent]
    return lines


def _options(options: Sequence[Option]) -> list[str]:
    rows = [(shown.strip(), text) for shown, text in help.option_rows(options)]
    rows = [(shown.replace("|", "\\|"), text.replace("|", "\\|")) for shown, text in rows]
    lines = [f"| `{shown}` | {text} |" for shown, text in rows]
    return ["| option | |", "|---|---|", *lines]


if __name__ == "__main__":
    print(page(), end="")
