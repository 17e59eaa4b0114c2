"""One registry's HTTP: where it is, who we are to it, redirects, time-outs, and what went wrong in words.

Plain HTTP is spoken only with this machine's own addresses. Credentials go to the registry itself and to the token
server that it names, over TLS or to this machine; a redirect to another host never sees them.
"""

from __future__ import annotations

import json
import random
import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

import limpet
from limpet.errors import LimpetError, Refused
from limpet.registry import challenge as challenges
from limpet.registry import credentials

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from urllib3.response import BaseHTTPResponse

    Body = bytes | Any

MAX_REDIRECTS = 5
MAX_TRIES = 5
FIRST_WAIT = 0.2
"""Seconds before the second try; doubled for each further one."""

MAX_WAIT = 30.0

_MAX_DOCUMENT = 1 << 20
_HUB_HOST = "registry-1.docker.io"
_TIMEOUT = urllib3.Timeout(connect=15.0, read=60.0)
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})


class TransferError(LimpetError):
    """The connection broke, or the registry has trouble: another try may succeed, after `wait` seconds."""

    def __init__(self, message: str, hint: str = "", *, wait: float = 0.0) -> None:
        super().__init__(message, hint)
        self.wait = wait


class Connection:
    """`request` may be called by several threads at once; connections are kept and reused."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.plain = is_loopback(domain)
        self.base = f"{'http' if self.plain else 'https'}://{_HUB_HOST if domain == credentials.DOCKER_HUB else domain}"
        self._pool = _pool(self.base)
        self._lock = threading.Lock()
        self._authorization: dict[str, str] = {}  # by scope

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

        `path` is relative to the registry or a whole address on it, `scope` what a token is asked for. Raises
        TransferError when another try may help, LimpetError otherwise; a status of 400 and above is the caller's.
        """
        address = urljoin(self.base, path)
        response = self._send(method, address, self._authorization.get(scope), headers, body)
        if response.status == 401 and (body is None or isinstance(body, bytes)):
            header = response.headers.get("WWW-Authenticate", "")
            finish(response)
            authorization = self._authenticate(header, scope)
            if authorization is not None:
                response = self._send(method, address, authorization, headers, body)
        if response.status in _RETRIED:
            wait = retry_after(response.headers.get("Retry-After", ""))
            raise TransferError(f"{self.domain}: {words(response)}", wait=wait)
        return response

    def _send(
        self,
        method: str,
        address: str,
        authorization: str | None,
        headers: Mapping[str, str] | None,
        body: Body | None,
    ) -> BaseHTTPResponse:
        origin = _origin(address)
        for _ in range(MAX_REDIRECTS + 1):
            sent = {"User-Agent": f"limpet/{limpet.__version__}", "Accept-Encoding": "identity", **(headers or {})}
            if authorization is not None and _origin(address) == origin:
                sent["Authorization"] = authorization
            try:
                response = self._pool.request(
                    method,
                    address,
                    headers=sent,
                    body=body,
                    preload_content=False,
                    redirect=False,
                    retries=False,
                    timeout=_TIMEOUT,
                )
            except HTTPError as e:
                raise explain(e, address) from e
            target = response.headers.get("Location", "")
            if method not in ("GET", "HEAD") or response.status not in (301, 302, 303, 307, 308) or not target:
                return response
            finish(response)
            address = urljoin(address, target)
            parts = urlsplit(address)
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.netloc)):
                raise Refused(f"{self.domain}: redirects to {address[:200]}, without TLS")
        raise Refused(f"{self.domain}: more than {MAX_REDIRECTS} redirects")

    def _authenticate(self, header: str, scope: str) -> str | None:
        """An Authorization value for a challenge; None if there is nothing to answer it with."""
        with self._lock:
            for challenge in challenges.parse(header):
                if challenge.scheme == "bearer":
                    token = self._token(challenge.parameters, scope)
                elif challenge.scheme == "basic":
                    known = credentials.find(self.domain)
                    token = known.basic if known is not None and known.username else None
                else:
                    continue
                if token is not None:
                    self._authorization[scope] = token
                return token
        return None

    def _token(self, parameters: Mapping[str, str], scope: str) -> str | None:
        realm = parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and self.plain and is_loopback(parts.netloc)):
            raise Refused(f"{self.domain}: its token server {realm[:200]!r} has no TLS")
        known = credentials.find(self.domain)
        query = {"service": parameters.get("service", ""), "scope": parameters.get("scope") or scope}
        headers = {"Accept": "application/json"}
        if known is not None and known.identity_token:
            form = {**query, "grant_type": "refresh_token", "refresh_token": known.identity_token}
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode({**form, "client_id": "limpet"}).encode()
            response = self._send("POST", realm, None, headers, body)
        else:
            address = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
            response = self._send("GET", address, known.basic if known is not None else None, headers, None)
        if response.status in (401, 403):
            finish(response)
            return None
        if response.status != 200:
            raise TransferError(f"{parts.netloc} (token server of {self.domain}): {words(response)}")
        try:
            answer = json.loads(document(response, _MAX_DOCUMENT))
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isprintable():
            raise LimpetError(f"{parts.netloc} (token server of {self.domain}): the answer has no token")
        return f"Bearer {token}"


