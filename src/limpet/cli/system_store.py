"""system df, system prune, system check: what is in the store as a whole."""

from __future__ import annotations

import sys

from limpet import jsontext
from limpet.build.caching import usage as cache_usage
from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.containers import recovery, state, stop
from limpet.containers.mounts import volumes
from limpet.errors import Conflict, Invalid, NotFound
from limpet.images import collect, filters, inspect, leftovers, prune, usage
from limpet.oci import digest as digests
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.build.caching.usage import Entry
    from limpet.cli.table import Call
    from limpet.containers.state import Container
    from limpet.images.leftovers import Leftover
    from limpet.images.prune import Plan
    from limpet.images.usage import Usage
    from limpet.store.store import Store

KINDS = ("containers", "images", "volumes", "garbage")
_GROUP = "a control group of a container that no row names"


def df(call: Call) -> int:
    caches = cache_usage.entries(call.store)  # before anything is measured: it may write to the database
    found = usage.usage(call.store)
    if call["verbose"]:
        shown = _verbose(call.store, found, caches)
        if call["format"]:
            print(jsontext.dumps(shown))
        else:
            _print_verbose(shown)
        return 0
    columns = [
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    ]
    output.say(output.formatted(call["format"], _summary(call.store, found, caches), columns, "Type"))
    return 0


def _summary(store: Store, found: Usage, caches: list[Entry]) -> list[dict[str, str]]:
    """Docker's four rows, and two more so that they add up to what the disk holds."""
    alive = {c.id for c in state.all_containers(store) if not _removable(store, c)}
    idle = sum(one.size for one in found.containers if one.id not in alive)
    loose = sum(one.size for one in found.volumes if not one.links)

    def row(name: str, total: int, active: int, size: int, back: int | None) -> dict[str, str]:
        share = f" ({back * 100 // size}%)" if back is not None and size else ""
        shown = "-" if back is None else f"{output.size_decimal(back)}{share}"
        return {
            "Type": name,
            "TotalCount": str(total),
            "Active": str(active),
            "Size": output.size_decimal(size),
            "Reclaimable": shown,
        }

    images = found.layers + found.blobs
    active = sum(1 for one in found.images if one.containers)
    linked = sum(1 for one in found.volumes if one.links)
    garbage = len(leftovers.find(store))
    mounts = sum(cache.bytes for cache in caches if not cache.diff_id)
    steps = cache_usage.total(caches) - mounts
    return [
        row("Images", len(found.images), active, images - steps, found.reclaimable - steps),
        row("Containers", len(found.containers), len(alive), sum(one.size for one in found.containers), idle),
        row("Local Volumes", len(found.volumes), linked, sum(one.size for one in found.volumes), loose),
        row("Build Cache", len(caches), sum(1 for one in caches if one.shared), mounts + steps, mounts + steps),
        row("Leftovers", garbage, 0, found.leftover, found.leftover),
        row("Database", 1, 1, found.state - mounts, None),
    ]


def _verbose(store: Store, found: Usage, caches: list[Entry]) -> dict[str, list[dict[str, Any]]]:
    by_id = {container.id: container for container in state.all_containers(store)}
    nameless: list[reference.Reference | None] = [None]
    images = [
        {
            "Repository": parsed.familiar_name if parsed else "<none>",
            "Tag": (parsed.tag if parsed else "") or "<none>",
            "ID": digests.short(one.image.id),
            "CreatedSince": output.age(filters.created(one.image)),
            "Size": output.size_decimal(inspect.size_of(store, one.image.id)),
            "SharedSize": output.size_decimal(one.shared),
            "UniqueSize": output.size_decimal(one.unique),
            "Containers": str(one.containers),
        }
        for one in found.images
        for parsed in ([reference.parse(name) for name in one.image.names] or nameless)
    ]
    containers = []
    for used in found.containers:
        container = by_id.get(used.id)
        if container is None:
            continue
        mounts = store.db.row("SELECT count(*) FROM container_volume WHERE container_id = ?", used.id)[0]
        containers.append(
            {
                "ID": used.id[:12],
                "Image": container.image_name,
                "LocalVolumes": str(mounts),
                "Size": output.size_decimal(used.size),
                "LogSize": output.size_decimal(used.log),
                "SnapshotSize": output.size_decimal(used.snapshots),
                "CreatedSince": output.age(container.created),
                "Status": state.status(store, container).state,
                "Names": container.name,
            }
        )
    local = [
        {
            "Name": one.name,
            "Links": str(one.links),
            "Size": output.size_decimal(one.size),
            "SnapshotSize": output.size_decimal(one.snapshots),
        }
        for one in found.volumes
    ]
    cache = [
        {
            "ID": entry.id[:12],
            "CacheType": entry.kind,
            "Size": output.size_decimal(entry.bytes),
            "CreatedSince": output.age(entry.created),
            "LastUsedSince": output.age(entry.used),
            "Shared": "true" if entry.shared else "false",
            "Description": entry.name,
        }
        for entry in caches
    ]
    parts = [
        {"What": part.what, "Size": output.size_decimal(part.size), "Bytes": part.size, "FreedBy": part.freed}
        for part in found.parts
    ]
    parts.append({"What": "total", "Size": output.size_decimal(found.total), "Bytes": found.total, "FreedBy": ""})
    rubbish = [
        {"Path": one.path, "What": one.what, "Size": output.size_decimal(one.bytes)} for one in leftovers.find(store)
    ]
    return {
        "Images": images,
        "Containers": containers,
        "Volumes": local,
        "BuildCache": cache,
        "Leftovers": rubbish,
        "Parts": parts,
    }


