"""`--output` and `--annotation` as docker/buildx reads them (`util/buildflags/export.go`, `build/opt.go`).

An output is a record of CSV: `type=KIND,key=value,…`; a text without `=` is a directory, "-" a tar on standard output.
What an output can't do is refused by name: a file in another form than asked for would be found out too late.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.language.flags import boolean, fields
from limpet.build.language.nearest import did_you_mean
from limpet.build.outputs.request import (
    CACHE_ONLY,
    DOCKER,
    IMAGE,
    LOCAL,
    OCI,
    STANDARD_OUTPUT,
    STORE,
    TAR,
    Annotation,
    Output,
    Wanted,
)
from limpet.errors import Invalid
from limpet.images.package import Form
from limpet.images.packing import PLAIN, Packing
from limpet.oci import platform as platforms
from limpet.oci import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.oci.reference import Reference

_FORM = ("compression", "compression-level", "force-compression", "oci-mediatypes", "rewrite-timestamp")
_KEYS: dict[str, tuple[str, ...]] = {
    IMAGE: ("name", "push", "push-by-digest", "store", "unpack", *_FORM),
    OCI: ("dest", "name", "tar", *_FORM),
    DOCKER: ("dest", "name", "rewrite-timestamp"),
    LOCAL: ("dest", "platform-split", "rewrite-timestamp"),
    TAR: ("dest", "platform-split", "rewrite-timestamp"),
    CACHE_ONLY: (),
}
_REFUSED = {
    "buildinfo": "--provenance describes a build",
    "dangling-name-prefix": "give a name with name=",
    "name-canonical": "`limpet images --digests` shows the digest of each name",
    "oci-artifact": "",
    "registry.insecure": "a registry's settings say how it is spoken to (docs/registries.md)",
    "source-date-epoch": "set SOURCE_DATE_EPOCH, in the environment or with --build-arg",
}
"""What BuildKit's outputs have and these don't, and the way out."""

_PLACES = ("manifest", "index", "manifest-descriptor", "index-descriptor")
_SCOPE = re.compile(r"([a-z-]+)(?:\[([A-Za-z0-9_/.-]+)\])?")


def wanted(
    names: Sequence[str], outputs: Sequence[str], annotations: Sequence[str], *, push: bool = False, load: bool = False
) -> Wanted:
    """What the options of one build ask for. Raises Invalid."""
    tags = tuple(map(_name, names))
    found = [output(text) for text in outputs]
    if push:
        images = [number for number, each in enumerate(found) if each.kind == IMAGE]
        for number in images:
            found[number] = replace(found[number], push=True)
        if not images:
            found.append(Output(IMAGE, "type=registry", push=True))
    if load and not any(each.keep for each in found):
        found.append(STORE)
    noted = tuple(one for text in annotations for one in annotation(text))
    whole = Wanted(tags, tuple(found) or (STORE,), noted)
    _check(whole)
    return whole


def _check(whole: Wanted) -> None:
    for each in whole.outputs:
        if each.push and not (each.names or whole.names):
            raise Invalid("a name is needed to push", "-t REGISTRY/NAME:TAG")
    if sum(each.dest == STANDARD_OUTPUT for each in whole.outputs) > 1:
        raise Invalid("several outputs would go to standard output", "give each a dest=FILE")
    if whole.annotations and not any(_can_annotate(each) for each in whole.outputs):
        raise Invalid("--annotation: no output has a place for it", "an image, a registry and type=oci have")


def _can_annotate(each: Output) -> bool:
    return each.kind in (IMAGE, OCI)


def output(text: str) -> Output:
    """One `--output`. Raises Invalid, naming what is wrong."""
    try:
        row = fields(text)
    except ValueError as e:
        raise _invalid(text, str(e), 'a value with a comma is put in quotes: "name=a,b"') from None
    if len(row) == 1 and "=" not in row[0]:
        return Output(TAR, text, STANDARD_OUTPUT) if row[0] == STANDARD_OUTPUT else Output(LOCAL, text, row[0])
    kind, values = "", {}
    for field in row:
        key, equals, value = field.partition("=")
        key = key.strip().lower() if not key.startswith("annotation") else key.strip()
        if not equals:
            raise _invalid(text, f"'{field}' is not KEY=VALUE", "as in type=local,dest=out")
        if key == "type":
            kind = value
        else:
            values[key] = value
    if not kind:
        raise _invalid(text, "type is required for output", f"type={'|'.join(_KEYS)}|registry")
    if kind == "registry":
        kind = IMAGE
        values.setdefault("push", "true")
        values.setdefault("store", "false")
    if kind not in _KEYS:
        raise _invalid(text, f"unknown type {kind!r}", did_you_mean(kind, _KEYS) or f"known are {', '.join(_KEYS)}")
    return _made(text, kind, values)


def _made(text: str, kind: str, values: dict[str, str]) -> Output:
    annotations = []
    for key in [key for key in values if key.startswith("annotation")]:
        scope, dot, name = key.partition(".")
        if not dot or not name:
            raise _invalid(text, f"'{key}' names no annotation", "as in annotation.KEY=VALUE, annotation-index.KEY=…")
        place = scope.removeprefix("annotation").removeprefix("-") or "manifest"
        annotations += _annotations([place], name, values.pop(key), f"--output {text}")
    for key in values:
        if key not in _KEYS[kind]:
            raise _unknown(text, kind, key)
    if annotations and kind not in (IMAGE, OCI):
        raise _invalid(text, f"type={kind} has no place for annotations", "type=image and type=oci have")
    if not _flag(text, values, "rewrite-timestamp", True):
        raise _invalid(text, "rewrite-timestamp=false: times are always those of SOURCE_DATE_EPOCH", "leave it out")
    dest = values.get("dest", "")
    layout = not _flag(text, values, "tar", True)
    if kind == LOCAL and not dest:
        raise _invalid(text, "dest is required for local output", "type=local,dest=DIRECTORY")
    if kind == LOCAL and dest == STANDARD_OUTPUT:
        raise _invalid(text, "a directory can't go to standard output", "type=tar,dest=- is a tar of it")
    if layout and dest in ("", STANDARD_OUTPUT):
        raise _invalid(text, "dest is required for a directory", "type=oci,tar=false,dest=DIRECTORY")
    if kind in (OCI, TAR):
        dest = dest or STANDARD_OUTPUT
    split = _flag(text, values, "platform-split", True) if "platform-split" in values else None
    push = _flag(text, values, "push", False)
    by_digest = _flag(text, values, "push-by-digest", False)
    if by_digest and not push:
        raise _invalid(text, "push-by-digest needs push=true", "type=image,push=true,push-by-digest=true")
    _flag(text, values, "unpack", False)  # nothing ever needs it: layers are used as they are
    keep = _flag(text, values, "store", True) if kind == IMAGE else kind == DOCKER and not dest
    names = tuple(_name(name) for name in values.get("name", "").split(",") if name)
    form = _form(text, values)
    return Output(kind, text, dest, names, keep, push, by_digest, layout, split, form, tuple(annotations))


def _form(text: str, values: dict[str, str]) -> Form | None:
    """None if nothing is said of it."""
    if not {"compression", "compression-level", "force-compression", "oci-mediatypes"} & set(values):
        return None
    level = values.get("compression-level", "")
    if level and not (level.lstrip("-").isdecimal() and len(level) < 5):
        raise _invalid(text, f"compression-level={level} is no number", "1 to 9 for gzip, 1 to 22 for zstd")
    try:
        packing = Packing(
            values.get("compression", "") or "gzip",
            int(level) if level else None,
            anew=True,
            force=_flag(text, values, "force-compression", False),
        )
    except Invalid as e:
        hint = f"gzip, zstd and {PLAIN} are known" if "unknown" in e.message else e.hint
        raise _invalid(text, e.message, hint) from None
    docker = not _flag(text, values, "oci-mediatypes", True)
    if docker and packing.kind == "zstd":
        raise _invalid(text, "zstd has no media type of Docker's", "leave out oci-mediatypes=false")
    return Form(packing, docker)


def annotation(text: str) -> list[Annotation]:
    """`[PLACE[[PLATFORM]],…:]KEY=VALUE`; without a place it is the manifest's. Raises Invalid."""
    front, equals, value = text.partition("=")
    places, colon, key = front.partition(":")
    if not colon or any(_SCOPE.fullmatch(part) is None for part in places.split(",")):
        places, key = "manifest", front
    if not equals or not key:
        raise Invalid(f"--annotation {text}: KEY=VALUE is wanted", "as in --annotation index:org.example.key=value")
    return _annotations(places.split(","), key, value, f"--annotation {text}")


