"""volume create, ls, inspect, rm, prune."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from limpet import jsontext
from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.containers.mounts import volumedrivers, volumes
from limpet.containers.mounts.volumemounts import Using
from limpet.errors import Invalid, LimpetError, NotFound

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.containers.files.copyroot import Root
    from limpet.containers.mounts.volumes import Volume
    from limpet.store.store import Store


def create(call: Call) -> int:
    labels = dict(text.partition("=")[::2] for text in call["label"])
    options = dict(text.partition("=")[::2] for text in call["opt"])
    name = call.arguments[0] if call.arguments else call["name"]
    with call.store.lease():
        volume = volumes.create(call.store, name, labels, anonymous=not name, driver=call["driver"], options=options)
    print(volume.name)
    return 0


def ls(call: Call) -> int:
    found = [volume for volume in volumes.all_volumes(call.store) if _matches(call.store, volume, call["filter"])]
    if call["quiet"]:
        for volume in found:
            print(volume.name)
        return 0
    rows = [
        output.Labelled(
            {
                "Driver": volume.driver,
                "Name": volume.name,
                "Scope": "local",
                "Mountpoint": volumes.data_path(call.store, volume.name),
                "Labels": ",".join(f"{k}={v}" for k, v in volume.labels.items()),
                "Containers": ",".join(volumes.users(call.store, volume.name)),
                **({"Size": _size(call.store, volume)} if "Size" in call["format"] else {}),
            },
            volume.labels,
        )
        for volume in found
    ]
    output.say(output.formatted(call["format"], rows, (("DRIVER", "Driver"), ("VOLUME NAME", "Name")), keep="Name"))
    return 0


def _size(store: Store, volume: Volume) -> str:
    size = volumedrivers.driver(store, volume.driver).usage(volume.name)
    return "N/A" if size is None else output.size_decimal(size)


def inspect(call: Call) -> int:
    found: list[dict[str, Any]] = []
    failed = 0
    for name in call.arguments:
        try:
            volume = volumes.find(call.store, name)
        except NotFound as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
            continue
        found.append(volumes.describe(call.store, volume))
    if call["format"]:
        output.say(output.formatted(call["format"], found, ()))
    else:
        print(jsontext.dumps(found, indent=4))
    return failed


def export(call: Call) -> int:
    from limpet.cli.files import write_archive
    from limpet.containers.files import copy

    volume = volumes.find(call.store, call.arguments[0])
    with Using(call.store, volume) as path, _root(path, volume) as root:
        write_archive(call["output"], lambda out: copy.pack(root, "/", ".", out.write))
    return 0


def import_(call: Call) -> int:
    from limpet.containers.files import unpack

    name, path = [*call.arguments, "-"][:2]
    if path == "-" and os.isatty(0):
        raise Invalid("standard input is a terminal", f"limpet volume import {name} FILE, or pipe a tar into it")
    volume = volumes.find(call.store, name)
    try:
        stream = sys.stdin.buffer if path == "-" else open(path, "rb")
    except OSError as e:
        raise NotFound(f"{path}: {e.strerror}", exit_code=1) from e
    with stream, Using(call.store, volume) as place, _root(place, volume) as root:
        unpack.unpack(stream, root, "/")
    return 0


def _root(path: str, volume: Volume) -> Root:
    from limpet.containers.files import copyroot

    return copyroot.directory_root(path, f"volume {volume.name}")


def rm(call: Call) -> int:
    failed = 0
    for name in call.arguments:
        try:
            volumes.remove(call.store, name)
            print(name)
        except NotFound as e:
            if not call["force"]:
                print(f"limpet: {e}", file=sys.stderr)
                failed = 1
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    return failed


def prune(call: Call) -> int:
    """Anonymous ones only, unless --all: a name was given by somebody (as Docker since 23)."""
    from limpet.images.leftovers import tree_bytes

    unused = [
        volume
        for volume in volumes.all_volumes(call.store)
        if (call["all"] or volume.anonymous)
        and not volumes.users(call.store, volume.name)
        and _matches(call.store, volume, call["filter"])
    ]
    sizes = {volume.name: tree_bytes(call.store.volume_path(volume.name)) for volume in unused}
    if unused and not call["force"]:
        total = output.size_decimal(sum(sizes.values()))
        names = "\n".join(f"  {_shown(volume, sizes[volume.name])}" for volume in unused)
        word = "volume" if len(unused) == 1 else "volumes"
        output.confirm(f"This removes {len(unused)} unused {word}, {total}:\n{names}")
    gone = []
    for volume in unused:
        try:
            volumes.remove(call.store, volume.name)
        except LimpetError as e:  # somebody has just begun to use it, or removed it
            print(f"limpet: {e}", file=sys.stderr)
        else:
            gone.append(volume.name)
    if gone:
        print("Deleted Volumes:", *gone, "", sep="\n")
    print(f"Total reclaimed space: {output.size_decimal(sum(sizes[name] for name in gone))}")
    return 0


def _shown(volume: Volume, size: int) -> str:
    """What it is, whose it was, and since when: for who has to decide."""
    made = f"made {output.age(volume.created)}"
    owner = volume.labels.get(volumes.MADE_FOR, "")
    return f"{volume.name}  ({output.size_decimal(size)}, {made}{f' for {owner}' if owner else ''})"


def _matches(store: Store, volume: Volume, filters: list[str]) -> bool:
    for text in filters:
        key, equals, value = text.partition("=")
        if key == "name" and equals:
            good = value in volume.name
        elif key == "label" and equals:
            name, wants, wanted = value.partition("=")
            good = name in volume.labels and (not wants or volume.labels[name] == wanted)
        elif key == "label!" and equals:
            name, wants, wanted = value.partition("=")
            good = not (name in volume.labels and (not wants or volume.labels[name] == wanted))
        elif key == "driver" and equals:
            good = value == volume.driver
        elif key == "dangling" and value in ("true", "1", "false", "0"):
            good = bool(volumes.users(store, volume.name)) != (value in ("true", "1"))
        else:
            raise Invalid(
                f"invalid filter '{text}'", "KEY=VALUE with one of dangling, driver, label, label!, name", exit_code=1
            )
        if not good:
            return False
    return True


_FORMAT = Option("format", "f", kind="string", default="", metavar="FORMAT", help="json, or a Go template")
_FILTER = Option(
    "filter", kind="list", metavar="KEY=VALUE", help="Only those that match: name, label, label!, driver, dangling"
)

COMMANDS = {
    "volume create": Command(
        name="volume create",
        handler=create,
        usage="[OPTIONS] [VOLUME]",
        summary="Create a volume",
        options=(
            Option("driver", "d", kind="string", default="", metavar="NAME", help="local (the default), or a plugin"),
            Option("label", kind="list", metavar="KEY=VALUE", help="Set a label"),
            Option(
                "opt", "o", kind="list", metavar="KEY=VALUE", help="For the driver; of local: size, type, device, o"
            ),
            Option("name", kind="string", default="", metavar="NAME", help="Name of the volume", hidden=True),
        ),
        examples=(
            "limpet volume create data",
            "limpet volume create -o size=10g data",
            "limpet volume create -o type=tmpfs -o device=tmpfs -o o=size=100m scratch",
            "limpet volume create -o type=nfs -o device=:/export -o o=addr=files.example,ro shared",
        ),
        max_args=1,
    ),
    "volume ls": Command(
        name="volume ls",
        handler=ls,
        usage="[OPTIONS]",
        summary="List volumes",
        options=(
            Option(
                "filter",
                "f",
                kind="list",
                metavar="KEY=VALUE",
                help="Only those that match: name, label, label!, driver, dangling",
            ),
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option("quiet", "q", help="Only names"),
        ),
        examples=("limpet volume ls", "limpet volume ls -qf dangling=true"),
        max_args=0,
    ),
    "volume export": Command(
        name="volume export",
        handler=export,
        usage="[OPTIONS] VOLUME",
        summary="Write a volume's files as a tar",
        options=(Option("output", "o", kind="string", default="", metavar="FILE", help="Write to a file"),),
        examples=("limpet volume export data -o data.tar",),
        min_args=1,
        max_args=1,
        complete="volume",
    ),
    "volume import": Command(
        name="volume import",
        handler=import_,
        usage="VOLUME [FILE|-]",
        summary="Unpack a tar into a volume; what is there and not in the tar stays",
        examples=(
            "limpet volume import data data.tar",
            "ssh old limpet volume export data | limpet volume import data",
        ),
        min_args=1,
        max_args=2,
        complete="volume",
    ),
    "volume inspect": Command(
        name="volume inspect",
        handler=inspect,
        usage="[OPTIONS] VOLUME [VOLUME...]",
        summary="Show all that is known about volumes",
        options=(_FORMAT,),
        examples=("limpet volume inspect -f '{{.Mountpoint}}' data",),
        min_args=1,
        complete="volume",
    ),
    "volume rm": Command(
        name="volume rm",
        handler=rm,
        usage="[OPTIONS] VOLUME [VOLUME...]",
        summary="Remove volumes that no container mounts",
        options=(Option("force", "f", help="What is not there is no error"),),
        examples=("limpet volume rm data",),
        min_args=1,
        complete="volume",
    ),
    "volume prune": Command(
        name="volume prune",
        handler=prune,
        usage="[OPTIONS]",
        summary="Remove unused anonymous volumes",
        options=(
            Option("all", "a", help="Those with a name too"),
            _FILTER,
            Option("force", "f", help="Do not ask"),
        ),
        examples=("limpet volume prune", "limpet volume prune -af"),
        max_args=0,
    ),
}
