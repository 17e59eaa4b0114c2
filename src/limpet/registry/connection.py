"""One registry's HTTP: which hosts have it, in which order, and when another try may help.

Mirrors (`registries.toml`) answer only what reads a manifest or a blob with nothing but a pull in its scope; whatever
they can't give comes from the registry itself. So do referrers: a mirror that has none might hide the registry's.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from limpet import progress
from limpet.errors import LimpetError, Refused
from limpet.registry import endpoints, scopes
from limpet.registry.answers import codes, document, finish, later, retry_after, words
from limpet.registry.host import MAX_REDIRECTS, Host
from limpet.registry.proxies import is_loopback
from limpet.registry.settings import load
from limpet.registry.transport import TransferError, explain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.response import BaseHTTPResponse

    from limpet.registry.authorization import Authorization
    from limpet.registry.credentials import Credentials
    from limpet.registry.endpoints import Endpoint, Target
    from limpet.registry.registries import Registries
    from limpet.registry.transport import Body

__all__ = [
    "FIRST_WAIT",
    "MAX_REDIRECTS",
    "MAX_TRIES",
    "MAX_WAIT",
    "Connection",
    "TransferError",
    "codes",
    "document",
    "explain",
    "finish",
    "is_loopback",
    "patiently",
    "retry_after",
    "words",
]

MAX_TRIES = 5
FIRST_WAIT = 0.2
"""Seconds before the second try; doubled for each further one."""

MAX_WAIT = 30.0

_WORTH_A_WORD = 2.0
"""Seconds of a wait that is said: only a registry asks for as many."""

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_MIRRORED = re.compile(r"/v2/(?P<repository>.+)/(?:manifests|blobs)/(?P<reference>[^/]+)")
_REPOSITORY = re.compile(r"/v2/(?P<repository>.+)/(?:manifests|blobs|referrers|tags)/")
_REST = 60.0
"""Seconds for which a mirror that can't be reached is not asked again."""


