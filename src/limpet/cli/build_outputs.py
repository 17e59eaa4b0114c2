"""Where `build` brings its result: the options for it, and the files that tell of it."""

from __future__ import annotations

from limpet.cli.table import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.build.outputs.deliver import Delivered
    from limpet.build.outputs.request import Wanted
    from limpet.cli.table import Call

OPTIONS = (
    Option(
        "attest",
        kind="list",
        metavar="type=sbom|provenance,…",
        help="Say something of the image beside it, in its index: what is in it, how it was built",
    ),
    Option("provenance", kind="optional", metavar="true|mode=MODE,…", help="--attest type=provenance"),
    Option("sbom", kind="optional", metavar="true", help="--attest type=sbom"),
    Option(
        "annotation",
        kind="list",
        metavar="[PLACE:]KEY=VALUE",
        help="Annotate the manifest, or what PLACE says: manifest, index, and their -descriptor",
    ),
    Option("iidfile", kind="string", default="", metavar="FILE", help="Write the image's id to a file"),
    Option("load", help="Keep the image in the store, too; without any output that is so anyway"),
    Option("metadata-file", kind="string", default="", metavar="FILE", help="Write digests and names, as JSON"),
    Option(
        "output",
        "o",
        kind="list",
        metavar="DIR|type=KIND,…",
        help="Where the result goes: local (a directory), tar, oci, docker, image (the store), registry",
        offers=tuple(f"type={kind}" for kind in ("docker", "image", "local", "oci", "registry", "tar")),
    ),
    Option("push", help="Push it under its names; it is not kept in the store unless --load or an output says so"),
    Option("tag", "t", kind="list", metavar="NAME[:TAG]", help="Name of the image"),
)


def wanted(call: Call) -> Wanted:
    """Raises Invalid."""
    from dataclasses import replace

    from limpet.build.attest import request
    from limpet.build.outputs import grammar

    found = grammar.wanted(call["tag"], call["output"], call["annotation"], push=call["push"], load=call["load"])
    return replace(found, attests=request.attests(call["attest"], call["sbom"], call["provenance"]))


def written(call: Call, done: Delivered) -> None:
    """Writes --iidfile and --metadata-file. Raises LimpetError."""
    import json

    from limpet.images.save import to_file

    if call["iidfile"]:
        to_file(call["iidfile"], lambda file: file.write(done.id.encode()), mode=0o666)
    if call["metadata-file"]:
        data = json.dumps(done.metadata, indent=2, sort_keys=True).encode() + b"\n"
        to_file(call["metadata-file"], lambda file: file.write(data), mode=0o666)
