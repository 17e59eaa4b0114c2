"""Answers about manifests, tags, referrers and the catalogue (distribution spec, "Pull" to "Content Management")."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp.web import Response

from limpet.oci import manifest as documents
from limpet.oci import media
from limpet.registry.server import names
from limpet.registry.server.errors import RegistryError
from limpet.serving import bodies
from limpet.serving.files import matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.web import BaseRequest, StreamResponse

    from limpet.registry.server.app import App
    from limpet.registry.server.routes import Route

_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
_JSON = {"Content-Type": "application/json", **_VERSION}
_SECONDS = 120.0
"""A manifest that takes longer to arrive is given up: others wait for its place."""

_MOST = 10000
"""Entries of one page of tags or repositories."""


async def manifest(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    if request.method == "PUT":
        return await _put(app, request, route)
    if request.method == "DELETE":
        await asyncio.to_thread(app.manifests.delete, route.repository, route.argument)
        return Response(status=202, headers=_VERSION)
    stored = await app.source.manifest(route.repository, route.argument)
    headers = {
        "Content-Type": stored.media_type,
        "Docker-Content-Digest": stored.digest,
        "ETag": f'"{stored.digest}"',
        **_VERSION,
    }
    if matches(request.headers.get("If-None-Match", ""), stored.digest):
        return Response(status=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(len(stored.data))})
    return Response(body=stored.data, headers=headers)


async def _put(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise RegistryError(415, "MANIFEST_INVALID", "a manifest is sent as it is, without Content-Encoding")
    if names.is_digest(route.argument):
        names.digest(route.argument)
    else:
        names.tag(route.argument)
    try:
        async with app.manifests_coming:
            data = await bodies.whole(request, documents.MAX_BYTES, app.config.limits.silence, _SECONDS)
    except bodies.TooLarge:
        raise RegistryError(
            413, "MANIFEST_INVALID", f"a manifest has at most {documents.MAX_BYTES} bytes", headers=_CLOSE
        ) from None
    tags = request.query.getall("tag", []) if "?" in request.raw_path else []
    if len(tags) > 100:
        raise RegistryError(414, "MANIFEST_INVALID", "at most 100 tags at a time")
    stored, subject = await asyncio.to_thread(
        app.manifests.put,
        route.repository,
        route.argument,
        data,
        request.headers.get("Content-Type", ""),
        tags,
        if_match=request.headers.get("If-Match", ""),
        if_none_match=request.headers.get("If-None-Match", ""),
        sparse=app.config.sparse,
    )
    headers = {
        "Location": f"/v2/{route.repository}/manifests/{stored.digest}",
        "Docker-Content-Digest": stored.digest,
        **_VERSION,
    }
    if subject:
        headers["OCI-Subject"] = subject
    if tags:
        headers["OCI-Tag"] = ", ".join(tags)
    return Response(status=201, headers=headers)


_CLOSE = {"Connection": "close"}


async def tags(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    found = await app.source.tags(route.repository)
    page, headers = _page(request, found)
    return _json({"name": route.repository, "tags": page}, headers)


async def catalog(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    guard, all_of_them = app.guard, await app.source.repositories()
    found = [one for one in all_of_them if guard is None or guard.shows(request["identity"], one)]
    page, headers = _page(request, found)
    return _json({"repositories": page}, headers)


def _page(request: BaseRequest, entries: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """`n` and `last` of "Listing Tags", and the Link header where there is more."""
    query = request.query
    asked = query.get("n", "")
    if asked and not (asked.isascii() and asked.isdigit() and len(asked) < 19):
        raise RegistryError(400, "UNSUPPORTED", f"n={asked[:40]!r} is not a number")
    count = min(int(asked) if asked else _MOST, _MOST)
    last = query.get("last", "")
    rest = [one for one in entries if one > last] if last else list(entries)
    page = rest[:count]
    if not page or len(rest) <= count:
        return page, {}
    path = request.raw_path.partition("?")[0]
    return page, {"Link": f'<{path}?n={count}&last={quote(page[-1], safe="")}>; rel="next"'}


async def referrers(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    subject = names.digest(route.argument)
    kind = request.query.get("artifactType", "")
    found, more = await app.source.referrers(route.repository, subject, kind, request.query.get("last", ""))
    headers = {"Content-Type": media.OCI_INDEX, **_VERSION}
    if kind:
        headers["OCI-Filters-Applied"] = "artifactType"
    if more:
        path = request.raw_path.partition("?")[0]
        only = f"artifactType={quote(kind, safe='')}&" if kind else ""
        headers["Link"] = f'<{path}?{only}last={more}>; rel="next"'
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": found}
    return Response(body=json.dumps(index).encode(), headers=headers)


def _json(value: Any, headers: dict[str, str]) -> Response:
    return Response(body=json.dumps(value).encode() + b"\n", headers={**_JSON, **headers})