def _annotations(places: Sequence[str], key: str, value: str, where: str) -> list[Annotation]:
    found = []
    for each in places:
        match = _SCOPE.fullmatch(each)
        if match is None or match[1] not in _PLACES:
            raise Invalid(f"{where}: unknown place {each!r}", did_you_mean(each, _PLACES) or f"{', '.join(_PLACES)}")
        try:
            platform = platforms.parse(match[2]) if match[2] else None
        except Invalid as e:
            raise Invalid(f"{where}: {e.message}", e.hint) from None
        if platform is not None and match[1].startswith("index"):
            raise Invalid(f"{where}: an index has no platform", f"write {match[1]}")
        found.append(Annotation(match[1], key, value, platform))
    return found


def _name(text: str) -> Reference:
    found = reference.parse(text)
    if found.digest:
        raise Invalid(f"'{text}' has a digest", "a name to give has a tag at most")
    return found


def _flag(text: str, values: dict[str, str], key: str, default: bool) -> bool:
    try:
        return boolean(values[key]) if key in values else default
    except ValueError:
        raise _invalid(text, f"{key}={values[key]} is neither true nor false") from None


def _unknown(text: str, kind: str, key: str) -> Invalid:
    if key in _REFUSED:
        return _invalid(text, f"{key} is not supported", _REFUSED[key])
    known = _KEYS[kind]
    others = [name for name, keys in _KEYS.items() if key in keys]
    hint = f"type={others[0]} has it" if others else did_you_mean(key, known)
    return _invalid(
        text, f"type={kind} has no option {key!r}", hint or (f"it has {', '.join(known)}" if known else "it has none")
    )


def _invalid(text: str, message: str, hint: str = "") -> Invalid:
    return Invalid(f"--output {text}: {message}", hint)
