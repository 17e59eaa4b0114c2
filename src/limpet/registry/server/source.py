"""Where what is served comes from: the storage, a registry behind it (`proxy.py`), or the engine's own images."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from limpet.registry.server.errors import RegistryError

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, StreamResponse

    from limpet.registry.server.manifests import Manifests, Stored
    from limpet.registry.server.storage import Storage


class Source(Protocol):
    """All raise RegistryError for what is not there."""

    async def manifest(self, repository: str, reference: str) -> Stored: ...

    async def blob(self, request: BaseRequest, repository: str, digest: str) -> int | StreamResponse:
        """An open file, which the caller closes, or the answer itself."""
        ...

    async def file(self, repository: str, digest: str) -> int:
        """A blob as an open file, once all of it is here; the caller closes it."""
        ...

    async def tags(self, repository: str) -> list[str]:
        """Sorted."""
        ...

    async def repositories(self) -> list[str]:
        """Sorted."""
        ...

    async def referrers(self, repository: str, subject: str, kind: str, last: str) -> tuple[list[Any], str]:
        """As `Manifests.referrers`."""
        ...


class Local:
    """What was pushed here."""

    def __init__(self, storage: Storage, manifests: Manifests) -> None:
        self._storage = storage
        self._manifests = manifests

    async def manifest(self, repository: str, reference: str) -> Stored:
        return self._manifests.get(repository, reference)

    async def blob(self, request: BaseRequest, repository: str, digest: str) -> int | StreamResponse:
        return await self.file(repository, digest)

    async def file(self, repository: str, digest: str) -> int:
        fd = self._storage.open_blob(repository, digest)
        if fd is not None:
            return fd
        if not self._storage.exists(repository):
            raise RegistryError(404, "NAME_UNKNOWN", detail={"name": repository})
        raise RegistryError(404, "BLOB_UNKNOWN", detail={"digest": digest})

    async def tags(self, repository: str) -> list[str]:
        return await asyncio.to_thread(self._manifests.tags, repository)

    async def repositories(self) -> list[str]:
        return await asyncio.to_thread(self._storage.repositories)

    async def referrers(self, repository: str, subject: str, kind: str, last: str) -> tuple[list[Any], str]:
        return await asyncio.to_thread(self._manifests.referrers, repository, subject, kind, last)


class Images(Protocol):
    """The engine's own images, as whoever starts the server gives them in. Calls are short; None is "not there"."""

    def repositories(self) -> list[str]: ...

    def tags(self, repository: str) -> list[str]: ...

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str, str] | None:
        """(bytes, media type, digest)"""
        ...

    def blob(self, repository: str, digest: str) -> int | None:
        """An open file."""
        ...


class FromImages:
    """`--from-store`: what was built here is pulled by others with no push."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def manifest(self, repository: str, reference: str) -> Stored:
        from limpet.registry.server.manifests import Stored

        found = self._images.manifest(repository, reference)
        if found is None:
            raise RegistryError(404, "MANIFEST_UNKNOWN", detail={"reference": reference})
        data, media_type, digest = found
        return Stored(digest, media_type, data)

    async def blob(self, request: BaseRequest, repository: str, digest: str) -> int | StreamResponse:
        return await self.file(repository, digest)

    async def file(self, repository: str, digest: str) -> int:
        fd = self._images.blob(repository, digest)
        if fd is None:
            raise RegistryError(404, "BLOB_UNKNOWN", detail={"digest": digest})
        return fd

    async def tags(self, repository: str) -> list[str]:
        found = self._images.tags(repository)
        if not found:
            raise RegistryError(404, "NAME_UNKNOWN", detail={"name": repository})
        return found

    async def repositories(self) -> list[str]:
        return self._images.repositories()

    async def referrers(self, repository: str, subject: str, kind: str, last: str) -> tuple[list[Any], str]:
        return [], ""