def _print_verbose(found: dict[str, list[dict[str, Any]]]) -> None:
    sections = (
        (
            "Images",
            "Images space usage:",
            "REPOSITORY TAG IMAGE~ID CREATED SIZE SHARED~SIZE UNIQUE~SIZE CONTAINERS",
            "Repository Tag ID CreatedSince Size SharedSize UniqueSize Containers",
        ),
        (
            "Containers",
            "Containers space usage:",
            "CONTAINER~ID IMAGE LOCAL~VOLUMES SIZE LOGS SNAPSHOTS CREATED STATUS NAMES",
            "ID Image LocalVolumes Size LogSize SnapshotSize CreatedSince Status Names",
        ),
        (
            "Volumes",
            "Local Volumes space usage:",
            "VOLUME~NAME LINKS SIZE SNAPSHOTS",
            "Name Links Size SnapshotSize",
        ),
        (
            "BuildCache",
            "Build cache usage:",
            "CACHE~ID CACHE~TYPE SIZE CREATED LAST~USED SHARED",
            "ID CacheType Size CreatedSince LastUsedSince Shared",
        ),
        ("Leftovers", "Leftovers, which no row names:", "PATH WHAT SIZE", "Path What Size"),
        (
            "Parts",
            "All of it, each byte once (what `du -sx` says of the store):",
            "WHAT SIZE FREED~BY",
            "What Size FreedBy",
        ),
    )
    for key, title, headers, fields in sections:
        if key in ("BuildCache", "Leftovers") and not found[key]:
            continue
        shown = [row for row in found[key] if key != "Parts" or row["Bytes"]]
        rows = [[str(row[field]) for field in fields.split()] for row in shown]
        print(f"{title}\n\n{output.table([h.replace('~', ' ') for h in headers.split()], rows, 0)}\n")


def prune_(call: Call) -> int:
    store = call.store
    kinds = set(call.arguments)
    for kind in call.arguments:
        if kind not in KINDS:
            raise Invalid(f"unknown kind '{kind}'", f"known are {', '.join(KINDS)}", exit_code=1)
    if not kinds:
        kinds = {"containers", "images", "garbage"}
    if call["volumes"]:
        kinds.add("volumes")
    wanted = filters.parse(call["filter"], ("label", "label!", "until"))
    gone = _stopped(store, wanted) if "containers" in kinds else []
    ids = {container.id for container in gone}
    plan = prune.Plan((), 0)
    if "images" in kinds:
        plan = prune.plan(store, everything=call["all"], wanted=wanted, without=ids)
    loose = _loose_volumes(store, ids) if "volumes" in kinds else []
    rubbish = leftovers.find(store) if "garbage" in kinds and not wanted else []
    if "garbage" in kinds and not wanted:
        groups = [leftovers.Leftover(path, _GROUP, 0) for path in recovery.orphaned_groups(store)]
        rubbish = [*rubbish, *groups]
    if not call["force"] and (gone or plan.images or loose or rubbish):
        output.confirm(_announcement(store, gone, plan, loose, rubbish))
    total = 0
    sizes = {container.id: leftovers.tree_bytes(store.container_path(container.id)) for container in gone}
    for container, problem in stop.remove_all(store, gone):
        if problem is not None:  # started or removed since
            continue
        total += sizes[container.id]
        print(f"deleted container: {container.id}")
    if "images" in kinds:
        lines, freed = prune.carry_out(store, plan)
        total += freed.bytes
        if lines:
            print("\n".join(lines))
    for name in loose:
        size = leftovers.tree_bytes(store.volume_path(name))
        try:
            volumes.remove(store, name)
        except (Conflict, NotFound):
            continue
        total += size
        print(f"deleted volume: {name}")
    if "garbage" in kinds and not wanted:
        swept = collect.sweep(store)
        total += swept.bytes
        for path in swept.files:
            print(f"deleted leftover: {path}")
        if swept.waiting:
            print("limpet: something is being added right now: leftovers stay until the next prune", file=sys.stderr)
        for place in (*recovery.collect_groups(store), *recovery.collect_networks(store)):
            print(f"deleted leftover: {place}")
    print(f"Total reclaimed space: {output.size_decimal(total)}")
    return 0


