"""From the command line to a handler, and from what it raises to one line and an exit code.

Imports as little as it can: see tests/test_hot_path.py. The process ends by `os._exit`: closing the last SQLite
connection would checkpoint and sync for nothing (`store/db.py`), and tearing the interpreter down takes 3 ms.
"""

from __future__ import annotations

import io
import os
import sys

from limpet.cli.commands import ALIASES, COMMANDS, GROUPS
from limpet.cli.table import Call, Option
from limpet.errors import OUTPUT, Exit, LimpetError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from limpet.cli.table import Command

GLOBAL_OPTIONS = (
    Option(
        "config", kind="string", default="", metavar="DIR", help="Where config.json with the registries' log-ins is"
    ),
    Option("debug", "D", help="Show where an error comes from (LIMPET_DEBUG=1)"),
    Option("host", "H", kind="list", metavar="URL", help="Ignored: there is no daemon", hidden=True),
    Option("log-level", "l", kind="string", metavar="LEVEL", help="Ignored: there is no daemon", hidden=True),
    Option(
        "registries-conf", kind="string", default="", metavar="FILE", help="Settings of registries (LIMPET_REGISTRIES)"
    ),
    Option("root", kind="string", default="", metavar="DIR", help="Where images and containers are kept (LIMPET_ROOT)"),
    Option("run", kind="string", default="", metavar="DIR", help="Where sockets and locks are kept (LIMPET_RUN)"),
    Option("version", "v", help="Print the version"),
)

_OWN_FAILURE = ("run", "create")
"""Docker keeps 125 for these two: their other codes are the container's. Elsewhere a failure is 1, a bad flag 125."""

_FULL = (28, 122)  # ENOSPC, EDQUOT (the module `errno` is not loaded by then)


