"""What a repository has: its tags, the referrers of a manifest; and taking manifests away.

Where a registry does not keep referrers itself, they are in an index under the tag `sha256-<hex>` of their subject
(OCI distribution spec, "Referrers Tag Schema"), and those who push and delete keep that index.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from limpet.errors import Conflict, Invalid, LimpetError, NotFound, Refused
from limpet.oci import digest as digests
from limpet.oci import manifest as manifests
from limpet.oci import media
from limpet.oci.manifest import Descriptor, Index, Manifest
from limpet.registry import connection
from limpet.registry.client import pulling, tries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.response import BaseHTTPResponse

    from limpet.registry.client import Registry

_PAGE = 1000
_MAX_PAGES = 10_000
_MAX_PAGE_BYTES = 16 << 20


def tags(registry: Registry, repository: str) -> Iterator[str]:
    """All tags, in the registry's order, page by page (the Link header). Raises NotFound, Refused, TransferError."""
    for data in _pages(registry, repository, f"/v2/{repository}/tags/list?n={_PAGE}", "tags/list"):
        try:
            found = json.loads(data)["tags"] or []
        except (ValueError, LookupError, TypeError, RecursionError):
            raise LimpetError(f"{registry.domain}/{repository}: the list of tags is none") from None
        for tag in found:
            if not isinstance(tag, str) or not tag.isprintable():
                raise LimpetError(f"{registry.domain}/{repository}: the list of tags is none")
            yield tag


def referrers(registry: Registry, repository: str, digest: str, artifact_type: str = "") -> list[Descriptor]:
    """What refers to a manifest: signatures, SBOMs and the like; by type if one is given. Empty if nothing does."""
    query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    found: list[Descriptor] = []
    try:
        for data in _pages(registry, repository, f"/v2/{repository}/referrers/{digest}{query}", digest):
            index = manifests.parse(data, media.OCI_INDEX)
            found += index.manifests if isinstance(index, Index) else ()
    except _NoApi:
        index, _ = _tagged(registry, repository, digest)
        found = list(index.manifests)
    unique = {one.digest: one for one in found}
    return [one for one in unique.values() if not artifact_type or one.artifact_type == artifact_type]


def attach(registry: Registry, repository: str, data: bytes, media_type: str) -> str:
    """Pushes a manifest under its digest; one with a subject is a referrer then, however the registry does it."""
    parsed = manifests.parse(data, media_type)
    digest = digests.of(data)
    _, known = registry.put_manifest(repository, digest, data, parsed.media_type)
    if parsed.subject is not None and not known:
        enter(registry, repository, parsed, digest, len(data))
    return digest


def enter(registry: Registry, repository: str, parsed: Manifest | Index, digest: str, size: int) -> None:
    """Adds a manifest that was pushed to the index of its subject's referrers, unless it is there."""
    if parsed.subject is None:
        return
    index, tag = _tagged(registry, repository, parsed.subject.digest)
    if any(one.digest == digest for one in index.manifests):
        return
    kind = parsed.artifact_type or (parsed.config.media_type if isinstance(parsed, Manifest) else "")
    entry = Descriptor(parsed.media_type, digest, size, annotations=parsed.annotations, artifact_type=kind)
    _put_tagged(registry, repository, tag, [*index.manifests, entry])


def delete(registry: Registry, repository: str, reference: str) -> None:
    """Deletes a tag, or by digest a manifest with all its tags.

    Raises NotFound, Refused (with what to do where the registry can't, or is not allowed to), TransferError.
    """
    parsed, digest, has_api = None, reference, True
    if ":" in reference:
        data, media_type, digest = registry.manifest(repository, reference)
        parsed = manifests.parse(data, media_type)
        if parsed.subject is not None:
            has_api = _has_api(registry, repository, parsed.subject.digest)
    response = tries(lambda: _delete(registry, repository, reference))
    status = response.status
    if status not in (200, 202, 204):
        raise _not_deleted(registry, repository, reference, response)
    connection.finish(response)
    if parsed is not None and parsed.subject is not None and not has_api:
        index, tag = _tagged(registry, repository, parsed.subject.digest)
        rest = [one for one in index.manifests if one.digest != digest]
        if len(rest) != len(index.manifests):
            _put_tagged(registry, repository, tag, rest)


def _delete(registry: Registry, repository: str, reference: str) -> BaseHTTPResponse:
    scope = f"repository:{repository}:pull,push,delete"
    return registry.connection.request("DELETE", f"/v2/{repository}/manifests/{reference}", scope=scope)


