"""A proxy on loopback that stands before a real registry and breaks things, by a seed: the same seed, the same faults.

What it may do to a request: see `KINDS`. `Faults.plan` decides; `share` of the requests are hit.
"""

from __future__ import annotations

import http.client
import http.server
import random
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = (
    "drop",  # the connection ends before anything is done
    "reset",  # the same, with a TCP reset in the middle of the request's body
    "lost answer",  # the registry does it, and nobody is told
    "cut",  # the answer's body ends early
    "cut request",  # the request's body does not arrive whole, and the connection ends
    "corrupt",  # one bit of the answer's body is another
    "corrupt request",  # one bit of the request's body is another
    "delay",  # a pause in the middle of the answer
    "no range",  # the Range of the request is lost: all of it comes
    "wrong range",  # another Content-Range than the bytes have
    "wrong length",  # more bytes are announced than come
    "twice",  # the request arrives twice
    "401",
    "404",
    "429",
    "500",
    "503",
)


@dataclass
class Faults:
    """`seen` has what was done, for the report of a test that fails."""

    share: float = 0.0
    random: random.Random = field(default_factory=lambda: random.Random(0))
    kinds: tuple[str, ...] = KINDS
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, what: str) -> tuple[str, float]:
        """(kind or "", a number from 0 to 1 for where it happens)."""
        with self.lock:
            if self.random.random() >= self.share:
                return "", 0.0
            kind, where = self.random.choice(self.kinds), self.random.random()
            self.seen.append(f"{kind}: {what}")
            return kind, where

    def begin(self, seed: int, share: float) -> None:
        with self.lock:
            self.random, self.share = random.Random(seed), share
            self.seen.clear()

    def end(self) -> None:
        with self.lock:
            self.share = 0.0


@contextmanager
def proxy(domain: str) -> Iterator[tuple[str, Faults]]:
    """(the proxy's domain, its faults: none at first) before the registry `domain`."""
    faults = Faults()

    class Handler(_Handler):
        behind = domain
        plan = faults.plan

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what this is for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind = ""
    timeout = 20
    disable_nagle_algorithm = True

    @staticmethod
    def plan(what: str) -> tuple[str, float]:
        raise NotImplementedError

    def _do(self) -> None:
        kind, where = self.plan(f"{self.command} {self.path[:120]}")
        length = int(self.headers.get("Content-Length", "0"))
        if kind == "drop":
            self.close_connection = True
            return
        if kind == "reset":
            self.rfile.read(int(length * where))
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if kind in ("401", "404", "429", "500", "503"):
            self._answer(
                int(kind), {"Retry-After": "0"}, b'{"errors": [{"code": "FAULT", "message": "made for a test"}]}'
            )
            return
        headers = dict(self.headers.items())
        if kind == "no range":
            headers.pop("Range", None)
        if kind == "corrupt request" and body:
            body = _flipped(body, where)
        if kind == "cut request" and body:
            self._half(headers, body[: int(len(body) * where)])
            self.close_connection = True
            return
        for _ in range(2 if kind == "twice" else 1):
            status, answer_headers, data = self._forward(headers, body)
        if kind == "lost answer":
            self.close_connection = True
            return
        if kind == "corrupt" and data:
            data = _flipped(data, where)
        if kind == "wrong range" and "content-range" in answer_headers:
            answer_headers["content-range"] = f"bytes {int(where * 1000)}-{int(where * 1000) + len(data)}/*"
        self._answer(status, answer_headers, data, kind, where)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _do

    def _forward(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.behind, timeout=20)
        try:
            connection.request(self.command, self.path, body=body, headers=headers)
            response = connection.getresponse()
            data = response.read()
            kept = {name.lower(): value for name, value in response.headers.items()}
        finally:
            connection.close()
        for name in ("connection", "transfer-encoding", "date", "server"):
            kept.pop(name, None)
        return response.status, kept, data

    def _half(self, headers: dict[str, str], body: bytes) -> None:
        """The beginning of a body, announced as the whole."""
        connection = http.client.HTTPConnection(self.behind, timeout=20)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(body)
        except OSError:
            pass
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes, kind: str = "", where: float = 0.0) -> None:
        self.send_response(status)
        length = int(headers.pop("content-length", len(data))) if self.command == "HEAD" else len(data)
        headers.pop("content-length", None)
        if kind == "wrong length":
            length += 1 + int(where * 5000)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        middle = int(len(data) * where)
        self.wfile.write(data[:middle])
        if kind in ("cut", "wrong length"):
            self.close_connection = True
            if kind == "cut":
                return
        if kind == "delay":
            self.wfile.flush()
            time.sleep(0.05 * where)
        self.wfile.write(data[middle:])

    def log_message(self, *args: object) -> None:
        pass


def _flipped(data: bytes, where: float) -> bytes:
    changed = bytearray(data)
    changed[int(len(data) * where)] ^= 0x10
    return bytes(changed)
