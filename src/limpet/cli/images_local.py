"""images, image inspect, tag, rmi, history, image prune, capture, import: what needs no registry."""

from __future__ import annotations

import sys
import time

from limpet import jsontext
from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.errors import Invalid, LimpetError, NotFound
from limpet.images import catalog, filters, inspect, members, names
from limpet.oci import digest as digests
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.cli.table import Call
    from limpet.images.catalog import Image
    from limpet.images.history import Step

_NONE = "<none>"


def images(call: Call) -> int:
    wanted = filters.parse(call["filter"], filters.IMAGES)
    if call.arguments:
        wanted.setdefault("reference", []).append(call.arguments[0])
    store = call.store
    matches = filters.matcher(store, wanted)
    patterns = wanted.get("reference", [])
    hidden = {} if call["all"] else members.held(store)
    found = [image for image in catalog.all_images(store) if matches(image) and image.id not in hidden]
    found.sort(key=lambda image: -filters.created(image))
    rows = [
        _image_row(call, image, name)
        for image in found
        for name in _shown_names(filters.names_matching(image, patterns) if patterns else image.names)
    ]
    if call["quiet"]:
        output.say("\n".join(row["ID"] for row in rows))
        return 0
    columns = [("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince")]
    if call["digests"]:
        columns.insert(2, ("DIGEST", "Digest"))
    columns.append(("SIZE", "Size"))
    extra = [("CREATED AT", "CreatedAt"), ("DIGEST", "Digest")]
    shown = columns if call["format"] in ("", "table", "json") else [*columns, *extra]
    output.say(output.formatted(call["format"], rows, shown, "Repository"))
    return 0


def _shown_names(names: list[str]) -> list[str]:
    """Tags; a name by digest only where its repository has no tag; "" for an image without any."""
    tagged = {name.rpartition(":")[0] for name in names if "@" not in name}
    return [name for name in names if "@" not in name or name.partition("@")[0] not in tagged] or [""]


def _image_row(call: Call, image: Image, name: str) -> dict[str, str]:
    repository, tag, digest = _NONE, _NONE, _NONE
    if name:
        parsed = reference.parse(name)
        repository, tag, digest = parsed.familiar_name, parsed.tag or _NONE, parsed.digest or _NONE
        row = call.store.db.row("SELECT index_digest, manifest FROM name WHERE reference = ?", name)
        if row and digest == _NONE:
            digest = row[0] or row[1] or _NONE
    made = filters.created(image)
    size = output.size_decimal(inspect.size_of(call.store, image.id))
    return {
        "Containers": "N/A",
        "CreatedAt": _local_time(made),
        "CreatedSince": output.age(made),
        "Digest": digest,
        "ID": image.id if call["no-trunc"] else digests.short(image.id),
        "Repository": repository,
        "SharedSize": "N/A",
        "Size": size,
        "Tag": tag,
        "UniqueSize": "N/A",
        "VirtualSize": size,
    }


