"""build."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from limpet.cli.progress import progress
from limpet.cli.table import Command, Option

if TYPE_CHECKING:
    from limpet.cli.table import Call


def build(call: Call) -> int:
    from limpet.build.execute import build as execute

    directory = call.arguments[0]
    labels = dict(text.partition("=")[::2] for text in call["label"])
    quiet = call["quiet"]

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    with progress(quiet=quiet) as shown:
        image = execute(
            call.store,
            directory,
            call["tag"],
            file=call["file"],
            labels=labels,
            no_cache=call["no-cache"],
            say=say,
            progress=shown,
        )
    if call["iidfile"]:
        with open(call["iidfile"], "w", encoding="utf-8") as file:
            file.write(image.id)
    for name in call["tag"]:
        say(f"Built {name}")
    print(image.id)
    return 0


COMMANDS = {
    "build": Command(
        name="build",
        handler=build,
        usage="[OPTIONS] DIRECTORY",
        summary="Build an image from a Dockerfile",
        options=(
            Option("file", "f", kind="string", default="", metavar="FILE", help="The Dockerfile, if not in DIRECTORY"),
            Option("iidfile", kind="string", default="", metavar="FILE", help="Write the image's id to a file"),
            Option("label", kind="list", metavar="KEY=VALUE", help="Set a label"),
            Option("no-cache", help="Run every step again"),
            Option("quiet", "q", help="Print only the image's id"),
            Option("tag", "t", kind="list", metavar="NAME[:TAG]", help="Name of the image"),
        ),
        examples=("limpet build -t web .", "limpet build -f docker/Dockerfile -t web:1 ."),
        min_args=1,
        max_args=1,
        complete="file",
    ),
}
