"""cache ls, rm, prune, export, import: what builds keep, results of steps and `RUN --mount=type=cache`."""

from __future__ import annotations

import os
import sys

from limpet.build.caching import usage
from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.errors import Invalid, LimpetError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from limpet.build.caching.usage import Entry
    from limpet.cli.table import Call

_KEYS = ("id", "type", "shared", "until")
_KINDS = ("step", "import", "mount", "fetched")


def ls(call: Call) -> int:
    found = _matching(usage.entries(call.store), call["filter"])
    if call["quiet"]:
        for entry in found:
            print(entry.id if entry.diff_id else entry.name)
        return 0
    rows = [
        {
            "ID": entry.id if call["no-trunc"] else entry.id[:12],
            "Type": entry.kind,
            "Name": entry.name,
            "Source": entry.source,
            "Size": output.size_decimal(entry.bytes),
            "Shared": "true" if entry.shared else "false",
            "CreatedSince": output.age(entry.created),
            "LastUsed": output.age(entry.used),
        }
        for entry in found
    ]
    columns = (
        ("ID", "ID"),
        ("TYPE", "Type"),
        ("NAME", "Name"),
        ("LAST USED", "LastUsed"),
        ("SIZE", "Size"),
        ("SHARED", "Shared"),
    )
    output.say(output.formatted(call["format"], rows, columns, keep="ID"))
    return 0


def rm(call: Call) -> int:
    found = usage.entries(call.store)
    failed = 0
    wanted: dict[tuple[str, str, str], Entry] = {}
    for name in call.arguments:
        some = [entry for entry in found if name == entry.name or (len(name) > 3 and entry.id.startswith(name))]
        if not some:
            failed = 1
            print(f"limpet: {NotFound(f'no such cache: {name}')}", file=sys.stderr)
        wanted |= {(entry.kind, entry.id, entry.source): entry for entry in some}
    return failed | _remove(call, list(wanted.values()))


def prune(call: Call) -> int:
    from limpet.containers.options import parse_size

    found = usage.entries(call.store)
    candidates = [entry for entry in found if call["all"] or not entry.shared]
    candidates = _matching(candidates, call["filter"])
    if call["max-used-space"]:
        candidates = usage.chosen(found, candidates, parse_size(call["max-used-space"], "--max-used-space"))
    if candidates and not call["force"]:
        lines = [
            f"  {_shown(each)}  ({output.size_decimal(each.bytes)}, used {output.age(each.used)})"
            for each in candidates
        ]
        size = output.size_decimal(usage.total(candidates))
        names = "\n".join(lines)
        output.confirm(f"This removes {len(candidates)} entries of the build cache, {size}:\n{names}")
    failed = _remove(call, candidates, total=True)
    if call["all"] and not (call["filter"] or call["max-used-space"]):
        from limpet.build.copying import digests
        from limpet.build.explain import records
        from limpet.build.reporting import logs

        digests.forget(call.store)  # notes about what is gone
        records.forget(call.store)
        logs.forget(call.store)
    return failed if call["filter"] else 0


def _remove(call: Call, entries: list[Entry], *, total: bool = False) -> int:
    removed = usage.remove(call.store, entries)
    for entry in removed.gone:
        print(_shown(entry))
    for entry in removed.kept:
        print(f"limpet: the cache {entry.name} is in use by a build", file=sys.stderr)
    if removed.waiting:
        print("limpet: a build is running: the space comes back with the next removal after it", file=sys.stderr)
    if total:
        print(f"Total reclaimed space: {output.size_decimal(removed.bytes)}")
    return 1 if removed.kept else 0


def _shown(entry: Entry) -> str:
    return entry.name if not entry.diff_id else f"{entry.id[:12]}  {' '.join(entry.name.split())[:100]}"


