"""A real registry (Debian's docker-registry on a free loopback port), images to put there, and one that misbehaves."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import http.server
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from limpet.oci import media

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

USER, PASSWORD = "user", "secret:word"
_HTPASSWD = "user:$2b$05$abcdefghijklmnopqrstuuCFAENiKBlCyBuDPzJAoyIPDH7szvmzC\n"


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def compressed(tar: bytes) -> bytes:
    return gzip.compress(tar, 6, mtime=0)


@dataclass
class Image:
    """The documents of one image; `blobs` by digest."""

    config: bytes
    manifest: bytes
    layers: list[bytes]
    blobs: dict[str, bytes]
    media_type: str = media.OCI_MANIFEST

    @property
    def id(self) -> str:
        return digest_of(self.config)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def diff_ids(self) -> list[str]:
        found: list[str] = json.loads(self.config)["rootfs"]["diff_ids"]
        return found


def make_image(
    tars: Sequence[bytes],
    *,
    pack: Callable[[bytes], bytes] = compressed,
    layer_type: str = media.OCI_LAYER_GZIP,
    docker: bool = False,
    **config: Any,
) -> Image:
    """An image of these layers, bottom first."""
    whole = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        **config,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(tars))],
    }
    data = json.dumps(whole).encode()
    layers = [pack(tar) for tar in tars]
    kinds = (media.OCI_MANIFEST, media.OCI_CONFIG, layer_type)
    if docker:
        kinds = (media.DOCKER_MANIFEST, media.DOCKER_CONFIG, media.DOCKER_LAYER_GZIP)
    manifest = {
        "schemaVersion": 2,
        "mediaType": kinds[0],
        "config": {"mediaType": kinds[1], "digest": digest_of(data), "size": len(data)},
        "layers": [{"mediaType": kinds[2], "digest": digest_of(one), "size": len(one)} for one in layers],
    }
    text = json.dumps(manifest).encode()
    return Image(data, text, layers, {digest_of(one): one for one in [data, *layers]}, kinds[0])


def make_index(images: dict[str, Image]) -> bytes:
    """`images` by platform (os/architecture[/variant])."""
    entries = []
    for text, image in images.items():
        names = ("os", "architecture", "variant")
        platform = dict(zip(names, text.split("/"), strict=False))
        entries.append(
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": len(image.manifest),
                "platform": platform,
            }
        )
    return json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}).encode()


def write_layout(path: Path, images: dict[str, Image], index: bytes | None = None) -> Path:
    """An OCI image layout; `images` by the name of the reference annotation ("" for none)."""
    (path / "blobs/sha256").mkdir(parents=True)
    entries = []
    for name, image in images.items():
        for data in [image.manifest, *image.blobs.values()]:
            (path / "blobs/sha256" / digest_of(data)[7:]).write_bytes(data)
        entry: dict[str, Any] = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}
        if name:
            entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        entries.append(entry)
    if index is not None:
        (path / "blobs/sha256" / digest_of(index)[7:]).write_bytes(index)
        entries = [{"mediaType": media.OCI_INDEX, "digest": digest_of(index), "size": len(index)}]
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return path


@dataclass
class Registry:
    domain: str
    directory: Path

    def push(self, image: Image, name: str, index: bytes | None = None) -> None:
        """Uploads by the protocol; skopeo would change documents on their way."""
        repository, _, tag = name.partition(":")
        connection = http.client.HTTPConnection(self.domain)
        for digest, data in image.blobs.items():
            connection.request("POST", f"/v2/{repository}/blobs/uploads/")
            response = connection.getresponse()
            response.read()
            location = response.headers["Location"]
            separator = "&" if "?" in location else "?"
            connection.request("PUT", f"{location}{separator}digest={digest}", body=data)
            response = connection.getresponse()
            assert response.status == 201, response.read()
            response.read()
        self._put_manifest(connection, repository, image.digest, image.manifest, image.media_type)
        if index is not None:
            self._put_manifest(connection, repository, tag, index, media.OCI_INDEX)
        else:
            self._put_manifest(connection, repository, tag, image.manifest, image.media_type)
        connection.close()

    def _put_manifest(
        self, connection: http.client.HTTPConnection, repository: str, tag: str, data: bytes, media_type: str
    ) -> None:
        headers = {"Content-Type": media_type}
        connection.request("PUT", f"/v2/{repository}/manifests/{tag}", body=data, headers=headers)
        response = connection.getresponse()
        assert response.status == 201, response.read()
        response.read()


@contextmanager
def docker_registry(
    directory: Path, *, login: bool = False, delete: bool = False, http: str = ""
) -> Iterator[Registry]:
    """Runs until the block ends. With `login` it wants USER and PASSWORD; `http` is more of that part of its file."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's docker-registry")
    directory.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "htpasswd").write_text(_HTPASSWD)
    auth = f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n" if login else ""
    deletion = ", delete: {enabled: true}" if delete else ""
    (directory / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/data}}{deletion}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'{', ' if http else ''}{http}}}\n{auth}"
    )
    # Its settings may come from the environment, where REGISTRY_AUTH_FILE would be one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    command = ["docker-registry", "serve", directory / "config.yml"]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)
        yield Registry(f"127.0.0.1:{port}", directory)
    finally:
        process.terminate()
        process.wait()


@dataclass
class Scripted:
    """A server of which a test says what it answers: `answer(handler)` does it all, or False for the usual.

    The usual: manifests and blobs of `documents`, by the last part of the path; blobs with ranges.
    """

    domain: str = ""
    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # media type, bytes
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path, headers in lower case
    answer: Callable[[http.server.BaseHTTPRequestHandler], bool] = lambda handler: False

    def add(self, image: Image, tag: str) -> None:
        self.documents[tag] = self.documents[image.digest] = (image.media_type, image.manifest)
        for digest, data in image.blobs.items():
            self.documents[digest] = ("application/octet-stream", data)


@contextmanager
def scripted(context: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """With `context` over TLS."""
    state = Scripted()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            state.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
            if state.answer(self):
                return
            found = state.documents.get(self.path.rpartition("/")[2])
            if found is None:
                send(self, 404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
                return
            media_type, data = found
            begin = self.headers.get("Range", "")
            if begin:
                first, _, last = begin.removeprefix("bytes=").partition("-")
                start, end = int(first), int(last or len(data) - 1) + 1
                headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
                send(self, 206, data[start:end], headers)
            else:
                digest = {"Docker-Content-Digest": digest_of(data)} if self.command == "HEAD" else {}
                send(self, 200, data, {"Content-Type": media_type, **digest})

        do_POST = do_PUT = do_PATCH = do_HEAD = do_DELETE = do_GET

        def log_message(self, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients that give up half-way are part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.domain = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(
    handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
