"""One worker's registry: a request comes in, is judged, and goes to the module that answers it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from aiohttp.web import Response

from limpet import units
from limpet.errors import LimpetError
from limpet.registry.server import blobs, content, gc, names, routes
from limpet.registry.server.errors import RegistryError
from limpet.registry.server.guard import Guard
from limpet.registry.server.manifests import Manifests
from limpet.registry.server.metrics import Metrics
from limpet.registry.server.page import Pages
from limpet.registry.server.proxy import Proxy
from limpet.registry.server.source import FromImages, Local
from limpet.registry.server.storage import Storage
from limpet.registry.server.uploads import Uploads, expire
from limpet.serving.accesslog import AccessLog
from limpet.serving.bodies import BodyError, TooLarge
from limpet.serving.limits import Bucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web import BaseRequest, StreamResponse

    from limpet.registry.server.config import Config
    from limpet.registry.server.routes import Route
    from limpet.registry.server.source import Source
    from limpet.registry.server.tokens import Identity

    Answer = Callable[["App", BaseRequest, Route], Awaitable[StreamResponse]]

VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
_MANIFESTS = 32
"""Manifests that may come in at a time: each can be 4 MiB of memory."""
_REFUSED = (401, 403, 405)
JSON = {"Content-Type": "application/json", **VERSION}


class App:
    """What the modules that answer share: storage, configuration, and who is asking."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.storage = Storage(config.storage, make=config.images is None)
        self.uploads = Uploads(self.storage)
        self.manifests = Manifests(self.storage)
        self.source: Source = Local(self.storage, self.manifests)
        if config.proxy:
            self.source = Proxy(config.proxy, self.storage, self.manifests, config.proxy_seconds)
        elif config.images is not None:
            self.source = FromImages(config.images())
        self.serves_only = config.read_only or self.source.__class__ is not Local
        self.log = AccessLog(config.access_log) if config.access_log else None
        self.manifests_coming = asyncio.Semaphore(_MANIFESTS)
        self.audit = AccessLog(config.audit_log) if config.audit_log else None
        self.guard = Guard(config, self.storage.root) if config.passwords else None
        self.pages = Pages(self)
        self.metrics = Metrics(self.storage)
        self._bucket = Bucket(config.rate / config.workers) if config.rate else None

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Raises nothing but what ends the connection."""
        response = await self._answered(request)
        route: Route | None = request.get("write")
        if self.audit is not None and route is not None and _is_change(request, response, route):
            self._note(request, response, route)  # before its client knows
        return response

    async def _answered(self, request: BaseRequest) -> StreamResponse:
        try:
            return await self._handle(request)
        except RegistryError as e:
            return self._refusal(request, e)
        except BodyError as e:
            return self._refusal(request, RegistryError(400, "BLOB_UPLOAD_INVALID", str(e)))
        except TooLarge:
            return self._refusal(request, RegistryError(413, "SIZE_INVALID", "the body is larger than allowed"))
        except LimpetError as e:
            return self._refusal(request, RegistryError(400, "UNSUPPORTED", str(e)))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except OSError as e:
            print(f"limpet: {request.method} {request.path[:300]}: {e}", file=sys.stderr, flush=True)
            status, code = (507, "UNAVAILABLE") if e.errno in (errno.ENOSPC, errno.EDQUOT) else (500, "UNKNOWN")
            return self._refusal(request, RegistryError(status, code, f"storage: {e.strerror}"))
        except Exception as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            text = f"{type(e).__name__}: {e} ({os.path.basename(where.filename)}:{where.lineno})".replace("\n", " ")
            print(f"limpet: {request.method} {request.path[:300]}: {text}", file=sys.stderr, flush=True)
            return self._refusal(request, RegistryError(500, "UNKNOWN", "internal error; the server's log says more"))

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        if self._bucket is not None:
            wait = self._bucket.wait(client(request))
            if wait:
                raise RegistryError(429, "TOOMANYREQUESTS", headers={"Retry-After": str(int(wait) + 1)})
        target = request.raw_path
        route = routes.find(request.method, target)
        if route is None:
            if target == "/healthz":
                return await self._health()
            if target == "/metrics":
                return await self._metrics(request)
            if self.guard is not None and target.partition("?")[0] == "/token":
                return await self.guard.token(request, client(request))
            if self.guard is not None:
                request["identity"] = await self.guard.identify(request, client(request))
            shown = await self.pages.answer(request)
            if shown is not None:
                request["kind"] = "page"
                return shown
            raise RegistryError(404, "UNSUPPORTED", "no such path; the registry's API is below /v2/")
        if route.repository:
            names.repository(route.repository)
        elif route.kind not in ("base", "catalog"):
            raise RegistryError(400, "NAME_INVALID")
        request["kind"] = route.kind
        if route.action != routes.PULL:
            request["write"] = route
        if self.guard is not None:
            identity = await self.guard.identify(request, client(request))
            request["identity"] = identity
            self.guard.judge(request, identity, route)
        if route.action != routes.PULL:
            if self.serves_only:
                raise RegistryError(405, "UNSUPPORTED", self._why_not(), headers={"Allow": "GET, HEAD"})
            if route.action == routes.DELETE and not self.config.delete:
                allow = {"Allow": "GET, HEAD, PUT" if route.kind == "manifest" else "GET, HEAD"}
                raise RegistryError(405, "UNSUPPORTED", "this registry does not delete", headers=allow)
        return await _ANSWERS[route.kind](self, request, route)

    def _why_not(self) -> str:
        if self.config.proxy:
            return f"this registry is a cache of {self.config.proxy}: push there"
        return "this registry serves an engine's images" if self.config.images else "this registry is read-only"

    def user(self, request: BaseRequest) -> str:
        """Who is asking, "" for anybody."""
        identity: Identity | None = request.get("identity")
        return identity.name if identity is not None else ""

    def allows(self, request: BaseRequest, repository: str, action: str) -> bool:
        """Whether who is asking may do that."""
        return self.guard is None or self.guard.allows(request["identity"], repository, action)

    async def room(self, repository: str) -> int | None:
        """Bytes that a repository may still grow by; None without a quota."""
        if not self.config.quota:
            return None
        return max(0, self.config.quota - await asyncio.to_thread(self.storage.usage, repository))

    def over_quota(self, repository: str) -> RegistryError:
        return RegistryError(
            403, "DENIED", f"{repository} would have more than its quota of {units.size_binary(self.config.quota)}"
        )

    async def _health(self) -> StreamResponse:
        """Whether the storage can be read and written."""
        try:
            if not self.config.read_only and self.config.images is None:
                await asyncio.to_thread(self.storage.write, "new/health", bytes(4096))  # an empty file fits a full disk
            return Response(body=b'{"status":"ok"}\n', headers={"Content-Type": "application/json"})
        except OSError as e:
            text = json.dumps({"status": "failing", "reason": e.strerror})
            return Response(status=503, text=text + "\n", headers={"Content-Type": "application/json"})

    async def _metrics(self, request: BaseRequest) -> StreamResponse:
        """Open where the registry is; with users, for each of them."""
        if self.guard is not None and not (await self.guard.identify(request, client(request))).name:
            raise self.guard.challenge_basic()
        text = await asyncio.to_thread(self.metrics.text)
        return Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def _refusal(self, request: BaseRequest, error: RegistryError) -> StreamResponse:
        if request.writer.output_size:
            raise ConnectionResetError(error.message)  # another head would be taken for part of the body
        return Response(status=error.status, body=error.body(), headers={**JSON, **error.headers})

    def done(self, request: BaseRequest, response: StreamResponse, seconds: float) -> None:
        """Called after each response."""
        self.metrics.count(request.method, request.get("kind", "other"), response.status, response.body_length, seconds)
        if self.log is not None:
            self.log.write(
                client(request),
                self.user(request),
                request.method,
                request.raw_path,
                response.status,
                response.body_length,
                seconds,
                request.headers.get("User-Agent", ""),
            )

    def _note(self, request: BaseRequest, response: StreamResponse, route: Route) -> None:
        assert self.audit is not None
        self.audit.note(
            client=client(request),
            user=self.user(request),
            action=route.action,
            kind="blob" if route.kind in ("upload", "uploads") else route.kind,
            repository=route.repository,
            reference=route.argument if route.kind in ("manifest", "blob") else "",
            digest=response.headers.get("Docker-Content-Digest", ""),
            status=response.status,
            outcome=_outcome(request, response),
        )

    async def housekeeping(self) -> None:
        """Runs in one of the workers as long as the server does: expires uploads, collects what nothing needs."""
        config = self.config
        while not config.read_only and config.images is None:
            due = self._collected() + config.gc_seconds - time.time() if config.gc_seconds else 600.0
            await asyncio.sleep(min(max(due, 1.0), 600.0))
            try:
                if config.gc_seconds and self._collected() + config.gc_seconds <= time.time():
                    await asyncio.to_thread(
                        gc.collect,
                        self.storage,
                        grace=config.grace_seconds,
                        unused=config.unused_seconds,
                        upload_seconds=config.upload_seconds,
                    )
                else:
                    await asyncio.to_thread(expire, self.storage, config.upload_seconds)
            except OSError as e:
                print(f"limpet: the collection failed: {e}", file=sys.stderr, flush=True)

    def _collected(self) -> float:
        """When the directory was collected last, by whatever process."""
        try:
            return os.stat(f"{self.storage.root}/collected").st_mtime
        except FileNotFoundError:
            return os.stat(f"{self.storage.root}/oci-layout").st_mtime

    def close(self) -> None:
        for log in (self.log, self.audit):
            if log is not None:
                log.flush()


def client(request: BaseRequest) -> str:
    """The address that a request comes from; "unix" for a unix socket."""
    peer: Any = request.transport.get_extra_info("peername") if request.transport is not None else None
    return peer[0] if isinstance(peer, tuple) else "unix"


def _is_change(request: BaseRequest, response: StreamResponse, route: Route) -> bool:
    """Steps of an upload before its last are none; what somebody was refused is worth a line."""
    if response.status >= 400:
        return response.status in _REFUSED
    return request.method in ("PUT", "DELETE") or response.status == 201


def _outcome(request: BaseRequest, response: StreamResponse) -> str:
    """A client that showed nothing was not refused yet: many ask first, and come back with a token."""
    if response.status < 400:
        return "done"
    return "refused" if response.status != 401 or "Authorization" in request.headers else "challenged"


async def _base(app: App, request: BaseRequest, route: Route) -> StreamResponse:
    return Response(body=b"{}", headers=JSON)


_ANSWERS: dict[str, Answer] = {
    "base": _base,
    "catalog": content.catalog,
    "tags": content.tags,
    "referrers": content.referrers,
    "manifest": content.manifest,
    "blob": blobs.blob,
    "uploads": blobs.begin,
    "upload": blobs.upload,
}
