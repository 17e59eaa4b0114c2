"""Completion for bash, zsh and fish. The scripts are short: they ask `limpet __complete WORDS…` what may come.

A line of its answer is `word<TAB>description`; `:files` means that the shell completes file names. It imports no more
than the tables of the one command at hand, and the store for names of containers, images and volumes.
"""

from __future__ import annotations

from limpet.cli import commands
from limpet.cli.commands import ALIASES, GROUPS
from limpet.cli.table import Command
from limpet.errors import Invalid, LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.cli.table import Call, Option

BASH = """\
# bash completion for limpet; put it into your .bashrc as: source <(limpet completion bash)
_limpet() {
    local IFS=$'\\n' line
    COMPREPLY=()
    while IFS= read -r line; do
        if [ "$line" = ":files" ]; then
            compopt -o default 2>/dev/null
            continue
        fi
        COMPREPLY+=("${line%%$'\\t'*}")
    done < <(limpet __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _limpet limpet
"""

ZSH = """\
#compdef limpet
# zsh completion for limpet; put it into a file _limpet in your $fpath, or: source <(limpet completion zsh)
_limpet() {
    local -a found
    local line files=0
    while IFS= read -r line; do
        if [[ $line == ":files" ]]; then files=1; continue; fi
        found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done < <(limpet __complete -- "${(@)words[2,$CURRENT]}" 2>/dev/null)
    (( ${#found} )) && _describe limpet found
    (( files )) && _files
}
compdef _limpet limpet
"""

FISH = """\
# fish completion for limpet; put it into ~/.config/fish/completions/limpet.fish
function __limpet_complete
    set -l words (commandline -opc) (commandline -ct)
    limpet __complete -- $words[2..-1] 2>/dev/null | string match -v ':files'
end
complete -c limpet -f -a '(__limpet_complete)'
complete -c limpet -F -n 'limpet __complete -- (commandline -opc)[2..-1] (commandline -ct) | string match -q :files'
"""

_SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(call: Call) -> int:
    shell = call.arguments[0]
    if shell not in _SCRIPTS:
        raise Invalid(f"no completion for '{shell}'", "bash, zsh and fish have one", exit_code=1)
    print(_SCRIPTS[shell], end="")
    return 0


def complete(call: Call) -> int:
    """The last word is the one to be completed; it may be empty."""
    words = call.arguments or [""]
    for word, description in candidates(call, words):
        print(f"{word}\t{description}" if description else word)
    return 0


def candidates(call: Call, words: list[str]) -> list[tuple[str, str]]:
    """(word, description) of everything that may stand in place of the last word."""
    from limpet.cli.main import GLOBAL_OPTIONS

    *before, last = words
    i = 0
    while i < len(before) and before[i].startswith("-"):
        option = _option(GLOBAL_OPTIONS, before[i])
        i += 2 if option is not None and option.kind != "bool" and "=" not in before[i] else 1
    before = before[i:]
    if not before:
        if last.startswith("-"):
            return _options(GLOBAL_OPTIONS, last)
        top = [(n, s) for n, (_, s) in commands.COMMANDS.items() if " " not in n and not n.startswith("_")]
        return _starting([*top, *GROUPS.items()], last)
    if before[0] in GROUPS and len(before) == 1:
        prefix = f"{before[0]} "
        names = [n for n in [*commands.COMMANDS, *ALIASES] if n.startswith(prefix)]
        return _starting([(n[len(prefix) :], commands.COMMANDS[ALIASES.get(n, n)][1]) for n in names], last)
    return _of_command(call, before, last)


def _of_command(call: Call, before: list[str], last: str) -> list[tuple[str, str]]:
    from limpet.cli.main import load

    two = " ".join(before[:2])
    name, used = (two, 2) if two in commands.COMMANDS or two in ALIASES else (before[0], 1)
    if name not in commands.COMMANDS and name not in ALIASES:
        return []
    command = load(name)
    arguments = 0
    value_of: Option | None = None
    for word in before[used:]:
        if value_of is not None:
            value_of = None
        elif word.startswith("-") and word != "-":
            option = _option(command.options, word)
            value_of = option if option and option.kind not in ("bool", "optional") and "=" not in word else None
        else:
            arguments += 1
    if value_of is not None:
        found = _starting([(choice, "") for choice in value_of.choices], last)
        return found or (
            [(":files", "")] if value_of.metavar in ("FILE", "DIR") or "SOURCE" in value_of.metavar else []
        )
    if last.startswith("-") and (command.interspersed or not arguments):
        return _options(command.options, last)
    if not command.interspersed and arguments and command.complete == "image":
        return [(":files", "")]
    if command.max_args is not None and arguments >= command.max_args:
        return []
    return _arguments(call, command, last)


def _arguments(call: Call, command: Command, last: str) -> list[tuple[str, str]]:
    try:
        if command.complete == "container":
            rows = call.store.db.rows("SELECT name, image_name FROM container ORDER BY name")
            return _starting([(name, image) for name, image in rows], last)
        if command.complete == "image":
            from limpet.oci import reference

            rows = call.store.db.rows("SELECT reference FROM name ORDER BY reference")
            return _starting([(reference.parse(name).familiar, "") for (name,) in rows], last)
        if command.complete == "volume":
            return _starting([(name, "") for (name,) in call.store.db.rows("SELECT name FROM volume")], last)
    except LimpetError:
        return []
    return [(":files", "")] if command.complete == "file" else []


def _option(options: Sequence[Option], word: str) -> Option | None:
    name = word.lstrip("-").partition("=")[0]
    for option in options:
        if word.startswith("--"):
            if option.name == name:
                return option
        elif option.short and option.short == word[-1]:
            return option
    return None


def _options(options: Sequence[Option], last: str) -> list[tuple[str, str]]:
    shown = [(f"--{o.name}", o.help) for o in options if not o.hidden]
    return _starting([*shown, ("--help", "Show what the command does")], last)


def _starting(words: list[tuple[str, str]], last: str) -> list[tuple[str, str]]:
    return [(word, description) for word, description in words if word.startswith(last)]


COMMANDS = {
    "completion": Command(
        name="completion",
        handler=completion,
        usage="bash|zsh|fish",
        summary="Print a completion script for a shell",
        examples=(
            "source <(limpet completion bash)",
            "limpet completion fish > ~/.config/fish/completions/limpet.fish",
        ),
        min_args=1,
        max_args=1,
    ),
    "__complete": Command(
        name="__complete", handler=complete, usage="-- WORDS", summary="What may come next", interspersed=False
    ),
}
