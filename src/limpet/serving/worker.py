"""One worker process: an event loop with aiohttp's low-level server on a socket, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import signal
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING, Any

from aiohttp.abc import AbstractAccessLogger
from aiohttp.web import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from aiohttp.web import BaseRequest, RequestHandler, StreamResponse

    from limpet.serving.limits import Limits

    Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]
    Done = Callable[[BaseRequest, StreamResponse, float], None]

TCP_USER_TIMEOUT = 18
READ = 1 << 18
_UNSENT = 1 << 17
"""Bytes that wait for the network in the kernel, beside those under way, which a long line needs more of. Megabytes of
a file that `sendfile` queues at once are out of the processor's caches again when their turn comes: that costs clients
on the same machine twice the time."""

_MOTIONLESS = 5.0
"""Seconds in which a client does nothing, after which a server that stops no longer waits for it."""


async def serve(
    handler: Handler,
    listener: socket.socket,
    *,
    limits: Limits,
    stop: asyncio.Event,
    done: Done | None = None,
    context: ssl.SSLContext | None = None,
) -> None:
    """Answers on `listener` until `stop` is set; then lets requests end, for at most `limits.grace` seconds, and for
    a few where a client takes and sends nothing any more.

    `handler` turns a request into a response and raises nothing. `done` is called after each response with the
    seconds that it took.
    """
    logger = logging.getLogger("limpet.serving")
    logger.addHandler(_Stderr())
    logger.propagate = False

    async def noted(request: BaseRequest) -> StreamResponse:
        server.requests[request.protocol] = request
        return await handler(request)

    server = _Server(
        noted,
        limits.per_client,
        keepalive_timeout=limits.idle,
        lingering_time=5,
        read_bufsize=READ,
        auto_decompress=False,  # a blob is the bytes that were sent, whatever they claim to be
        max_line_size=16384,
        max_field_size=16384,
        logger=logger,
        access_log=logger if done is not None else None,
        access_log_class=_logger_class(done),
    )

    def connection() -> asyncio.Protocol:
        if len(server.connections) >= limits.connections:
            return _Full()
        return server()

    loop = asyncio.get_running_loop()
    if listener.family != socket.AF_UNIX:
        # Inherited by each connection: one that takes nothing for so long, though it has been sent something, is cut.
        listener.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, int(limits.silence * 1000))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    make = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
    listening = await make(connection, sock=listener, backlog=1024, ssl=context)
    await stop.wait()
    listening.close()
    server.pre_shutdown()
    watching = asyncio.create_task(server.hang_up(limits.grace))
    await server.shutdown(limits.grace)
    watching.cancel()


def run(main: Callable[[asyncio.Event], Awaitable[None]], parent: int | None = None) -> None:
    """Runs `main` in an event loop; SIGTERM and SIGINT set its event, and so does the end of the pipe `parent`."""

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if parent is not None:

            def gone() -> None:
                loop.remove_reader(parent)
                stop.set()

            loop.add_reader(parent, gone)
        await main(stop)

    asyncio.run(guarded())


class _Server(Server):
    """Counts the connections of each address, and cuts what is too many."""

    def __init__(self, handler: Handler, per_client: int, **options: Any) -> None:
        super().__init__(handler, **options)
        self.requests: dict[RequestHandler, BaseRequest] = {}
        """The last one of each connection."""
        self._per_client = per_client
        self._counts: dict[str, int] = {}
        self._addresses: dict[RequestHandler, str] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        peer = transport.get_extra_info("peername")
        if not isinstance(peer, tuple) or ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback:
            return
        self._addresses[handler] = peer[0]
        self._counts[peer[0]] = self._counts.get(peer[0], 0) + 1
        if self._counts[peer[0]] > self._per_client:
            transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.requests.pop(handler, None)
        address = self._addresses.pop(handler, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

    async def hang_up(self, grace: float) -> None:
        """Ends the connections of clients that are waited for in vain: after `grace` seconds all of them."""
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        seen: dict[RequestHandler, tuple[tuple[int, int], float]] = {}
        while True:
            now = loop.time()
            for handler in self.connections:
                request = self.requests.get(handler)
                connection = handler.transport.get_extra_info("socket") if handler.transport is not None else None
                if request is None or connection is None:
                    continue
                moved, waits = _progress(connection)
                last = seen.get(handler)
                if last is None or last[0] != moved or not (waits or not request.content.is_eof()):
                    last = seen[handler] = (moved, now)
                if now >= min(end, last[1] + _MOTIONLESS):
                    # Not closed: what waits for this socket, sendfile say, must see the end of it.
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
            await asyncio.sleep(0.5)


def _progress(connection: socket.socket) -> tuple[tuple[int, int], bool]:
    """Bytes that a TCP client has acknowledged and sent so far, and whether some are left for it to acknowledge.

    `struct tcp_info` of linux/tcp.h: tcpi_bytes_acked and tcpi_bytes_received, at 120. A unix socket tells nothing.
    """
    if connection.family == socket.AF_UNIX:
        return (0, 0), False
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
        waiting = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    except OSError:
        return (0, 0), False
    acknowledged, received = struct.unpack_from("QQ", info, 120)
    return (acknowledged, received), waiting > 0


class _Full(asyncio.Protocol):
    """What a connection above the limit gets: an answer to what it asks, which it could not read after a reset."""

    _PATIENCE = 5.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(self._PATIENCE, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()


def _logger_class(done: Done | None) -> type[AbstractAccessLogger]:
    class Logger(AbstractAccessLogger):
        def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
            if done is not None:
                done(request, response, time)

    return Logger


class _Stderr(logging.Handler):
    """What aiohttp has to say, on one line each: the last line of a traceback is what it is about."""

    def emit(self, record: logging.LogRecord) -> None:
        said: Any = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() + (f": {type(said).__name__}: {said}" if said is not None else "")
        if record.levelno >= logging.WARNING:
            print(f"limpet[{os.getpid()}]:", text.replace("\n", " "), file=sys.stderr, flush=True)
