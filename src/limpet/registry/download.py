"""A blob on its way here: goes on where it broke, in parallel ranges where that helps, and no lie is believed.

One connection is the rule: on most links it is as fast as several. If after a moment the reader mostly waits for the
network, much is left, and the server takes ranges, a second connection is tried from a point further on, while the
first one goes on to that point. Where both together are no faster, the second one stays alone, and nothing was lost;
else several connections fetch a few MiB each ahead of the reader; what is ahead is bounded.

The bytes are not hashed here, but their count is held against the descriptor and against what the server announced.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from limpet.errors import Corrupt, LimpetError
from limpet.registry import connection
from limpet.registry.connection import MAX_TRIES, TransferError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from urllib3.response import BaseHTTPResponse

    from limpet.oci.manifest import Descriptor
    from limpet.registry.client import Registry

PIECE = 1 << 20
SMALL = 1 << 18  # where it is soon to be known how much has come

PATIENCE = 1.0
"""Seconds of one connection until a second one is tried."""

TRIAL = 12 << 20
"""Bytes that the first connection fetches meanwhile."""

GAIN = 1.3
"""How much faster both together must be."""

WORTH = 32 << 20
"""Bytes that must be left for more connections to be worth their while."""

SLOW = 6_000_000
"""Bytes a second below which one connection is thought to be held back by more than the link."""

WORKERS = 4
SEGMENT = 2 << 20
WINDOW = 8
"""Segments that may be ahead of the reader: 16 MiB a layer."""


THREAD = "limpet range"


class _NoRanges(Exception):
    """The server gave the whole blob where a part was asked for."""


def blob(registry: Registry, repository: str, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
    """See `client.Registry.blob`."""
    fetch = _Fetch(registry, repository, descriptor)
    position, failures, parallel = offset, 0, True
    while position < descriptor.size:
        try:
            for piece in fetch.single(position, parallel):
                position += len(piece)
                failures = 0
                if position > descriptor.size:
                    raise Corrupt(f"{descriptor.digest}: longer than the {descriptor.size} bytes that were announced")
                yield piece
            if position < descriptor.size and fetch.gains and parallel:
                for piece in _Segments(fetch, position).pieces():
                    position += len(piece)
                    yield piece
            if position < descriptor.size:
                raise TransferError(f"{registry.domain}: {descriptor.digest} ends after {position} bytes")
        except _NoRanges:
            parallel = False
        except TransferError as e:
            failures += 1
            if failures == MAX_TRIES:
                raise
            connection.patiently(failures - 1, e)


class _Fetch:
    """Requests for parts of one blob."""

    def __init__(self, registry: Registry, repository: str, descriptor: Descriptor) -> None:
        self._registry = registry
        self._repository = repository
        self._rate = registry.rate
        self.descriptor = descriptor
        self.gains = False
        """Two connections were faster than one."""

    def single(self, position: int, may_stop: bool) -> Iterator[bytes]:
        """From `position` to the end, or until a trial `gains`, if it `may_stop` for one."""
        response, skip = self._open(position, self.descriptor.size, exact=False)
        ranges = response.status == 206 or response.headers.get("Accept-Ranges", "").lower() == "bytes"
        may_stop = may_stop and ranges and self._rate is None
        began, waited, here = time.monotonic(), 0.0, position
        settled = (position, began, 0.0)
        pieces = self._body(response)
        for piece in pieces:
            if skip >= len(piece):
                skip -= len(piece)
                continue
            arrived = time.monotonic()
            part = piece[skip:] if skip else piece
            skip = 0
            here += len(part)
            yield part
            left = time.monotonic()
            waited += left - arrived  # for the reader, not for the network
            if settled[0] == position and left - began > PATIENCE / 2:
                settled = (here, left, waited)  # past TCP's slow start
            if may_stop and left - began > PATIENCE and self.descriptor.size - here > WORTH:
                may_stop = False
                if waited < 0.4 * (left - began) and here - position < SLOW * (left - began):
                    network = (left - waited) - (settled[1] - settled[2])
                    yield from self._trial(pieces, here, (here - settled[0]) / network if network > 0 else 0.0)
                    return

    def _trial(self, pieces: Generator[bytes], here: int, rate: float) -> Iterator[bytes]:
        """`pieces` as far as TRIAL, with a second connection beside it from there; `rate`: bytes a second until now."""
        end = here + TRIAL
        ahead = _Ahead(self, end)
        try:
            measured, came, start = 0.0, 0, time.monotonic()  # seconds of network, bytes by both
            while here < end:
                began, had = time.monotonic(), ahead.received
                piece = next(pieces, b"")
                if not piece:
                    return  # `blob` says what is wrong
                if began - start > PATIENCE / 3:  # the second one is under way
                    measured += time.monotonic() - began
                    came += len(piece) + ahead.received - had
                yield piece[: end - here]
                here += len(piece)
            pieces.close()
            self.gains = rate > 0 and measured > 0 and came / measured > GAIN * rate
            yield from ahead.pieces(all=not self.gains)
        finally:
            ahead.close()

    def part(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from `begin` to before `end`, perhaps fewer. Raises _NoRanges."""
        response, skip = self._open(begin, end, exact=True)
        if skip or response.status == 200:
            response.close()
            raise _NoRanges
        yield from self._body(response)

    def rest(self, begin: int) -> Iterator[bytes]:
        """The bytes from `begin` on, perhaps fewer. Raises _NoRanges."""
        response, skip = self._open(begin, self.descriptor.size, exact=False)
        if skip:
            response.close()
            raise _NoRanges
        yield from self._body(response, SMALL)

    def _open(self, begin: int, end: int, *, exact: bool) -> tuple[BaseHTTPResponse, int]:
        """The response, and how many of its bytes come before `begin`."""
        size, registry = self.descriptor.size, self._registry
        headers = None
        if begin or exact:
            headers = {"Range": f"bytes={begin}-{end - 1 if exact else ''}"}
        path = f"/v2/{self._repository}/blobs/{self.descriptor.digest}"
        response = registry.connection.request(
            "GET", path, scope=f"repository:{self._repository}:pull", headers=headers
        )
        if response.status not in (200, 206):
            raise registry.refusal(response, self._repository, self.descriptor.digest)
        if response.status == 206 and headers is None:
            raise self._lie(response, "sent a part of a blob where all of it was asked for")
        length = response.headers.get("Content-Length", "")
        if response.status == 206:
            expected = _range_length(response.headers.get("Content-Range", ""), begin, end, size)
            if not expected or (length.isdecimal() and int(length) != expected):
                raise self._lie(response, "answered with another range than was asked for")
        elif length.isdecimal() and int(length) != size:
            response.close()
            word = "longer" if int(length) > size else "shorter"
            raise Corrupt(
                f"{self.descriptor.digest}: {registry.domain} has {length} bytes of it,"
                f" {word} than the {size} bytes that were announced"
            )
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        # A store that keeps a gzip layer with this header sends the blob's own bytes; their number shows it.
        if encoding not in ("", "identity") and not (response.status == 206 or length.isdecimal()):
            raise self._lie(response, f"sent a blob with the content encoding {encoding[:40]!r}")
        return response, begin if response.status == 200 else 0

    def _lie(self, response: BaseHTTPResponse, what: str) -> LimpetError:
        response.close()
        return LimpetError(f"{self._registry.domain}: {what}", "a proxy in between may be the cause")

    def _body(self, response: BaseHTTPResponse, size: int = 0) -> Generator[bytes]:
        try:
            step = size or PIECE
            if self._rate is not None:
                step = self._rate.piece(step)
            for piece in response.stream(step, decode_content=False):
                if self._rate is not None:
                    self._rate.take(len(piece))
                yield piece
        except HTTPError as e:
            raise connection.explain(e, self._registry.connection.base) from e
        finally:
            if not response.closed:
                response.close()  # the reader gave up half-way: this connection is of no more use
            response.release_conn()


