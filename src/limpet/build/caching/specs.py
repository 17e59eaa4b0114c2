"""`--cache-from` and `--cache-to`, as buildx has them: `type=registry,ref=…`, `type=local,…`, `type=inline`, or a name.

Source: BuildKit's README, "Export cache"; buildx's reference of `docker buildx build`. Types that keep the cache with a
cloud's own service (gha, s3, azblob) are not ours: as a source they are said and passed over, as a target refused.
"""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.frozen import dataclass
from limpet.oci import digest as digests
from limpet.oci import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

ELSEWHERE = ("gha", "s3", "azblob")
_COMPRESSIONS = ("gzip", "zstd")
_FROM = {"registry": {"ref"}, "local": {"src", "tag", "digest"}}
_FORM = {"mode", "image-manifest", "oci-mediatypes", "compression", "compression-level", "ignore-error"}
_TO = {"registry": {"ref"} | _FORM, "local": {"dest", "tag", "reset"} | _FORM, "inline": {"ignore-error"}}
_IGNORED = {"force-compression", "registry.insecure"}


@dataclass(frozen=True, slots=True)
class From:
    """Where steps may come from. `type`: registry (`place` is a reference), local (a directory), one of ELSEWHERE."""

    type: str
    place: str
    tag: str = "latest"
    digest: str = ""


@dataclass(frozen=True, slots=True)
class To:
    """Where steps go. `type`: registry, local, inline. `index`: the older form, a list of layers and not a manifest."""

    type: str
    place: str = ""
    mode: str = "min"
    tag: str = "latest"
    index: bool = False
    docker: bool = False
    compression: str = "gzip"
    level: int | None = None
    ignore_error: bool = False
    reset: bool = False

    @property
    def title(self) -> str:
        return self.place or self.type


@dataclass(frozen=True, slots=True)
class Caching:
    """What a build is told of caches. `skip`: stages whose steps run again."""

    sources: tuple[From, ...] = ()
    targets: tuple[To, ...] = ()
    skip: tuple[str, ...] = ()


def source(text: str) -> From:
    """One `--cache-from`. Raises Invalid."""
    if "=" not in text:
        return From("registry", _reference("--cache-from", text, text))
    fields = _fields("--cache-from", text)
    kind = fields.pop("type", "registry")
    if kind in ELSEWHERE:
        return From(kind, kind)
    _check("--cache-from", text, kind, fields, _FROM)
    if kind == "registry":
        return From(kind, _reference("--cache-from", text, fields.get("ref", "")))
    digest = fields.get("digest", "")
    if digest:
        digests.check(digest)
    return From(kind, _needed("--cache-from", text, fields, "src"), fields.get("tag", "latest"), digest)


def target(text: str) -> To:
    """One `--cache-to`. Raises Invalid."""
    if "=" not in text:
        if text in ("inline", *ELSEWHERE):
            return target(f"type={text}")
        return To("registry", _reference("--cache-to", text, text))
    fields = _fields("--cache-to", text)
    kind = fields.pop("type", "registry")
    if kind in ELSEWHERE:
        raise Invalid(f"--cache-to {text}: a cache of type {kind} can't be written", "registry, local and inline can")
    if kind == "inline" and fields.pop("mode", "min") != "min":
        hint = "leave mode out, or write a cache with type=registry,ref=…,mode=max"
        raise Invalid(f"--cache-to {text}: an image has the steps of its own layers, mode=min", hint)
    _check("--cache-to", text, kind, fields, _TO)
    mode = fields.get("mode", "min")
    if mode not in ("min", "max"):
        raise Invalid(f"--cache-to {text}: unknown mode '{mode}'", "min and max are known")
    oci = _truth("--cache-to", text, fields, "oci-mediatypes", True)
    manifest = _truth("--cache-to", text, fields, "image-manifest", oci)
    if manifest and not oci:
        raise Invalid(f"--cache-to {text}: image-manifest=true needs oci-mediatypes=true")
    compression = fields.get("compression", "gzip")
    if compression not in _COMPRESSIONS:
        raise Invalid(f"--cache-to {text}: unknown compression '{compression}'", "gzip and zstd are known")
    level = fields.get("compression-level")
    if level is not None and not (level.isascii() and level.isdigit() and len(level) < 3):
        raise Invalid(f"--cache-to {text}: compression-level={level} is no number")
    place = ""
    if kind == "registry":
        place = _reference("--cache-to", text, fields.get("ref", ""))
        if "@" in place:
            raise Invalid(f"--cache-to {text}: a cache is written to a tag, not to a digest")
    elif kind == "local":
        place = _needed("--cache-to", text, fields, "dest")
    return To(
        kind,
        place,
        mode,
        fields.get("tag", "latest"),
        not manifest,
        not oci,
        compression,
        None if level is None else int(level),
        _truth("--cache-to", text, fields, "ignore-error", False),
        _truth("--cache-to", text, fields, "reset", False),
    )


def caching(sources: Sequence[str], targets: Sequence[str], skip: Sequence[str] = ()) -> Caching:
    """The command line's texts. `skip`: `--no-cache-filter`, each may name several. Raises Invalid."""
    names = [name for text in skip for name in text.split(",") if name]
    found_from = tuple(source(text) for text in sources if text)
    return Caching(found_from, tuple(target(text) for text in targets if text), tuple(names))


def _fields(option: str, text: str) -> dict[str, str]:
    """One line of CSV, as buildx reads it: a value with a comma is quoted."""
    try:
        row = next(csv.reader([text], strict=True))
    except csv.Error as e:
        raise Invalid(f"{option} {text}: {e}") from None
    found = {}
    for field in row:
        key, equals, value = field.partition("=")
        if not equals:
            raise Invalid(f"{option} {text}: '{field}' has no value", f"as in {option} type=registry,ref=HOST/NAME:TAG")
        found[key.strip().lower()] = value
    return found


def _check(option: str, text: str, kind: str, fields: dict[str, str], known: dict[str, set[str]]) -> None:
    if kind not in known:
        raise Invalid(f"{option} {text}: unknown type '{kind}'", f"{', '.join(known)} are known")
    for key in fields:
        if key not in known[kind] | _IGNORED:
            raise Invalid(f"{option} {text}: unknown key '{key}'", f"type={kind} has {', '.join(sorted(known[kind]))}")


def _needed(option: str, text: str, fields: dict[str, str], key: str) -> str:
    value = fields.get(key, "")
    if not value:
        raise Invalid(f"{option} {text}: {key}= is missing")
    return os.path.expanduser(value)


def _reference(option: str, text: str, name: str) -> str:
    if not name:
        raise Invalid(f"{option} {text}: ref= is missing", f"as in {option} type=registry,ref=HOST/NAME:TAG")
    try:
        found = reference.parse(name)
        return f"{found.repository}@{found.digest}" if found.digest else found.canonical
    except Invalid as e:
        raise Invalid(f"{option} {text}: {e.message}", e.hint) from None


def _truth(option: str, text: str, fields: dict[str, str], key: str, usual: bool) -> bool:
    value = fields.get(key, "").lower()
    if value in ("", "1", "t", "true", "0", "f", "false"):
        return value in ("1", "t", "true") if value else usual
    raise Invalid(f"{option} {text}: {key}={value} is neither true nor false")
