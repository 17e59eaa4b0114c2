"""Arguments by pflag's grammar, which is that of Docker's command line.

Why not argparse: importing it costs 9 ms of the 25 that `limpet run` has, and it knows neither `--rm=false` nor `-eA=1`
nor that options end at the image's name.

    -it  -e A=1  -eA=1  -e=A=1  --env A=1  --env=A=1  --rm  --rm=false  --  -

A group of short options ends at the first that takes a value, which is the rest of the word or the next word. A word
that follows an option with a value is that value, whatever it looks like. (pflag `flag.go`: parseLongArg,
parseSingleShortArg, parseArgs; Go's strconv for what is true and what is a number.)
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
    by_name: dict[str, Option] = {}
    by_short: dict[str, Option] = {}
    values: dict[str, Any] = {}
    for option in table:
        by_name[option.name] = option
        for other in option.aliases:
            by_name[other] = option
        if option.short:
            by_short[option.short] = option
        values[option.name] = [] if option.kind == "list" and option.default is None else option.default
    arguments: list[str] = []
    given: set[str] = set()  # lists whose default was replaced
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
            if not name or name.startswith("-"):
                raise _wrong(f"bad flag syntax: {word}", title)
            found = by_name.get(name)
            if found is None:
                if name == HELP:
                    values[HELP] = True
                    continue
                raise unknown(f"--{name}", table, title)
            if not equals:
                if found.kind == "bool":
                    text = "true"
                elif found.kind == "optional":
                    text = ""
                elif i < len(words):
                    text = words[i]
                    i += 1
                else:
                    raise _wrong(f"flag needs an argument: {word}", title)
            _set(values, given, found, text, title)
            continue
        letters = word[1:]
        while letters:
            found = by_short.get(letters[0])
            if found is None:
                if letters[0] == "h":
                    values[HELP] = True
                    letters = letters[1:]
                    continue
                raise unknown(f"-{letters[0]}", table, title, letters)
            flag, rest = letters[0], letters[1:]
            letters = ""
            if len(rest) > 1 and rest[0] == "=":
                text = rest[1:]
            elif found.kind in ("bool", "optional"):
                text = "true" if found.kind == "bool" else ""
                letters = rest
            elif rest:
                text = rest
            elif i < len(words):
                text = words[i]
                i += 1
            else:
                raise _wrong(f"flag needs an argument: {flag!r} in -{flag}", title)
            _set(values, given, found, text, title)
    return values, arguments


def _set(values: dict[str, Any], given: set[str], option: Option, text: str, title: str) -> None:
    if option.kind == "bool":
        if text not in _TRUE and text not in _FALSE:
            raise _bad_value(option, text, "true or false is wanted", title)
        values[option.name] = text in _TRUE
        return
    if option.kind == "int":
        number = _integer(text)
        if number is None:
            raise _bad_value(option, text, "a whole number is wanted", title)
        values[option.name] = number
        return
    if option.choices and text not in option.choices:
        raise _bad_value(option, text, f"one of {', '.join(option.choices)} is wanted", title)
    if option.kind != "list":
        values[option.name] = text
        return
    if option.name not in given:
        values[option.name] = []
        given.add(option.name)
    values[option.name].append(text)


def _integer(text: str) -> int | None:
    """Go's `strconv.ParseInt(text, 0, 64)`: 10, -1, 0x10, 010 (octal), 1_000; None for what is none."""
    if text != text.strip() or len(text) > 80:
        return None
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_":
        text = text.replace("0", "0o", 1)
    try:
        number = int(text, 0)
    except ValueError:
        return None
    return number if digits.isascii() and -(1 << 63) <= number < 1 << 63 else None


def unknown(word: str, table: Sequence[Option], title: str, letters: str = "") -> Invalid:
    """For an option that is not there: what Docker's option of this name would need, or else the near one."""
    from limpet.cli import missing
    from limpet.nearest import nearest

    message = f"unknown shorthand flag: {word[1:]!r} in -{letters}" if letters else f"unknown flag: {word}"
    reason = missing.reason(title.partition(" ")[2], word)
    if reason:
        return Invalid(message, reason)
    near = "" if letters else nearest(word, [f"--{option.name}" for option in table if not option.hidden])
    hint = f"did you mean {near}? " if near else ""
    return Invalid(message, f"{hint}See '{title} --help'.")


def _bad_value(option: Option, text: str, wanted: str, title: str) -> Invalid:
    shown = f"-{option.short}, --{option.name}" if option.short else f"--{option.name}"
    return _wrong(f'invalid argument "{text}" for "{shown}" flag: {wanted}', title)


def _wrong(message: str, title: str) -> Invalid:
    return Invalid(message, f"See '{title} --help'.")
