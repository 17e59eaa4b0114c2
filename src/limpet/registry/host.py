"""One host that speaks the distribution protocol: its scheme, who we are to it, redirects.

Plain HTTP is spoken with this machine's own addresses and where a setting says so. A login goes to the host itself and
to the token server that it names; a redirect to another host never sees it, and on the way back neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import limpet
from limpet.errors import Invalid, LimpetError, Refused
from limpet.registry import redact
from limpet.registry.answers import finish
from limpet.registry.authorization import Authorization
from limpet.registry.proxies import is_loopback
from limpet.registry.transport import TransferError, Transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.response import BaseHTTPResponse

    from limpet.registry.credentials import Credentials
    from limpet.registry.endpoints import Endpoint
    from limpet.registry.transport import Body

MAX_REDIRECTS = 5


class Host:
    """`request` may be called by several threads at once; connections are kept and reused."""

    def __init__(self, endpoint: Endpoint, login: Credentials | None = None) -> None:
        self.endpoint = endpoint
        self.authorization = Authorization(endpoint.domain, self.send, login)
        self._schemes = list(endpoint.schemes)
        self._settled = len(self._schemes) == 1
        self._transport = Transport({endpoint.netloc.lower(): endpoint.tls} if endpoint.tls is not None else None)

    @property
    def base(self) -> str:
        return f"{self._schemes[0]}://{self.endpoint.netloc}"

    @property
    def plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self._schemes[0] == "http"

    def request(
        self,
        method: str,
        path: str,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> BaseHTTPResponse:
        """Sends one request, with authentication and redirects. `path` may be a whole address, on another host too:
        that one gets no Authorization. Raises TransferError, LimpetError."""
        self._settle()
        own = _origin(urljoin(self.base, path)) == _origin(self.base)
        value = self.authorization.value(scope) if own else None
        response = self._first(method, path, value, headers, body)
        if not own or not (body is None or isinstance(body, bytes)):
            return response
        for _ in range(2):  # the second is for a token whose scope was not enough
            try:
                answer = self._answer(response, scope, value)
            except LimpetError:
                response.close()
                raise
            if answer is None or answer == value:
                break
            finish(response)
            value = answer
            response = self.send(method, urljoin(self.base, path), value, headers, body)
        return response

    def _answer(self, response: BaseHTTPResponse, scope: str, value: str | None) -> str | None:
        """The Authorization to try next after `value`; None where there is no other."""
        header = ""
        if response.status == 401:
            header = response.headers.get("WWW-Authenticate", "")
        elif response.status in (403, 404) and value is None and self.authorization.credentials(scope) is not None:
            header = self._challenge()  # some hide from strangers what they would show to us
        return self.authorization.answer(header, scope, value, plain=self.plain) if header else None

    def send(
        self,
        method: str,
        address: str,
        authorization: str | None,
        headers: Mapping[str, str] | None,
        body: Body | None,
    ) -> BaseHTTPResponse:
        """One request as it is; redirects of GET and HEAD are followed, without the Authorization to other hosts."""
        origin = _origin(address)
        for _ in range(MAX_REDIRECTS + 1):
            sent = {"User-Agent": f"limpet/{limpet.__version__}", "Accept-Encoding": "identity", **(headers or {})}
            if authorization is not None:
                sent["Authorization"] = authorization
            response = self._transport.send(method, address, sent, body)
            target = response.headers.get("Location", "")
            if method not in ("GET", "HEAD") or response.status not in (301, 302, 303, 307, 308) or not target:
                return response
            finish(response)
            address = self._redirected(address, target)
            if _origin(address) != origin:
                authorization = None
        raise Refused(f"{self.endpoint.domain}: more than {MAX_REDIRECTS} redirects")

    def _redirected(self, address: str, target: str) -> str:
        try:
            address = urljoin(address, target)
            parts = urlsplit(address)
            plain = parts.scheme == "http" and self._may_be_plain(parts.netloc)
            fit = (parts.scheme == "https" or plain) and bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise Refused(f"{self.endpoint.domain}: redirects to what is no address") from None
        if not fit or parts.username is not None:
            shown = redact.clean(address)[:200]
            raise Refused(f"{self.endpoint.domain}: redirects to {shown}, without TLS or with a login in it")
        return address

    def _may_be_plain(self, netloc: str) -> bool:
        """This machine by itself leads to this machine only; a host that is plain by a setting to anywhere."""
        return self.plain and (is_loopback(netloc) or not is_loopback(self.endpoint.netloc))

    def _settle(self) -> None:
        """TLS first, plain HTTP if that isn't there: both are allowed by a setting."""
        if self._settled or self._schemes[0] != "https":
            return
        try:
            finish(self.send("GET", f"{self.base}/v2/", None, None, None))
        except LimpetError as first:
            if not _speaks_no_tls(first):
                raise
            self._schemes = ["http"]
        self._settled = True

    def _first(
        self, method: str, path: str, value: str | None, headers: Mapping[str, str] | None, body: Body | None
    ) -> BaseHTTPResponse:
        """On this machine plain HTTP comes first, and TLS is tried where that is not understood."""
        base = self.base
        try:
            response = self.send(method, urljoin(base, path), value, headers, body)
        except TransferError:
            if not self._should_be_tls(base):
                raise
        else:
            if response.status != 400 or not self._should_be_tls(base):
                self._settled = self._settled or response.status < 400
                return response
            response.close()
        self._schemes = ["https"]
        self._settled = True
        return self.send(method, urljoin(self.base, path), value, headers, body)

    def _should_be_tls(self, base: str) -> bool:
        """Whether a request to `base` failed for want of TLS; another thread may have found that out meanwhile."""
        return self.base != base or (not self._settled and self._has_tls())

    def _has_tls(self) -> bool:
        try:
            finish(self.send("GET", f"https://{self.endpoint.netloc}/v2/", None, None, None))
        except Invalid:
            raise  # a file of certificates
        except LimpetError as e:
            return "certificate" in e.message  # TLS is there: the error is worth seeing
        return True

    def _challenge(self) -> str:
        response = self.send("GET", f"{self.base}/v2/", None, None, None)
        header = response.headers.get("WWW-Authenticate", "") if response.status == 401 else ""
        finish(response)
        return header


def _speaks_no_tls(error: LimpetError) -> bool:
    return "no TLS there" in error.message or isinstance(error, TransferError)


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    netloc = parts.netloc.rpartition("@")[2].lower()
    return parts.scheme, netloc.removesuffix(":443" if parts.scheme == "https" else ":80")
