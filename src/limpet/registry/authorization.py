"""Answers to a registry's challenges: Basic, or tokens of the server that it names (distribution, "Token auth").

A token is kept until shortly before its end and used for whatever its scopes cover. Once a registry has named its token
server, further tokens are asked for without being refused first. Logins go to the registry itself and to the token
server that it names, which may be another host, over TLS unless the registry itself is spoken to without; never along
with a redirect to another host.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from limpet.errors import LimpetError, Refused
from limpet.registry import challenge as challenges
from limpet.registry import credentials, redact, scopes
from limpet.registry.answers import MAX_DOCUMENT, document, finish, later, retry_after, words
from limpet.registry.proxies import is_loopback
from limpet.registry.transport import TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from urllib3.response import BaseHTTPResponse

    from limpet.registry.credentials import Credentials
    from limpet.registry.scopes import Scopes

    Send = Callable[[str, str, str | None, Mapping[str, str] | None, bytes | None], BaseHTTPResponse]
    """(method, address, Authorization, headers, body), with redirects followed and the Authorization kept at home."""

CLIENT_ID = "limpet"
_MAX_TOKEN = 1 << 16
_USUAL_LIFE = 60.0
"""Seconds, where the server does not say (distribution: `expires_in`)."""
_MARGIN = 10.0
"""Seconds before its end, or a fifth of its life if that is less, a token is no longer used."""


@dataclass(frozen=True)
class _Token:
    value: str
    scopes: Scopes
    until: float  # by the monotonic clock


class Authorization:
    """Who we are to one registry. May be called by several threads at once.

    `login`: instead of what the user's files say. Afterwards `source` says where the login in use comes from, `user`
    whose it is ("" for an identity token), `rejected` whether it was not taken for a good one.
    """

    def __init__(self, domain: str, send: Send, login: Credentials | None = None) -> None:
        self.domain = domain
        self.source = ""
        self.user = ""
        self.rejected = False
        self.refresh_token = ""  # what the server gave in exchange for a password, if it was asked for one
        self._send = send
        self._login = login
        self._found: dict[str, Credentials | None] = {}
        self._lock = threading.RLock()
        self._basic = False
        self._bearer: Mapping[str, str] | None = None
        self._plain = False
        self._tokens: list[_Token] = []

    def value(self, scope: str) -> str | None:
        """The header for a request with this scope; None where nothing is known to be wanted."""
        with self._lock:
            if self._basic:
                return self._basic_value(scope)
            if self._bearer is None:
                return None
            return self._kept(scope) or self._token(self._bearer, scope, scopes.parse(scope))

    def answer(self, header: str, scope: str, sent: str | None, *, plain: bool) -> str | None:
        """The header that answers a 401 with this WWW-Authenticate; None if there is none.

        `sent` is the one that was refused. `plain`: the registry is spoken to without TLS.
        """
        with self._lock:
            self._plain = plain
            for challenge in challenges.parse(header):
                if challenge.scheme == "bearer":
                    kept = self._kept(scope)
                    if kept is not None and kept != sent:
                        return kept  # another thread was refused as well, and was faster
                    self._tokens = [token for token in self._tokens if token.value != sent]
                    wanted = scopes.union(scopes.parse(scope), scopes.parse(challenge.parameters.get("scope", "")))
                    value = self._token(challenge.parameters, scope, wanted)
                    if value is not None:
                        self._bearer, self._basic = challenge.parameters, False
                        return value
                elif challenge.scheme == "basic":
                    value = self._basic_value(scope)
                    self.rejected = value is not None and value == sent
                    if value is not None and value != sent:
                        self._basic, self._bearer = True, None
                        return value
        return None

    def credentials(self, scope: str) -> Credentials | None:
        """The user's login for a request with this scope."""
        if self._login is not None:
            return self._login
        repository = scopes.repository(scope)
        with self._lock:
            if repository not in self._found:
                self._found[repository] = credentials.find(self.domain, repository)
            return self._found[repository]

    def _basic_value(self, scope: str) -> str | None:
        known = self.credentials(scope)
        if known is None or not known.username:
            return None
        self.source, self.user = known.source, known.username
        return known.basic

    def _kept(self, scope: str) -> str | None:
        wanted = scopes.parse(scope)
        now = time.monotonic()
        self._tokens = [token for token in self._tokens if token.until > now]
        return next((token.value for token in self._tokens if scopes.covers(token.scopes, wanted)), None)

    def _token(self, parameters: Mapping[str, str], scope: str, wanted: Scopes) -> str | None:
        """A new one; None if the token server refuses."""
        realm = parameters.get("realm", "")
        try:
            parts = urlsplit(realm)
            safe = parts.scheme == "https" or (
                parts.scheme == "http" and self._plain and (is_loopback(parts.netloc) or not is_loopback(self.domain))
            )
        except ValueError:
            safe = False
        if not safe or "@" in parts.netloc:
            raise Refused(f"{self.domain}: its token server {redact.clean(realm)[:200]!r} has no TLS")
        known = self.credentials(scope)
        self.source = known.source if known is not None else ""
        self.user = known.username if known is not None else ""
        response = self._ask(realm, parameters.get("service", ""), scopes.words(wanted), known)
        self.rejected = known is not None and response.status == 401
        if response.status in (401, 403):
            finish(response)
            return None
        where = f"{parts.netloc} (token server of {self.domain})"
        if response.status != 200:
            if response.status in range(400, 500) and response.status != 429:
                raise LimpetError(f"{where}: {words(response)}")
            wait = retry_after(response.headers.get("Retry-After", ""))
            raise TransferError(f"{where}: {words(response)}", later(wait), wait=wait)
        date = response.headers.get("Date", "")
        try:
            answer = json.loads(document(response, MAX_DOCUMENT))
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not _is_token(token):
            raise LimpetError(f"{where}: the answer has no token")
        redact.conceal(token)
        self._rotate(answer.get("refresh_token"))
        value = f"Bearer {token}"
        life = _life(answer, date)
        until = time.monotonic() + life - min(_MARGIN, life / 5)
        self._tokens = [*self._tokens[-50:], _Token(value, wanted, until)]
        return value

    def _ask(self, realm: str, service: str, wanted: list[str], known: Credentials | None) -> BaseHTTPResponse:
        headers = {"Accept": "application/json"}
        if known is not None and known.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self.refresh_token or known.identity_token,
                "service": service,
                "scope": " ".join(wanted),
                "client_id": CLIENT_ID,
            }
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            return self._send("POST", realm, None, headers, urlencode(form).encode())
        query = [("service", service), *[("scope", word) for word in wanted]]
        if (
            known is not None and known is self._login
        ):  # a login is being tried: a token to keep is better than a password
            query += [("offline_token", "true"), ("client_id", CLIENT_ID), ("account", known.username)]
        address = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        return self._send("GET", address, known.basic if known is not None else None, headers, None)

    def _rotate(self, refresh_token: Any) -> None:
        """Some servers replace the identity token with each use."""
        if isinstance(refresh_token, str) and _is_token(refresh_token):
            redact.conceal(refresh_token)
            self.refresh_token = refresh_token


def _is_token(text: str) -> bool:
    """Fit for a header, where it goes."""
    return 0 < len(text) <= _MAX_TOKEN and text.isascii() and text.isprintable() and " " not in text


def _life(answer: Mapping[str, Any], date: str) -> float:
    """Seconds from now; a token may have been issued some time ago, both times by the server's own clock."""
    seconds = answer.get("expires_in")
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdecimal():
        seconds = int(seconds[:12])
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds < 1e9:
        return _USUAL_LIFE
    issued = answer.get("issued_at")
    age = 0.0
    if isinstance(issued, str) and date:
        from datetime import UTC, datetime

        try:
            then = datetime.fromisoformat(issued)
            then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
            age = max(0.0, (parsedate_to_datetime(date) - then).total_seconds())
        except (ValueError, TypeError, OverflowError):
            pass
    return max(0.0, seconds - age)
