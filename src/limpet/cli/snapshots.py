"""copy, snapshot, snapshots, restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.containers import snapshots, state
from limpet.units import age

if TYPE_CHECKING:
    from limpet.cli.table import Call


def copy(call: Call) -> int:
    name, new = call.arguments
    print(snapshots.copy(call.store, state.find(call.store, name), new).id)
    return 0


def snapshot(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    name = call.arguments[1] if len(call.arguments) > 1 else ""
    if call["rm"]:
        found = snapshots.find(call.store, container, name)
        snapshots.remove(call.store, found)
    else:
        found = snapshots.take(call.store, container, name)
    print(found.name)
    return 0


def ls(call: Call) -> int:
    found = snapshots.snapshots(call.store, state.find(call.store, call.arguments[0]))
    if call["quiet"]:
        for each in found:
            print(each.name)
        return 0
    rows = [{"Name": each.name, "Created": age(each.created)} for each in found]
    output.say(output.formatted(call["format"], rows, (("NAME", "Name"), ("CREATED", "Created")), keep="Name"))
    return 0


def restore(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    found = snapshots.find(call.store, container, call.arguments[1] if len(call.arguments) > 1 else "")
    snapshots.restore(call.store, container, found)
    print(found.name)
    return 0


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
        options=(
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option("quiet", "q", help="Only names"),
        ),
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
}
