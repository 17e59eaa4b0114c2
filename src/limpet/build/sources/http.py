"""A file by HTTP: ADD of a URL, a context or a Dockerfile from one. BuildKit's `source/http`, on the registry's client.

    caches/<id>/about         JSON: the validators of the last answer (ETag, Last-Modified), its digest and file name
    caches/<id>/data-<hex>    its bytes

What is known is asked for with its validators (RFC 9110, section 13.1), so that an unchanged file is not sent again. A
file of which the digest is given is not asked for at all when it is known. At most ten redirects are followed, never
from https to http unless the digest is given; a login goes to the host that it is for, and to no other one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import posixpath
import re
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from urllib3.exceptions import HTTPError

import limpet
from limpet.build.sources import reference
from limpet.build.sources.kept import Kept
from limpet.errors import Corrupt, Invalid, LimpetError, NotFound, Refused
from limpet.frozen import dataclass
from limpet.layers.limits import from_environment
from limpet.registry import redact
from limpet.registry.answers import finish, retry_after
from limpet.registry.connection import MAX_TRIES, patiently
from limpet.registry.transport import TransferError, Transport, explain
from limpet.store.files import write_all, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult

    from urllib3.response import BaseHTTPResponse

    from limpet.progress import Progress
    from limpet.store.store import Store

MAX_REDIRECTS = 10
_PIECE = 1 << 18
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Known:
    """A file: its digest (SHA-256, hex), its name ("" if nothing gives it one), Last-Modified in Unix seconds."""

    digest: str
    name: str
    modified: int | None = None


class Files:
    """Files by HTTP for one build. `secrets`: HTTP_AUTH_HEADER_<host> and HTTP_AUTH_TOKEN_<host> are logins."""

    def __init__(
        self, store: Store, secrets: Mapping[str, bytes], say: Callable[[str], None], progress: Progress
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._say = say
        self._progress = progress
        self._transport = Transport()

    def known(self, url: str, checksum: str = "") -> Known:
        """What the file at a URL is now. With a `checksum` that is said already. Raises LimpetError."""
        if checksum:
            return Known(digest_of(checksum), name_of(url, ""))
        with Kept(self._store, "http", url, self._say) as place:
            return self._current(place, url)

    def open(self, url: str, digest: str) -> int:
        """A descriptor of the file with this digest, fetched if it isn't here. Raises Corrupt if it is another now."""
        with Kept(self._store, "http", url, self._say) as place:
            fd = _intact(place, digest)
            if fd is None:
                found = self._fetch(place, url, {}, digest)
                assert isinstance(found, Known)
                if found.digest != digest:
                    raise _mismatch(url, found.digest, digest)
                fd = _intact(place, digest)
            if fd is None:
                raise Corrupt(f"{_shown(url)}: what was stored of it is gone", "is the disk full?")
            return fd

    def _current(self, place: str, url: str) -> Known:
        about = _about(place)
        headers = {}
        if about.get("etag"):
            headers["If-None-Match"] = about["etag"]
        elif about.get("modified"):
            headers["If-Modified-Since"] = about["modified"]
        if headers:
            found = self._fetch(place, url, headers, "", about["etag"])
            if found is None:
                return Known(about["digest"], about["name"], _time(about["modified"]))
            return found
        found = self._fetch(place, url, {}, "")
        assert found is not None
        return found

    def _fetch(self, place: str, url: str, headers: Mapping[str, str], digest: str, etag: str = "") -> Known | None:
        """None: what is kept is what there is. `digest`: what it must have, "" for any."""
        fetch = _Fetch(self._store, self._asking(url, pinned=bool(digest)), url, self._progress)
        try:
            response = fetch.begin(headers)
            if response.status == 304:
                finish(response)
                return None
            if etag and _plain(response.headers.get("ETag", "")) == _plain(etag):
                response.close()  # some servers send all of it again
                return None
            found = fetch.all(response)
            target = f"{place}/data-{found}"
            os.rename(fetch.path, target)
            about = {
                "etag": fetch.headers.get("ETag", ""),
                "modified": fetch.headers.get("Last-Modified", ""),
                "digest": found,
                "name": name_of(url, fetch.headers.get("Content-Disposition", "")),
            }
            write_file(f"{place}/about", json.dumps(about).encode(), durable=False)
            for name in os.listdir(place):
                if name.startswith("data-") and name != f"data-{found}":
                    os.unlink(f"{place}/{name}")
            return Known(found, about["name"], _time(about["modified"]))
        finally:
            fetch.close()

    def _asking(self, url: str, *, pinned: bool) -> Callable[[Mapping[str, str]], BaseHTTPResponse]:
        address, login = self._login(url)
        return lambda headers: self._ask(address, login, headers, pinned)

    def _login(self, url: str) -> tuple[str, str]:
        """(the URL without a login, the Authorization for its host or "")."""
        parts = _parts(url)
        host = parts.hostname or ""
        value = ""
        netloc = parts.netloc
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            redact.conceal(unquote(parts.password or ""))
            value = f"Basic {base64.b64encode(pair.encode()).decode()}"
            netloc = netloc.rpartition("@")[2]
        header, token = (self._secrets.get(f"HTTP_AUTH_{kind}_{host}") for kind in ("HEADER", "TOKEN"))
        if token is not None:
            value = f"Bearer {_header(token)}"
        elif header is not None:
            value = _header(header)
        return urlunsplit((parts.scheme, netloc, parts.path, parts.query, "")), value

    def _ask(self, address: str, login: str, headers: Mapping[str, str], pinned: bool) -> BaseHTTPResponse:
        """One answer, redirects followed. Raises TransferError where another try may help, LimpetError."""
        first = _origin(address)
        seen = set()
        for _ in range(MAX_REDIRECTS + 1):
            seen.add(address)
            sent = {"User-Agent": f"limpet/{limpet.__version__}", "Accept-Encoding": "identity", **headers}
            if login and _origin(address) == first:
                sent["Authorization"] = login
            try:
                response = self._transport.send("GET", address, sent)
            except LimpetError as e:
                if "regist" in e.hint:  # the transport's words are for registries
                    e.hint = "check the address, and whether something answers there"
                raise
            target = response.headers.get("Location", "")
            if response.status not in (301, 302, 303, 307, 308) or not target:
                return _checked(response, address)
            finish(response)
            address = _redirected(address, target, pinned)
            if address in seen:
                raise Refused(f"{_shown(address)}: it is redirected to itself, in a circle")
        raise Refused(f"{_shown(address)}: more than {MAX_REDIRECTS} redirects")


