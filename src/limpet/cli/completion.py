"""Completion for bash, zsh and fish. The scripts are short: they ask `limpet __complete WORDS…` what may come.

A line of its answer is `word<TAB>description`; `:files` means that the shell completes file names. It imports no more
than the tables of the one command at hand, and the store for names of containers, images and volumes.
"""

from __future__ import annotations

from limpet.cli import commands, parser
from limpet.cli.commands import ALIASES, GROUPS
from limpet.cli.table import Call, Command
from limpet.errors import Invalid, LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.cli.table import Option

BASH = """\
# bash completion for limpet; put it into your .bashrc as: source <(limpet completion bash)
_limpet() {
    local IFS=$'\\n' i line last cut="" breaks="" rest=${COMP_LINE-} words=()
    # bash cuts words at = and : too. Put together what has no blank in between, and offer only what follows the cut.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if [[ i -gt 0 && -n ${COMP_LINE-} && $rest != [[:blank:]]* ]]; then
            words[${#words[@]} - 1]+=${COMP_WORDS[i]}
        else
            rest=${rest#"${rest%%[![:blank:]]*}"}
            words+=("${COMP_WORDS[i]}")
        fi
        rest=${rest#"${COMP_WORDS[i]}"}
    done
    last=${words[${#words[@]} - 1]}
    [[ ${COMP_WORDBREAKS-} == *:* ]] && breaks+=:
    [[ ${COMP_WORDBREAKS-} == *=* ]] && breaks+==
    [[ -n $breaks ]] && cut=${last%"${last##*[$breaks]}"}
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o default 2>/dev/null
        else
            line=${line%%$'\\t'*}
            [[ $line == *[:/] ]] && compopt -o nospace 2>/dev/null
            COMPREPLY+=("${line#"$cut"}")
        fi
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _limpet limpet
"""

ZSH = """\
#compdef limpet
# zsh completion for limpet; put it into a file _limpet in your $fpath, or: source <(limpet completion zsh)
_limpet() {
    local -a found
    local line word files=0
    while IFS= read -r line; do
        if [[ $line == ":files" ]]; then files=1; continue; fi
        word=${${line%%$'\\t'*}//:/\\\\:}
        [[ $line == *$'\\t'* ]] && word+=":${line#*$'\\t'}"
        found+=("$word")
    done < <(${words[1]} __complete -- "${(@)words[2,$CURRENT]}" 2>/dev/null)
    (( ${#found} )) && _describe limpet found
    (( files )) && _files
}
if [ "$funcstack[1]" = "_limpet" ]; then _limpet "$@"; else compdef _limpet limpet; fi
"""

FISH = """\
# fish completion for limpet; put it into ~/.config/fish/completions/limpet.fish
function __limpet_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] __complete -- $words[2..-1] 2>/dev/null)
    if contains -- :files $found
        __fish_complete_path (commandline -ct)
    end
    string match -v -- ':files' $found
end
complete -c limpet -f -a '(__limpet_complete)'
"""

_SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

_FILES = (":files", "")
_FILE_VALUES = ("FILE", "DIR", "PATH")


def completion(call: Call) -> int:
    shell = call.arguments[0]
    if shell not in _SCRIPTS:
        raise Invalid(f"no completion for '{shell}'", "bash, zsh and fish have one")
    print(_SCRIPTS[shell], end="")
    return 0


def complete(call: Call) -> int:
    """The last word is the one to be completed; it may be empty."""
    for word, description in candidates(call, call.arguments or [""]):
        print(f"{word}\t{description}" if description else word)
    return 0


def candidates(call: Call, words: list[str]) -> list[tuple[str, str]]:
    """(word, description) of everything that may stand in place of the last word."""
    from limpet.cli.main import GLOBAL_OPTIONS

    *before, last = words
    try:
        options, before = parser.scan(GLOBAL_OPTIONS, before, "limpet", interspersed=False)
    except Invalid:
        option = _waiting(GLOBAL_OPTIONS, before[-1])
        return _values(option, last) if option is not None else []
    call = Call(call.command, {}, [], options["root"], options["run"])
    if before and before[0] == "help":
        before = before[1:]
        last = "" if last.startswith("-") else last
        if len(before) > 1 or (before and before[0] not in GROUPS):
            return []
    if not before:
        if last.startswith("-"):
            return _options(GLOBAL_OPTIONS, last)
        top = [(n, s) for n, (_, s) in commands.COMMANDS.items() if " " not in n and not n.startswith("_")]
        return _starting([*top, *GROUPS.items(), ("help", "Show what a command does")], last)
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
    arguments: list[str] = []
    waiting: Option | None = None
    options_end = False
    for word in before[used:]:
        if waiting is not None:
            waiting = None
        elif options_end or not word.startswith("-") or word == "-":
            arguments.append(word)
            options_end = options_end or not command.interspersed
        elif word == "--":
            options_end = True
        else:
            waiting = _waiting(command.options, word)
    if waiting is not None:
        return _values(waiting, last)
    if last.startswith("-") and not options_end:
        if last.startswith("--") and "=" in last:
            name, _, value = last[2:].partition("=")
            found = [option for option in command.options if option.name == name]
            return [(f"--{name}={word}", what) for word, what in (_values(found[0], value) if found else [])]
        return _options(command.options, last)
    if command.max_args is not None and len(arguments) >= command.max_args:
        return []
    if not command.interspersed and arguments:
        return []  # a command of the container: the host's files would be a guess
    return _arguments(call, command, arguments, last)


