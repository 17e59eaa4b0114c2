"""The pages for people: repositories, tags, manifests, layers. Reading only, and everything works without JavaScript.

/                          repositories; ?q= searches their names and tags
/web/<name>                tags
/web/<name>:<tag>, @<digest>    a manifest or index, its history and what refers to it
/web/<name>/-/layer/<digest>    what is in a layer
/login                     makes a browser ask for a name and a password
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from aiohttp.web import Response

from limpet import units
from limpet.errors import LimpetError
from limpet.oci import config as configs
from limpet.oci import manifest as documents
from limpet.oci import media
from limpet.registry.server import html, names
from limpet.registry.server.errors import RegistryError
from limpet.registry.server.html import copy, facts, join, link, table, tag
from limpet.registry.server.layerlist import Listings
from limpet.registry.server.manifests import parts

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, StreamResponse

    from limpet.oci.config import ImageConfig
    from limpet.oci.manifest import Descriptor, Index, Manifest
    from limpet.registry.server.app import App
    from limpet.registry.server.html import Markup
    from limpet.registry.server.manifests import Stored

_PAGE = 100
_SEARCHED = 5000


@dataclass(frozen=True)
class _Where:
    repository: str
    reference: str = ""
    layer: str = ""


class Pages:
    def __init__(self, app: App) -> None:
        self._app = app
        self._listings = Listings()
        self._busy = asyncio.Semaphore(1)  # to list a layer takes a core

    async def answer(self, request: BaseRequest) -> StreamResponse | None:
        """None for a path that is not one of these."""
        path = request.raw_path.partition("?")[0]
        if request.method not in ("GET", "HEAD") or not (path in ("/", "/login") or path.startswith("/web/")):
            return None
        if path == "/login":
            return self._login(request)
        try:
            if path == "/":
                return await self._repositories(request)
            where = _parse(unquote(path.removeprefix("/web/"), errors="replace"))
            if not self._app.allows(request, where.repository, "pull"):
                raise RegistryError(404, "NAME_UNKNOWN")
            if where.layer:
                return await self._layer(request, where)
            return await (self._manifest(request, where) if where.reference else self._tags(request, where))
        except RegistryError as e:
            inside = [tag("h1", "Not here"), tag("p", e.message)]
            if e.status == 404 and self._is_stranger(request):
                inside.append(_invitation("It may be there for those who have a login."))
            return self._page(request, "Not here", *inside, status=e.status)

    def _is_stranger(self, request: BaseRequest) -> bool:
        """Somebody without a login, where others have one."""
        return self._app.guard is not None and not self._app.user(request)

    def _page(self, request: BaseRequest, title: str, *inside: str, query: str = "", status: int = 200) -> Response:
        user, login = self._app.user(request), self._is_stranger(request)
        return html.page(title, *inside, query=query, user=user, login=login, status=status)

    def _login(self, request: BaseRequest) -> Response:
        if self._app.guard is not None and self._is_stranger(request):
            raise self._app.guard.challenge_basic()
        return Response(status=303, headers={"Location": "/"})

    # Repositories

    async def _repositories(self, request: BaseRequest) -> Response:
        app = self._app
        stranger = self._is_stranger(request)
        query = request.query.get("q", "").strip()[:200]
        found = [one for one in await app.source.repositories() if app.allows(request, one, "pull")]
        start = _number(request.query.get("from", "0"))
        rows = []
        for name in found[:_SEARCHED] if query else found[start : start + _PAGE]:
            tags = await app.source.tags(name)
            hits = [one for one in tags if query.lower() in one.lower()] if query else []
            if query and query.lower() not in name.lower() and not hits:
                continue
            shown = join((link(_to(name, one), one) for one in (hits or tags[-1:])[:5]), " ")
            rows.append((link(_to(name), name), shown, len(tags)))
        title = f"Repositories with “{query}”" if query else "Repositories"
        inside = [tag("h1", title)]
        if rows:
            shown_rows = rows[start : start + _PAGE] if query else rows
            inside.append(table(("Name", "Tags", "Number"), shown_rows, numbers=(2,)))
            count = len(rows) if query else len(found)
            inside += _pager(start, count, f"/?q={quote(query)}&" if query else "/?")
        else:
            host = _host(request)
            nothing = "Nothing has such a name." if query else "Nothing is here."
            inside.append(tag("p", nothing))
            if not query and not stranger and not app.serves_only:
                inside += [tag("p", "Push something:"), copy(f"limpet push {host}/NAME:TAG")]
        if stranger:
            inside.append(_invitation("Without a login only what is open to everybody is shown."))
        return self._page(request, title, *inside, query=query)

    # Tags

    async def _tags(self, request: BaseRequest, where: _Where) -> Response:
        tags = await self._app.source.tags(where.repository)
        start = _number(request.query.get("from", "0"))
        rows = [await self._row(where.repository, one) for one in tags[start : start + _PAGE]]
        inside = [
            tag("h1", where.repository),
            copy(f"limpet pull {_host(request)}/{where.repository}:{tags[-1] if tags else 'TAG'}"),
            table(("Tag", "Digest", "What", "Size"), rows, numbers=(3,), wide=2),
            *_pager(start, len(tags), f"{_to(where.repository)}?"),
        ]
        return self._page(request, where.repository, *inside)

    async def _row(self, repository: str, name: str) -> tuple[Markup, ...]:
        first = link(_to(repository, name), name)
        try:
            stored = await self._app.source.manifest(repository, name)
        except RegistryError as e:
            return first, tag("span", e.message, class_="problem"), html.text(""), html.text("")
        document = _parsed(stored)
        return first, tag("code", _short(stored.digest)), html.text(_what(document)), html.text(_size(document))

    # Manifests

    async def _manifest(self, request: BaseRequest, where: _Where) -> Response:
        stored = await self._app.source.manifest(where.repository, where.reference)
        document = _parsed(stored)
        separator = "@" if names.is_digest(where.reference) else ":"
        title = f"{where.repository}{separator}{where.reference}"
        inside: list[str] = [
            tag("h1", link(_to(where.repository), where.repository), separator, where.reference),
            copy(f"limpet pull {_host(request)}/{title}"),
        ]
        known = [("Digest", stored.digest), ("Media type", stored.media_type), ("What", _what(document))]
        known += [("Size", _size(document)), ("Artifact type", document.artifact_type)]
        if document.subject is not None:
            inside_link = link(_to(where.repository, document.subject.digest), document.subject.digest)
            known.append(("About", inside_link))
        if isinstance(document, documents.Index):
            inside += [facts(known), *self._parts(where.repository, document)]
        else:
            config = await self._config(where.repository, document)
            inside.append(facts(known + (_config_facts(config) if config is not None else [])))
            inside += _layers(where.repository, document, config)
        if document.annotations:
            inside += [tag("h2", "Annotations"), facts(sorted(document.annotations.items()))]
        inside += await self._referrers(where.repository, stored.digest)
        return self._page(request, title, *inside)

    def _parts(self, repository: str, index: Index) -> list[str]:
        rows = [
            (
                link(_to(repository, one.digest), str(one.platform) if one.platform else one.artifact_type or "part"),
                tag("code", _short(one.digest)),
                one.media_type,
                units.size_decimal(one.size),
            )
            for one in index.manifests
        ]
        return [tag("h2", "Platforms"), table(("Platform", "Digest", "Media type", "Size"), rows, numbers=(3,), wide=2)]

    async def _config(self, repository: str, manifest: Manifest) -> ImageConfig | None:
        """None for what is no image, and for a config that cannot be read."""
        if manifest.config.media_type not in media.CONFIGS or manifest.config.size > configs.MAX_BYTES:
            return None
        try:
            fd = await self._app.source.file(repository, manifest.config.digest)
            with open(fd, "rb") as file:
                return configs.parse(file.read(configs.MAX_BYTES + 1))
        except (RegistryError, LimpetError):
            return None

    async def _referrers(self, repository: str, digest: str) -> list[str]:
        found, _ = await self._app.source.referrers(repository, digest, "", "")
        if not found:
            return []
        rows = [
            (
                link(_to(repository, str(one["digest"])), str(one.get("artifactType") or one["mediaType"])),
                tag("code", _short(str(one["digest"]))),
                str((one.get("annotations") or {}).get("org.opencontainers.image.created", "")),
            )
            for one in found[:_PAGE]
        ]
        return [tag("h2", "Refers to this"), table(("Type", "Digest", "Created"), rows, wide=0)]

    # Layers

    async def _layer(self, request: BaseRequest, where: _Where) -> Response:
        fd = await self._app.source.file(where.repository, where.layer)
        size = os.fstat(fd).st_size
        async with self._busy:
            listing = await asyncio.to_thread(self._listings.of, where.layer, fd)
        title = f"Layer {_short(where.layer)}"
        inside: list[str] = [
            tag("h1", title),
            tag("p", "of ", link(_to(where.repository), where.repository)),
            facts([("Digest", where.layer), ("Size", units.size_decimal(size))]),
        ]
        if listing.problem:
            inside.append(tag("p", f"Its contents can't be shown: {listing.problem}", class_="problem"))
            return self._page(request, title, *inside)
        query = request.query.get("name", "")[:200]
        shown = [one for one in listing.shown if query in one.path] if query else list(listing.shown)
        start = _number(request.query.get("from", "0"))
        rows = [
            (
                tag("code", one.path),
                one.note,
                tag("code", one.mode),
                one.owner,
                units.size_decimal(one.size) if one.size else "",
            )
            for one in shown[start : start + 500]
        ]
        inside += [
            tag("p", f"{listing.entries} entries, {units.size_decimal(listing.size)} of files"),
            table(("Path", "", "Mode", "Owner", "Size"), rows, numbers=(4,), wide=0),
            *_pager(start, len(shown), f"{request.raw_path.partition('?')[0]}?", 500),
        ]
        return self._page(request, title, *inside)


def _parse(text: str) -> _Where:
    """Raises NAME_INVALID, DIGEST_INVALID, MANIFEST_UNKNOWN."""
    name, separator, rest = text.partition("/-/layer/")
    if separator:
        return _Where(names.repository(name), layer=names.digest(rest))
    name, separator, reference = text.partition("@")
    if separator:
        return _Where(names.repository(name), names.digest(reference))
    name, separator, reference = text.partition(":")
    return _Where(names.repository(name), names.tag(reference, 404) if separator else "")


def _to(repository: str, reference: str = "") -> str:
    if not reference:
        return f"/web/{quote(repository)}"
    return f"/web/{quote(repository)}{'@' if names.is_digest(reference) else ':'}{quote(reference, safe=':')}"


def _invitation(words: str) -> Markup:
    return tag("p", words, " ", link("/login", "Log in"), class_="soft")


def _host(request: BaseRequest) -> str:
    return request.headers.get("Host", "HOST")[:255]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0


def _pager(start: int, count: int, base: str, step: int = _PAGE) -> list[Markup]:
    links = []
    if start > 0:
        links.append(link(f"{base}from={max(0, start - step)}", "← Before"))
    if start + step < count:
        links.append(link(f"{base}from={start + step}", "More →"))
    return [tag("p", join(links, " · "))] if links else []


def _short(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}:{value[:12]}"


def _parsed(stored: Stored) -> Manifest | Index:
    try:
        return documents.parse(stored.data, stored.media_type)
    except LimpetError as e:
        raise RegistryError(500, "MANIFEST_INVALID", e.message) from None


def _what(document: Manifest | Index) -> str:
    if isinstance(document, documents.Index):
        platforms = [str(one.platform) for one in document.manifests if one.platform is not None]
        known = [one for one in platforms if one != "unknown/unknown"]
        return ", ".join(known[:8]) or f"index of {len(document.manifests)}"
    if document.artifact_type or document.config.media_type not in media.CONFIGS:
        return document.artifact_type or document.config.media_type
    return f"image, {len(document.layers)} layer{'' if len(document.layers) == 1 else 's'}"


def _size(document: Manifest | Index) -> str:
    if isinstance(document, documents.Index):
        return ""
    return units.size_decimal(sum(one.size for one in parts(document)))


def _config_facts(config: ImageConfig) -> list[tuple[str, str]]:
    inner = config.config
    pairs = [("Platform", str(config.platform)), ("Created", config.created), ("Author", config.author)]
    pairs += [(key, json.dumps(inner[key]) if inner.get(key) else "") for key in ("Entrypoint", "Cmd")]
    pairs += [("User", str(inner.get("User") or "")), ("Directory", str(inner.get("WorkingDir") or ""))]
    pairs.append(("Ports", ", ".join(sorted(inner.get("ExposedPorts") or {}))))
    pairs.append(("Volumes", ", ".join(sorted(inner.get("Volumes") or {}))))
    pairs.append(("Environment", join((tag("code", one) for one in inner.get("Env") or []), "<br>")))
    labels = (inner.get("Labels") or {}).items()
    pairs.append(("Labels", join((tag("code", f"{key}={value}") for key, value in sorted(labels)), "<br>")))
    return pairs


def _layers(repository: str, manifest: Manifest, config: ImageConfig | None) -> list[Markup]:
    """The history with the layer that each step made; layers without a story as they are."""
    waiting: list[Descriptor] = list(manifest.layers)
    rows: list[tuple[Any, ...]] = []
    for step in config.history if config is not None else ():
        words = str(step.get("created_by") or step.get("comment") or "")
        if step.get("empty_layer") or not waiting:
            rows.append((tag("code", words), "", ""))
        else:
            rows.append((tag("code", words), *_layer_cells(repository, waiting.pop(0))))
    rows += [(tag("span", one.media_type, class_="soft"), *_layer_cells(repository, one)) for one in waiting]
    title = "Steps and layers" if config is not None and config.history else "Layers"
    return [tag("h2", title), table(("Step", "Layer", "Size"), rows, numbers=(2,), wide=0)]


def _layer_cells(repository: str, layer: Descriptor) -> tuple[Markup, str]:
    where = f"/web/{quote(repository)}/-/layer/{layer.digest}"
    shown = tag("code", _short(layer.digest))
    is_tar = "tar" in layer.media_type
    return (link(where, shown) if is_tar else shown), units.size_decimal(layer.size)