def entry() -> NoReturn:
    """The program."""
    code = 125
    try:
        _standard_streams()
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = 141  # what a shell shows for SIGPIPE
    except OSError as e:  # a flush: a full disk behind `> file`
        print(f"limpet: {reason(e)}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            pass
        os._exit(code)


def main(words: list[str]) -> int:
    """Runs one command; its exit code. Raises OSError only for standard output."""
    call: Call | None = None
    try:
        call = _call(words)
        code = call.command.handler(call) if call is not None else 0
        sys.stdout.flush()
        return code
    except Exit as e:
        return e.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except LimpetError as e:
        code = 1 if call is not None and e.exit_code == 125 and call.command.name not in _OWN_FAILURE else e.exit_code
        return _report(e.message, _lacking(e.message) or e.hint, code)
    except OSError as e:
        code = 125 if call is None or call.command.name in _OWN_FAILURE else 1
        if e.filename == OUTPUT:
            drop_output()
            code = code if call is not None else 1  # a help text
        if e.errno in _FULL:
            from limpet.cli import full

            return _report(*full.explain(e, call), code)
        return _report(reason(e), _lacking(reason(e)), code)
    except Exception as e:
        text = f"internal error: {type(e).__name__}: {e}".replace("\n", " ")
        return _report(
            text, "" if _debugging else "`limpet --debug …` shows where it comes from: please report it", 125
        )


_debugging = False


def _lacking(message: str) -> str:
    """Only a refusal of the kernel's is worth the import."""
    if "ermi" not in message:
        return ""
    from limpet.cli import lacking

    return lacking.hint(message)


def _report(message: str, hint: str, code: int) -> int:
    """One line for what is wrong, one for what to do; with --debug also where, and for which other error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        drop_output()
        print(f"limpet: {reason(e)}", file=sys.stderr)
    if _debugging:
        import traceback

        print(_without_secrets(traceback.format_exc()), end="", file=sys.stderr)
    print(f"limpet: {_without_secrets(message)}", file=sys.stderr)
    if hint:
        print(_without_secrets(hint), file=sys.stderr)
    return code


def drop_output() -> None:
    """After a failed write to standard output: what is left for it is not tried again, and not complained of again."""
    _dropped.append(sys.stdout)  # else its end would flush it
    sys.stdout = open(os.devnull, "w", encoding="utf-8")


_dropped: list[Any] = []


def _without_secrets(text: str) -> str:
    """Where a login was in play, it is in no message, whoever wrote that."""
    loaded = sys.modules.get("limpet.registry.redact")
    return text if loaded is None else str(loaded.clean(text))


def _call(words: list[str]) -> Call | None:
    """The command that `words` call, with its arguments; None if the answer was a help text."""
    global _debugging
    from limpet.cli import parser

    options, rest = parser.scan(GLOBAL_OPTIONS, words, "limpet", interspersed=False)
    _debugging = options["debug"] or bool(os.environ.get("LIMPET_DEBUG"))
    if options["host"]:
        print("limpet: -H is ignored: there is no daemon to talk to", file=sys.stderr)
    if options["config"]:
        os.environ["DOCKER_CONFIG"] = options["config"]  # as `registry.credentials` reads it
        os.environ.pop("REGISTRY_AUTH_FILE", None)
    if options["registries-conf"]:
        os.environ["LIMPET_REGISTRIES"] = options["registries-conf"]  # as `registry.settings` reads it
    if options["version"]:
        rest = ["version", "--short"]
    if not rest or options.get("help") or rest == ["help"]:
        _show("overview", GLOBAL_OPTIONS)
        return None
    if rest[0] == "help":
        rest = [*rest[1:], "--help"]
    name, rest = _name(rest)
    title = f"limpet {name}"
    if name in GROUPS:
        parser.scan((), rest, title, interspersed=True)
        _show("group", name)
        return None
    command = load(name)
    values, arguments = parser.parse(command, rest, title)
    if values.get("help"):
        _show("command", command, title)
        return None
    _check_count(command, arguments, title)
    return Call(command, values, arguments, options["root"], options["run"])


def _show(what: str, *values: Any) -> None:
    from limpet.cli import help

    print(getattr(help, what)(*values))


def load(name: str) -> Command:
    """The declaration of a command (by its name or an alias)."""
    name = ALIASES.get(name, name)
    module = __import__(COMMANDS[name][0], fromlist=["COMMANDS"])
    command: Command = module.COMMANDS[name]
    return command


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
    from limpet.cli import missing
    from limpet.cli.commands import visible
    from limpet.nearest import nearest

    instead = missing.command(name)
    if instead:
        return LimpetError(f"'{name}' is not a limpet command", instead, exit_code=1)
    group = name.partition(" ")[0] if " " in name else ""
    known = [*visible(), *ALIASES, *GROUPS]
    of_groups = [f"`limpet {other}`" for other in known if other.endswith(f" {name}")]  # `prune`, `df`
    near = nearest(name, [other for other in known if not group or other.startswith(f"{group} ")])
    hint = f"did you mean `limpet {near}`? " if near else ""
    if of_groups:
        whole = f"`limpet system {name}`"  # of everything
        hint = f"did you mean {whole if whole in of_groups else ' or '.join(of_groups)}? "
    return LimpetError(
        f"'{name}' is not a limpet command", f"{hint}See 'limpet {group + ' ' if group else ''}--help'.", exit_code=1
    )


def _check_count(command: Command, arguments: list[str], title: str) -> None:
    """Docker's words (docker/cli `cli/required.go`)."""
    count, least, most = len(arguments), command.min_args, command.max_args
    if count >= least and (most is None or count <= most):
        return
    if most == 0:
        wanted = "accepts no arguments"
    elif least == most:
        wanted = f"requires exactly {_plural(least)}"
    elif most is None:
        wanted = f"requires at least {_plural(least)}"
    elif least:
        wanted = f"requires at least {least} and at most {_plural(most)}"
    else:
        wanted = f"requires at most {_plural(most)}"
    raise LimpetError(f'"{title}" {wanted}.', f"Usage: {title} {command.usage}. See '{title} --help'.", exit_code=1)


def _plural(number: int) -> str:
    return f"{number} argument{'' if number == 1 else 's'}"


def _standard_streams() -> None:
    """What a caller closed is /dev/null, or else the database might become descriptor 2 and get an error's text.

    Standard output becomes one that can't be written, so that what is meant for it is not lost without a word.
    File names that are not UTF-8 are printed as the bytes that they are.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open("/dev/null", os.O_RDONLY if number == 1 else os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_StandardOutput(1, "wb", closefd=False)),
        encoding="utf-8",
        errors="surrogateescape",
        line_buffering=bool(sys.stdout.line_buffering),
    )


class _StandardOutput(io.FileIO):
    """Its errors say whose they are: a full disk behind `> file` is not the store's."""

    def write(self, data: Any, /) -> Any:
        try:
            return super().write(data)
        except OSError as e:
            raise OSError(e.errno, e.strerror, OUTPUT) from None
