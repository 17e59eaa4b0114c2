"""manifest create, annotate, inspect, push, rm: indexes, images of one name for several platforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.cli.table import Command, Option
from limpet.errors import Invalid, NotFound

if TYPE_CHECKING:
    from typing import Any

    from limpet.cli.table import Call
    from limpet.oci.reference import Reference


def create(call: Call) -> int:
    from limpet.images import indexes

    name, *images = map(_parse, call.arguments)
    indexes.create(call.store, _tagged(name), images, amend=call["amend"])
    print(f"Created manifest list {name}")
    return 0


def annotate(call: Call) -> int:
    from limpet.images import indexes

    name, image = map(_parse, call.arguments)
    changes: dict[str, Any] = {
        field: call[option]
        for option, field in (
            ("os", "system"),
            ("arch", "architecture"),
            ("variant", "variant"),
            ("os-version", "os_version"),
        )
        if call[option]
    }
    if call["os-features"]:
        changes["os_features"] = tuple(part for text in call["os-features"] for part in text.split(",") if part)
    if not changes:
        raise Invalid("nothing to change", "--os, --arch, --variant, --os-version, --os-features")
    indexes.annotate(call.store, _tagged(name), image, changes)
    return 0


def push(call: Call) -> int:
    from limpet.cli.progress import progress
    from limpet.images import indexes

    name = _tagged(_parse(call.arguments[0]))
    with progress(quiet=call["quiet"]) as shown:
        digest, _ = indexes.push(call.store, name, shown)
    if call["purge"]:
        indexes.remove(call.store, name)
    print(digest)
    return 0


def inspect(call: Call) -> int:
    """A list that is being put together, or what a registry has."""
    import json

    from limpet.images import indexes
    from limpet.oci import digest as digests
    from limpet.oci import manifest as manifests
    from limpet.registry.client import Registry

    names = [_parse(text) for text in call.arguments]
    data = b""
    if len(names) == 1:
        try:
            data = indexes.find(call.store, names[0]).data if call.has_store() and names[0].tag else b""
        except NotFound:
            pass
        wanted = names[0]
    else:
        draft, wanted = indexes.find(call.store, _tagged(names[0])), names[1]
        if not any(entry.name == wanted for entry in draft.entries):
            raise NotFound(f"{wanted.familiar} is not in the list {names[0].familiar}")
    registry = Registry(wanted.domain)
    media_type = ""
    if not data:
        data, media_type, _ = registry.manifest(wanted.path, wanted.digest or wanted.tag)
    parsed = manifests.parse(data, media_type)
    if not call["verbose"]:
        print(json.dumps(json.loads(data), indent=3))
        return 0
    if isinstance(parsed, manifests.Manifest):
        descriptor = manifests.Descriptor(parsed.media_type, digests.of(data), len(data))
        print(json.dumps(_verbose(wanted, descriptor, data), indent=4))
        return 0
    found = []
    for entry in parsed.manifests:
        inner = registry.manifest(wanted.path, entry.digest)[0]
        found.append(_verbose(wanted, entry, inner))
    print(json.dumps(found, indent=4))
    return 0


def _verbose(name: Reference, descriptor: Any, data: bytes) -> dict[str, Any]:
    import json

    kind = "SchemaV2Manifest" if "docker" in descriptor.media_type else "OCIManifest"
    ref = f"{name.repository}@{descriptor.digest}"
    return {"Ref": ref, "Descriptor": descriptor.to_dict(), kind: json.loads(data)}


def remove(call: Call) -> int:
    from limpet.images import indexes

    for text in call.arguments:
        indexes.remove(call.store, _tagged(_parse(text)))
    return 0


def _parse(text: str) -> Reference:
    from limpet.oci import reference

    return reference.parse(text)


def _tagged(name: Reference) -> Reference:
    if name.digest:
        raise Invalid(f"'{name}' has a digest", "a list has a name and a tag")
    return name


def _text(name: str, help: str, short: str = "") -> Option:
    return Option(name, short, kind="string", default="", metavar="TEXT", help=help)


COMMANDS: dict[str, Command] = {
    "manifest create": Command(
        "manifest create",
        create,
        "[OPTIONS] LIST IMAGE [IMAGE...]",
        "Begin a list of images for several platforms, to be pushed under one name",
        [Option("amend", "a", help="Add to a list that is there")],
        examples=("limpet manifest create localhost:5000/app:1 localhost:5000/app:1-amd64 localhost:5000/app:1-arm64",),
        min_args=2,
        complete="image",
    ),
    "manifest annotate": Command(
        "manifest annotate",
        annotate,
        "[OPTIONS] LIST IMAGE",
        "Say for which platform an image of a list is",
        [
            _text("arch", "The architecture: amd64, arm64"),
            _text("os", "The operating system: linux, windows"),
            Option("os-features", kind="list", default=[], metavar="TEXT", help="Features of the system"),
            _text("os-version", "Version of the system"),
            _text("variant", "Variant of the architecture: v7"),
        ],
        examples=("limpet manifest annotate --arch arm64 localhost:5000/app:1 localhost:5000/app:1-arm",),
        min_args=2,
        max_args=2,
        complete="image",
    ),
    "manifest inspect": Command(
        "manifest inspect",
        inspect,
        "[OPTIONS] [LIST] IMAGE",
        "Show a list, or a manifest or index in a registry",
        [Option("verbose", "v", help="With names, descriptors and what is in an index")],
        examples=("limpet manifest inspect debian:12",),
        min_args=1,
        max_args=2,
        complete="image",
    ),
    "manifest push": Command(
        "manifest push",
        push,
        "[OPTIONS] LIST",
        "Push a list to the registry that its name says",
        [Option("purge", "p", help="Remove the list afterwards"), Option("quiet", "q", help="No progress")],
        examples=("limpet manifest push -p localhost:5000/app:1",),
        min_args=1,
        max_args=1,
        complete="image",
    ),
    "manifest rm": Command(
        "manifest rm",
        remove,
        "LIST [LIST...]",
        "Remove lists that are being put together",
        examples=("limpet manifest rm localhost:5000/app:1",),
        min_args=1,
        complete="image",
    ),
}
