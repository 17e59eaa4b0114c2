"""registry tags, inspect, copy, delete, referrers: what is in registries, without a store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from limpet.cli.images import RATE, rate
from limpet.cli.table import Command, Option
from limpet.errors import Invalid, LimpetError

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.oci.reference import Reference


def tags(call: Call) -> int:
    from limpet.oci import reference
    from limpet.registry import content
    from limpet.registry.client import Registry

    text = call.arguments[0]
    wanted = reference.parse(text)
    if text not in (wanted.familiar_name, wanted.repository):
        raise Invalid(f"'{text}' is not a repository", f"leave out the tag: {wanted.familiar_name}")
    for tag in sorted(content.tags(Registry(wanted.domain), wanted.path)):  # not every registry sorts them
        print(tag)
    return 0


def inspect(call: Call) -> int:
    from limpet import jsontext
    from limpet.oci import platform as platforms
    from limpet.oci import reference
    from limpet.registry import description

    wanted = reference.parse(call.arguments[0])
    platform = platforms.parse(call["platform"]) if call["platform"] else None
    if call["raw"] or call["config"]:
        if call["raw"] and call["config"]:
            raise Invalid("--raw and --config are two documents", "choose one")
        sys.stdout.buffer.write(description.raw(wanted, platform, config=call["config"]))
        sys.stdout.buffer.flush()
        return 0
    found = description.describe(wanted, platform)
    if call["format"] and call["format"] != "json":
        from limpet.cli import template

        print(template.compile(call["format"]).render(found))
    else:
        print(jsontext.dumps(found, indent=None if call["format"] else 4))
    return 0


def copy(call: Call) -> int:
    from limpet.cli.progress import progress
    from limpet.oci import platform as platforms
    from limpet.oci import reference
    from limpet.registry import content
    from limpet.registry.client import Registry
    from limpet.registry.copying import copy as copy_one

    source, target = map(reference.parse, call.arguments)
    if call["all-tags"]:
        for text, one in zip(call.arguments, (source, target), strict=True):
            if text not in (one.familiar_name, one.repository):
                raise Invalid(f"'{text}' is not a repository", f"with --all-tags leave out the tag: {text}")
        names = list(content.tags(Registry(source.domain), source.path))
        pairs = [(source.with_tag(tag), target.with_tag(tag)) for tag in names]
    else:
        pairs = [(source, _target(call.arguments[1], source, target))]
    platform = platforms.parse(call["platform"]) if call["platform"] else None
    limit = rate(call)
    with progress(quiet=call["quiet"]) as shown:
        for one, to in pairs:
            done = copy_one(one, to, referrers=call["referrers"], platform=platform, rate=limit, progress=shown)
            if call["quiet"]:
                print(to, flush=True)
                continue
            more = f" referrers: {done.referrers}" if call["referrers"] else ""
            print(f"{to.tag or to.familiar}: digest: {done.digest} size: {done.size}{more}", flush=True)
    return 0


def _target(text: str, source: Reference, target: Reference) -> Reference:
    """A repository alone gets the source's tag, or its digest."""
    if text not in (target.familiar_name, target.repository):
        return target
    return target.with_digest(source.digest) if source.digest else target.with_tag(source.tag)


def delete(call: Call) -> int:
    from limpet.oci import reference
    from limpet.registry import content
    from limpet.registry.client import Registry

    failed = 0
    for text in call.arguments:
        wanted = reference.parse(text)
        try:
            if text in (wanted.familiar_name, wanted.repository):
                raise Invalid(f"'{text}' is a repository", f"name what is to go: {text}:TAG or {text}@DIGEST")
            content.delete(Registry(wanted.domain), wanted.path, wanted.digest or wanted.tag)
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
        else:
            print(f"Deleted: {text}")
    return failed


def referrers(call: Call) -> int:
    from limpet import jsontext
    from limpet.cli import output
    from limpet.oci import reference
    from limpet.registry import content
    from limpet.registry.client import Registry

    wanted = reference.parse(call.arguments[0])
    registry = Registry(wanted.domain)
    digest = wanted.digest or registry.manifest(wanted.path, wanted.tag)[2]
    found = content.referrers(registry, wanted.path, digest, call["artifact-type"])
    if call["format"] == "json":
        print(jsontext.dumps([one.to_dict() for one in found]))
    elif call["quiet"]:
        print("".join(f"{one.digest}\n" for one in found), end="")
    else:
        rows = [
            [one.digest, one.artifact_type, output.size_decimal(one.size), _created(one.annotations)] for one in found
        ]
        print(output.table(["DIGEST", "ARTIFACT TYPE", "SIZE", "CREATED"], rows, keep=0))
    return 0


def _created(annotations: object) -> str:
    value = annotations.get("org.opencontainers.image.created", "") if isinstance(annotations, dict) else ""
    return str(value)[:40]


_PLATFORM = Option(
    "platform", kind="string", default="", metavar="OS/ARCH", help="Of an image for several platforms this one"
)

COMMANDS: dict[str, Command] = {
    "registry tags": Command(
        "registry tags",
        tags,
        "REPOSITORY",
        "List the tags of a repository in a registry",
        examples=("limpet registry tags debian", "limpet registry tags localhost:5000/app"),
        min_args=1,
        max_args=1,
        complete="image",
    ),
    "registry inspect": Command(
        "registry inspect",
        inspect,
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Show what a registry has under a name, without pulling it",
        [
            Option("config", help="The image's config, as it is"),
            Option("format", "f", kind="string", default="", metavar="TEMPLATE", help="json, or a Go template"),
            _PLATFORM,
            Option("raw", help="The manifest or index, to the byte"),
        ],
        examples=("limpet registry inspect debian:12", "limpet registry inspect --raw localhost:5000/app"),
        min_args=1,
        max_args=1,
        complete="image",
    ),
    "registry copy": Command(
        "registry copy",
        copy,
        "[OPTIONS] SOURCE[:TAG|@DIGEST] TARGET[:TAG]",
        "Copy an image from registry to registry, with all its platforms",
        [
            Option("all-tags", "a", help="All tags of the repository"),
            RATE,
            _PLATFORM,
            Option("quiet", "q", help="Only the name, when it is there"),
            Option("referrers", help="Signatures, SBOMs and all else that refers to it, too; also under cosign's tags"),
        ],
        examples=(
            "limpet registry copy debian:12 localhost:5000/debian:12",
            "limpet registry copy --referrers -a localhost:5000/app registry.example/app",
        ),
        min_args=2,
        max_args=2,
        complete="image",
    ),
    "registry delete": Command(
        "registry delete",
        delete,
        "NAME:TAG|NAME@DIGEST…",
        "Delete tags, or manifests with all their tags, from a registry",
        examples=("limpet registry delete localhost:5000/app:old",),
        min_args=1,
        complete="image",
    ),
    "registry referrers": Command(
        "registry referrers",
        referrers,
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "List what refers to an image: signatures, SBOMs and the like",
        [
            Option("artifact-type", kind="string", default="", metavar="TYPE", help="Only of this type"),
            Option(
                "format",
                "f",
                kind="string",
                default="table",
                metavar="FORMAT",
                help="table or json",
                choices=("table", "json"),
            ),
            Option("quiet", "q", help="Only digests"),
        ],
        examples=("limpet registry referrers localhost:5000/app:1",),
        min_args=1,
        max_args=1,
        complete="image",
    ),
}
