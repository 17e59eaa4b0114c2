"""Files as responses: sendfile, one range, entity tags (RFC 9110 sections 8.8, 13 and 14)."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from aiohttp.web import Response, StreamResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.web import BaseRequest


class _File(StreamResponse):
    """Sends `count` bytes from `offset` of an open file, which it closes."""

    def __init__(self, fd: int, offset: int, count: int, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self.content_length = count
        self._file = open(fd, "rb", buffering=0)
        self._offset, self._count = offset, count

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        try:
            writer = await super().prepare(request)
            if self._count and request.method != "HEAD":
                transport = request.transport
                if transport is None:
                    raise ConnectionResetError("the client went away")
                await asyncio.get_running_loop().sendfile(transport, self._file, self._offset, self._count)
            await self.write_eof()
            self._body_length = self._count  # what went past aiohttp's writer counts in the log too
            return writer
        finally:
            self._file.close()


def send(request: BaseRequest, fd: int, tag: str, headers: Mapping[str, str]) -> StreamResponse:
    """The response to GET or HEAD for an open file, which is closed with it. `tag`: the strong entity tag, unquoted.

    416 also where the first byte of a range comes after its last one, as the conformance suite wants it.
    """
    size = os.fstat(fd).st_size
    headers = {**headers, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
    if matches(request.headers.get("If-None-Match", ""), tag):
        os.close(fd)
        return Response(status=304, headers=headers)
    wanted = request.headers.get("Range", "")
    if wanted and request.method == "GET" and request.headers.get("If-Range", f'"{tag}"') == f'"{tag}"':
        found = parse_range(wanted, size)
        if found is not None:
            first, last = found
            if last < first:
                os.close(fd)
                return Response(status=416, headers={**headers, "Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            return _File(fd, first, last - first + 1, 206, headers)
    return _File(fd, 0, size, 200, headers)


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """(first, last) byte, the last before the first if no byte is in the file; None for what is no range that we know.

    Several ranges are no range that we know: the whole is sent, which section 14.2 allows.
    """
    unit, _, spec = text.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not all(_number(one) for one in (first, last)):
        return None
    if not first:
        if not last:
            return None
        count = min(int(last), size)
        return size - count, size - 1
    begin = int(first)
    end = min(int(last), size - 1) if last else size - 1
    return begin, end


def _number(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) < 20)


def matches(header: str, tag: str) -> bool:
    """Whether If-None-Match (or If-Match) names this entity tag, or any."""
    if not header:
        return False
    return header.strip() == "*" or any(one.strip().removeprefix("W/").strip('"') == tag for one in header.split(","))