def _matching(entries: list[Entry], texts: list[str]) -> list[Entry]:
    """Several values of a key are alternatives, several keys have to match all."""
    from limpet.images import filters

    wanted = filters.parse(texts, _KEYS)
    for kind in wanted.get("type", ()):
        if kind not in _KINDS:
            raise Invalid(f"invalid filter 'type={kind}'", f"known are {', '.join(_KINDS)}", exit_code=1)
    if "until" in wanted:
        limit = min(filters.moment(text) for text in wanted["until"])
        entries = [entry for entry in entries if entry.used < limit]
    if "type" in wanted:
        entries = [entry for entry in entries if entry.kind in wanted["type"]]
    if "id" in wanted:
        entries = [entry for entry in entries if any(entry.id.startswith(text) for text in wanted["id"] if text)]
    if "shared" in wanted:
        shared = filters.truth(wanted["shared"][-1])
        entries = [entry for entry in entries if entry.shared == shared]
    return entries


def export(call: Call) -> int:
    from limpet.build.caching import mounts
    from limpet.images.save import to_file

    name, path = call.arguments
    if path == "-":
        if os.isatty(1):
            raise Invalid("a tar is nothing for a terminal", f"limpet cache export {name} FILE", exit_code=1)
        mounts.export(call.store, name, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return 0
    to_file(path, lambda out: mounts.export(call.store, name, out.write), mode=0o666)
    return 0


def import_(call: Call) -> int:
    from limpet.build.caching import mounts

    name, path = call.arguments
    try:
        stream: BinaryIO = sys.stdin.buffer if path == "-" else open(path, "rb")
    except OSError as e:
        raise LimpetError(f"{path}: {e.strerror}", exit_code=1) from e
    with stream:
        size = mounts.import_(call.store, name, stream)
    print(f"{name}: {output.size_decimal(size)}")
    return 0


_FILTER = Option("filter", kind="list", metavar="KEY=VALUE", help=f"Only those that match: {', '.join(_KEYS)}")

COMMANDS = {
    "cache ls": Command(
        name="cache ls",
        handler=ls,
        usage="[OPTIONS]",
        summary="List what builds keep: results of steps, cache mounts",
        options=(
            _FILTER,
            Option("format", kind="string", default="", metavar="TEMPLATE", help="'json', 'table …' or a Go template"),
            Option("no-trunc", help="Whole ids"),
            Option("quiet", "q", help="Only what `cache rm` takes: ids, and names of mounts"),
        ),
        examples=("limpet cache ls", "limpet cache ls --filter type=mount --format '{{.Name}} {{.Size}}'"),
        max_args=0,
    ),
    "cache rm": Command(
        name="cache rm",
        handler=rm,
        usage="ID|NAME [ID|NAME…]",
        summary="Remove results of steps, and cache mounts",
        options=(),
        examples=("limpet cache rm /root/.cache/pip",),
        min_args=1,
        max_args=None,
    ),
    "cache prune": Command(
        name="cache prune",
        handler=prune,
        usage="[OPTIONS]",
        summary="Remove what only the build cache holds",
        options=(
            Option("all", "a", help="Forget the steps of images that are here, too"),
            _FILTER,
            Option("force", "f", help="Don't ask"),
            Option(
                "max-used-space",
                kind="string",
                default="",
                metavar="SIZE",
                help="Only as much, the oldest first, that this is left",
                aliases=("keep-storage",),
            ),
        ),
        examples=("limpet cache prune", "limpet cache prune -f --filter until=24h --max-used-space 10g"),
        max_args=0,
    ),
    "cache export": Command(
        name="cache export",
        handler=export,
        usage="NAME FILE",
        summary="Write a cache mount to a tar (- is standard output)",
        options=(),
        examples=("limpet cache export /root/.cache/pip pip.tar", "limpet cache export go - | zstd > go.tar.zst"),
        min_args=2,
        max_args=2,
    ),
    "cache import": Command(
        name="cache import",
        handler=import_,
        usage="NAME FILE",
        summary="Make a cache mount of a tar (- is standard input)",
        options=(),
        examples=("limpet cache import /root/.cache/pip pip.tar",),
        min_args=2,
        max_args=2,
    ),
}