class _Ahead:
    """One connection that reads from `begin` to the end into a queue of at most TRIAL bytes."""

    def __init__(self, fetch: _Fetch, begin: int) -> None:
        self._fetch = fetch
        self._begin = begin
        self.received = 0
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        threading.Thread(target=self._work, name=THREAD, daemon=True).start()

    def pieces(self, *, all: bool) -> Iterator[bytes]:
        """To the end, or only what is here. Raises what the connection raised, after what came before."""
        while True:
            with self._changed:
                while all and not self._queue and not self._ended:
                    self._changed.wait()
                if not self._queue:
                    if self._error is not None and all:
                        raise self._error
                    return
                piece = self._queue.popleft()
                self._queued -= len(piece)
                self._changed.notify_all()
            yield piece

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            for piece in self._fetch.rest(self._begin):
                with self._changed:
                    while self._queued > TRIAL and not self._stopped:
                        self._changed.wait()
                    if self._stopped:
                        return
                    self._queue.append(piece)
                    self._queued += len(piece)
                    self.received += len(piece)
                    self._changed.notify_all()
        except BaseException as e:
            self._error = e
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


class _Segments:
    """The rest of a blob by several connections, given out in order."""

    def __init__(self, fetch: _Fetch, position: int) -> None:
        self._fetch = fetch
        size = fetch.descriptor.size
        self._bounds = [(begin, min(begin + SEGMENT, size)) for begin in range(position, size, SEGMENT)]
        self._changed = threading.Condition()
        self._taken = self._given = 0
        self._here: dict[int, list[bytes]] = {}
        self._error: BaseException | None = None
        self._stopped = False

    def pieces(self) -> Iterator[bytes]:
        """Raises what a worker raised, at once; what was given out until then is right."""
        threads = [threading.Thread(target=self._work, name=THREAD, daemon=True) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        try:
            while self._given < len(self._bounds):
                with self._changed:
                    while self._given not in self._here and self._error is None:
                        self._changed.wait()
                    if self._given not in self._here:
                        assert self._error is not None
                        raise self._error
                    segment = self._here.pop(self._given)
                    self._given += 1
                    self._changed.notify_all()
                yield from segment
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._taken >= self._given + WINDOW and not self._stopped:
                    self._changed.wait()
                if self._stopped or self._error is not None or self._taken == len(self._bounds):
                    return
                number = self._taken
                self._taken += 1
            try:
                segment = self._segment(*self._bounds[number])
            except BaseException as e:
                with self._changed:
                    self._error = self._error or e
                    self._changed.notify_all()
                return
            with self._changed:
                self._here[number] = segment
                self._changed.notify_all()

    def _segment(self, begin: int, end: int) -> list[bytes]:
        found: list[bytes] = []
        failures = 0
        while begin < end and not self._stopped:
            try:
                for piece in self._fetch.part(begin, end):
                    begin += len(piece)
                    failures = 0
                    if begin > end:
                        raise Corrupt(f"{self._fetch.descriptor.digest}: a range came longer than it was announced")
                    found.append(piece)
                if begin < end and not found:
                    raise TransferError(f"{self._fetch.descriptor.digest}: a range came without bytes")
            except TransferError as e:
                failures += 1
                if failures == MAX_TRIES:
                    raise
                connection.patiently(failures - 1, e)
        return found


def _range_length(header: str, begin: int, end: int, size: int) -> int:
    """The bytes of `Content-Range: bytes BEGIN-LAST/SIZE`; 0 if that isn't (a beginning of) what was asked for."""
    unit, _, rest = header.strip().partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    if unit != "bytes" or not (first.isdecimal() and last.isdecimal()) or total.strip() not in ("*", str(size)):
        return 0
    if int(first) != begin or not begin <= int(last) < end:
        return 0
    return int(last) + 1 - begin
