"""cache ls, rm, prune: what `RUN --mount=type=cache` keeps."""

from __future__ import annotations

import sys

from limpet.build import cachemounts
from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.build.cachemounts import Cache
    from limpet.cli.table import Call


def ls(call: Call) -> int:
    found = cachemounts.caches(call.store)
    if call["quiet"]:
        for cache in found:
            print(cache.name)
        return 0
    rows = [
        {
            "ID": cache.key,
            "Name": cache.name,
            "Size": output.size_decimal(cache.bytes),
            "LastUsed": output.age(cache.used),
        }
        for cache in found
    ]
    columns = (("NAME", "Name"), ("LAST USED", "LastUsed"), ("SIZE", "Size"))
    output.say(output.formatted(call["format"], rows, columns, keep="Name"))
    return 0


def rm(call: Call) -> int:
    failed = 0
    found = cachemounts.caches(call.store)
    for name in call.arguments:
        wanted = [cache for cache in found if name in (cache.name, cache.key)]
        if not wanted:
            failed = 1
            print(f"limpet: {NotFound(f'no such cache: {name}')}", file=sys.stderr)
        for cache in wanted:
            failed |= not _remove(call, cache)
    return failed


def prune(call: Call) -> int:
    found = cachemounts.caches(call.store)
    total = sum(cache.bytes for cache in found)
    if found and not call["force"]:
        lines = [f"  {each.name}  ({output.size_decimal(each.bytes)}, used {output.age(each.used)})" for each in found]
        names = "\n".join(lines)
        output.confirm(f"This removes {len(found)} caches of builds, {output.size_decimal(total)}:\n{names}")
    gone = [cache for cache in found if _remove(call, cache)]
    print(f"Total reclaimed space: {output.size_decimal(sum(cache.bytes for cache in gone))}")
    return 0


def _remove(call: Call, cache: Cache) -> bool:
    if cachemounts.remove(call.store, cache):
        print(cache.name)
        return True
    print(f"limpet: the cache {cache.name} is in use by a build", file=sys.stderr)
    return False


COMMANDS = {
    "cache ls": Command(
        name="cache ls",
        handler=ls,
        usage="[OPTIONS]",
        summary="List the caches of builds (RUN --mount=type=cache)",
        options=(
            Option("format", kind="string", default="", metavar="TEMPLATE", help="'json', 'table …' or a Go template"),
            Option("quiet", "q", help="Only the names"),
        ),
        examples=("limpet cache ls",),
        max_args=0,
    ),
    "cache rm": Command(
        name="cache rm",
        handler=rm,
        usage="CACHE [CACHE…]",
        summary="Remove caches of builds",
        options=(),
        examples=("limpet cache rm /root/.cache/pip",),
        min_args=1,
        max_args=None,
    ),
    "cache prune": Command(
        name="cache prune",
        handler=prune,
        usage="[OPTIONS]",
        summary="Remove all caches of builds that are not in use",
        options=(Option("force", "f", help="Don't ask"),),
        examples=("limpet cache prune",),
        max_args=0,
    ),
}
