"""checkpoint create, ls, restore, rm."""

from __future__ import annotations

import sys

from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.containers import start, state
from limpet.containers.copies import checkpoints
from limpet.errors import Invalid, LimpetError
from limpet.images import leftovers
from limpet.units import age

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call


def create(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    name = call.arguments[1] if len(call.arguments) > 1 else ""
    if call["export"]:
        from limpet.containers.copies import checkpointarchive

        checkpointarchive.check(call.store, container)
    found = checkpoints.take(
        call.store,
        container,
        name,
        leave_running=call["leave-running"],
        tcp_established=call["tcp-established"],
        file_locks=call["file-locks"],
    )
    if call["export"]:
        from limpet.containers.copies import checkpointarchive

        checkpointarchive.write(call.store, container, found, call["export"])
        if not name:  # it is in the file
            checkpoints.remove(call.store, found)
            print(container.name)
            return 0
    print(found.name)
    return 0


def restore(call: Call) -> int:
    if call["import"]:
        if call.arguments or call["checkpoint"]:
            raise Invalid("checkpoint restore --import makes a new container", "leave out the names", exit_code=1)
        from limpet.containers.copies import checkpointarchive

        container, found = checkpointarchive.read(call.store, call["import"], call["name"])
        start.start(call.store, container, checkpoint=found.name)
        print(container.id)
        return 0
    if not call.arguments:
        raise Invalid("checkpoint restore needs the name of a container, or --import FILE", exit_code=1)
    if call["name"]:
        raise Invalid("--name is for --import", "a container keeps its name", exit_code=1)
    failed = 0
    for name in call.arguments:
        try:
            container = state.find(call.store, name)
            start.start(
                call.store, container, checkpoint=checkpoints.find(call.store, container, call["checkpoint"]).name
            )
        except LimpetError as e:
            if len(call.arguments) == 1:
                raise
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
            continue
        print(name, flush=True)
    return failed


def ls(call: Call) -> int:
    found = checkpoints.listed(call.store, state.find(call.store, call.arguments[0]))
    if call["quiet"]:
        for each in found:
            print(each.name)
        return 0
    rows = [
        {
            "Name": each.name,
            "Created": age(each.created),
            "Size": output.size_decimal(leftovers.tree_bytes(each.path)),
        }
        for each in found
    ]
    columns = [("CHECKPOINT NAME", "Name"), ("CREATED", "Created"), ("SIZE", "Size")]
    output.say(output.formatted(call["format"], rows, columns, keep="Name"))
    return 0


def rm(call: Call) -> int:
    name, *wanted = call.arguments
    container = state.find(call.store, name)
    for checkpoint in [checkpoints.find(call.store, container, each) for each in wanted]:
        checkpoints.remove(call.store, checkpoint)
        print(checkpoint.name)
    return 0


COMMANDS = {
    "checkpoint create": Command(
        name="checkpoint create",
        handler=create,
        usage="[OPTIONS] CONTAINER [CHECKPOINT]",
        summary="Keep all processes of a running container with their memory; it ends, unless told otherwise",
        options=(
            Option("export", "e", kind="string", default="", metavar="FILE", help="Write all of it to an OCI archive"),
            Option("file-locks", help="Keep locks of files"),
            Option("leave-running", "R", help="Let the container go on"),
            Option("tcp-established", help="Keep open TCP connections, as CRIU can"),
        ),
        examples=("limpet checkpoint create web", "limpet checkpoint create --leave-running --export web.tar web"),
        min_args=1,
        max_args=2,
        complete="container",
    ),
    "checkpoint restore": Command(
        name="checkpoint restore",
        handler=restore,
        usage="[OPTIONS] [CONTAINER...]",
        summary="Let stopped containers go on from a checkpoint (the latest), or make one from an export",
        options=(
            Option("checkpoint", kind="string", default="", metavar="NAME", help="From this one, not from the latest"),
            Option("import", "i", kind="string", default="", metavar="FILE", help="A new container from an export"),
            Option("name", "n", kind="string", default="", metavar="NAME", help="Name of the new container"),
        ),
        examples=("limpet checkpoint restore web", "limpet checkpoint restore --import web.tar --name web2"),
        complete="container",
    ),
    "checkpoint ls": Command(
        name="checkpoint ls",
        handler=ls,
        usage="[OPTIONS] CONTAINER",
        summary="List the checkpoints of a container",
        options=(
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option("quiet", "q", help="Only names"),
        ),
        examples=("limpet checkpoint ls web",),
        min_args=1,
        max_args=1,
        complete="container",
    ),
    "checkpoint rm": Command(
        name="checkpoint rm",
        handler=rm,
        usage="CONTAINER CHECKPOINT [CHECKPOINT...]",
        summary="Remove checkpoints of a container",
        examples=("limpet checkpoint rm web before",),
        min_args=2,
        complete="container",
    ),
}
