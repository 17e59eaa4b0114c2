"""An HTTP server on loopback with files in memory, that remembers what it was asked."""

from __future__ import annotations

import hashlib
import http.server
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


@dataclass
class File:
    """`status`, and headers besides ETag and Last-Modified; `cut`: bytes after which the first answer ends."""

    data: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: bool = True
    modified: str = ""
    cut: int = 0


@dataclass
class Web:
    """`asked`: (method, path, status), in order; `sent`: the headers of each request."""

    base: str
    files: dict[str, File] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    sent: list[dict[str, str]] = field(default_factory=list)

    def put(self, path: str, data: bytes | str, **options: object) -> str:
        """Its address."""
        content = data.encode() if isinstance(data, str) else data
        self.files[path] = File(content, **options)  # type: ignore[arg-type]
        return f"{self.base}{path}"

    def statuses(self) -> list[int]:
        """Those since the last call."""
        found = [status for _, _, status in self.asked]
        self.asked.clear()
        return found


@contextmanager
def web(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = served.files.get(self.path)
            served.sent.append(dict(self.headers.items()))
            if found is None:
                self._answer(404, b"no such file", {})
                return
            headers = dict(found.headers)
            if found.etag:
                headers["ETag"] = f'"{hashlib.sha256(found.data).hexdigest()[:16]}"'
            if found.modified:
                headers["Last-Modified"] = found.modified
            asked = self.headers.get("If-None-Match") if found.etag else self.headers.get("If-Modified-Since")
            if asked and asked == headers.get("ETag" if found.etag else "Last-Modified"):
                self._answer(304, b"", headers)
            elif self.headers.get("Range") and self.headers.get("If-Range") == headers.get("ETag"):
                begin = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
                size = len(found.data)
                self._answer(206, found.data[begin:], {**headers, "Content-Range": f"bytes {begin}-{size - 1}/{size}"})
            else:
                cut, found.cut = found.cut, 0
                self._answer(found.status, found.data, headers, cut)

        def _answer(self, status: int, data: bytes, headers: dict[str, str], cut: int = 0) -> None:
            served.asked.append((self.command, self.path, status))
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: cut or None])
            if cut:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((host, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    served = Web(f"{'https' if tls is not None else 'http'}://{host}:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
