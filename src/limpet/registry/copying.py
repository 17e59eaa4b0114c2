"""An image from one registry to another, or to another repository of the same: no store, all platforms, same digest.

Blobs stream from one connection into the other; a break on either side goes on where it was. What the target has is
left alone, what another repository of the same registry has is mounted. Manifests follow what they name, so that the
target never shows half an image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from limpet.errors import Invalid, NotFound
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import platform as platforms
from limpet.oci.manifest import Index
from limpet.progress import Progress
from limpet.registry import content
from limpet.registry.client import Registry
from limpet.registry.parallel import Group
from limpet.registry.upload import Upload, send

if TYPE_CHECKING:
    from limpet.oci.manifest import Descriptor, Manifest
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference
    from limpet.registry.rate import Rate

PARALLEL = 3
_MAX_NESTING = 4

COSIGN = (".sig", ".att", ".sbom")
"""Ends of the tags of signatures, attestations and SBOMs."""


@dataclass(frozen=True)
class Copied:
    """What the target's name stands for now. `bytes` of blobs were sent; `referrers` came along or were there."""

    digest: str
    size: int
    bytes: int
    referrers: int


@dataclass
class _Count:
    bytes: int = 0
    referrers: int = 0
    manifests: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)


def copy(
    source: Reference,
    target: Reference,
    *,
    referrers: bool = False,
    platform: Platform | None = None,
    rate: Rate | None = None,
    progress: Progress | None = None,
) -> Copied:
    """Copies what `source` stands for; the target gets it under its tag, or only by digest if it has none.

    `platform`: of an index only that image. `referrers`: signatures, SBOMs and the like too, and theirs. Raises
    NotFound, Refused, Invalid, Corrupt, TransferError; the target's tag is set last.
    """
    copier = Copier(Registry(source.domain, rate), source.path, target.domain, target.path, progress)
    copier.with_referrers = referrers
    data, media_type, digest = copier.source.manifest(source.path, source.digest or source.tag)
    parsed = manifests.parse(data, media_type)
    if platform is not None and isinstance(parsed, Index):
        chosen = platforms.select(parsed, platform)
        data, media_type, digest = copier.source.manifest(source.path, chosen.digest)
        parsed = manifests.parse(data, media_type or chosen.media_type)
    if target.digest and target.digest != digest:
        raise Invalid(f"{source.familiar} has the digest {digest}, not {target.digest}", "name a tag to copy to")
    copier.document(data, parsed, digest, target.tag)
    return Copied(digest, len(data), copier.count.bytes, copier.count.referrers)


class Copier:
    """Copies from one repository to another; the same registry gets one connection."""

    def __init__(
        self, source: Registry, source_repository: str, domain: str, repository: str, progress: Progress | None = None
    ) -> None:
        self.source = source
        self.source_repository = source_repository
        self.same = source.domain == domain
        self.target = source if self.same else Registry(domain, source.rate)
        self.repository = repository
        self.with_referrers = False
        self.count = _Count()
        self._attached: set[str] = set()
        self._progress = progress or Progress()

    def document(self, data: bytes, parsed: Manifest | Index, digest: str, tag: str = "", depth: int = 0) -> None:
        """Copies a manifest or an index with all that it names, under its digest and, if given, a tag."""
        if depth > _MAX_NESTING:
            raise Invalid(f"{self.source.domain}/{self.source_repository}: more than {_MAX_NESTING} levels of indexes")
        if digest not in self.count.manifests:
            self.count.manifests.add(digest)
            if isinstance(parsed, Index):
                for entry in parsed.manifests:
                    self._entry(entry, depth)
            elif not self.target.has_manifest(self.repository, digest):
                self._blobs(parsed)
        # Under a tag it has its digest too: one request.
        _, known = self.target.put_manifest(self.repository, tag or digest, data, parsed.media_type)
        if parsed.subject is not None and not known:
            content.enter(self.target, self.repository, parsed, digest, len(data))
        if self.with_referrers:
            self._referrers(digest, depth)

    def _entry(self, entry: Descriptor, depth: int) -> None:
        data, media_type, _ = self.source.manifest(self.source_repository, entry.digest)
        self.document(data, manifests.parse(data, media_type or entry.media_type), entry.digest, "", depth + 1)

    def _referrers(self, digest: str, depth: int) -> None:
        self._tagged(digest, depth)
        for entry in content.referrers(self.source, self.source_repository, digest):
            if entry.digest in self.count.manifests:
                continue
            self._attached.add(entry.digest)
            try:
                self._entry(entry, depth)
            except NotFound as e:
                self._progress.note(f"{digests.short(entry.digest)}: listed as a referrer, but not there: {e.message}")
                continue
            self.count.referrers += 1

    def _tagged(self, digest: str, depth: int) -> None:
        """What cosign keeps beside an image under a tag made of its digest (cosign, "Signature Spec", "Tag-based
        discovery"): it has no subject, so no list of referrers names it. Those of signatures are not looked for."""
        if digest in self._attached:
            return
        for suffix in COSIGN:
            tag = f"{digest.replace(':', '-', 1)}{suffix}"
            try:
                data, media_type, attached = self.source.manifest(self.source_repository, tag)
            except NotFound:
                continue
            self._attached.add(attached)
            self.document(data, manifests.parse(data, media_type), attached, tag, depth + 1)
            self.count.referrers += 1

    def _blobs(self, manifest: Manifest) -> None:
        wanted = {
            one.digest: one
            for one in (*manifest.layers, manifest.config)
            if one.digest not in self.count.blobs and not _is_foreign(one)
        }
        group = Group(PARALLEL)
        group.run(lambda descriptor: self._blob(group, descriptor), list(wanted.values()))
        self.count.blobs.update(wanted)

    def _blob(self, group: Group, descriptor: Descriptor) -> None:
        key, progress = digests.short(descriptor.digest), self._progress
        progress.begin(key, key, descriptor.size)

        def advance(count: int) -> None:
            self.count.bytes += count
            progress.advance(key, count)

        upload = Upload(
            descriptor,
            lambda offset: group.watched(self.source.blob(self.source_repository, descriptor, offset)),
            [self.source_repository] if self.same and self.source_repository != self.repository else [],
            advance,
        )
        done = send(self.target, self.repository, upload)
        progress.finish(key, "Copied" if done == "Pushed" else done)


def _is_foreign(descriptor: Descriptor) -> bool:
    """Layers that lie on their owners' servers (Windows): no registry has them, the manifest says where they are."""
    kind = descriptor.media_type
    return bool(descriptor.urls) and ("foreign" in kind or "nondistributable" in kind)
