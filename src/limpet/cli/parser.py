"""Arguments by pflag's grammar, which is that of Docker's command line.

Why not argparse: importing it costs 9 ms of the 25 that `limpet run` has, and it knows neither `--rm=false` nor `-eA=1`
nor that options end at the image's name.

    -it  -e A=1  -eA=1  -e=A=1  --env A=1  --env=A=1  --rm  --rm=false  --  -

A group of short options ends at the first that takes a value, which is the rest of the word or the next word.
"""

from __future__ import annotations

from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from limpet.cli.table import Command, Option

_TRUE = ("1", "t", "T", "true", "TRUE", "True")  # Go's strconv.ParseBool
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

HELP = "help"


def parse(command: Command, words: Sequence[str], title: str) -> tuple[dict[str, Any], list[str]]:
    """(every option's value, the arguments). `--help` comes as the option `help`. Raises Invalid (exit code 125)."""
    return scan(command.options, words, title, interspersed=command.interspersed)


def scan(
    table: Sequence[Option], words: Sequence[str], title: str, *, interspersed: bool
) -> tuple[dict[str, Any], list[str]]:
    """As `parse`, for any table of options; `title` is how the command was called ("limpet run")."""
    by_name = {option.name: option for option in table}
    by_short = {option.short: option for option in table if option.short}
    values: dict[str, Any] = {
        option.name: [] if option.kind == "list" and option.default is None else option.default for option in table
    }
    arguments: list[str] = []
    i = 0
    while i < len(words):
        word = words[i]
        i += 1
        if word == "--":
            arguments += words[i:]
            break
        if word == "-" or not word.startswith("-"):
            arguments.append(word)
            if not interspersed:
                arguments += words[i:]
                break
            continue
        if word.startswith("--"):
            name, equals, text = word[2:].partition("=")
            option = by_name.get(name)
            if option is None:
                if name == HELP:
                    values[HELP] = True
                    continue
                raise unknown(f"--{name}", [f"--{o.name}" for o in table if not o.hidden], title)
            if not equals and option.kind not in ("bool", "optional"):
                if i >= len(words):
                    raise _wrong(f"flag needs an argument: --{name}", title)
                text, i = words[i], i + 1
            elif not equals:
                text = "true" if option.kind == "bool" else ""
            _set(values, option, text, f"--{name}", title)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            option = by_short.get(letter)
            if option is None:
                if letter == "h":
                    values[HELP] = True
                    continue
                raise unknown(f"-{letter}", [], title, f"unknown shorthand flag: {letter!r} in {word}")
            if option.kind == "bool" or (option.kind == "optional" and not letters.startswith("=")):
                if letters.startswith("="):
                    _set(values, option, letters[1:], f"-{letter}", title)
                    break
                _set(values, option, "true" if option.kind == "bool" else "", f"-{letter}", title)
                continue
            if letters:
                text = letters.removeprefix("=")
            elif i < len(words):
                text, i = words[i], i + 1
            else:
                raise _wrong(f"flag needs an argument: {letter!r} in {word}", title)
            _set(values, option, text, f"-{letter}", title)
            break
    return values, arguments


def _set(values: dict[str, Any], option: Option, text: str, shown: str, title: str) -> None:
    if option.kind == "bool":
        if text not in _TRUE + _FALSE:
            raise _wrong(f"invalid argument {text!r} for {shown!r}: true or false is wanted", title)
        values[option.name] = text in _TRUE
    elif option.kind == "int":
        digits = text[1:] if text[:1] in ("-", "+") else text
        if not (digits.isascii() and digits.isdigit()):
            raise _wrong(f"invalid argument {text!r} for {shown!r}: a whole number is wanted", title)
        values[option.name] = int(text)
    else:
        if option.choices and text not in option.choices:
            raise _wrong(
                f"invalid argument {text!r} for {shown!r}: one of {', '.join(option.choices)} is wanted", title
            )
        if option.kind == "list":
            if values[option.name] is option.default:
                values[option.name] = []
            values[option.name].append(text)
        else:
            values[option.name] = text


def unknown(word: str, known: list[str], title: str, message: str = "") -> Invalid:
    """An error for an option that is not there, with the near one."""
    from limpet.cli.suggest import nearest

    near = nearest(word, known)
    hint = f"did you mean {near}? " if near else ""
    return Invalid(message or f"unknown flag: {word}", f"{hint}See '{title} --help'.")


def _wrong(message: str, title: str) -> Invalid:
    return Invalid(message, f"See '{title} --help'.")
