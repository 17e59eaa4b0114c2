"""cp, export, diff, commit."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, BinaryIO

from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.containers import state
from limpet.containers.files import changes, copyroot, unpack
from limpet.containers.files import copy as copying
from limpet.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.cli.table import Call


def cp(call: Call) -> int:
    source, target = call.arguments
    from_container, from_path = _split(source)
    to_container, to_path = _split(target)
    if source == "-" and to_container:
        with _root(call, to_container) as root:
            unpack.unpack(sys.stdin.buffer, root, to_path)
        return 0
    if target == "-" and from_container:
        with _root(call, from_container) as root:
            (path,) = copying.expand(root, from_path)[:1]
            name = os.path.basename(path.rstrip("/")) or "."
            write_archive("", lambda out: copying.pack(root, path, name, out.write, follow=call["follow-link"]))
        return 0
    if not from_container and not to_container:
        raise Invalid(
            "must specify at least one container source", "write CONTAINER:PATH; for two paths use cp", exit_code=1
        )
    start = from_path if from_container else _absolute(from_path)
    end = to_path if to_container else _absolute(to_path)
    with _root(call, from_container) as origin:
        if _same(call, from_container, to_container):
            size = copying.copy(origin, start, origin, end, follow=call["follow-link"])
        else:
            with _root(call, to_container) as goal:
                size = copying.copy(origin, start, goal, end, follow=call["follow-link"])
    if not call["quiet"]:
        print(f"Successfully copied {output.size_decimal(size)} to {target if to_container else end}", file=sys.stderr)
    return 0


def export(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    with copyroot.container_root(call.store, container) as root:
        write_archive(call["output"], lambda out: copying.pack(root, "/", ".", out.write, one_device=True))
    return 0


def write_archive(path: str, write: Callable[[BinaryIO], object]) -> None:
    """To a file, which is whole or not there; to standard output for "". Raises Invalid, LimpetError."""
    from limpet.images import save

    if path:
        save.to_file(path, write)
        return
    if os.isatty(1):
        raise Invalid("refusing to write a tar to the terminal", "-o FILE, or send it to a pipe", exit_code=1)
    write(sys.stdout.buffer)
    sys.stdout.buffer.flush()


def diff(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    for kind, path in changes.changes(call.store, container):
        print(f"{kind} {path}")
    return 0


def commit(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    image = changes.commit(
        call.store,
        container,
        call.arguments[1] if len(call.arguments) > 1 else "",
        author=call["author"],
        message=call["message"],
        change=call["change"],
        pause=call["pause"],
    )
    print(image.id)
    return 0


def _root(call: Call, container: str) -> copyroot.Root:
    if not container:
        return copyroot.host_root()
    return copyroot.container_root(call.store, state.find(call.store, container))


def _same(call: Call, one: str, other: str) -> bool:
    """Whether both are one container: its lock can be taken only once."""
    return bool(one and other) and state.find(call.store, one).id == state.find(call.store, other).id


def _split(text: str) -> tuple[str, str]:
    """CONTAINER:PATH; a host path may hold a colon if it begins with / or . (docker/cli `splitCpArg`)."""
    if text.startswith(("/", ".")) or ":" not in text:
        return "", text
    container, _, path = text.partition(":")
    if not container:
        return "", text
    if not path:
        raise Invalid(f"'{text}' has no path", f"{container}:/ is the whole root", exit_code=1)
    return container, path if path.startswith("/") else f"/{path}"


def _absolute(path: str) -> str:
    """Absolute, and what a trailing slash or `/.` says is kept."""
    end = "/." if path.endswith("/.") or path == "." else "/" if path.endswith("/") else ""
    return os.path.abspath(path).rstrip("/") + end or "/"


COMMANDS = {
    "cp": Command(
        name="cp",
        handler=cp,
        usage="[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-  or  SRC_PATH|- CONTAINER:DEST_PATH",
        summary="Copy files between containers and the host; owners and attributes are kept by number",
        options=(
            Option("archive", "a", help="Accepted: owners are always kept"),
            Option("follow-link", "L", help="Copy what a symbolic link means"),
            Option("quiet", "q", help="Say nothing"),
        ),
        examples=(
            "limpet cp web:/etc/nginx ./nginx",
            "limpet cp site/. web:/srv",
            "limpet cp 'web:/var/log/*.log' logs/",
            "limpet cp web:/var/log - | tar t",
        ),
        min_args=2,
        max_args=2,
        complete="container:|file",
    ),
    "export": Command(
        name="export",
        handler=export,
        usage="[OPTIONS] CONTAINER",
        summary="Write a container's files as a tar, without what is mounted there",
        options=(Option("output", "o", kind="string", default="", metavar="FILE", help="Write to a file"),),
        examples=("limpet export web >web.tar", "limpet export web | limpet import - web:saved"),
        min_args=1,
        max_args=1,
        complete="container",
    ),
    "diff": Command(
        name="diff",
        handler=diff,
        usage="CONTAINER",
        summary="List what a container added (A), changed (C) and deleted (D)",
        examples=("limpet diff web",),
        min_args=1,
        max_args=1,
        complete="container",
    ),
    "commit": Command(
        name="commit",
        handler=commit,
        usage="[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        summary="Make an image of a container's changes",
        options=(
            Option("author", "a", kind="string", default="", metavar="NAME", help="Author of the image"),
            Option("change", "c", kind="list", metavar="INSTRUCTION", help="Apply a Dockerfile instruction (CMD …)"),
            Option("message", "m", kind="string", default="", metavar="TEXT", help="Comment of the image"),
            Option("pause", "p", default=True, help="Freeze the container meanwhile"),
        ),
        examples=("limpet commit web web:saved", "limpet commit -c 'CMD [\"sh\"]' web web:saved"),
        min_args=1,
        max_args=2,
        complete="container",
    ),
}
