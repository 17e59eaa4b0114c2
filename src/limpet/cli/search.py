"""search."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.errors import Invalid, LimpetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from limpet.cli.table import Call
    from limpet.registry.search import Found

_LIMIT = 25
_WIDTH = 45  # of a description, as docker/cli `formatter/search.go`
_FILTERS = ("is-official", "is-automated", "stars")


def search(call: Call) -> int:
    from limpet.registry import search as searching

    fits = _filter(call["filter"])
    limit = _LIMIT if call["limit"] is None else call["limit"]
    if not 1 <= limit <= searching.MAX_LIMIT:
        raise Invalid(f"--limit {limit} is not between 1 and {searching.MAX_LIMIT}")
    found: list[Found] = []
    errors: list[LimpetError] = []
    for domain, term in searching.registries(call.arguments[0]):
        try:
            found += searching.search(domain, term, limit)
        except Invalid:
            raise
        except LimpetError as e:
            errors.append(e)
    if errors and not found:
        raise errors[0]
    rows = [_row(one, whole=call["no-trunc"]) for one in found if fits(one)]
    columns = (("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial"))
    extra = (("AUTOMATED", "IsAutomated"),)
    shown = columns if call["format"] in ("", "table", "json") else columns + extra
    output.say(output.formatted(call["format"], rows, shown, "Name"))
    for error in errors:
        sys.stdout.flush()
        print(f"limpet: {error}", file=sys.stderr)
    return 1 if errors else 0


def _row(one: Found, *, whole: bool) -> dict[str, Any]:
    text = " ".join(one.description.split())
    return {
        "Name": one.name,
        "Description": text if whole or len(text) <= _WIDTH else text[: _WIDTH - 1] + "…",
        "StarCount": str(one.stars),
        "IsOfficial": "[OK]" if one.is_official else "",
        "IsAutomated": "[OK]" if one.is_automated else "",
    }


def _filter(words: list[str]) -> Callable[[Found], bool]:
    tests: list[Callable[[Found], bool]] = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "stars" and value.isascii() and value.isdecimal():
            tests.append(lambda one, least=int(value[:9]): one.stars >= least)  # type: ignore[misc]
        elif key == "is-official" and value in ("true", "false"):
            tests.append(lambda one, wanted=value == "true": one.is_official == wanted)  # type: ignore[misc]
        elif key == "is-automated" and value in ("true", "false"):
            tests.append(lambda one, wanted=value == "true": one.is_automated == wanted)  # type: ignore[misc]
        else:
            raise Invalid(f"invalid filter '{word}'", f"there are: {', '.join(_FILTERS)}; stars=N, is-official=true")
    return lambda one: all(test(one) for test in tests)


COMMANDS = {
    "search": Command(
        "search",
        search,
        "[OPTIONS] [REGISTRY/]TERM",
        "Search Docker Hub, or the catalogue of a registry, for images",
        [
            Option("filter", "f", kind="list", metavar="KEY=VALUE", help=f"Only what matches: {', '.join(_FILTERS)}"),
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option("limit", kind="int", metavar="N", help=f"How many from each registry at most ({_LIMIT})"),
            Option("no-trunc", help="Show whole descriptions"),
        ],
        examples=(
            "limpet search --filter is-official=true debian",
            "limpet search registry.example/web",
            "limpet search registry.example/",
        ),
        min_args=1,
        max_args=1,
    ),
}
