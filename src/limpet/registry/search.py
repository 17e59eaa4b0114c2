"""Search: Docker Hub by its own interface (`/v1/search`), other registries by their catalogue (`/v2/_catalog`).

The catalogue is Docker's distribution protocol, not OCI's: some registries have none, some show it to few. Its names
that contain the term are the answer, in the registry's order.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin, urlsplit

from limpet.errors import Invalid, LimpetError, NotFound
from limpet.registry import endpoints, settings
from limpet.registry.answers import document, finish, words
from limpet.registry.connection import MAX_TRIES, Connection, patiently
from limpet.registry.credentials import DOCKER_HUB
from limpet.registry.transport import TransferError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.response import BaseHTTPResponse

HUB_INDEX = "index.docker.io"
MAX_LIMIT = 10_000
_HUB_PAGE = 100
_PAGE = 1000
_MAX_PAGES = 10_000
_MAX_BYTES = 16 << 20
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_CATALOGUE = "registry:catalog:*"


@dataclass(frozen=True)
class Found:
    """A repository, as `pull` takes its name. A catalogue knows only names."""

    name: str
    description: str = ""
    stars: int = 0
    is_official: bool = False
    is_automated: bool = False


def registries(text: str) -> list[tuple[str, str]]:
    """(registry, term) of what people search for: of the registry in the text, or of those for short names."""
    first, slash, rest = text.partition("/")
    if not slash and _HOST_AND_PORT.fullmatch(text):
        slash = "/"  # no image has such a name: all of that registry is meant
    if slash and (any(c in first for c in ".:") or first == "localhost"):
        return [(DOCKER_HUB if first in (DOCKER_HUB, HUB_INDEX) else first, rest)]
    return [(place.partition("/")[0], text) for place in settings.load().search or (DOCKER_HUB,)]


def search(domain: str, term: str, limit: int) -> list[Found]:
    """At most `limit` repositories. Raises NotFound where there is no catalogue, Refused, TransferError."""
    (own,) = endpoints.targets(settings.load(), domain, "", mirrors=False, by_digest=False)
    if domain == DOCKER_HUB and own.endpoint.domain == DOCKER_HUB:
        return _hub(term, limit)
    found: list[Found] = []
    for name in _catalogue(Connection(domain)):
        if term.lower() in name:
            found.append(Found(f"{domain}/{name}"))
            if len(found) >= limit:
                break
    return found


def _hub(term: str, limit: int) -> list[Found]:
    if not term:
        raise Invalid("Docker Hub has too many images to list them", "give a word to search for")
    connection = Connection(HUB_INDEX)
    found: list[Found] = []
    page = 1
    while len(found) < limit:
        query = urlencode({"q": term, "n": min(limit, _HUB_PAGE), "page": page})
        response = _get(connection, f"/v1/search?{query}", "")
        if response.status != 200:
            raise LimpetError(f"{HUB_INDEX}: search: {words(response)}")
        try:
            results = json.loads(document(response, _MAX_BYTES))["results"]
            found += [_hit(one) for one in results]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise LimpetError(f"{HUB_INDEX}: search: the answer is not the JSON it should be") from None
        if len(results) < min(limit, _HUB_PAGE):
            break
        page += 1
    return found[:limit]


def _hit(one: dict[str, object]) -> Found:
    stars = one.get("star_count")
    name, description = str(one["name"]), str(one.get("description") or "")
    return Found(
        _printable(name[:300]),
        _printable(description[:10_000]),
        stars if isinstance(stars, int) else 0,
        one.get("is_official") is True,
        one.get("is_automated") is True,
    )


def _printable(text: str) -> str:
    """What comes from a registry must not move the cursor of who reads it."""
    return "".join(c if c.isprintable() else " " for c in text)


def _catalogue(connection: Connection) -> Iterator[str]:
    """All names, page by page (the Link header, which may only lead on within the catalogue)."""
    if connection.has_login:  # some show strangers a part, and ask nobody who they are unless they ask for it
        finish(_get(connection, "/v2/", _CATALOGUE))
    path = f"/v2/_catalog?n={_PAGE}"
    seen: set[str] = set()
    while path and path not in seen and len(seen) < _MAX_PAGES:
        seen.add(path)
        response = _get(connection, path, _CATALOGUE)
        if response.status in (404, 405, 501):
            finish(response)
            raise NotFound(f"{connection.domain} has no catalogue to search")
        if response.status in (401, 403):
            finish(response)
            raise NotFound(
                f"{connection.domain} does not show its catalogue", f"log in: limpet login {connection.domain}"
            )
        if response.status != 200:
            raise LimpetError(f"{connection.domain}: catalogue: {words(response)}")
        path = _next(path, response.headers.get("Link", ""))
        try:
            names = json.loads(document(response, _MAX_BYTES))["repositories"] or []
        except (ValueError, LookupError, TypeError, RecursionError):
            names = [None]
        for name in names:
            if not isinstance(name, str) or not name.isprintable() or len(name) > 300:
                raise LimpetError(f"{connection.domain}: catalogue: the answer is not the JSON it should be")
            yield name


def _next(path: str, link: str) -> str:
    """Where the next page is, "" for the last one (RFC 8288)."""
    target, _, parameters = link.partition(">")
    if not target.startswith("<") or 'rel="next"' not in parameters.replace("rel=next", 'rel="next"'):
        return ""
    parts = urlsplit(urljoin(path, target[1:]))
    return f"/v2/_catalog?{quote(parts.query, safe='=&%+:/')}" if parts.path.endswith("/v2/_catalog") else ""


def _get(connection: Connection, path: str, scope: str) -> BaseHTTPResponse:
    for attempt in range(MAX_TRIES):
        try:
            return connection.request("GET", path, scope=scope)
        except TransferError as e:
            if attempt == MAX_TRIES - 1:
                raise
            patiently(attempt, e)
    raise AssertionError("unreachable")
