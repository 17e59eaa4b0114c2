"""A certificate authority of a test's own, made with openssl; and a proxy that knows where names lead."""

from __future__ import annotations

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest


@dataclass(frozen=True)
class Authority:
    """PEM files: the authority, a server (127.0.0.1, localhost, registry.test), a client, each with its key."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    def server(self, *, client: bool = False) -> ssl.SSLContext:
        """A server's context; with `client` it wants a certificate from its clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.crt", self.directory / "server.key")
        if client:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def trust(self, place: Path, domain: str, *, client: bool = False) -> Path:
        """Writes PLACE/certs.d/DOMAIN."""
        directory = place / "certs.d" / domain
        directory.mkdir(parents=True)
        shutil.copy(self.ca, directory / "ca.crt")
        if client:
            shutil.copy(self.directory / "client.crt", directory / "client.cert")
            shutil.copy(self.directory / "client.key", directory / "client.key")
        return directory


def make(directory: Path) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    directory.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Test authority", "-days", "2")
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        (directory / "extension").write_text(extension)
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extension")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *sign)
    return Authority(directory)


@dataclass
class Proxy:
    """What it was asked: (method, target, Proxy-Authorization). Every name leads to this machine."""

    address: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    login: str = ""


@contextmanager
def proxy(login: str = "") -> Iterator[Proxy]:
    """With `login` it wants this Proxy-Authorization."""
    state = Proxy(login=login)

    class Handler(http.server.BaseHTTPRequestHandler):
        def _take(self, port: int) -> socket.socket | None:
            authorization = self.headers.get("Proxy-Authorization", "")
            state.requests.append((self.command, self.path, authorization))
            if state.login and authorization != state.login:
                self.send_response(407, f"no: {authorization}")
                self.end_headers()
                return None
            return socket.create_connection(("127.0.0.1", port))

        def do_CONNECT(self) -> None:
            upstream = self._take(int(self.path.rpartition(":")[2]))
            if upstream is None:
                return
            self.send_response(200)
            self.end_headers()
            with upstream:
                thread = threading.Thread(target=_copy, args=(upstream, self.connection))
                thread.start()
                _copy(self.connection, upstream)
                thread.join()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            upstream = self._take(parts.port or 80)
            if upstream is None:
                return
            kept = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items() if "Proxy" not in name)
            with upstream:
                head = f"GET {parts.path} HTTP/1.1\r\n{kept}Connection: close\r\n\r\n"
                upstream.sendall(head.encode())
                _copy(upstream, self.connection)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _copy(source: Any, target: Any) -> None:
    try:
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
