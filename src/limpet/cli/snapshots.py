"""copy, snapshot, snapshots, restore; volume snapshot, volume snapshots, volume restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.containers import state
from limpet.containers.copies import snapshots, snapshotting
from limpet.containers.mounts import volumes, volumesnapshots
from limpet.images import leftovers
from limpet.units import age

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.cli.table import Call
    from limpet.containers.copies.snapshotting import Home, Snapshot


def copy(call: Call) -> int:
    name, new = call.arguments
    print(snapshots.copy(call.store, state.find(call.store, name), new).id)
    return 0


def snapshot(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    return _snapshot(
        call, snapshots.home(call.store, container), lambda name: snapshots.take(call.store, container, name)
    )


def volume_snapshot(call: Call) -> int:
    volume = volumes.find(call.store, call.arguments[0])
    place = volumesnapshots.home(call.store, volume)
    return _snapshot(call, place, lambda name: volumesnapshots.take(call.store, volume, name))


def _snapshot(call: Call, home: Home, take: Callable[[str], Snapshot]) -> int:
    name = call.arguments[1] if len(call.arguments) > 1 else ""
    if call["rm"]:
        found = snapshotting.find(home, name)
        snapshotting.remove(call.store, found)
    else:
        found = take(name)
    print(found.name)
    return 0


def ls(call: Call) -> int:
    return _ls(call, snapshots.home(call.store, state.find(call.store, call.arguments[0])))


def volume_ls(call: Call) -> int:
    return _ls(call, volumesnapshots.home(call.store, volumes.find(call.store, call.arguments[0])))


def _ls(call: Call, home: Home) -> int:
    found = snapshotting.listed(home)
    if call["quiet"]:
        for each in found:
            print(each.name)
        return 0
    columns = [("NAME", "Name"), ("CREATED", "Created")]
    if not call["format"] or "Size" in call["format"]:
        columns.append(("SIZE", "Size"))
    rows = [
        {
            "Name": each.name,
            "Created": age(each.created),
            **({"Size": output.size_decimal(leftovers.tree_bytes(each.path))} if len(columns) > 2 else {}),
        }
        for each in found
    ]
    output.say(output.formatted(call["format"], rows, columns, keep="Name"))
    return 0


def restore(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    found = snapshotting.find(snapshots.home(call.store, container), "".join(call.arguments[1:]))
    snapshots.restore(call.store, container, found)
    print(found.name)
    return 0


def volume_restore(call: Call) -> int:
    volume = volumes.find(call.store, call.arguments[0])
    found = snapshotting.find(volumesnapshots.home(call.store, volume), "".join(call.arguments[1:]))
    volumesnapshots.restore(call.store, volume, found)
    print(found.name)
    return 0


_LIST = (
    Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
    Option("quiet", "q", help="Only names"),
)

COMMANDS = {
    "copy": Command(
        name="copy",
        handler=copy,
        usage="CONTAINER NEW",
        summary="Make a copy of a container with all that it wrote; it is not started",
        examples=("limpet copy web web-test",),
        min_args=2,
        max_args=2,
        complete="container",
    ),
    "snapshot": Command(
        name="snapshot",
        handler=snapshot,
        usage="[OPTIONS] CONTAINER [SNAPSHOT]",
        summary="Keep what a container wrote until now; one that runs stands still for the moment",
        options=(Option("rm", help="Remove the snapshot (the latest, without its name)"),),
        examples=("limpet snapshot web before-upgrade", "limpet snapshot --rm web before-upgrade"),
        min_args=1,
        max_args=2,
        complete="container",
    ),
    "snapshots": Command(
        name="snapshots",
        handler=ls,
        usage="[OPTIONS] CONTAINER",
        summary="List the snapshots of a container",
        options=_LIST,
        examples=("limpet snapshots web",),
        min_args=1,
        max_args=1,
        complete="container",
    ),
    "restore": Command(
        name="restore",
        handler=restore,
        usage="CONTAINER [SNAPSHOT]",
        summary="Put back what a stopped container had written when the snapshot (the latest) was taken",
        examples=("limpet restore web before-upgrade",),
        min_args=1,
        max_args=2,
        complete="container",
    ),
    "volume snapshot": Command(
        name="volume snapshot",
        handler=volume_snapshot,
        usage="[OPTIONS] VOLUME [SNAPSHOT]",
        summary="Keep what is in a volume now; running containers that mount it stand still for the moment",
        options=(Option("rm", help="Remove the snapshot (the latest, without its name)"),),
        examples=("limpet volume snapshot data before-upgrade", "limpet volume snapshot --rm data before-upgrade"),
        min_args=1,
        max_args=2,
        complete="volume",
    ),
    "volume snapshots": Command(
        name="volume snapshots",
        handler=volume_ls,
        usage="[OPTIONS] VOLUME",
        summary="List the snapshots of a volume",
        options=_LIST,
        examples=("limpet volume snapshots data",),
        min_args=1,
        max_args=1,
        complete="volume",
    ),
    "volume restore": Command(
        name="volume restore",
        handler=volume_restore,
        usage="VOLUME [SNAPSHOT]",
        summary="Put back what was in a volume when the snapshot (the latest) was taken; its containers must not run",
        examples=("limpet volume restore data before-upgrade",),
        min_args=1,
        max_args=2,
        complete="volume",
    ),
}