class _Fetch:
    """One file on its way into `path`, going on where it was cut off. `headers` are those of the answer."""

    def __init__(
        self, store: Store, ask: Callable[[Mapping[str, str]], BaseHTTPResponse], url: str, progress: Progress
    ) -> None:
        self._ask = ask
        self._url = url
        self._progress = progress
        self._limit = from_environment().max_size
        self._digest = hashlib.sha256()
        self._size = 0
        self.path = store.temporary("download")
        self.headers: Mapping[str, str] = {}
        self._fd = -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass  # it was moved, or never made

    def begin(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        for attempt in range(MAX_TRIES):
            try:
                return self._ask(headers)
            except TransferError as e:
                if attempt == MAX_TRIES - 1:
                    raise
                patiently(attempt, e)
        raise AssertionError("unreachable")

    def all(self, response: BaseHTTPResponse) -> str:
        """Takes the rest; the digest."""
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.headers = response.headers
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 19 else None
        self._progress.begin(self._url, _shown(self._url), total)
        attempt = 0
        while True:
            before = self._size
            try:
                self._take(response)
                self._progress.finish(self._url, "done")
                return self._digest.hexdigest()
            except TransferError as e:
                attempt = 0 if self._size > before else attempt + 1
                if attempt == MAX_TRIES:
                    raise
                patiently(attempt, e)
            response = self._again()

    def _again(self) -> BaseHTTPResponse:
        """From where it ended, if the server can say that it is the same file; else from the beginning."""
        etag = self.headers.get("ETag", "")
        if self._size and etag and not etag.startswith("W/"):
            response = self.begin({"Range": f"bytes={self._size}-", "If-Range": etag})
            if response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {self._size}-"):
                return response
            if response.status == 200:
                self._restart(response)
                return response
            response.close()
        response = self.begin({})
        self._restart(response)
        return response

    def _restart(self, response: BaseHTTPResponse) -> None:
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._digest, self._size, self.headers = hashlib.sha256(), 0, response.headers

    def _take(self, response: BaseHTTPResponse) -> None:
        try:
            for piece in response.stream(_PIECE, decode_content=False):
                self._size += len(piece)
                if self._size > self._limit:
                    raise Invalid(
                        f"{_shown(self._url)}: more than {self._limit} bytes", "LIMPET_MAX_LAYER_SIZE allows more"
                    )
                self._digest.update(piece)
                write_all(self._fd, piece)
                self._progress.advance(self._url, len(piece))
        except HTTPError as e:
            raise explain(e, self._url) from e
        except BaseException:
            response.close()
            raise
        response.release_conn()


def digest_of(checksum: str) -> str:
    """`sha256:<hex>` → hex. Raises Invalid."""
    if not reference.is_sha256(checksum):
        raise Invalid(f"invalid checksum {checksum[:100]}", "write sha256: and 64 hexadecimal digits")
    return checksum[7:].lower()


def name_of(url: str, disposition: str) -> str:
    """The file's name: the last part of the URL's path, or else what Content-Disposition says; "" if nothing does."""
    name = posixpath.basename(posixpath.normpath("/" + unquote(_parts(url).path, errors="surrogateescape")))
    if not name and disposition:
        message = Message()
        message["Content-Disposition"] = "".join(c for c in disposition if c.isprintable())
        name = posixpath.basename((message.get_filename() or "").strip())
    return "" if name in ("", ".", "..") or any(ord(char) < 32 or ord(char) == 127 for char in name) else name


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        fit = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit:
        raise Invalid(f"{redact.clean(url)[:200]!r} is not an address", "write http://HOST/FILE or https://HOST/FILE")
    return parts


def _checked(response: BaseHTTPResponse, address: str) -> BaseHTTPResponse:
    status = response.status
    if status in (200, 206, 304):
        return response
    shown = f"{_shown(address)}: HTTP {status}"
    if status in _RETRIED:
        wait = retry_after(response.headers.get("Retry-After", ""))
        finish(response)
        raise TransferError(shown, "the server has trouble: try again later", wait=wait)
    finish(response)
    if status in (404, 410):
        raise NotFound(f"{shown}: not found", "check the address")
    if status in (401, 403):
        host = urlsplit(address).hostname
        raise Refused(f"{shown}: access denied", f"--secret id=HTTP_AUTH_TOKEN_{host},src=FILE gives a login")
    raise LimpetError(shown, "check the address")


def _redirected(address: str, target: str, pinned: bool) -> str:
    found = urljoin(address, target)
    try:
        parts = _parts(found)
    except Invalid:
        raise Refused(f"{_shown(address)}: it is redirected to what is no address of a file") from None
    if parts.username is not None:
        raise Refused(f"{_shown(address)}: it is redirected to an address with a login in it")
    if parts.scheme == "http" and address.startswith("https:") and not pinned:
        hint = "--checksum=sha256:… makes sure that it is the right file all the same"
        raise Refused(f"{_shown(address)}: it is redirected to {_shown(found)}, without TLS", hint)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, ""))


