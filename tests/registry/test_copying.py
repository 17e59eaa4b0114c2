"""From registry to registry, by the command and by the functions; lists, deletion and referrers of real registries."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.registry import ours, server
from tests.registry.server import send
from tests.registry.test_server_protocol import push

from limpet.errors import Conflict, Invalid, LimpetError, NotFound, Refused
from limpet.oci import media, reference
from limpet.oci import platform as platforms
from limpet.oci.manifest import Descriptor, Manifest
from limpet.registry import connection, content
from limpet.registry.client import Registry
from limpet.registry.copying import copy
from limpet.registry.upload import Upload
from limpet.registry.upload import send as upload

if TYPE_CHECKING:
    import http.server
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from limpet.registry.copying import Copied

pytestmark = pytest.mark.slow

TARS = [server.tar_of({f"file{number}": os.urandom(200_000)}) for number in range(4)]
EMPTY = b"{}"


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Registry]:
    with server.docker_registry(tmp_path_factory.mktemp("left"), delete=True) as real:
        yield real


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Registry]:
    with server.docker_registry(tmp_path_factory.mktemp("right")) as real:
        yield real


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[server.Scripted]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    with server.scripted() as state:
        yield state


def _copy(source: str, target: str, **options: Any) -> Copied:
    return copy(reference.parse(source), reference.parse(target), **options)


def _multi(registry: server.Registry, name: str) -> tuple[bytes, list[server.Image]]:
    images = [
        server.make_image([TARS[0], TARS[number + 1]], architecture=architecture)
        for number, architecture in enumerate(("amd64", "arm64"))
    ]
    index = server.make_index({"linux/amd64": images[0], "linux/arm64": images[1]})
    registry.push(images[1], f"{name.partition(':')[0]}:arm")
    registry.push(images[0], name, index)
    return index, images


def refer(registry: Registry, repository: str, subject: Descriptor, kind: str, text: bytes) -> str:
    """Attaches an artifact with one blob, as oras does."""
    for data in (EMPTY, text):
        descriptor = Descriptor("application/octet-stream", server.digest_of(data), len(data))
        upload(registry, repository, Upload(descriptor, lambda offset, data=data: iter([data[offset:]])))  # type: ignore[misc]
    manifest = Manifest(
        media.OCI_MANIFEST,
        Descriptor("application/vnd.oci.empty.v1+json", server.digest_of(EMPTY), 2),
        (Descriptor("text/plain", server.digest_of(text), len(text)),),
        annotations={"org.opencontainers.image.created": "2026-01-02T03:04:05Z"},
        subject=subject,
        artifact_type=kind,
    )
    return content.attach(registry, repository, manifest.to_json(), media.OCI_MANIFEST)


def test_all_platforms(left: server.Registry, right: server.Registry) -> None:
    index, images = _multi(left, "multi:1")
    done = _copy(f"{left.domain}/multi:1", f"{right.domain}/there/multi:2")
    assert done.digest == server.digest_of(index)
    assert done.bytes == sum(len(data) for data in (images[0].blobs | images[1].blobs).values())
    client = Registry(right.domain)
    assert client.manifest("there/multi", "2")[0] == index
    for image in images:
        assert client.manifest("there/multi", image.digest)[0] == image.manifest
        for digest, data in image.blobs.items():
            assert b"".join(client.blob("there/multi", Descriptor("", digest, len(data)))) == data
    assert _copy(f"{left.domain}/multi:1", f"{right.domain}/there/multi:3").bytes == 0
    mounted = _copy(f"{right.domain}/there/multi:2", f"{right.domain}/elsewhere:2")
    assert (mounted.digest, mounted.bytes) == (done.digest, 0)


def test_one_platform(left: server.Registry, right: server.Registry) -> None:
    _, images = _multi(left, "pick:1")
    done = _copy(f"{left.domain}/pick:1", f"{right.domain}/pick:1", platform=platforms.parse("linux/arm64"))
    assert done.digest == images[1].digest
    with pytest.raises(NotFound):
        Registry(right.domain).manifest("pick", images[0].digest)


def test_the_command(limpet: Any, left: server.Registry, right: server.Registry) -> None:
    image = server.make_image(TARS[:2], docker=True)
    for tag in ("1", "2"):
        left.push(image, f"cli:{tag}")
    result = limpet("registry", "copy", f"{left.domain}/cli:1", f"{right.domain}/cli")
    assert result.stdout == f"1: digest: {image.digest} size: {len(image.manifest)}\n"
    assert sorted(line.partition(": ")[2] for line in result.stderr.splitlines()) == ["Copied"] * 3
    limpet("registry", "copy", "-q", "-a", f"{left.domain}/cli", f"{right.domain}/all")
    assert limpet("registry", "tags", f"{right.domain}/all").stdout == "1\n2\n"
    by_digest = limpet("registry", "copy", f"{left.domain}/cli@{image.digest}", f"{right.domain}/digest")
    assert by_digest.stdout.startswith(f"{right.domain}/digest@{image.digest}: digest: {image.digest}")
    assert not (limpet.root / "state.db").exists()  # no store is made for it
    wrong = limpet("registry", "copy", "-a", f"{left.domain}/cli:1", f"{right.domain}/all", check=False)
    assert "leave out the tag" in wrong.stderr


def test_inspect(limpet: Any, left: server.Registry) -> None:
    index, images = _multi(left, "seen:1")
    name = f"{left.domain}/seen:1"
    found = json.loads(limpet("registry", "inspect", "--platform", "linux/arm64", name).stdout)
    assert found["Digest"] == server.digest_of(index)
    assert [one["Platform"] for one in found["Platforms"]] == ["linux/amd64", "linux/arm64"]
    assert found["ManifestDigest"] == images[1].digest
    assert found["Id"] == images[1].id
    assert (found["Architecture"], found["Cmd"]) == ("arm64", ["/bin/sh"])
    assert [one["Digest"] for one in found["Layers"]] == [server.digest_of(layer) for layer in images[1].layers]
    assert limpet("registry", "inspect", "--raw", name).stdout.encode() == index
    config = limpet("registry", "inspect", "--config", "--platform", "linux/amd64", name).stdout.encode()
    assert config == images[0].config
    assert limpet("registry", "inspect", "-f", "{{.Tag}} {{len .Layers}}", name).stdout == "1 2\n"
    missing = limpet("registry", "inspect", f"{left.domain}/seen:2", check=False)
    assert (missing.returncode, "not found" in missing.stderr) == (1, True)


def test_referrers_by_tag_schema(limpet: Any, left: server.Registry, right: server.Registry) -> None:
    """docker-registry has no referrers API: the index under the tag sha256-… takes its place, and loses what goes."""
    image = server.make_image(TARS[:1])
    left.push(image, "signed:1")
    client = Registry(left.domain)
    subject = Descriptor(image.media_type, image.digest, len(image.manifest))
    sbom = refer(client, "signed", subject, "application/spdx+json", b"sbom")
    signature = refer(client, "signed", subject, "application/x-signature", b"signature")
    inner = Descriptor(media.OCI_MANIFEST, sbom, len(client.manifest("signed", sbom)[0]))
    of_sbom = refer(client, "signed", inner, "application/x-signature", b"signature of the sbom")
    assert (
        refer(client, "signed", subject, "application/x-signature", b"signature") == signature
    )  # once more: no change
    listed = content.referrers(client, "signed", image.digest)
    assert [(one.digest, one.artifact_type) for one in listed] == [
        (sbom, "application/spdx+json"),
        (signature, "application/x-signature"),
    ]
    (only,) = content.referrers(client, "signed", image.digest, "application/spdx+json")
    assert only.digest == sbom
    assert f"sha256-{image.digest[7:]}" in set(content.tags(client, "signed"))
    done = _copy(f"{left.domain}/signed:1", f"{right.domain}/signed:1", referrers=True)
    assert done.referrers == 3
    there = Registry(right.domain)
    assert {one.digest for one in content.referrers(there, "signed", image.digest)} == {sbom, signature}
    assert [one.digest for one in content.referrers(there, "signed", sbom)] == [of_sbom]
    assert _copy(f"{left.domain}/signed:1", f"{right.domain}/signed:1", referrers=True).bytes == 0
    shown = limpet("registry", "referrers", f"{right.domain}/signed:1").stdout
    assert [line.split() for line in shown.splitlines()][1] == [
        sbom, "application/spdx+json", only and f"{only.size}B", "2026-01-02T03:04:05Z",
    ]  # fmt: skip
    quiet = limpet(
        "registry", "referrers", "-q", "--artifact-type", "application/spdx+json", f"{right.domain}/signed:1"
    )
    assert quiet.stdout == f"{sbom}\n"
    limpet("registry", "delete", f"{left.domain}/signed@{signature}")
    assert [one.digest for one in content.referrers(client, "signed", image.digest)] == [sbom]


def test_referrers_by_the_api(fake: server.Scripted) -> None:
    """Pages, a filter that the registry applied or not, and other subjects."""
    subject = "sha256:" + "1" * 64
    entries = [Descriptor(media.OCI_MANIFEST, f"sha256:{n:064x}", n, artifact_type=f"type/{n % 2}") for n in range(5)]

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if "/referrers/" not in handler.path:
            return False
        page = 1 if "page=1" in handler.path else 0
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media.OCI_INDEX,
                "manifests": [one.to_dict() for one in (entries[:3], entries[3:])[page]],
            }
        ).encode()
        headers = {"Content-Type": media.OCI_INDEX}
        if not page:
            headers["Link"] = f'</v2/app/referrers/{subject}?page=1>; rel="next"'
        send(handler, 200, body, headers)
        return True

    fake.answer = answer
    client = Registry(fake.domain)
    assert content.referrers(client, "app", subject) == entries
    assert content.referrers(client, "app", subject, "type/1") == [entries[1], entries[3]]
    assert any("artifactType=type%2F1" in path for path, _ in fake.requests)


def test_tags_in_pages(fake: server.Scripted, left: server.Registry) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        last = handler.path.partition("last=")[2]
        number = int(last or 0)
        headers = {"Link": f'</v2/app/tags/list?n=2&last={number + 2}>; rel="next"'} if number < 6 else {}
        tags = [str(number), str(number + 1)] if number < 6 else None
        send(handler, 200, json.dumps({"name": "app", "tags": tags}).encode(), headers)
        return True

    fake.answer = answer
    assert list(content.tags(Registry(fake.domain), "app")) == [str(number) for number in range(6)]
    with pytest.raises(NotFound, match="no such repository"):
        list(content.tags(Registry(left.domain), "never/was"))


@pytest.mark.parametrize(
    ("body", "link", "error"),
    [
        (b"[]", "", LimpetError),
        (b'{"tags": [1]}', "", LimpetError),
        (b'{"tags": ["\\u001b[2J"]}', "", LimpetError),
        (b'{"tags": []}', '</v2/app/tags/list?n=1000>; rel="next"', Conflict),
        (b'{"tags": []}', '<http://registry.example/tags>; rel="next"', Refused),
        (b'{"tags": []}', '<file:///etc/passwd>; rel="next"', Refused),
    ],
)
def test_lists_that_are_none(fake: server.Scripted, body: bytes, link: str, error: type[LimpetError]) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        send(handler, 200, body, {"Link": link} if link else {})
        return True

    fake.answer = answer
    with pytest.raises(error):
        list(content.tags(Registry(fake.domain), "app"))


def test_deletion(limpet: Any, left: server.Registry, right: server.Registry) -> None:
    image = server.make_image(TARS[2:3])
    for registry in (left, right):
        registry.push(image, "going:1")
    one = limpet("registry", "delete", f"{left.domain}/going:1", check=False)
    assert one.returncode == 1
    assert f"limpet registry delete {left.domain}/going@{image.digest}" in one.stderr
    result = limpet("registry", "delete", f"{left.domain}/going@{image.digest}")
    assert result.stdout == f"Deleted: {left.domain}/going@{image.digest}\n"
    with pytest.raises(NotFound):
        Registry(left.domain).manifest("going", "1")
    gone = limpet("registry", "delete", f"{left.domain}/going@{image.digest}", check=False)
    assert "not found" in gone.stderr
    forbidden = limpet("registry", "delete", f"{right.domain}/going@{image.digest}", check=False)
    assert forbidden.returncode == 1
    assert "the registry does not delete" in forbidden.stderr
    assert "REGISTRY_STORAGE_DELETE_ENABLED" in forbidden.stderr
    assert "is a repository" in limpet("registry", "delete", f"{right.domain}/going", check=False).stderr


@pytest.mark.parametrize("option", ["--read-only", "--no-delete"])
def test_deletion_where_nothing_is_deleted(option: str, tmp_path: Path, limpet: Any) -> None:
    image = server.make_image(TARS[2:3])
    with ours.serving(tmp_path / "data") as open_one:
        push(open_one, "app", "1", image)
    with ours.serving(tmp_path / "data", option) as there:
        for name in (f"{there.domain}/app:1", f"{there.domain}/app@{image.digest}"):
            result = limpet("registry", "delete", name, check=False)
            assert result.returncode == 1
            assert f"{there.domain}/app: nothing can be deleted there: HTTP 405" in result.stderr
            assert "limpet registry delete" not in result.stderr


def test_the_source_breaks_in_the_middle(fake: server.Scripted, right: server.Registry) -> None:
    image = server.make_image(TARS[:2])
    fake.add(image, "1")
    broken: list[str] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        digest = handler.path.rpartition("/")[2]
        if "/blobs/" not in handler.path or digest in broken:
            return False
        broken.append(digest)
        data = image.blobs[digest]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.close_connection = True
        return True

    fake.answer = answer
    done = _copy(f"{fake.domain}/app:1", f"{right.domain}/from-broken:1")
    assert done.digest == image.digest
    assert len(broken) == 3


def test_a_copy_that_was_killed_goes_on(limpet: Any, fake: server.Scripted, right: server.Registry) -> None:
    """What has arrived is not sent again; the tag is there only when all of it is."""
    image = server.make_image(TARS)
    fake.add(image, "1")
    layers = [server.digest_of(layer) for layer in image.layers]
    held = threading.Event()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if not handler.path.endswith(layers[-1]):
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(image.layers[-1])))
        handler.end_headers()
        handler.wfile.write(image.layers[-1][:100_000])
        handler.wfile.flush()
        held.set()
        handler.rfile.read(1)  # until the client is gone
        handler.close_connection = True
        return True

    def arrived() -> bool:
        there = Registry(right.domain)
        return all(there.has_blob("killed-copy", digest) is not None for digest in layers[:-1])

    fake.answer = answer
    words = (f"{fake.domain}/app:1", f"{right.domain}/killed-copy:1")
    process = subprocess.Popen([*limpet.command, "registry", "copy", "-q", *words], env=limpet.environment)
    try:
        assert held.wait(30)
        deadline = time.monotonic() + 30
        while not arrived():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    with pytest.raises(NotFound):
        Registry(right.domain).manifest("killed-copy", "1")
    fake.answer = lambda handler: False
    fake.requests.clear()
    limpet("registry", "copy", *words)
    asked = {path.rpartition("/")[2] for path, _ in fake.requests if "/blobs/" in path}
    assert layers[-1] in asked
    assert asked <= {layers[-1], image.id}
    assert Registry(right.domain).manifest("killed-copy", "1")[0] == image.manifest


def test_other_bytes_do_not_arrive(fake: server.Scripted, right: server.Registry) -> None:
    image = server.make_image(TARS[1:2])
    fake.add(image, "1")
    digest = server.digest_of(image.layers[0])
    fake.documents[digest] = ("", bytes(len(image.layers[0])))
    with pytest.raises(Invalid, match=f"other bytes than {digest}"):
        _copy(f"{fake.domain}/app:1", f"{right.domain}/damaged:1")
    with pytest.raises(NotFound):
        Registry(right.domain).manifest("damaged", "1")


def test_a_digest_that_is_another(left: server.Registry, right: server.Registry) -> None:
    left.push(server.make_image(TARS[:1]), "other:1")
    with pytest.raises(Invalid, match="has the digest"):
        _copy(f"{left.domain}/other:1", f"{right.domain}/other@sha256:{'0' * 64}")


def test_to_and_from_a_registry_of_ours(left: server.Registry, tmp_path: Path) -> None:
    """Ours keeps referrers itself: no index under a tag is made there; on the way back there is one again."""
    image = server.make_image(TARS[:2])
    left.push(image, "ours:1")
    client = Registry(left.domain)
    subject = Descriptor(image.media_type, image.digest, len(image.manifest))
    sbom = refer(client, "ours", subject, "application/spdx+json", b"an sbom")
    with ours.serving(tmp_path / "ours") as real:
        done = _copy(f"{left.domain}/ours:1", f"{real.domain}/app:1", referrers=True)
        assert (done.digest, done.referrers) == (image.digest, 1)
        there = Registry(real.domain)
        assert [one.digest for one in content.referrers(there, "app", image.digest)] == [sbom]
        assert list(content.tags(there, "app")) == ["1"]
        mounted = _copy(f"{real.domain}/app:1", f"{real.domain}/another:1")
        assert (mounted.digest, mounted.bytes) == (image.digest, 0)
        content.delete(there, "another", "1")
        with pytest.raises(NotFound):
            there.manifest("another", "1")
        _copy(f"{real.domain}/app:1", f"{left.domain}/back:1", referrers=True)
        content.delete(there, "app", sbom)
        assert content.referrers(there, "app", image.digest) == []
    assert [one.digest for one in content.referrers(client, "back", image.digest)] == [sbom]
