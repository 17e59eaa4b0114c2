"""inspect, for containers, images and volumes alike."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from limpet import jsontext
from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.errors import Invalid, LimpetError, NotFound

if TYPE_CHECKING:
    from limpet.cli.table import Call


def inspect(call: Call) -> int:
    if call.get("isolation"):
        return _isolation(call)
    found: list[dict[str, Any]] = []
    failed = 0
    for name in call.arguments:
        try:
            found.append(_one(call, name))
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    if call["format"] == "json":
        print(jsontext.dumps(found))
    elif call["format"]:
        from limpet.cli.template_functions import typed

        output.say(output.formatted(call["format"], [typed(one) for one in found], ()))
    else:
        print(jsontext.dumps(found, indent=4))
    return failed


def _isolation(call: Call) -> int:
    from limpet.containers import state
    from limpet.containers.observe import measured

    if call["format"] not in ("", "json"):
        raise Invalid("--isolation knows no template", "--format json, or none", exit_code=1)
    found = {}
    for name in call.arguments:
        container = state.find(call.store, name)
        found[container.name] = measured.explain(call.store, container)
    if call["format"] == "json":
        print(jsontext.dumps(found))
        return 0
    for name, rows in found.items():
        print(name)
        for what, how in rows:
            output.say(f"  {what:<27}{how}")
    return 0


def _one(call: Call, name: str) -> dict[str, Any]:
    """A container, or else an image, as `--type` says."""
    kind = call.get("type", "container")
    hints = []
    if kind in ("", "container"):
        from limpet.containers import state
        from limpet.containers.observe import inspect as containers
        from limpet.containers.observe import listing

        try:
            container = state.find(call.store, name)
        except NotFound as e:
            hints.append(e)
        else:
            document = containers.inspect(call.store, container)
            if call["size"]:
                document["SizeRw"] = listing.written(call.store, container)
                document["SizeRootFs"] = document["SizeRw"] + listing.image_size(call.store, container)
            return document
    if kind in ("", "image"):
        from limpet.images import catalog
        from limpet.images import inspect as images

        try:
            return images.describe(call.store, catalog.find(call.store, name))
        except NotFound as e:
            hints.append(e)
        except Invalid as e:  # no image can have this name: a container or a volume may
            if kind:
                raise
            hints.append(NotFound(e.message))
    if kind in ("", "volume"):
        from limpet.containers.mounts import volumes

        try:
            return volumes.describe(call.store, volumes.find(call.store, name))
        except NotFound as e:
            hints.append(e)
    if len(hints) == 1:
        raise of_another_kind(call, name, hints[0])
    hint = next((e.hint for e in hints if e.hint.startswith("did you mean")), "")
    raise NotFound(f"No such object: {name}", hint, exit_code=1)


def of_another_kind(call: Call, name: str, error: NotFound) -> NotFound:
    """When there is something of this name, its kind is more of a help than names that look alike."""
    from limpet.containers import state
    from limpet.containers.mounts import volumes
    from limpet.images import catalog

    for kind, find in (("a container", state.find), ("an image", catalog.find), ("a volume", volumes.find)):
        try:
            find(call.store, name)
        except LimpetError:
            continue
        return NotFound(error.message, f"{name} is {kind}: `limpet inspect {name}` shows it", exit_code=error.exit_code)
    return error


_FORMAT = Option("format", "f", kind="string", default="", metavar="FORMAT", help="json, or a Go template")
_ISOLATION = Option("isolation", help="Show what running containers can and can't do, as the kernel has it")
_SIZE = Option("size", "s", help="Show what a container holds on disk")

COMMANDS = {
    "inspect": Command(
        name="inspect",
        handler=inspect,
        usage="[OPTIONS] NAME|ID [NAME|ID...]",
        summary="Show all that is known about containers, images and volumes",
        options=(
            _FORMAT,
            _SIZE,
            _ISOLATION,
            Option(
                "type",
                kind="string",
                default="",
                metavar="KIND",
                help="container, image or volume",
                choices=("container", "image", "volume"),
            ),
        ),
        examples=("limpet inspect web", "limpet inspect -f '{{.State.Status}}' web", "limpet inspect --isolation web"),
        min_args=1,
        complete="container|image|volume",
    ),
    "container inspect": Command(
        name="container inspect",
        handler=inspect,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Show all that is known about containers",
        options=(_FORMAT, _SIZE, _ISOLATION),
        examples=("limpet container inspect web",),
        min_args=1,
        complete="container",
    ),
}