def _not_deleted(registry: Registry, repository: str, reference: str, response: BaseHTTPResponse) -> LimpetError:
    """Registries say no to a deletion in many ways."""
    if response.status in (401, 403) or (response.status == 404 and ":" in reference):
        return registry.refusal(response, repository, reference, "delete")
    said = connection.words(response)
    name = f"{registry.domain}/{repository}"
    if response.status == 405 and (
        "this registry" in said or _reads_only(response.headers.get("Allow", ""))
    ):  # it is not about this tag
        return Refused(f"{name}: nothing can be deleted there: {said}", "who runs the registry decides that")
    if ":" not in reference and response.status in (400, 404, 405):
        try:
            digest = registry.manifest(repository, reference)[2]
        except NotFound as e:
            return e
        return Refused(
            f"{name}:{reference}: the registry does not delete single tags ({said})",
            f"by digest the manifest goes, with all tags that it has: limpet registry delete {name}@{digest}",
        )
    if response.status in (400, 405):
        return Refused(
            f"{name}: the registry does not delete ({said})",
            "who runs it may allow it (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true)",
        )
    return Refused(f"{name}: {said}")


def _reads_only(allow: str) -> bool:
    """By the Allow of a 405 (RFC 9110, section 10.2.1)."""
    methods = {one.strip().upper() for one in allow.split(",")} - {""}
    return bool(methods) and not methods & {"PUT", "POST", "PATCH", "DELETE"}


class _NoApi(Exception):
    """The registry has no referrers API."""


def _has_api(registry: Registry, repository: str, digest: str) -> bool:
    try:
        for _ in _pages(registry, repository, f"/v2/{repository}/referrers/{digest}", digest):
            return True
    except _NoApi:
        pass
    return False


def _pages(registry: Registry, repository: str, path: str, what: str) -> Iterator[bytes]:
    """The bodies of a list, following `Link: <…>; rel="next"` on the same registry (RFC 8288)."""
    seen: set[str] = set()
    api = "/referrers/" in path
    while path:
        seen.add(path)
        if len(seen) > _MAX_PAGES:
            raise Invalid(f"{registry.domain}/{repository}: a list of more than {_MAX_PAGES} pages")
        response = tries(lambda path=path: registry.connection.request("GET", path, scope=pulling(repository)))  # type: ignore[misc]
        if api and (
            response.status in (404, 405, 501)
            or (response.status == 200 and media.OCI_INDEX not in response.headers.get("Content-Type", ""))
        ):
            connection.finish(response)
            raise _NoApi
        if response.status != 200:
            raise _no_list(registry, response, repository, what)
        data = connection.document(response, _MAX_PAGE_BYTES)
        following = _next(response.headers.get("Link", ""))
        if following:
            base = urljoin(registry.connection.base_of(repository), path)
            following = urljoin(base, following)
            if urlsplit(following)[:2] != urlsplit(base)[:2]:
                raise Refused(f"{registry.domain}/{repository}: a list that goes on at {following[:200]}")
        if following in seen:
            raise Conflict(f"{registry.domain}/{repository}: a list that goes in circles")
        yield data
        path = following


def _no_list(registry: Registry, response: BaseHTTPResponse, repository: str, what: str) -> LimpetError:
    if what == "tags/list" and response.status == 404:
        connection.finish(response)
        return NotFound(f"{registry.domain}/{repository}: the registry has no such repository", "check the name")
    return registry.refusal(response, repository, what)


def _next(header: str) -> str:
    for link in header.split(","):
        target, _, parameters = link.strip().partition(">")
        if target.startswith("<") and 'rel="next"' in parameters.replace("rel=next", 'rel="next"'):
            return target[1:]
    return ""


def _tagged(registry: Registry, repository: str, digest: str) -> tuple[Index, str]:
    """The index of the referrers by the tag schema, empty if there is none; and its tag."""
    algorithm, _, value = digest.partition(":")
    tag = f"{algorithm}-{value[:64]}"
    try:
        data, media_type, _ = registry.manifest(repository, tag)
        parsed = manifests.parse(data, media_type)
    except NotFound:
        return Index(media.OCI_INDEX, ()), tag
    if not isinstance(parsed, Index):
        raise Invalid(f"{registry.domain}/{repository}:{tag} is no index of referrers")
    return parsed, tag


def _put_tagged(registry: Registry, repository: str, tag: str, entries: list[Descriptor]) -> None:
    data = Index(media.OCI_INDEX, tuple(entries)).to_json()
    registry.put_manifest(repository, tag, data, media.OCI_INDEX)
