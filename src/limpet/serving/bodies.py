"""Bodies of requests in big pieces, with a limit on silence and on size."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.web import BaseRequest

PIECE = 1 << 19


class BodyError(Exception):
    """The client went away, fell silent, or its body has not the form that it said."""


class TooLarge(Exception):
    """More bytes than allowed."""


async def pieces(request: BaseRequest, silence: float) -> AsyncIterator[list[bytes]]:
    """The body, each time what has come since, up to about 512 KiB. Raises BodyError after all that came before it."""
    await proceed(request)
    gathered: list[bytes] = []
    size = 0
    content = request.content
    error = None
    while True:
        piece = b""
        try:
            async with asyncio.timeout(silence):
                piece = await content.readany()
        except TimeoutError:
            error = BodyError(f"no byte of the body came for {silence:g} seconds")
        except (OSError, HttpProcessingError, HTTPException) as e:
            error = BodyError(f"the body broke off: {e or type(e).__name__}")
        if piece:
            gathered.append(piece)
            size += len(piece)
        if size >= PIECE or (not piece and gathered):
            yield gathered
            gathered, size = [], 0
        if error is not None:
            raise error
        if not piece:
            return


async def whole(request: BaseRequest, most: int, silence: float, seconds: float = 0) -> bytes:
    """All of a body of at most `most` bytes, within `seconds` (0: however long it takes).

    Raises TooLarge before it reads what is announced as more, BodyError.
    """
    deadline = time.monotonic() + seconds if seconds else 0.0
    if (request.content_length or 0) > most:
        raise TooLarge
    found = bytearray()
    async for gathered in pieces(request, silence):
        for piece in gathered:
            found += piece
        if len(found) > most:
            raise TooLarge
        if deadline and time.monotonic() > deadline:
            raise BodyError(f"the body took longer than {seconds:g} seconds")
    return bytes(found)


async def proceed(request: BaseRequest) -> None:
    """Tells a client that asked (`Expect: 100-continue`) to send its body: after the head was judged, not before."""
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the response itself has not begun