def _announcement(store: Store, gone: list[Container], plan: Plan, loose: list[str], rubbish: list[Leftover]) -> str:
    """Everything that goes, by name and size: nothing is taken that was not shown."""
    lines = ["WARNING! This will remove:"]
    total = plan.bytes
    for container in gone:
        size = leftovers.tree_bytes(store.container_path(container.id))
        total += size
        lines.append(f"  container {container.name} ({container.image_name}), {output.size_decimal(size)}")
    for image in plan.images:
        shown = ", ".join(reference.parse(name).familiar for name in image.names) or digests.short(image.id)
        lines.append(f"  image {shown}")
    if plan.images:
        lines.append(f"  the layers that only these need, {output.size_decimal(plan.bytes)}")
    for name in loose:
        size = leftovers.tree_bytes(store.volume_path(name))
        total += size
        volume = volumes.lookup(store, name)
        owner = volume.labels.get(volumes.MADE_FOR, "") if volume is not None else ""
        lines.append(f"  volume {name}{f' of {owner}' if owner else ''}, {output.size_decimal(size)}")
    for leftover in rubbish:
        total += leftover.bytes
        lines.append(f"  {leftover.path} ({leftover.what}), {output.size_decimal(leftover.bytes)}")
    return "\n".join([*lines, f"freeing {output.size_decimal(total)}."])


def _removable(store: Store, container: Container) -> bool:
    status = state.status(store, container)
    return status.state not in ("running", "paused", "restarting") and not recovery.due(store, container, status)


def _stopped(store: Store, wanted: dict[str, list[str]]) -> list[Container]:
    limit = min((filters.moment(text) for text in wanted.get("until", [])), default=None)
    return [
        container
        for container in state.all_containers(store)
        if _removable(store, container)
        and not container.options.infra  # that goes with its pod
        and (limit is None or container.created < limit)
        and all(filters.has_label(container.options.labels, text) for text in wanted.get("label", []))
        and not any(filters.has_label(container.options.labels, text) for text in wanted.get("label!", []))
    ]


def _loose_volumes(store: Store, without: set[str]) -> list[str]:
    """Volumes that no container mounts and nobody named (moby#44216); `volume prune -a` takes the others."""
    return [
        volume.name
        for volume in volumes.all_volumes(store)
        if volume.anonymous and not set(volumes.users(store, volume.name)) - without
    ]


def check(call: Call) -> int:
    from limpet.cli.progress import progress
    from limpet.images import check as checking

    with progress(quiet=call["quiet"]) as shown:
        findings = checking.check(call.store, call["repair"], shown)
    damage = [one for one in findings if not one.garbage]
    for one in damage:
        more = f" (repaired: {one.repaired})" if one.repaired else f"; {one.advice}" if one.advice else ""
        print(f"damaged: {one.what}: {one.problem}{more}")
    for one in findings:
        if one.garbage:
            print(f"garbage: {one.what}: {one.problem}")
    if not findings and not call["quiet"]:
        print("nothing is wrong")
    return 1 if any(not one.repaired for one in damage) else 0


def recover(call: Call) -> int:
    failed = recovery.recover(call.store, lambda line: print(line, flush=True))
    for error in failed:
        print(f"limpet: {error}", file=sys.stderr)
    return 1 if failed else 0


COMMANDS: dict[str, Command] = {
    "system df": Command(
        "system df",
        df,
        "[OPTIONS]",
        "Show what uses how much disk; the rows add up to what `du` says",
        [
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option("verbose", "v", help="Each image, container, volume and leftover"),
        ],
        examples=("limpet system df", "limpet system df -v"),
        max_args=0,
    ),
    "system prune": Command(
        "system prune",
        prune_,
        "[OPTIONS] [KIND...]",
        f"Remove what nothing uses: lists it, then asks. Kinds: {', '.join(KINDS)}; without one, all but volumes",
        [
            Option("all", "a", help="All unused images, not only those without a name"),
            Option("filter", kind="list", metavar="KEY=VALUE", help="Only these: label, label!, until"),
            Option("force", "f", help="Do not ask"),
            Option("volumes", help="Volumes without a name of their own, too"),
        ],
        examples=("limpet system prune", "limpet system prune -a --volumes", "limpet system prune garbage -f"),
        complete="|".join(KINDS),
    ),
    "system check": Command(
        "system check",
        check,
        "[OPTIONS]",
        "Read every row and digest of the store, say what differs; exit code 1 if something is damaged",
        [
            Option("repair", help="Put right what can be, drop what can be fetched again, and say so"),
            Option("quiet", "q", help="Only findings"),
        ],
        examples=("limpet system check", "limpet system check --repair"),
        max_args=0,
    ),
    "system recover": Command(
        "system recover",
        recover,
        "",
        "After a crash or a boot: start what has a restart policy, remove --rm containers whose monitor is gone",
        examples=("limpet system recover",),
        max_args=0,
    ),
}
