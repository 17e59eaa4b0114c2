"""A pull-through cache: what is asked for is fetched once from another registry, kept, and served from here.

Requests for the same thing wait for one fetch, in this worker and across workers (an flock on the file that it comes
into). A blob is passed on while it comes in, all but its last byte, which waits for the digest. What came of a fetch
that broke off stays in `fetch/` for the next one. A tag that is no longer fresh is asked for again (by HEAD, which
rate limits don't count); while the other registry does not answer, what is here is served.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aiohttp.web import StreamResponse

from limpet.errors import Corrupt, LimpetError, NotFound
from limpet.oci.manifest import Descriptor
from limpet.registry import content
from limpet.registry.client import ACCEPT, Registry, pulling, tries
from limpet.registry.connection import TransferError, finish
from limpet.registry.server import names
from limpet.registry.server.errors import RegistryError
from limpet.registry.server.source import Local

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import RawIOBase

    from aiohttp.web import BaseRequest

    from limpet.registry.server.manifests import Manifests, Stored
    from limpet.registry.server.storage import Storage

_TICK = 0.01
_PIECE = 1 << 20


class Proxy:
    """`domain` as the client side has it, with its settings and log-ins. `fresh`: seconds that a tag is believed."""

    def __init__(self, domain: str, storage: Storage, manifests: Manifests, fresh: float) -> None:
        # We may be a mirror of it ourselves, by this machine's settings: that would be a circle.
        self._upstream = Registry(domain, mirrors=False)
        self._hub = domain == "docker.io"
        self._storage = storage
        self._manifests = manifests
        self._local = Local(storage, manifests)
        self._threads = ThreadPoolExecutor(32, "fetch")
        self._seconds = fresh
        self._running: dict[tuple[str, ...], asyncio.Future[Any]] = {}
        self._fresh: dict[tuple[str, str], float] = {}
        os.makedirs(f"{storage.root}/fetch", exist_ok=True)

    def _there(self, repository: str) -> str:
        """What the other registry calls it: `debian` on Docker Hub is `library/debian`."""
        return f"library/{repository}" if self._hub and "/" not in repository else repository

    async def _once(self, key: tuple[str, ...], work: Callable[..., Any], *args: Any) -> Any:
        """The result of `work`, which runs once for all who ask at the same time."""
        return await asyncio.shield(self._start(key, work, *args))

    def _start(self, key: tuple[str, ...], work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        found = self._running.get(key)
        if found is None:
            found = self._running[key] = asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
            found.add_done_callback(lambda done: self._ended(key, done))
        return found

    def _ended(self, key: tuple[str, ...], done: asyncio.Future[Any]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever still waits is told; if nobody does, it is no matter

    # Manifests

    async def manifest(self, repository: str, reference: str) -> Stored:
        try:
            kept: Stored | None = self._manifests.get(repository, reference)
        except RegistryError as e:
            if e.code not in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN"):
                raise
            kept = None
        if kept is not None and (names.is_digest(reference) or self._is_fresh(repository, reference)):
            return kept
        try:
            found: Stored = await self._once(
                ("m", repository, reference), self._fetch_manifest, repository, reference, kept
            )
            return found
        except NotFound as e:
            raise RegistryError(404, "MANIFEST_UNKNOWN", str(e)) from None
        except LimpetError as e:
            if kept is not None:
                return kept
            raise unreachable(e) from None

    def _is_fresh(self, repository: str, tag: str) -> bool:
        return time.monotonic() - self._fresh.get((repository, tag), -1e9) < self._seconds

    def _fetch_manifest(self, repository: str, reference: str, kept: Stored | None) -> Stored:
        found = kept
        if kept is None or self._head(repository, reference) != kept.digest:
            data, media_type, _ = self._upstream.manifest(self._there(repository), reference)
            found, _ = self._manifests.put(repository, reference, data, media_type, check=False)
        assert found is not None
        if not names.is_digest(reference):
            if len(self._fresh) > 10000:
                self._fresh.clear()
            self._fresh[repository, reference] = time.monotonic()
        return found

    def _head(self, repository: str, tag: str) -> str:
        """The digest that a tag has there, "" if it is not said. Raises NotFound, TransferError."""

        def ask() -> str:
            there = self._there(repository)
            response = self._upstream.connection.request(
                "HEAD", f"/v2/{there}/manifests/{tag}", scope=pulling(there), headers={"Accept": ACCEPT}
            )
            if response.status != 200:
                raise self._upstream.refusal(response, there, tag)
            finish(response)
            return str(response.headers.get("Docker-Content-Digest", ""))

        return str(tries(ask))

    # Blobs

    async def blob(self, request: BaseRequest, repository: str, digest: str) -> int | StreamResponse:
        fd = self._storage.open_blob(repository, digest)
        if fd is not None:
            return fd
        size = await self._known_size(repository, digest)
        if request.method == "HEAD":
            return StreamResponse(headers={"Docker-Content-Digest": digest, "Content-Length": str(size)})
        if request.headers.get("Range"):
            return await self.file(repository, digest)
        fetching = self._start(("b", repository, digest), self._fetch_blob, repository, digest, size)
        return await self._pass_on(request, repository, digest, size, fetching)

    async def file(self, repository: str, digest: str) -> int:
        fd = self._storage.open_blob(repository, digest)
        if fd is not None:
            return fd
        size = await self._known_size(repository, digest)
        try:
            await self._once(("b", repository, digest), self._fetch_blob, repository, digest, size)
        except LimpetError as e:
            raise unreachable(e) from None
        return await self._local.file(repository, digest)

    async def _known_size(self, repository: str, digest: str) -> int:
        try:
            return int(await self._once(("s", repository, digest), self._size, repository, digest))
        except NotFound as e:
            raise RegistryError(404, "BLOB_UNKNOWN", str(e)) from None
        except LimpetError as e:
            raise unreachable(e) from None

    def _size(self, repository: str, digest: str) -> int:
        """Asks the registry, which so says too that whoever it knows us as may read it in this repository."""

        def ask() -> int:
            there = self._there(repository)
            response = self._upstream.connection.request("HEAD", f"/v2/{there}/blobs/{digest}", scope=pulling(there))
            if response.status != 200:
                raise self._upstream.refusal(response, there, digest)
            finish(response)
            length = response.headers.get("Content-Length", "")
            if not length.isdecimal():
                raise TransferError(f"{self._upstream.domain}: {digest}: its length is not said")
            return int(length)

        return int(tries(ask))

    def _path(self, digest: str) -> str:
        return f"{self._storage.root}/fetch/{digest.replace(':', '-')}"

    def _fetch_blob(self, repository: str, digest: str, size: int) -> None:
        path = self._path(digest)
        while True:
            try:
                self._storage.link_blob(repository, digest)  # another repository's, or another worker was faster
                return
            except FileNotFoundError:
                pass
            with open(path, "a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_at(file.fileno(), path):
                    continue  # who had the lock has moved the file to its place, or thrown it away
                self._download(file, path, repository, digest, size)
                self._storage.keep_blob(repository, digest, path)
                return

    def _download(self, file: RawIOBase, path: str, repository: str, digest: str, size: int) -> None:
        algorithm, _, value = digest.partition(":")
        hasher = hashlib.new(algorithm)
        file.seek(0)
        while piece := file.read(_PIECE):
            hasher.update(piece)
        begin = file.tell()
        if begin < size:
            for piece in self._upstream.blob(self._there(repository), Descriptor("", digest, size), begin):
                hasher.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) or 0 :]
        if hasher.hexdigest() != value or file.tell() != size:
            os.unlink(path)
            raise Corrupt(f"{self._upstream.domain}/{repository}: {digest} came with other bytes")

    async def _pass_on(
        self, request: BaseRequest, repository: str, digest: str, size: int, fetching: asyncio.Future[Any]
    ) -> StreamResponse:
        """The blob while it comes in. A fetch that fails cuts the connection: the client sees too few bytes."""
        fd = await self._opened(digest, fetching)
        response = StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Docker-Content-Digest": digest,
                "Content-Length": str(size),
                "ETag": f'"{digest}"',
                "Docker-Distribution-Api-Version": "registry/2.0",
            }
        )
        try:
            await response.prepare(request)
            position = 0
            while position < size:
                done = fetching.done()
                if done:
                    fetching.result()
                    os.close(fd)
                    fd = os.open(self._storage.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)
                ready = size if done else min(os.fstat(fd).st_size, size - 1)
                if position >= ready:
                    await asyncio.wait([fetching], timeout=_TICK)
                    continue
                while position < ready:
                    piece = os.pread(fd, min(_PIECE, ready - position), position)
                    await response.write(piece)
                    position += len(piece)
            await response.write_eof()
        except LimpetError as e:
            raise ConnectionResetError(str(e)) from None
        finally:
            os.close(fd)
        return response

    async def _opened(self, digest: str, fetching: asyncio.Future[Any]) -> int:
        """The file that the fetch writes to, by this worker or another."""
        while True:
            for path in (self._storage.blob_path(digest), self._path(digest)):
                try:
                    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
            if fetching.done():
                try:
                    fetching.result()
                except LimpetError as e:
                    raise unreachable(e) from None
            await asyncio.wait([fetching], timeout=_TICK)

    # Lists

    async def tags(self, repository: str) -> list[str]:
        try:
            return sorted(
                await self._once(("t", repository), lambda: list(content.tags(self._upstream, self._there(repository))))
            )
        except NotFound as e:
            raise RegistryError(404, "NAME_UNKNOWN", str(e)) from None
        except LimpetError:
            return await self._local.tags(repository)

    async def repositories(self) -> list[str]:
        """What has been pulled: the catalogue of the other registry is its own matter."""
        return await self._local.repositories()

    async def referrers(self, repository: str, subject: str, kind: str, last: str) -> tuple[list[Any], str]:
        try:
            found = await self._once(
                ("r", repository, subject, kind),
                lambda: content.referrers(self._upstream, self._there(repository), subject, kind),
            )
        except LimpetError:
            return await self._local.referrers(repository, subject, kind, last)
        entries = [json.loads(json.dumps(one.to_dict())) for one in found]
        return [one for one in entries if not kind or one.get("artifactType") == kind], ""


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def unreachable(error: LimpetError) -> RegistryError:
    return RegistryError(502, "UNAVAILABLE", f"the registry behind this one: {error}")