class Connection:
    """`request` may be called by several threads at once; connections are kept and reused.

    `login`: instead of what the user's files say. Without `mirrors` only the registry itself is asked.
    """

    def __init__(
        self,
        domain: str,
        *,
        login: Credentials | None = None,
        settings: Registries | None = None,
        mirrors: bool = True,
    ) -> None:
        self.domain = domain
        self._settings = settings if settings is not None else load()
        self._login = login
        self._mirrors = mirrors
        self._lock = threading.Lock()
        self._hosts: dict[Endpoint, Host] = {}
        self._resting: dict[Host, float] = {}  # mirrors, until when
        self._answered: set[Host] = set()  # mirrors

    @property
    def base(self) -> str:
        """The address of the registry itself."""
        return self._own("").base

    def base_of(self, repository: str) -> str:
        """The same for one repository, which a setting may have moved: what a relative Location is relative to."""
        return self._own(repository).base

    @property
    def plain(self) -> bool:
        """Whether the registry itself is spoken to without TLS."""
        return self._own("").plain

    @property
    def has_login(self) -> bool:
        """Whether the user has a login for the registry as a whole."""
        return self._own("").authorization.credentials("") is not None

    def login_source(self, repository: str) -> str:
        """Where the login comes from that the registry was last shown; "" if there was none."""
        return self.login_shown(repository).source

    def login_shown(self, repository: str) -> Authorization:
        """Who we were to the registry: `source`, `user`, `rejected`."""
        return self._own(repository).authorization

    @property
    def refresh_token(self) -> str:
        """The identity token that the registry gave for a login that was being tried; "" if none."""
        return self._own("").authorization.refresh_token

    def distrust_mirrors(self) -> bool:
        """Leaves alone for a while the mirrors that have answered; whether there were any. For answers with other bytes
        than their digest says: the registry itself may have the right ones."""
        until = time.monotonic() + _REST
        with self._lock:
            self._resting.update(dict.fromkeys(self._answered, until))
            return bool(self._answered)

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> BaseHTTPResponse:
        """Sends one request, with authentication and redirects; the body of the response is not read yet.

        `path` is relative to the registry or a whole address (an upload's), `scope` what a token is asked for: one or
        several, separated by blanks. Raises TransferError when another try may help, Refused for what is blocked,
        LimpetError otherwise; a status of 400 and above is the caller's.
        """
        *mirrors, own = self._targets(method, path, scope)
        failed: list[str] = []
        for target in mirrors:
            host = self._host(target)
            response = self._from_mirror(host, target, method, path, scope, headers, failed)
            if response is not None:
                return response
        try:
            response = self._ask(self._host(own), own, method, path, scope, headers, body)
            if response.status in _RETRIED:
                wait = retry_after(response.headers.get("Retry-After", ""))
                raise TransferError(f"{self.domain}: {words(response)}", later(wait), wait=wait)
        except LimpetError as e:
            if failed:
                e.message = f"{e.message} (mirrors: {', '.join(failed)})"
            raise
        return response

    def _targets(self, method: str, path: str, scope: str) -> list[Target]:
        mirrored = _MIRRORED.fullmatch(path) if method in ("GET", "HEAD") and scopes.is_pull(scope) else None
        named = mirrored or _REPOSITORY.match(path)
        repository = named["repository"] if named is not None else scopes.repository(scope)
        by_digest = mirrored is not None and ":" in mirrored["reference"]
        return endpoints.targets(
            self._settings,
            self.domain,
            repository,
            mirrors=self._mirrors and mirrored is not None,
            by_digest=by_digest,
        )

    def _from_mirror(
        self,
        host: Host,
        target: Target,
        method: str,
        path: str,
        scope: str,
        headers: Mapping[str, str] | None,
        failed: list[str],
    ) -> BaseHTTPResponse | None:
        if self._resting.get(host, 0.0) > time.monotonic():
            failed.append(f"{target.endpoint.domain}: out of reach")
            return None
        try:
            response = self._ask(host, target, method, path, scope, headers, None)
        except LimpetError as e:
            self._resting[host] = time.monotonic() + _REST
            failed.append(e.message)
            return None
        if response.status < 400:
            with self._lock:
                self._answered.add(host)
            return response
        failed.append(f"{target.endpoint.domain}: {words(response)}")
        return None

    def _ask(
        self,
        host: Host,
        target: Target,
        method: str,
        path: str,
        scope: str,
        headers: Mapping[str, str] | None,
        body: Body | None,
    ) -> BaseHTTPResponse:
        if not urlsplit(path).scheme:
            named = _REPOSITORY.match(path)
            if named is not None and named["repository"] != target.repository:
                scope = scopes.renamed(scope, lambda name: self._renamed(name, target))
                path = f"/v2/{quote(target.repository)}{path[named.end('repository') :]}"
        return host.request(method, path, scope, headers, body)

    def _renamed(self, name: str, target: Target) -> str:
        """A repository's name at the target: of several in a scope all but the first are others (a mount's source)."""
        for one in endpoints.targets(self._settings, self.domain, name, mirrors=True, by_digest=True):
            if one.endpoint == target.endpoint:
                return one.repository
        return name

    def _own(self, repository: str) -> Host:
        try:
            found = endpoints.targets(self._settings, self.domain, repository, mirrors=False, by_digest=False)
        except Refused:
            return Host(endpoints.Endpoint(self.domain, self.domain, ("https",)))
        return self._host(found[-1])

    def _host(self, target: Target) -> Host:
        with self._lock:
            host = self._hosts.get(target.endpoint)
            if host is None:
                login = self._login if not target.mirror_of else None
                host = self._hosts[target.endpoint] = Host(target.endpoint, login)
            return host


def patiently(attempt: int, error: TransferError) -> None:
    """Waits before the next try, longer each time, or as long as the registry asks for; up to MAX_WAIT.

    Half of it is random, so that the many who were turned away together don't come back together.
    """
    usual = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.0)
    pause = min(MAX_WAIT, max(usual, error.wait))
    if pause >= _WORTH_A_WORD:
        for shown in progress.current[-1:]:
            shown.note(f"{error.message}: trying again in {math.ceil(pause)} s")
    time.sleep(pause)
