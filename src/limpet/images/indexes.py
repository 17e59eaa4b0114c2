"""Indexes that are being put together (`limpet manifest`): images of one name for several platforms.

    <root>/indexes/<sha256 of the name>.json    {"name": …, "entries": [{"name": …, "descriptor": {…}}]}

A list lives in the store until it is pushed; its images are in registries already. A push copies those that lie in
another repository, by mounting where it is the same registry.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from limpet.errors import Conflict, Corrupt, Invalid, NotFound
from limpet.oci import config as configs
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media, reference
from limpet.oci.manifest import Descriptor, Index
from limpet.oci.platform import Platform, check, normalise
from limpet.registry.client import Registry
from limpet.registry.copying import Copier
from limpet.store.files import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from limpet.oci.reference import Reference
    from limpet.progress import Progress
    from limpet.store.store import Store


@dataclass(frozen=True)
class Entry:
    """One image: the name by which it was added, and what the index says of it."""

    name: Reference
    descriptor: Descriptor


@dataclass(frozen=True)
class Draft:
    name: Reference
    entries: tuple[Entry, ...]

    @property
    def data(self) -> bytes:
        """The index. Docker's list if all images are Docker's, else the open format."""
        docker = all(entry.descriptor.media_type == media.DOCKER_MANIFEST for entry in self.entries)
        kind = media.DOCKER_LIST if docker and self.entries else media.OCI_INDEX
        return Index(kind, tuple(entry.descriptor for entry in self.entries)).to_json()


def create(store: Store, name: Reference, images: Sequence[Reference], *, amend: bool = False) -> Draft:
    """Begins a list, or with `amend` adds to it. An index among `images` stands for all its images.

    Raises Conflict if there is such a list already, and what asking the registries raises.
    """
    path = _path(store, name)
    if os.path.exists(path) and not amend:
        raise Conflict(f"there is a list {name.familiar} already", f"--amend, or limpet manifest rm {name.familiar}")
    draft = find(store, name) if os.path.exists(path) else Draft(name, ())
    for image in images:
        draft = _with(draft, [Entry(image, descriptor) for descriptor in _descriptors(image)])
    _write(store, draft)
    return draft


def _with(draft: Draft, added: Sequence[Entry]) -> Draft:
    """An image that is there already is replaced: what was said of it was perhaps wrong."""
    digests = {entry.descriptor.digest for entry in added}
    return replace(draft, entries=(*(e for e in draft.entries if e.descriptor.digest not in digests), *added))


def _descriptors(image: Reference) -> list[Descriptor]:
    registry = Registry(image.domain)
    try:
        data, media_type, digest = registry.manifest(image.path, image.digest or image.tag)
    except NotFound as e:
        raise NotFound(e.message, f"a list is made of what is in a registry: limpet push {image.familiar}") from None
    parsed = manifests.parse(data, media_type)
    if isinstance(parsed, Index):
        return list(parsed.manifests)
    config: dict[str, Any] = {}
    if parsed.config.media_type in media.CONFIGS and parsed.config.size <= configs.MAX_BYTES:
        text = b"".join(registry.blob(image.path, parsed.config))
        if digests.of(text) != parsed.config.digest:
            raise Corrupt(f"{image.familiar}: its config has another digest than {parsed.config.digest}")
        try:
            config = json.loads(text)
        except (ValueError, RecursionError):
            raise Invalid(f"{image.familiar}: its config is not JSON") from None
    fields = [config.get(key) if isinstance(config.get(key), str) else "" for key in ("os", "architecture", "variant")]
    system, architecture, variant = map(str, fields)
    platform = normalise(system, architecture, variant) if system and architecture else None
    return [Descriptor(parsed.media_type, digest, len(data), platform=platform)]


def annotate(store: Store, name: Reference, image: Reference, changes: dict[str, Any]) -> Draft:
    """Changes what the list says of an image's platform: os, architecture, variant, os_version, os_features.

    Raises NotFound if there is no such list, or no such image in it; Invalid for a platform that is none.
    """
    draft = find(store, name)
    if not any(entry.name == image for entry in draft.entries):
        names = ", ".join(dict.fromkeys(entry.name.familiar for entry in draft.entries))
        raise NotFound(f"{image.familiar} is not in the list {name.familiar}", f"in it are: {names}")
    entries = []
    for entry in draft.entries:
        if entry.name == image:
            platform = _changed(entry.descriptor.platform or Platform("linux", ""), changes)
            entry = replace(entry, descriptor=replace(entry.descriptor, platform=platform))
        entries.append(entry)
    draft = replace(draft, entries=tuple(entries))
    _write(store, draft)
    return draft


def _changed(old: Platform, changes: dict[str, Any]) -> Platform:
    """The variant stays as it was written, v8 of arm64 too; but it is another architecture's no more."""
    same = changes.get("architecture", old.architecture) == old.architecture
    fields = {
        "system": old.os,
        "architecture": old.architecture,
        "variant": (old.written or old.variant) if same else "",
        "os_version": old.os_version,
        "os_features": old.os_features,
        **changes,
    }
    if changes.get("system") or changes.get("architecture"):
        check(fields["system"], fields["architecture"])
    found = normalise(**fields)
    return replace(found, written="" if found.variant == fields["variant"] else fields["variant"])


def find(store: Store, name: Reference) -> Draft:
    """Raises NotFound."""
    try:
        with open(_path(store, name), encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        raise NotFound(f"there is no list {name.familiar}", "limpet manifest create makes one") from None
    entries = []
    for one in value["entries"]:
        index = manifests.parse(json.dumps({"schemaVersion": 2, "manifests": [one["descriptor"]]}).encode())
        assert isinstance(index, Index)
        entries.append(Entry(reference.parse(one["name"]), index.manifests[0]))
    return Draft(reference.parse(value["name"]), tuple(entries))


def remove(store: Store, name: Reference) -> None:
    """Raises NotFound."""
    find(store, name)
    os.unlink(_path(store, name))


def push(store: Store, name: Reference, progress: Progress) -> tuple[str, int]:
    """The images that the target does not have, then the index under its tag; gives its digest and size."""
    draft = find(store, name)
    target = Registry(name.domain)
    sources = {name.domain: target}
    for entry in draft.entries:
        source = sources.setdefault(entry.name.domain, Registry(entry.name.domain))
        if target.has_manifest(name.path, entry.descriptor.digest):
            continue
        copier = Copier(source, entry.name.path, name.domain, name.path, progress)
        data, media_type, digest = source.manifest(entry.name.path, entry.descriptor.digest)
        parsed = manifests.parse(data, media_type or entry.descriptor.media_type)
        copier.document(data, parsed, digest)
    data = draft.data
    digest, _ = target.put_manifest(name.path, name.tag, data, manifests.parse(data).media_type)
    return digest, len(data)


def _path(store: Store, name: Reference) -> str:
    return f"{store.root}/indexes/{hashlib.sha256(name.canonical.encode()).hexdigest()}.json"


def _write(store: Store, draft: Draft) -> None:
    entries = [{"name": entry.name.canonical, "descriptor": entry.descriptor.to_dict()} for entry in draft.entries]
    path = _path(store, draft.name)
    store.db.row("SELECT 1")  # a store without its database is none to those who only look (`Call.has_store`)
    os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
    write_file(path, json.dumps({"name": draft.name.canonical, "entries": entries}).encode())