def patiently(attempt: int, error: TransferError) -> None:
    """Waits before the next try, longer each time, or as long as the registry asks for; up to MAX_WAIT.

    Half of it is random, so that the many who were turned away together don't come back together.
    """
    usual = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.0)
    time.sleep(min(MAX_WAIT, max(usual, error.wait)))


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110, section 10.2.3); 0 for neither."""
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def document(response: BaseHTTPResponse, limit: int) -> bytes:
    """The whole body of at most `limit` bytes. Raises LimpetError or TransferError."""
    try:
        data = response.read(limit + 1, decode_content=False)
        if len(data) > limit:
            response.close()
            raise LimpetError(f"the registry's answer is larger than {limit} bytes")
        response.read(1)  # reaches the end, so that the connection can be used again
    except HTTPError as e:
        raise explain(e, "") from e
    response.release_conn()
    return data


def finish(response: BaseHTTPResponse) -> None:
    """Throws away a short body so that the connection can be used again."""
    try:
        document(response, 1 << 16)
    except LimpetError:
        response.close()


def words(response: BaseHTTPResponse) -> str:
    """What the registry says is wrong, in one line (distribution spec, "Error codes"); consumes the body."""
    try:
        first = json.loads(document(response, _MAX_DOCUMENT))["errors"][0]
        text = f"{first.get('code', '')} {first.get('message', '')}".strip()
    except (ValueError, LookupError, TypeError, AttributeError, LimpetError):
        text = ""
    return f"HTTP {response.status}{': ' if text else ''}{' '.join(text.split())[:300]}"


def codes(data: bytes) -> set[str]:
    """The error codes in an answer."""
    try:
        return {error["code"] for error in json.loads(data)["errors"]}
    except (ValueError, LookupError, TypeError):
        return set()


def explain(error: HTTPError, address: str) -> LimpetError:
    """urllib3's exceptions as one line that names host and port."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason if isinstance(error.reason, HTTPError) else error
    parts = urlsplit(address)
    where = parts.netloc
    if where and parts.port is None:
        where += ":80" if parts.scheme == "http" else ":443"
    if isinstance(error, NameResolutionError):
        return LimpetError(f"{where}: the name cannot be resolved", "check the registry's name and this machine's DNS")
    if isinstance(error, NewConnectionError):
        reason = str(error.__cause__ or error)
        if isinstance(error.__cause__, OSError) and error.__cause__.strerror:
            reason = error.__cause__.strerror
        return Refused(f"cannot connect to {where}: {reason}", "is the registry running there?")
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return TransferError(f"{where}: no answer in time")
    if isinstance(error, SSLError):
        return Refused(
            f"{where}: TLS: {str(error)[:300]}", "trust its CA: update-ca-certificates, or SSL_CERT_FILE=FILE"
        )
    if isinstance(error, ProtocolError):
        return TransferError(f"{where}: the connection broke: {error.args[-1] if error.args else error}")
    return TransferError(f"{where}: {error}")


def is_loopback(netloc: str) -> bool:
    """Whether a host[:port] is this machine itself: localhost, a name under it, 127.0.0.0/8 or ::1."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0] == "::1"
    host = netloc.partition(":")[0].lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    numbers = host.split(".")
    return len(numbers) == 4 and numbers[0] == "127" and all(n.isdecimal() and int(n) < 256 for n in numbers)


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


def _pool(base: str) -> urllib3.PoolManager:
    """Honours https_proxy, http_proxy and no_proxy, as Docker does; never for this machine itself."""
    import os

    parts = urlsplit(base)
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper())
    if not is_loopback(parts.netloc) and any(os.environ.get(name) for name in names):
        from urllib.request import getproxies, proxy_bypass

        proxy = getproxies().get(parts.scheme)
        if proxy and not proxy_bypass(parts.netloc):
            return urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", maxsize=8)
    return urllib3.PoolManager(maxsize=8)
