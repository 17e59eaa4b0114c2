"""A pull-through cache before a registry that is slow, wrong, or gone; and the engine's own images."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.registry.ours import Answer, Ours, serving
from tests.registry.server import Image, Scripted, digest_of, docker_registry, make_image, make_index, scripted, tar_of
from tests.registry.test_server_clients import run, sample
from tests.registry.test_server_gc import age
from tests.registry.test_server_protocol import artifact, image_of, push, push_blob, put_manifest

from limpet.oci import media
from limpet.registry.server import gc
from limpet.registry.server.storage import Storage

pytestmark = pytest.mark.slow


class Upstream:
    """A registry of which a test says what it answers to GET; HEAD is answered as it should be."""

    def __init__(self, state: Scripted) -> None:
        self.domain = state.domain
        self.add = state.add
        self.answer: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: False
        self.gets: list[tuple[str, str]] = []  # path, Range
        self._documents = state.documents
        state.answer = self._answer

    def _answer(self, handler: BaseHTTPRequestHandler) -> bool:
        if handler.command != "HEAD":
            self.gets.append((handler.path, handler.headers.get("Range", "")))
            return self.answer(handler)
        found = self._documents.get(handler.path.rpartition("/")[2])
        handler.send_response(200 if found else 404)
        handler.send_header("Content-Length", str(len(found[1]) if found else 0))
        handler.end_headers()
        return True


@contextmanager
def upstream_server() -> Iterator[Upstream]:
    with scripted() as state:
        yield Upstream(state)


def proxying(directory: Path, upstream: str, *args: str) -> Any:
    return serving(directory, "--proxy", f"http://{upstream}", *args)


def test_it_serves_what_it_has_when_the_other_is_gone(tmp_path: Path) -> None:
    image, other = image_of("cached"), image_of("not asked for")
    with serving(tmp_path / "origin") as origin:
        push(origin, "team/app", "1", image)
        push(origin, "team/app", "2", other)
        with proxying(tmp_path / "cache", origin.domain, "--workers", "2", "--proxy-fresh", "0") as cache:
            assert cache("GET", "/v2/team/app/manifests/1").body == image.manifest
            for digest, data in image.blobs.items():
                head = cache("HEAD", f"/v2/team/app/blobs/{digest}")
                assert (head.status, head.headers["Content-Length"]) == (200, str(len(data)))
                for _ in range(2):
                    assert cache("GET", f"/v2/team/app/blobs/{digest}").body == data
            assert cache("GET", "/v2/team/app/tags/list").json()["tags"] == ["1", "2"]
            assert origin.stop() == 0
            for _ in range(4):
                assert cache("GET", "/v2/team/app/manifests/1").body == image.manifest
            assert cache("GET", f"/v2/team/app/blobs/{image.id}").body == image.config
            assert cache("GET", "/v2/team/app/tags/list").json()["tags"] == ["1"]
            assert cache("GET", "/v2/_catalog").json()["repositories"] == ["team/app"]
            answer = cache("GET", "/v2/team/app/manifests/2")
            assert (answer.status, answer.code) == (502, "UNAVAILABLE")
            assert origin.domain in answer.json()["errors"][0]["message"]
            assert cache("GET", f"/v2/team/app/blobs/{other.id}").status == 502


def test_a_tag_that_moved_is_seen(tmp_path: Path) -> None:
    first, second = image_of("first"), image_of("second")
    with serving(tmp_path / "origin") as origin:
        push(origin, "a", "x", first)
        with proxying(tmp_path / "now", origin.domain, "--proxy-fresh", "0") as eager:
            with proxying(tmp_path / "later", origin.domain, "--proxy-fresh", "1h") as lazy:
                for cache in (eager, lazy):
                    assert cache("GET", "/v2/a/manifests/x").body == first.manifest
                push(origin, "a", "x", second)
                assert eager("GET", "/v2/a/manifests/x").body == second.manifest
                assert lazy("GET", "/v2/a/manifests/x").body == first.manifest
            origin("DELETE", "/v2/a/manifests/x")
            assert eager("GET", "/v2/a/manifests/x").code == "MANIFEST_UNKNOWN"
            assert eager("GET", f"/v2/a/manifests/{first.digest}").body == first.manifest


def test_it_takes_no_pushes(tmp_path: Path) -> None:
    with serving(tmp_path / "origin") as origin, proxying(tmp_path / "cache", origin.domain) as cache:
        answer = cache("POST", "/v2/a/blobs/uploads/")
        assert answer.status == 405
        assert f"a cache of {origin.domain}: push there" in answer.json()["errors"][0]["message"]
        assert cache("GET", "/v2/no/such/manifests/x").status == 404
        assert cache("GET", f"/v2/no/such/blobs/{digest_of(b'x')}").code == "BLOB_UNKNOWN"
        assert cache("GET", "/v2/no/such/tags/list").code == "NAME_UNKNOWN"


def test_referrers_and_ranges_come_through(tmp_path: Path) -> None:
    image = image_of("subject")
    blobs, manifest = artifact(image, "application/x.sbom", {"a": "b"})
    with serving(tmp_path / "origin") as origin, proxying(tmp_path / "cache", origin.domain) as cache:
        push(origin, "a", "x", image)
        for data in blobs.values():
            push_blob(origin, "a", data)
        assert put_manifest(origin, "a", digest_of(manifest), manifest).status == 201
        path = f"/v2/a/referrers/{image.digest}?artifactType=application/x.sbom"
        assert cache("GET", path).json()["manifests"] == origin("GET", path).json()["manifests"]
        assert cache("GET", f"/v2/a/manifests/{digest_of(manifest)}").body == manifest
        origin.stop()
        assert cache("GET", path).json()["manifests"][0]["digest"] == digest_of(manifest)
    with serving(tmp_path / "origin") as origin, proxying(tmp_path / "other", origin.domain) as cache:
        answer = cache("GET", f"/v2/a/blobs/{image.id}", headers={"Range": "bytes=1-3"})
        assert (answer.status, answer.body) == (206, image.config[1:4])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_fetch_for_all_who_ask(tmp_path: Path, workers: str) -> None:
    image = make_image([tar_of({"big": os.urandom(3 << 20)})])
    digest = digest_of(image.layers[0])
    gate = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if digest in handler.path and handler.command == "GET":
            assert gate.wait(30)
        return False

    with upstream_server() as upstream, proxying(tmp_path / "cache", upstream.domain, "--workers", workers) as cache:
        upstream.add(image, "x")
        upstream.answer = answer
        found: list[Answer] = []

        def ask() -> None:
            found.append(cache("GET", f"/v2/a/blobs/{digest}"))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        gate.set()
        for thread in threads:
            thread.join()
        assert [one.body == image.layers[0] for one in found] == [True] * 8
        assert len([path for path, _ in upstream.gets if digest in path]) == 1


def test_clients_pull_through_it(tmp_path: Path, limpet: Any) -> None:
    images = {"linux/amd64": sample("amd64"), "linux/arm64": sample("arm64")}
    index = make_index(images)
    with docker_registry(tmp_path / "docker") as origin:
        for image in images.values():
            origin.push(image, "team/app:part")
        origin.push(images["linux/amd64"], "team/app:1", index)
        with proxying(tmp_path / "cache", origin.domain, "--workers", "2") as cache:
            name = f"docker://{cache.domain}/team/app:1"
            run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", name, f"oci:{tmp_path}/back")
            for image in images.values():
                for digest, data in image.blobs.items():
                    assert (tmp_path / "back/blobs/sha256" / digest[7:]).read_bytes() == data
            limpet("pull", f"{cache.domain}/team/app:1")


def corrupting(image: Image) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if digest_of(image.layers[0]) not in handler.path or handler.command != "GET":
            return False
        data = b"x" * len(image.layers[0])
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
        return True

    return answer


@pytest.mark.parametrize("size", [1000, 5 << 20])
def test_wrong_bytes_are_not_kept_and_not_passed_on_whole(tmp_path: Path, size: int) -> None:
    image = make_image([tar_of({"big": os.urandom(size)})])
    digest = digest_of(image.layers[0])
    with upstream_server() as upstream, proxying(tmp_path / "cache", upstream.domain) as cache:
        upstream.add(image, "x")
        upstream.answer = corrupting(image)
        try:
            assert cache("GET", f"/v2/a/blobs/{digest}").status == 502  # it was found out before the head was sent
        except (http.client.IncompleteRead, ConnectionError):
            pass
        assert not (tmp_path / "cache/blobs/sha256" / digest[7:]).exists()
        upstream.answer = lambda handler: False
        assert cache("GET", f"/v2/a/blobs/{digest}").body == image.layers[0]
        assert list((tmp_path / "cache/fetch").iterdir()) == []


def test_a_fetch_goes_on_after_a_kill(tmp_path: Path) -> None:
    image = make_image([tar_of({"big": os.urandom(4 << 20)})])
    digest = digest_of(image.layers[0])
    gate = threading.Event()

    def half(handler: BaseHTTPRequestHandler) -> bool:
        if digest not in handler.path or handler.command != "GET":
            return False
        data = image.layers[0]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: 3 << 20])
        handler.wfile.flush()
        gate.wait(30)
        return True

    with upstream_server() as upstream:
        upstream.add(image, "x")
        upstream.answer = half
        with proxying(tmp_path / "cache", upstream.domain) as cache:
            thread = threading.Thread(target=lambda: quietly(cache, digest))
            thread.start()
            partial = tmp_path / "cache/fetch" / digest.replace(":", "-")
            deadline = time.monotonic() + 20
            while not partial.exists() or partial.stat().st_size < 2 << 20:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            cache.process.kill()
            cache.process.wait()
            thread.join()
        gate.set()
        upstream.answer = lambda handler: False
        with proxying(tmp_path / "cache", upstream.domain) as cache:
            assert cache("GET", f"/v2/a/blobs/{digest}").body == image.layers[0]
            path, wanted = upstream.gets[-1]
            assert digest in path
            assert int(wanted.removeprefix("bytes=").rstrip("-")) >= 2 << 20


def quietly(cache: Ours, digest: str) -> None:
    try:
        cache("GET", f"/v2/a/blobs/{digest}")
    except (OSError, http.client.HTTPException):
        pass


def test_the_engines_own_images(tmp_path: Path, limpet: Any, busybox: str) -> None:
    """Made here, never pushed, never compressed: pulled by others from the store as it lies there."""
    image = sample("pulled")
    with serving(tmp_path / "origin") as origin:
        push(origin, "team/app", "1", image)
        limpet("pull", f"{origin.domain}/team/app:1")
    root = str(limpet.root)
    with serving(tmp_path / "data", "--from-store", "--workers", "2", environment={"LIMPET_ROOT": root}) as ours:
        assert ours("GET", "/v2/_catalog").json()["repositories"] == ["busybox", "team/app"]
        assert ours("GET", "/v2/busybox/tags/list").json()["tags"] == ["test"]
        assert ours("GET", "/v2/library/busybox/tags/list").status == 200
        assert ours("GET", "/v2/team/app/manifests/1").body == image.manifest
        for digest, data in image.blobs.items():
            assert ours("GET", f"/v2/team/app/blobs/{digest}").body == data
            assert ours("GET", f"/v2/busybox/blobs/{digest}").code == "BLOB_UNKNOWN"
        manifest = ours("GET", "/v2/busybox/manifests/test").json()
        assert [layer["mediaType"] for layer in manifest["layers"]] == [media.OCI_LAYER]
        assert ours("GET", "/v2/nothing/manifests/x").code == "MANIFEST_UNKNOWN"
        assert ours("GET", "/v2/nothing/tags/list").code == "NAME_UNKNOWN"
        assert ours("POST", "/v2/a/blobs/uploads/").status == 405
        run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{ours.domain}/busybox:test",
            f"oci:{tmp_path}/back")  # fmt: skip
        identity = limpet("image", "inspect", "-f", "{{.Id}}", busybox).stdout.strip()
        assert manifest["config"]["digest"] == identity
        assert (tmp_path / "back/blobs/sha256" / identity[7:]).exists()
        assert ours("GET", "/healthz").status == 200
        assert ours("GET", "/metrics").status == 200
    assert not (tmp_path / "data").exists()  # nothing is kept, so nothing is made


def test_what_nobody_asks_for_is_dropped(tmp_path: Path) -> None:
    kept, gone = image_of("kept"), image_of("gone")
    with serving(tmp_path / "origin") as origin:
        for tag, image in (("kept", kept), ("gone", gone)):
            push(origin, "a", tag, image)
        with proxying(tmp_path / "cache", origin.domain) as cache:
            for tag in ("kept", "gone"):
                assert cache("GET", f"/v2/a/manifests/{tag}").status == 200
            for digest in (kept.id, gone.id):
                assert cache("GET", f"/v2/a/blobs/{digest}").status == 200
            age(cache.directory)
            assert cache("GET", "/v2/a/manifests/kept").body == kept.manifest
            gc.collect(Storage(str(cache.directory)), unused=3600)
            assert cache("GET", f"/v2/a/blobs/{kept.id}").status == 200
            assert not (cache.directory / "blobs/sha256" / gone.id[7:]).exists()
            assert not (cache.directory / "repositories/a/_tags/gone").exists()
            assert cache("GET", "/v2/a/manifests/gone").body == gone.manifest  # fetched again
