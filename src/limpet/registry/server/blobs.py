"""Answers about blobs and uploads (distribution spec, "Pulling blobs", "Pushing blobs"), with constant memory."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from aiohttp.web import Response

from limpet.registry.server import names
from limpet.registry.server.errors import RegistryError
from limpet.serving import bodies, files

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, StreamResponse

    from limpet.registry.server.app import App
    from limpet.registry.server.routes import Route
    from limpet.registry.server.uploads import Session

_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
_RANGE = re.compile(r"(?:bytes )?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]+|\*))?")


async def blob(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    digest = names.digest(route.argument)
    if request.method == "DELETE":
        if not await asyncio.to_thread(app.storage.drop_blob, route.repository, digest):
            if not app.storage.exists(route.repository):
                raise RegistryError(404, "NAME_UNKNOWN", detail={"name": route.repository})
            raise RegistryError(404, "BLOB_UNKNOWN", detail={"digest": digest})
        return Response(status=202, headers=_VERSION)
    found = await app.source.blob(request, route.repository, digest)
    if not isinstance(found, int):
        return found
    headers = {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "Cache-Control": "max-age=31536000",
        **_VERSION,
    }
    return files.send(request, found, digest, headers)


async def begin(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    """POST: a mount, a whole blob at once, or the beginning of an upload."""
    query = request.query
    mount = query.get("mount")
    if mount is not None and await _mounted(app, request, route.repository, names.digest(mount), query.get("from", "")):
        return _created(route.repository, mount)
    digest = query.get("digest")
    algorithm = query.get("digest-algorithm", "sha256")
    if algorithm not in ("sha256", "sha512"):
        raise RegistryError(400, "DIGEST_INVALID", f"{algorithm[:40]!r}: sha256 and sha512 are known")
    if digest is not None:
        algorithm = names.digest(digest).partition(":")[0]
    session = await asyncio.to_thread(app.uploads.begin, route.repository, app.user(request), algorithm)
    if digest is None:
        return _progress(session, 0, 202)
    try:
        await _append(app, request, session)
        await asyncio.to_thread(app.uploads.finish, session, digest)
    except BaseException:
        app.uploads.cancel(session)  # its client was never told of it
        raise
    return _created(route.repository, digest)


async def _mounted(app: App, request: BaseRequest, repository: str, digest: str, origin: str) -> bool:
    """Without `from` any repository that the user may read will do."""
    if origin:
        names.repository(origin)
        if not app.allows(request, origin, "pull"):
            return False
        return await asyncio.to_thread(app.storage.mount_blob, repository, digest, origin)
    for one in await asyncio.to_thread(app.storage.holders, digest):
        if app.allows(request, one, "pull"):
            return await asyncio.to_thread(app.storage.mount_blob, repository, digest, one)
    return False


async def upload(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    session = app.uploads.find(names.upload(route.argument), route.repository, app.user(request))
    if request.method == "PATCH":
        size = await _append(app, request, session)
        return _progress(session, size, 202)
    if request.method == "PUT":
        digest = request.query.get("digest")
        if digest is None:
            raise RegistryError(400, "DIGEST_INVALID", "an upload is closed with ?digest=")
        names.digest(digest)
        await _append(app, request, session)
        await asyncio.to_thread(app.uploads.finish, session, digest)
        return _created(route.repository, digest)
    if request.method == "DELETE":
        await asyncio.to_thread(app.uploads.cancel, session)
        return Response(status=204, headers=_VERSION)
    return _progress(session, app.uploads.size(session), 204)


async def _append(app: App, request: BaseRequest, session: Session) -> int:
    """Adds the body to the upload; the bytes that there are now. One piece is written while the next comes in."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise RegistryError(415, "BLOB_UPLOAD_INVALID", "a blob is sent as it is, without Content-Encoding")
    appender = app.uploads.open(session)
    writing: asyncio.Future[None] | None = None
    loop = asyncio.get_running_loop()
    try:
        length = request.content_length
        _check_range(request, session, appender.size)
        room = await app.room(session.repository)
        if room is not None and appender.size + (length or 0) > room:
            raise app.over_quota(session.repository)
        async for pieces in bodies.pieces(request, app.config.limits.silence):
            if writing is not None:
                await writing
            writing = loop.run_in_executor(None, appender.write, pieces)
            if room is not None and appender.size > room:
                raise app.over_quota(session.repository)
        if writing is not None:
            await writing
        return appender.size
    finally:
        if writing is not None and not writing.done():
            await asyncio.wait([writing])
        app.uploads.close(session, appender)


def _check_range(request: BaseRequest, session: Session, size: int) -> None:
    """A chunk begins where the last one ended ("Pushing a blob in chunks")."""
    said = request.headers.get("Content-Range")
    if said is None:
        return
    found = _RANGE.fullmatch(said.strip())
    if found is None:
        raise RegistryError(400, "BLOB_UPLOAD_INVALID", f"Content-Range {said[:60]!r} is not FIRST-LAST")
    first, last = int(found[1]), int(found[2])
    if first != size or last < first:
        raise RegistryError(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the chunk begins at {first}, and {size} bytes are here",
            headers={**_where(session, size), "Connection": "close"}
            if request.can_read_body
            else _where(session, size),
        )
    if request.content_length is not None and request.content_length != last - first + 1:
        raise RegistryError(400, "SIZE_INVALID", "Content-Length and Content-Range do not agree")


def _where(session: Session, size: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{session.repository}/blobs/uploads/{session.id}",
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-UUID": session.id,
    }


def _progress(session: Session, size: int, status: int) -> Response:
    return Response(status=status, headers={**_where(session, size), **_VERSION})


def _created(repository: str, digest: str) -> Response:
    return Response(
        status=201,
        headers={
            "Location": f"/v2/{repository}/blobs/{digest}",
            "Docker-Content-Digest": digest,
            **_VERSION,
        },
    )
