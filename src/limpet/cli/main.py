"""From the command line to a handler, and from what it raises to one line and an exit code.

Imports as little as it can: see tests/test_hot_path.py. The process ends by `os._exit`: closing the last SQLite
connection would checkpoint and sync for nothing (`store/db.py`), and tearing the interpreter down takes 3 ms.
"""

from __future__ import annotations

import os
import sys

from limpet.cli.commands import ALIASES, COMMANDS, GROUPS
from limpet.cli.table import Call, Option
from limpet.errors import Exit, LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from limpet.cli.table import Command

GLOBAL_OPTIONS = (
    Option("root", kind="string", default="", metavar="DIR", help="Where images and containers are kept (LIMPET_ROOT)"),
    Option("run", kind="string", default="", metavar="DIR", help="Where the sockets of running containers are"),
    Option("debug", "D", help="Show where an error comes from"),
    Option("version", "v", help="Print the version"),
    Option("host", "H", kind="string", metavar="URL", help="Not used: there is no daemon", hidden=True),
    Option("config", kind="string", metavar="DIR", help="Not used", hidden=True),
    Option("log-level", "l", kind="string", metavar="LEVEL", help="Not used", hidden=True),
)


def entry() -> NoReturn:
    """The program."""
    code = 1
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = 141  # what a shell shows for SIGPIPE
    except OSError as e:  # the last flush: a full disk behind `> file`
        print(f"limpet: standard output: {e.strerror}", file=sys.stderr)
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            pass
        os._exit(code)


def main(words: list[str]) -> int:
    """Runs one command; its exit code."""
    debug = "-D" in words[:1] or "--debug" in words[:1] or bool(os.environ.get("LIMPET_DEBUG"))
    try:
        return _run(words)
    except Exit as e:
        return e.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except LimpetError as e:
        if debug:
            raise
        sys.stdout.flush()
        print(f"limpet: {e.message}", file=sys.stderr)
        if e.hint:
            print(e.hint, file=sys.stderr)
        return e.exit_code
    except Exception as e:
        if debug:
            raise
        sys.stdout.flush()
        known = str(e)
        if isinstance(e, OSError) and e.strerror:
            known = f"{e.strerror}: {e.filename}" if e.filename else e.strerror
        kind = "" if isinstance(e, OSError) else f"internal error: {type(e).__name__}: "
        print(f"limpet: {kind}{known}", file=sys.stderr)
        print("`limpet --debug …` shows where it comes from", file=sys.stderr)
        return 125


def _run(words: list[str]) -> int:
    from limpet.cli import parser

    options, rest = parser.scan(GLOBAL_OPTIONS, words, "limpet", interspersed=False)
    if options["version"]:
        rest = ["version", "--short"]
    if not rest or options.get("help") or rest == ["help"]:
        from limpet.cli import help

        print(help.overview(GLOBAL_OPTIONS))
        return 0
    if rest[0] == "help":
        rest = [*rest[1:], "--help"]
    name, rest = _name(rest)
    if name in GROUPS:
        from limpet.cli import help

        print(help.group(name))
        return 0 if not rest or "--help" in rest or "-h" in rest else 1
    command = load(name)
    title = f"limpet {name}"
    values, arguments = parser.parse(command, rest, title)
    if values.get("help") and not any(option.name == "help" for option in command.options):
        from limpet.cli import help

        print(help.command(command, title))
        return 0
    _check_count(command, arguments, title)
    return command.handler(_call(command, values, arguments, options))


def load(name: str) -> Command:
    """The declaration of a command (by its name or an alias)."""
    name = ALIASES.get(name, name)
    module = __import__(COMMANDS[name][0], fromlist=["COMMANDS"])
    command: Command = module.COMMANDS[name]
    return command


def _call(command: Command, values: dict[str, Any], arguments: list[str], options: dict[str, Any]) -> Call:
    return Call(command, values, arguments, options["root"], options["run"])


def _name(words: list[str]) -> tuple[str, list[str]]:
    """("container ls", the rest); a group alone comes back as it is. Raises LimpetError for what is not known."""
    two = " ".join(words[:2])
    if two in COMMANDS or two in ALIASES:
        return two, words[2:]
    if words[0] in GROUPS:
        if len(words) == 1 or words[1].startswith("-"):
            return words[0], words[1:]
        raise _not_a_command(two)
    if words[0] in COMMANDS:
        return words[0], words[1:]
    raise _not_a_command(words[0])


def _not_a_command(name: str) -> LimpetError:
    from limpet.cli.commands import visible
    from limpet.cli.suggest import nearest

    near = nearest(name, [*visible(), *ALIASES, *GROUPS])
    hint = f"did you mean `limpet {near}`? " if near else ""
    return LimpetError(f"'{name}' is not a limpet command", f"{hint}See 'limpet --help'.", exit_code=1)


def _check_count(command: Command, arguments: list[str], title: str) -> None:
    """Docker's words (docker/cli `cli/required.go`)."""
    count, least, most = len(arguments), command.min_args, command.max_args
    if count >= least and (most is None or count <= most):
        return

    def plural(number: int) -> str:
        return f"{number} argument{'' if number == 1 else 's'}"

    if least == most:
        wanted = f"requires exactly {plural(least)}" if least else "accepts no arguments"
    elif count < least:
        wanted = f"requires at least {plural(least)}"
    else:
        wanted = f"requires at most {plural(most or 0)}"
    raise LimpetError(f'"{title}" {wanted}.', f"Usage: {title} {command.usage}. See '{title} --help'.", exit_code=1)