def _arguments(call: Call, command: Command, given: list[str], last: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if "container:" in command.complete and ":" in last:
        return _files_inside(call, last)
    for kind in command.complete.split("|"):
        if kind == "file":
            found.append(_FILES)
        elif kind in _NAMES:
            try:
                found += _NAMES[kind](call) if kind == "registry" or call.has_store() else []
            except LimpetError:
                continue
        elif kind:
            found.append((kind, ""))
    return [(word, what) for word, what in found if word == _FILES[0] or (word.startswith(last) and word not in given)]


def _containers(call: Call) -> list[tuple[str, str]]:
    return [tuple(row) for row in call.store.db.rows("SELECT name, image_name FROM container ORDER BY name")]


def _inside(call: Call) -> list[tuple[str, str]]:
    """For `cp`: a container's name and the colon."""
    return [(f"{name}:", image) for name, image in _containers(call)]


def _in_state(*wanted: str) -> Callable[[Call], list[tuple[str, str]]]:
    def names(call: Call) -> list[tuple[str, str]]:
        from limpet.containers import state

        return sorted(
            (container.name, container.image_name)
            for container in state.all_containers(call.store)
            if state.status(call.store, container).state in wanted
        )

    return names


def _files_inside(call: Call, text: str) -> list[tuple[str, str]]:
    """For `cp box:/e`: the names in that directory of the container, without those that a shell would take apart."""
    import os
    from itertools import islice

    from limpet.containers import state
    from limpet.containers.files import copyroot

    name, _, path = text.partition(":")
    above, slash, _ = (path or "/").rpartition("/")
    try:
        with copyroot.container_root(call.store, state.find(call.store, name)) as root:
            fd = root.open(f"/{above}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with os.scandir(fd) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, _MOST)]
            os.close(fd)
    except (OSError, LimpetError):
        return []
    whole = [
        (f"{name}:{above}{slash}{each}{'/' if is_dir else ''}", "") for each, is_dir in found if set(each) <= _PLAIN
    ]
    return sorted(_starting(whole, text))


_MOST = 1000
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@%,^/")
"""A file in a container may have any name; completed, it stands on the command line of somebody's shell."""


def _images(call: Call) -> list[tuple[str, str]]:
    from limpet.oci import reference

    rows = call.store.db.rows("SELECT reference FROM name ORDER BY reference")
    return [(reference.parse(name).familiar, "") for (name,) in rows]


def _volumes(call: Call) -> list[tuple[str, str]]:
    return [(name, "") for (name,) in call.store.db.rows("SELECT name FROM volume ORDER BY name")]


def _networks(call: Call) -> list[tuple[str, str]]:
    rows = call.store.db.rows("SELECT name, driver FROM network ORDER BY name")
    return [tuple(row) for row in rows]


def _pods(call: Call) -> list[tuple[str, str]]:
    return [(name, "") for (name,) in call.store.db.rows("SELECT name FROM pod ORDER BY name")]


def _registries(call: Call) -> list[tuple[str, str]]:
    """Those with a login, and those with settings of their own."""
    from limpet.registry import login, settings

    logins = login.all_logins(ask=False)
    known = [f"{rule.domain}/{rule.path}".rstrip("/") for rule in settings.load().rules if "*" not in rule.domain]
    return [(name, "logged in" if name in logins else "") for name in sorted({*logins, *known})]


_NAMES: dict[str, Callable[[Call], list[tuple[str, str]]]] = {
    "container": _containers,
    "container:": _inside,
    "paused": _in_state("paused"),
    "running": _in_state("running", "paused", "restarting"),
    "stopped": _in_state("created", "exited"),
    "image": _images,
    "network": _networks,
    "pod": _pods,
    "registry": _registries,
    "volume": _volumes,
}


def _values(option: Option, last: str) -> list[tuple[str, str]]:
    if option.offers:
        return _starting([(offer, "") for offer in option.offers], last)
    words = option.metavar.split("[")[0].split(":")[0].split("|")
    return [_FILES] if option.name == "volume" or any(word in _FILE_VALUES for word in words) else []


def _waiting(options: Sequence[Option], word: str) -> Option | None:
    """The option in `word` whose value is the next word."""
    if word.startswith("--"):
        for option in options:
            if option.name == word[2:] or word[2:] in option.aliases:
                return option if option.kind not in ("bool", "optional") else None
        return None
    by_short = {option.short: option for option in options if option.short}
    for i, letter in enumerate(word[1:], 2):
        found = by_short.get(letter)
        if found is None or found.kind not in ("bool", "optional"):
            return found if i == len(word) else None
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
        summary="Print a completion script for bash, zsh or fish",
        examples=(
            "source <(limpet completion bash)",
            "limpet completion fish > ~/.config/fish/completions/limpet.fish",
        ),
        min_args=1,
        max_args=1,
        complete="bash|zsh|fish",
    ),
    "__complete": Command(
        name="__complete", handler=complete, usage="-- WORDS", summary="What may come next", interspersed=False
    ),
}
