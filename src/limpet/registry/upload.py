"""A blob on its way to a registry (OCI distribution spec, "Pushing blobs"), by the cheapest way that works.

HEAD                       it is there already: nothing to do
POST ?mount=&from=         another repository of the registry has it: nothing to send
POST ?digest=              a small one, in one request; a registry that can't opens an upload instead
POST, PUT ?digest=         in one piece
POST, PATCH…, PUT ?digest= in chunks: what is left after a connection broke (GET of the upload says how much the
                           registry has), and everything for a registry that takes no large bodies
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin

from limpet.errors import Corrupt, LimpetError, Refused
from limpet.registry import connection
from limpet.registry.client import pushing, tries
from limpet.registry.connection import MAX_TRIES, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from urllib3.response import BaseHTTPResponse

    from limpet.oci.manifest import Descriptor
    from limpet.registry.client import Registry

SINGLE_POST = 64 << 10
"""Bytes up to which a blob is sent with the first request: a registry that does not take it has cost little."""

CHUNK = 16 << 20
"""Bytes of a chunk, for registries that refuse larger bodies."""

MAX_MOUNTS = 3
_OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Upload:
    """What goes up: `opening(offset)` gives the bytes from there to the end, any number of times.

    `sources` are repositories of the same registry that may have the blob. `advance` gets each number of bytes once,
    however often they are sent. `begun` is where an earlier command's upload of it goes on, if known; `opened` is told
    where this one does.
    """

    descriptor: Descriptor
    opening: Callable[[int], Iterator[bytes]]
    sources: Sequence[str] = ()
    advance: Callable[[int], None] = field(default=lambda count: None)
    begun: str = ""
    opened: Callable[[str], None] = field(default=lambda location: None)


def send(registry: Registry, repository: str, upload: Upload) -> str:
    """Brings the blob there and gives Docker's word for how: "Layer already exists", "Mounted from …", "Pushed".

    Raises Refused, Corrupt (the registry got other bytes than the digest says), TransferError after tries that
    brought nothing.
    """
    return _Sending(registry, repository, upload).run()


class _Lost(Exception):
    """The registry knows nothing of the upload any more, or of other bytes: it must begin again."""


class _Sending:
    def __init__(self, registry: Registry, repository: str, upload: Upload) -> None:
        self._registry = registry
        self._repository = repository
        self._upload = upload
        self._digest, self._size = upload.descriptor.digest, upload.descriptor.size
        self._location = ""
        self._told = 0  # bytes that `advance` was told of
        self._chunk = 0  # bytes of a chunk; 0: all in one
        self._resumed = False

    def run(self) -> str:
        if self._registry.has_blob(self._repository, self._digest) is not None:
            return "Layer already exists"
        self._location = self._upload.begun
        for source in list(self._upload.sources)[:MAX_MOUNTS] if not self._location else ():
            if self._mount(source):
                return f"Mounted from {source}"
            if self._location:
                break
        failures, restarts = 0, 0
        while True:
            sent = self._told
            try:
                if not self._location:
                    self._resumed = False
                    if self._begin():
                        return "Pushed"
                    self._whole()
                else:
                    self._rest()
                return "Pushed"
            except _Lost as e:
                self._location = ""
                restarts += 1
                if restarts == MAX_TRIES:
                    raise Refused(f"{self._registry.domain}: {self._digest}: {e}", "try again later") from None
            except TransferError as e:
                failures = 0 if self._told > sent else failures + 1
                if failures == MAX_TRIES:
                    raise
                if failures >= 2 and not self._chunk:
                    self._chunk = CHUNK  # something between here and there may not like large bodies
                if failures >= 2 and self._location == self._upload.begun:
                    self._location = ""  # what an earlier command knew may lead nowhere by now
                connection.patiently(max(0, failures - 1), e)
                if self._location and self._registry.has_blob(self._repository, self._digest) is not None:
                    return "Pushed"  # only the answer was lost

    def _mount(self, source: str) -> bool:
        """True if the registry took it from another repository; else there may be an upload to go on with."""
        query = urlencode({"mount": self._digest, "from": source})
        scope = f"{pushing(self._repository)} repository:{source}:pull"
        try:
            response = tries(lambda: self._post(query, scope=scope))
        except LimpetError:
            return False  # no access to that repository, say: there is another way
        if response.status == 202:
            self._enter(response)
        connection.finish(response)
        return response.status == 201

    def _begin(self) -> bool:
        """Opens an upload. True if the blob went with it."""
        registry = self._registry
        if self._size <= SINGLE_POST and registry.single_post is not False:
            body = b"".join(self._upload.opening(0))
            response = self._post(urlencode({"digest": self._digest}), body=body, headers=_OCTETS)
            registry.single_post = response.status == 201
            if response.status == 201:
                self._tell(self._size)
                connection.finish(response)
                return True
        else:
            response = self._post("")
        if response.status != 202:
            raise registry.refusal(response, self._repository, self._digest, "push")
        self._enter(response)
        connection.finish(response)
        return False

    def _post(
        self, query: str, *, scope: str = "", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> BaseHTTPResponse:
        path = f"/v2/{self._repository}/blobs/uploads/{'?' if query else ''}{query}"
        # An explicit length of nothing: some registries and proxies want one with every POST.
        return self._registry.connection.request(
            "POST", path, scope=scope or pushing(self._repository), headers=headers, body=body or b""
        )

    def _whole(self) -> None:
        if self._chunk:
            self._chunks(0)
        else:
            self._put(0)

    def _rest(self) -> None:
        """After a break: what the registry does not have yet."""
        try:
            response = self._registry.connection.request("GET", self._location, scope=pushing(self._repository))
        except TransferError:
            raise
        except LimpetError as e:
            raise _Lost(e.message) from None
        if response.status not in (200, 202, 204):
            connection.finish(response)
            raise _Lost(f"the upload is gone (HTTP {response.status})")
        position = _position(response.headers.get("Range", ""))
        self._enter(response)
        connection.finish(response)
        if not 0 <= position <= self._size:
            raise _Lost("the registry says that it has other bytes")
        self._resumed = True  # what was on its way when the line broke may still be added
        if position == 0 and not self._chunk:
            self._put(0)
        else:
            self._chunks(position)

    def _chunks(self, position: int) -> None:
        while position < self._size:
            end = min(self._size, position + self._chunk) if self._chunk else self._size
            headers = {**_OCTETS, "Content-Range": f"{position}-{end - 1}"}
            response = self._body("PATCH", self._location, position, end, headers)
            if response.status != 202:
                self._fail(response, end - position)
            received = _position(response.headers.get("Range", f"0-{end - 1}"))
            self._enter(response)
            connection.finish(response)
            if not position < received <= self._size:
                raise _Lost("the registry says that it has other bytes")
            position = received
        self._put(position)

    def _put(self, position: int) -> None:
        """The last request, with all bytes from `position` on."""
        separator = "&" if "?" in self._location else "?"
        address = f"{self._location}{separator}digest={quote(self._digest, safe='')}"
        headers = dict(_OCTETS)
        response = self._body("PUT", address, position, self._size, headers)
        if response.status not in (201, 204):
            self._fail(response, self._size - position)
        connection.finish(response)

    def _body(self, method: str, address: str, begin: int, end: int, headers: dict[str, str]) -> BaseHTTPResponse:
        headers["Content-Length"] = str(end - begin)
        scope, pieces = pushing(self._repository), self._pieces(begin, end)
        try:
            body = pieces if end > begin else b""
            return self._registry.connection.request(method, address, scope=scope, headers=headers, body=body)
        finally:
            pieces.close()  # it may read from a connection of its own, which an error would keep open

    def _pieces(self, begin: int, end: int) -> Generator[bytes, None, None]:
        position = begin
        pieces = self._upload.opening(begin)
        for piece in pieces if self._registry.rate is None else self._registry.rate.limited(pieces):
            part = piece[: end - position]
            if part:
                yield part
            position += len(part)
            self._tell(position)
            if position == end:
                return
        raise Corrupt(f"{self._digest}: ends after {position} of {self._size} bytes")

    def _fail(self, response: BaseHTTPResponse, sent: int) -> None:
        """Raises what a refused body means."""
        status, said = response.status, ""
        if status in (400, 404, 413, 416):
            said = connection.words(response)
        if status == 401:  # a body that streams can't be sent again by the connection; a new request asks for a token
            connection.finish(response)
            raise TransferError(f"{self._registry.domain}: the login ended during the upload")
        if status == 413 and (not self._chunk or self._chunk > 1 << 20) and sent > 1 << 20:
            self._chunk = CHUNK if not self._chunk else self._chunk // 4
            raise _Lost(said)
        if status in (404, 416) or (status == 400 and self._resumed):
            raise _Lost(said)
        if status == 400 and "DIGEST_INVALID" in said:
            raise Corrupt(
                f"{self._registry.domain}: got other bytes than {self._digest}: {said}",
                "`limpet system check` reads what is in the store",
            )
        if said:
            raise Refused(f"{self._registry.domain}/{self._repository}: {said}")
        raise self._registry.refusal(response, self._repository, self._digest, "push")

    def _tell(self, position: int) -> None:
        if position > self._told:
            self._upload.advance(position - self._told)
            self._told = position

    def _enter(self, response: BaseHTTPResponse) -> None:
        """Where the upload goes on; each answer may give another address."""
        location = response.headers.get("Location", "")
        if location:
            self._location = urljoin(
                urljoin(self._registry.connection.base_of(self._repository), self._location), location
            )
            self._upload.opened(self._location)
        elif not self._location:
            raise LimpetError(f"{self._registry.domain}: opens an upload without saying where")
        minimum = response.headers.get("OCI-Chunk-Min-Length", "")
        if self._chunk and minimum.isdecimal():
            self._chunk = max(self._chunk, min(int(minimum), 1 << 30))


def _position(header: str) -> int:
    """How many bytes a registry has, by its `Range: 0-LAST`; -1 for what is none.

    A registry that has nothing says `0-0` (distribution) or nothing; one that has one byte says `0-0` too: the byte is
    sent again, and the digest tells.
    """
    first, dash, last = header.strip().removeprefix("bytes=").partition("-")
    if not header:
        return 0
    if first != "0" or not dash or not last.isdecimal():
        return -1
    return int(last) + 1 if int(last) else 0
