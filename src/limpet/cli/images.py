"""pull, push, load, save: images that come and go."""

from __future__ import annotations

import os
import sys

from limpet.cli.table import Command, Option
from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.registry.rate import Rate

_FORMATS = ("docker-archive", "oci-archive", "oci-dir")


def pull(call: Call) -> int:
    for text in _all_tags(call.arguments[0]) if call["all-tags"] else call.arguments:
        _pull(call, text)
    return 0


def _all_tags(text: str) -> list[str]:
    """Full names of all images of a repository; not the lists of referrers that some registries keep under tags."""
    from limpet.registry import content, settings, shortnames
    from limpet.registry.client import Registry

    (wanted, *others) = (candidate.name for candidate in shortnames.candidates(settings.load(), text))
    if others:
        raise Invalid(f"'{text}' is searched for in several registries", "write it with the registry's name")
    if wanted.digest or ":" in text.rpartition("/")[2]:
        raise Invalid("tag can't be used with --all-tags/-a", "leave out the tag", exit_code=1)
    found = content.tags(Registry(wanted.domain), wanted.path)
    return [str(wanted.with_tag(tag)) for tag in sorted(found) if not tag.startswith(("sha256-", "sha512-"))]


def _pull(call: Call, text: str) -> None:
    from limpet.images import current

    quiet = call["quiet"]
    found = current.unchanged(call.store, text) if not call["platform"] else None
    if found is not None:
        name, digest = found
        if not quiet:
            print(f"{name.tag}: Pulling from {name.path}\nDigest: {digest}")
            print(f"Status: Image is up to date for {name.familiar}")
        print(name, flush=True)
        return

    from limpet.cli.progress import progress
    from limpet.images import named
    from limpet.layers import durable

    def say(line: str) -> None:
        if not quiet:
            print(line, flush=True)

    with progress(quiet=quiet) as shown:
        pulled = named.pull(
            call.store, text, platform=call["platform"] or None, rate=rate(call), progress=shown, say=say
        )
    if not quiet:
        print("\n".join(pulled.lines))
    print(pulled.name, flush=True)
    durable.settle_later(call.store)


def push(call: Call) -> int:
    from limpet.cli.progress import progress
    from limpet.images import push as pushing
    from limpet.images.packing import Packing
    from limpet.layers import durable

    quiet = call["quiet"]
    kind, level = call["compression"], call["compression-level"]
    packing = Packing(kind or "gzip", level, anew=bool(kind) or level is not None)
    names = pushing.names_of(call.store, call.arguments[0], call["all-tags"])
    if not quiet:
        print(f"The push refers to repository [{names[0].repository}]", flush=True)
    with progress(quiet=quiet) as shown:
        platform = call["platform"] or None
        for pushed in pushing.push(
            call.store, names, packing=packing, platform=platform, rate=rate(call), progress=shown
        ):
            print(pushed.name if quiet else pushed.line, flush=True)
    durable.settle_later(call.store)  # what was compressed is kept for the next push
    return 0


def rate(call: Call) -> Rate | None:
    """What `--limit-rate` allows."""
    text = call["limit-rate"]
    if not text:
        return None
    from limpet.containers.options import parse_size
    from limpet.registry.rate import Rate

    return Rate(max(1, parse_size(text, "limit-rate")))


def load(call: Call) -> int:
    from limpet.cli.progress import progress
    from limpet.images.load import load
    from limpet.layers import durable

    source = call["input"]
    if not source and os.isatty(0):
        raise Invalid("standard input is a terminal", "give a file with -i, or pipe an archive into it")
    with progress(quiet=call["quiet"]) as shown:
        lines = load(call.store, source or sys.stdin.buffer, platform=call["platform"] or None, progress=shown)
    print("\n".join(lines), flush=True)
    durable.settle_later(call.store)
    return 0


def save(call: Call) -> int:
    from limpet.images import save as saving

    target, form = call["output"], call["format"]
    if form == "oci-dir":
        if not target:
            raise Invalid("oci-dir writes a directory", "give its path with -o")
        saving.save(call.store, call.arguments, target, form)
    elif target:
        saving.to_file(target, lambda file: saving.save(call.store, call.arguments, file, form))
    elif os.isatty(1):
        raise Invalid("standard output is a terminal", "give a file with -o, or redirect the output")
    else:
        saving.save(call.store, call.arguments, sys.stdout.buffer, form)
    return 0


_QUIET = Option("quiet", "q", help="No progress")
_PLATFORM = Option(
    "platform", kind="string", default="", metavar="OS/ARCH", help="Of an image for several platforms take this one"
)

RATE = Option(
    "limit-rate", kind="string", default="", metavar="BYTES", help="At most so many bytes a second: 500k, 10m"
)

COMMANDS: dict[str, Command] = {
    "pull": Command(
        "pull",
        pull,
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry",
        [
            Option("all-tags", "a", help="All tags of the repository"),
            _PLATFORM,
            Option("quiet", "q", help="Only the name, when it is here"),
            RATE,
        ],
        examples=(
            "limpet pull debian:12",
            "limpet pull --platform linux/arm64 localhost:5000/app",
            "limpet pull -a localhost:5000/app",
        ),
        min_args=1,
        max_args=1,
        complete="image",
    ),
    "push": Command(
        "push",
        push,
        "[OPTIONS] NAME[:TAG]",
        "Upload an image to the registry that its name says",
        [
            Option("all-tags", "a", help="All tags of the repository"),
            Option(
                "compression",
                kind="string",
                default="",
                metavar="KIND",
                help="Of layers that were made here: gzip (as they are unless given) or zstd; pulled ones stay",
            ),
            Option(
                "compression-level",
                kind="int",
                metavar="N",
                help="1 to 9 for gzip, 1 to 22 for zstd; 3 unless given",
            ),
            RATE,
            Option(
                "platform",
                kind="string",
                default="",
                metavar="OS/ARCH",
                help="Of an image for several platforms only this one, without the index",
            ),
            Option("quiet", "q", help="Only the name, when it is there"),
        ],
        examples=(
            "limpet push localhost:5000/app:1",
            "limpet push -a --compression zstd localhost:5000/app",
        ),
        min_args=1,
        max_args=1,
        complete="image",
    ),
    "load": Command(
        "load",
        load,
        "[OPTIONS]",
        "Load images from an archive (docker save's or OCI's, compressed or not) or from an OCI layout directory",
        [
            Option("input", "i", kind="string", default="", metavar="PATH", help="A file or a directory, not stdin"),
            _PLATFORM,
            _QUIET,
        ],
        examples=("limpet load -i debian.tar.gz", "ssh host docker save debian:12 | limpet load"),
        max_args=0,
    ),
    "save": Command(
        "save",
        save,
        "[OPTIONS] IMAGE [IMAGE...]",
        "Save images to an archive, which docker, podman and limpet load",
        [
            Option("output", "o", kind="string", default="", metavar="PATH", help="A file or directory, not stdout"),
            Option(
                "format",
                kind="string",
                default=_FORMATS[0],
                metavar="FORMAT",
                help=", ".join(_FORMATS),
                choices=_FORMATS,
            ),
        ],
        examples=("limpet save -o debian.tar debian:12", "limpet save --format oci-archive app:1 | zstd > app.tar.zst"),
        min_args=1,
        complete="image",
    ),
}