def _local_time(seconds: float) -> str:
    """Go's default form, which `--format '{{.CreatedAt}}'` shows: 2026-01-31 12:00:00 +0000 UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def image_inspect(call: Call) -> int:
    if call["raw"]:
        return _raw(call)
    found: list[dict[str, Any]] = []
    errors: list[LimpetError] = []
    for text in call.arguments:
        try:
            found.append(inspect.describe(call.store, catalog.find(call.store, text)))
        except NotFound as e:
            from limpet.cli.inspect import of_another_kind

            errors.append(of_another_kind(call, text, e))
        except LimpetError as e:
            errors.append(e)
    if call["format"] and call["format"] != "json":
        from limpet.cli import template
        from limpet.cli.template_functions import typed

        compiled = template.compile(call["format"])
        for one in found:
            print(compiled.render(typed(one)))
    else:
        print(jsontext.dumps(found, indent=None if call["format"] else 4))
    return _complain(errors)


def _raw(call: Call) -> int:
    """The very bytes, so that a checksum of them is the digest: one image, and no new line at the end."""
    if len(call.arguments) != 1 or call["format"]:
        raise Invalid("--raw shows one image as it is", "leave out the others, and --format", exit_code=1)
    try:
        data = inspect.raw(call.store, call.arguments[0])
    except LimpetError as e:
        e.exit_code = 1
        raise
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


def _complain(errors: list[LimpetError]) -> int:
    for error in errors:
        sys.stdout.flush()
        print(f"limpet: {error}", file=sys.stderr)
    return 1 if errors else 0


def tag(call: Call) -> int:
    source, target = call.arguments
    try:
        names.tag(call.store, source, target)
    except LimpetError as e:
        e.exit_code = 1
        raise
    return 0


def rmi(call: Call) -> int:
    errors: list[LimpetError] = []
    for text in call.arguments:
        try:
            for line in names.remove(call.store, text, call["force"], not call["no-prune"]):
                print(line)
        except LimpetError as e:
            errors.append(e)
    code = _complain(errors)
    if call["force"] and all(isinstance(e, NotFound) for e in errors):
        return 0  # as Docker: gone is what was asked for
    return code


def history(call: Call) -> int:
    from limpet.images.history import history as steps_of

    try:
        image = catalog.find(call.store, call.arguments[0])
    except LimpetError as e:
        e.exit_code = 1
        raise
    rows = [_step_row(call, step) for step in steps_of(call.store, image)]
    if call["quiet"]:
        output.say("\n".join(row["ID"] for row in rows))
        return 0
    when = ("CREATED", "CreatedSince") if call["human"] else ("CREATED AT", "CreatedAt")
    columns = [("IMAGE", "ID"), when, ("CREATED BY", "CreatedBy"), ("SIZE", "Size"), ("COMMENT", "Comment")]
    output.say(output.formatted(call["format"], rows, columns, "ID"))
    return 0


def _step_row(call: Call, step: Step) -> dict[str, str]:
    text = step.created_by.replace("\t", " ")
    if not call["no-trunc"] and len(text) > 45:  # as docker/cli `formatter/history.go`
        text = text[:44] + "…"
    whole = call["no-trunc"] or not step.image.startswith("sha256:")
    made = filters.timestamp(step.created)
    return {
        "Comment": step.comment,
        "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(made)) if step.created else "",
        "CreatedBy": text,
        "CreatedSince": output.age(made) if step.created else "N/A",
        "ID": step.image if whole else digests.short(step.image),
        "Size": output.size_decimal(step.size) if call["human"] else str(step.size),
    }


def image_prune(call: Call) -> int:
    from limpet.images import prune

    wanted = filters.parse(call["filter"], filters.PRUNE)
    plan = prune.plan(call.store, everything=call["all"], wanted=wanted)
    if plan.images and not call["force"]:
        which = "all images without at least one container associated to them" if call["all"] else "all dangling images"
        listed = "".join(f"\n  {_title(image)}" for image in plan.images)
        output.confirm(f"WARNING! This will remove {which}:{listed}\nfreeing {output.size_decimal(plan.bytes)}.")
    lines, freed = prune.carry_out(call.store, plan)
    if lines:
        print("\n".join(["Deleted Images:", *lines, ""]))
    if freed.waiting:
        print("limpet: something is being added right now: its end frees the bytes", file=sys.stderr)
    print(f"Total reclaimed space: {output.size_decimal(freed.bytes)}")
    return 0


def _title(image: Image) -> str:
    shown = ", ".join(reference.parse(name).familiar for name in image.names) or _NONE
    return f"{digests.short(image.id)}  {shown}"


def capture(call: Call) -> int:
    from limpet.cli.progress import progress
    from limpet.images import capture as capturing

    name, *paths = call.arguments
    with progress(quiet=call["quiet"]) as shown:
        image = capturing.capture(call.store, name, paths, shown)
    print(image.id)
    return 0


def import_(call: Call) -> int:
    from limpet.cli.progress import progress
    from limpet.images import rootfs

    source = call.arguments[0]
    if source == "-" and sys.stdin.isatty():
        raise Invalid("standard input is a terminal", "pipe a tar into it, or give a file", exit_code=1)
    with progress(quiet=call["quiet"]) as shown:
        image = rootfs.import_rootfs(
            call.store,
            source,
            call.arguments[1] if len(call.arguments) > 1 else "",
            changes=call["change"],
            message=call["message"] or "",
            wanted_platform=call["platform"] or "",
            progress=shown,
        )
    print(image.id)
    return 0


_FORMAT = Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template")
_NO_TRUNC = Option("no-trunc", help="Show whole ids and texts")
_QUIET = Option("quiet", "q", help="Only ids")
_SILENT = Option("quiet", "q", help="No progress")
_FILTER = Option("filter", "f", kind="list", metavar="KEY=VALUE", help="Only what matches")

COMMANDS: dict[str, Command] = {
    "images": Command(
        "images",
        images,
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        [
            Option("all", "a", help="Those too that belong to an index, for other platforms"),
            Option("digests", help="Show the digests by which registries know the images"),
            Option(
                "filter",
                "f",
                kind="list",
                metavar="KEY=VALUE",
                help=f"Only what matches: {', '.join(filters.IMAGES)}",
            ),
            _FORMAT,
            _NO_TRUNC,
            _QUIET,
        ],
        examples=("limpet images debian", "limpet images --filter dangling=true -q", "limpet images --format json"),
        max_args=1,
        complete="image",
    ),
    "image inspect": Command(
        "image inspect",
        image_inspect,
        "[OPTIONS] IMAGE [IMAGE...]",
        "Show all that is known about images",
        [
            Option("format", "f", kind="string", default="", metavar="FORMAT", help="json, or a Go template"),
            Option("raw", help="The bytes of the manifest or index that was fetched, of one image"),
        ],
        examples=(
            "limpet image inspect debian:12",
            "limpet image inspect -f '{{.Config.Cmd}}' debian:12",
            "limpet image inspect --raw debian:12 | sha256sum",
        ),
        min_args=1,
        complete="image",
    ),
    "tag": Command(
        "tag",
        tag,
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Give an image one more name",
        examples=("limpet tag debian:12 registry.example/base:1",),
        min_args=2,
        max_args=2,
        complete="image",
    ),
    "rmi": Command(
        "rmi",
        rmi,
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove images: a name, and what nothing else names",
        [
            Option("force", "f", help="Also if stopped containers use it or it has several names"),
            Option("no-prune", help="Accepted for Docker's sake: there are no parents to keep"),
        ],
        examples=("limpet rmi debian:12", "limpet rmi -f 3f2a"),
        min_args=1,
        complete="image",
    ),
    "history": Command(
        "history",
        history,
        "[OPTIONS] IMAGE",
        "Show the history of an image",
        [
            Option("human", "H", default=True, help="Sizes and dates as people read them"),
            _FORMAT,
            Option("no-trunc", help="Show whole ids and commands"),
            _QUIET,
        ],
        examples=("limpet history debian:12", "limpet history --no-trunc --format '{{.CreatedBy}}' debian:12"),
        min_args=1,
        max_args=1,
        complete="image",
    ),
    "image prune": Command(
        "image prune",
        image_prune,
        "[OPTIONS]",
        "Remove unused images: lists what goes and how much it frees, then asks",
        [
            Option("all", "a", help="All that no container uses, not only those without a name"),
            Option("filter", kind="list", metavar="KEY=VALUE", help=f"Only these: {', '.join(filters.PRUNE)}"),
            Option("force", "f", help="Do not ask"),
        ],
        examples=("limpet image prune", "limpet image prune -a --filter until=24h"),
        max_args=0,
    ),
    "capture": Command(
        "capture",
        capture,
        "[OPTIONS] NAME [PATH...]",
        "Make an image of programs of this host: its shell, common commands and Python; or PATHs and what they need",
        [_SILENT],
        examples=("limpet capture limpet/host", "limpet capture my/tools jq /usr/local/bin/tool /srv/data"),
        min_args=1,
        complete="file",
    ),
    "import": Command(
        "import",
        import_,
        "[OPTIONS] FILE|DIRECTORY|- [REPOSITORY[:TAG]]",
        "Make an image from a root file system: a tar (plain, gzip, zstd, xz, bzip2) or a directory",
        [
            Option("change", "c", kind="list", metavar="INSTRUCTION", help="Apply a Dockerfile instruction"),
            Option("message", "m", kind="string", default="", metavar="TEXT", help="A comment for the history"),
            Option("platform", kind="string", default="", metavar="OS/ARCH", help="If not this machine's"),
            _SILENT,
        ],
        examples=(
            "limpet import rootfs.tar.zst debian:12",
            "mmdebstrap bookworm - | limpet import - debian:12",
            "limpet import -c 'CMD [\"bash\"]' ./rootfs mine",
        ),
        min_args=1,
        max_args=2,
        complete="file",
    ),
}
