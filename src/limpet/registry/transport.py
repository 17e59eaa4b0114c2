"""HTTP to any host: connections kept and reused, the host's own TLS, the proxy of the environment, errors in words."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    LocationParseError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from limpet.errors import LimpetError, Refused
from limpet.registry import certificates, proxies, redact
from limpet.registry.certificates import Tls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from urllib3.response import BaseHTTPResponse

    Body = bytes | Any

CONNECTIONS = 8
"""Kept for each host; more may be open at a time."""

_TIMEOUT = urllib3.Timeout(connect=15.0, read=60.0)


class TransferError(LimpetError):
    """The connection broke, or the registry has trouble: another try may succeed, after `wait` seconds."""

    def __init__(self, message: str, hint: str = "", *, wait: float = 0.0) -> None:
        super().__init__(message, hint)
        self.wait = wait


class Transport:
    """`send` may be called by several threads at once. `tls`: of hosts whose files in certs.d don't count."""

    def __init__(self, tls: Mapping[str, Tls] | None = None) -> None:
        self._tls = dict(tls or {})
        self._pools: dict[tuple[str, str, Tls], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def send(self, method: str, address: str, headers: Mapping[str, str], body: Body | None = None) -> BaseHTTPResponse:
        """One request, no redirects followed, the body of the response not read yet.

        Raises TransferError where another try may help, LimpetError otherwise.
        """
        try:
            return self._pool(address).request(
                method,
                address,
                headers=dict(headers),
                body=body,
                preload_content=False,
                redirect=False,
                retries=False,
                timeout=_TIMEOUT,
            )
        except HTTPError as e:
            raise explain(e, address) from e
        except (ValueError, UnicodeError):  # an address or a header that can't be sent
            raise Refused(f"{redact.clean(address)[:200]!r} is not an address") from None

    def _pool(self, address: str) -> urllib3.PoolManager:
        parts = urlsplit(address)
        netloc = parts.netloc.rpartition("@")[2].lower()
        tls = Tls()
        if parts.scheme == "https":
            tls = self._files(netloc)
        proxy = proxies.proxy_of(address)
        with self._lock:
            key = (parts.scheme, proxy, tls)
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = self._made(proxy, tls, parts.scheme)
            return pool

    def _files(self, netloc: str) -> Tls:
        found = self._tls.get(netloc)
        if found is None:
            found = self._tls[netloc] = certificates.find(netloc) or Tls()
        return found

    def _made(self, proxy: str, tls: Tls, scheme: str) -> urllib3.PoolManager:
        if not tls.verify:
            urllib3.disable_warnings(InsecureRequestWarning)  # a setting says so
        options: dict[str, Any] = {"maxsize": CONNECTIONS}
        if scheme == "https":
            options["ssl_context"] = certificates.context(tls)
        if not proxy:
            return urllib3.PoolManager(**options)
        parts = urlsplit(proxy)
        headers = None
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers = urllib3.make_headers(proxy_basic_auth=user)
        netloc = parts.netloc.rpartition("@")[2].lower()
        if parts.scheme == "https":
            options["proxy_ssl_context"] = certificates.context(self._files(netloc))
        return urllib3.ProxyManager(f"{parts.scheme}://{netloc}", proxy_headers=headers, **options)


def explain(error: HTTPError, address: str) -> LimpetError:
    """urllib3's exceptions as one line that names host and port."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason if isinstance(error.reason, HTTPError) else error
    parts = urlsplit(address)
    where = parts.netloc.rpartition("@")[2]
    if where and parts.port is None:
        where += ":80" if parts.scheme == "http" else ":443"
    if isinstance(error, ProxyError):
        return _proxy_trouble(error, where)
    if isinstance(error, NameResolutionError):
        return LimpetError(f"{where}: the name cannot be resolved", "check the registry's name and this machine's DNS")
    if isinstance(error, NewConnectionError):
        return Refused(f"cannot connect to {where}: {_reason(error)}", "is the registry running there?")
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return TransferError(f"{where}: no answer in time")
    if isinstance(error, SSLError):
        return _tls_trouble(error, where, parts.netloc.rpartition("@")[2])
    if isinstance(error, LocationParseError):
        return Refused(f"{redact.clean(address)[:200]!r} is not an address")
    if isinstance(error, ProtocolError):
        return TransferError(
            f"{where}: the connection broke: {redact.clean(str(error.args[-1] if error.args else error))[:300]}"
        )
    return TransferError(f"{where}: {redact.clean(str(error))[:300]}")


def _proxy_trouble(error: ProxyError, where: str) -> LimpetError:
    inner = error.original_error
    said = _reason(inner) if isinstance(inner, NewConnectionError) else str(inner)
    if isinstance(inner, NameResolutionError):
        said = "its name cannot be resolved"
    return Refused(f"{where}: the proxy: {redact.clean(said)[:300]}", "HTTPS_PROXY, HTTP_PROXY and NO_PROXY name it")


def _tls_trouble(error: SSLError, where: str, netloc: str) -> LimpetError:
    said = redact.clean(str(error))[:300]
    if "WRONG_VERSION_NUMBER" in said or "wrong version number" in said:
        return Refused(f"{where}: no TLS there", f"plain-http for {netloc} in registries.toml allows plain HTTP")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        said = said.partition("certificate verify failed: ")[2].partition(" (_ssl")[0].rstrip("')") or said
        return Refused(
            f"{where}: TLS: its certificate is not trusted: {said}",
            f"put its authority into /etc/limpet/certs.d/{netloc}/ca.crt, or SSL_CERT_FILE=FILE",
        )
    return Refused(f"{where}: TLS: {said}", f"/etc/limpet/certs.d/{netloc}/ may have ca.crt, client.cert, client.key")


def _reason(error: NewConnectionError) -> str:
    if isinstance(error.__cause__, OSError) and error.__cause__.strerror:
        return error.__cause__.strerror
    return str(error.__cause__ or error)