def _mismatch(url: str, found: str, wanted: str) -> Corrupt:
    message = f"digest mismatch for {_shown(url)}: sha256:{found} (expected: sha256:{wanted})"
    return Corrupt(message, "the file was changed, or the checksum is another file's")


def _intact(place: str, digest: str) -> int | None:
    """A descriptor of what is kept, if it is what it was."""
    try:
        fd = os.open(f"{place}/data-{digest}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == digest:
            os.lseek(fd, 0, os.SEEK_SET)
            return fd
    os.close(fd)
    return None


def _about(place: str) -> dict[str, str]:
    """What is known of the last answer; empty strings for nothing."""
    keys = ("etag", "modified", "digest", "name")
    try:
        with open(f"{place}/about", "rb") as file:
            found = json.load(file)
        about = {key: str(found[key]) for key in keys}
    except (OSError, ValueError, LookupError, TypeError):
        return dict.fromkeys(keys, "")
    return about if re.fullmatch("[0-9a-f]{64}", about["digest"]) else dict.fromkeys(keys, "")


def _time(text: str) -> int | None:
    """Unix seconds of an HTTP date, not before 1970."""
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp()))
    except (ValueError, TypeError, OverflowError):
        return None


def _origin(address: str) -> tuple[str, str, int]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _plain(etag: str) -> str:
    return etag.removeprefix("W/")


def _header(secret: bytes) -> str:
    text = secret.decode("latin-1").strip()
    if any(not char.isprintable() for char in text):
        raise Invalid("a secret HTTP_AUTH_…: it is no value of a header", "one line is wanted")
    redact.conceal(text)
    redact.conceal(text.rpartition(" ")[2])
    return text


def _shown(url: str) -> str:
    return redact.clean(url)[:300]
