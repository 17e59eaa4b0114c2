"""Pull from a real registry; hostile and broken images from a scripted one."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.registry import server

from limpet.errors import Corrupt, Invalid, LimpetError, NotFound
from limpet.images import catalog, collect, names
from limpet.images.pull import fetch, pull
from limpet.layers import compression
from limpet.layers.driver import driver
from limpet.oci import media, reference
from limpet.progress import Progress
from limpet.registry import connection
from limpet.store import blobs

if TYPE_CHECKING:
    import http.server
    from collections.abc import Iterator
    from typing import Any

    from limpet.store.store import Store

TARS = [server.tar_of({f"file{number}": os.urandom(50_000) * 2}) for number in range(5)]


class Recording(Progress):
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.lines: list[str] = []

    def finish(self, key: str, status: str) -> None:
        self.ended.append(status)

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[server.Scripted]:
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    with server.scripted() as state:
        yield state


def nothing_left(store: Store) -> None:
    """After an error: no image, no temporary file, and all that is visible has a row."""
    assert catalog.all_images(store) == []
    collect.collect(store)
    assert os.listdir(f"{store.root}/tmp") == []
    assert os.listdir(f"{store.root}/blobs/sha256") == []
    assert os.listdir(f"{store.root}/layers") == []


def test_an_image_of_many_layers(store: Store, registry: server.Registry) -> None:
    image = server.make_image(TARS)
    registry.push(image, "many:1")
    seen = Recording()
    found = pull(store, f"{registry.domain}/many:1", progress=seen)
    assert found.id == image.id
    assert found.names == [f"{registry.domain}/many:1"]
    assert catalog.layers(store, found.id) == image.diff_ids
    home = driver(store)
    for diff_id, tar in zip(image.diff_ids, TARS, strict=True):
        with home.open_tar(diff_id) as file:
            assert file.read() == tar
    for digest, data in {**image.blobs, image.digest: image.manifest}.items():
        assert blobs.read(store, digest, 1 << 20) == data
    assert seen.ended == ["Pull complete"] * 5
    assert seen.lines == [
        "1: Pulling from many",
        f"Digest: {image.digest}",
        f"Status: Downloaded newer image for {registry.domain}/many:1",
    ]
    assert os.listdir(f"{store.root}/tmp") == []
    again = Recording()
    assert pull(store, f"{registry.domain}/many:1", progress=again).id == image.id
    assert again.ended == ["Already exists"] * 5
    assert again.lines[-1].startswith("Status: Image is up to date")


def test_rows_name_every_blob(store: Store, registry: server.Registry) -> None:
    """What a collection spares while the image is there, and takes when it goes."""
    image = server.make_image(TARS[:2])
    registry.push(image, "rows:1")
    pull(store, f"{registry.domain}/rows:1")
    assert collect.collect(store).bytes == 0
    assert {digest for (digest,) in store.db.rows("SELECT digest FROM blob")} == {*image.blobs, image.digest}
    names.remove(store, f"{registry.domain}/rows:1")
    nothing_left(store)


def test_layers_are_shared_and_come_once(store: Store, registry: server.Registry) -> None:
    registry.push(server.make_image([TARS[0], TARS[1], TARS[0]]), "shared:1")
    registry.push(server.make_image([TARS[0], TARS[2]]), "shared:2")
    first, second = Recording(), Recording()
    pull(store, f"{registry.domain}/shared:1", progress=first)
    assert first.ended == ["Pull complete"] * 2
    pull(store, f"{registry.domain}/shared:2", progress=second)
    assert sorted(second.ended) == ["Already exists", "Pull complete"]


@pytest.mark.parametrize(
    ("pack", "media_type"),
    [
        (lambda tar: tar, media.OCI_LAYER),
        (lambda tar: _zstd(tar), media.OCI_LAYER_ZSTD),
        (lambda tar: gzip.compress(tar[:5000]) + gzip.compress(tar[5000:]), media.OCI_LAYER_GZIP),
        (lambda tar: gzip.compress(tar), media.DOCKER_LAYER_GZIP),
    ],
    ids=["tar", "zstd", "two gzip members", "docker"],
)
def test_kinds_of_layers(store: Store, registry: server.Registry, pack: Any, media_type: str) -> None:
    image = server.make_image(TARS[:2], pack=pack, layer_type=media_type)
    name = f"kinds:{len(media_type)}-{image.digest[7:12]}"
    registry.push(image, name)
    assert catalog.layers(store, pull(store, f"{registry.domain}/{name}").id) == image.diff_ids


def _zstd(data: bytes) -> bytes:
    packer = compression.Compressor("zstd")
    return packer.write(data) + packer.finish()


def test_docker_manifests(store: Store, registry: server.Registry) -> None:
    image = server.make_image(TARS[:1], docker=True)
    registry.push(image, "docker:1")
    assert pull(store, f"{registry.domain}/docker:1").id == image.id


def test_by_digest(store: Store, registry: server.Registry) -> None:
    image = server.make_image(TARS[:1])
    registry.push(image, "digest:1")
    name = f"{registry.domain}/digest@{image.digest}"
    assert pull(store, name).names == [name]
    assert catalog.find(store, name).id == image.id
    pulled = fetch(store, reference.parse(f"{registry.domain}/digest:9@{image.digest}"), progress=Progress())
    assert str(pulled.name) == name  # Docker ignores the tag


def test_a_name_moves(store: Store, registry: server.Registry) -> None:
    old, new = server.make_image(TARS[:1]), server.make_image(TARS[1:2])
    registry.push(old, "moves:1")
    pull(store, f"{registry.domain}/moves:1")
    registry.push(new, "moves:1")
    assert pull(store, f"{registry.domain}/moves:1").id == new.id
    assert catalog.find(store, old.id).names == []
    assert catalog.find(store, f"{registry.domain}/moves:1").id == new.id


def test_the_platform_of_an_index(store: Store, registry: server.Registry) -> None:
    amd, arm = server.make_image(TARS[:1]), server.make_image(TARS[1:2], architecture="arm64", variant="v8")
    index = server.make_index({"linux/arm64/v8": arm, "linux/amd64": amd})
    registry.push(arm, "multi:arm")
    registry.push(amd, "multi:1", index)
    name = f"{registry.domain}/multi:1"
    seen = Recording()
    assert pull(store, name, platform="linux/amd64", progress=seen).id == amd.id
    assert f"Digest: {server.digest_of(index)}" in seen.lines
    assert blobs.read(store, server.digest_of(index), 1 << 20) == index
    assert catalog.find(store, f"{registry.domain}/multi@{server.digest_of(index)}").id == amd.id
    assert pull(store, name, platform="linux/arm64").id == arm.id
    with pytest.raises(NotFound, match=r"no image for linux/s390x; there is: linux/amd64, linux/arm64"):
        pull(store, name, platform="linux/s390x")
    with pytest.raises(NotFound, match="does not match the wanted platform: wanted linux/s390x, actual linux/arm64"):
        pull(store, f"{registry.domain}/multi:arm", platform="linux/s390x")


def test_the_command(limpet: Any, registry: server.Registry) -> None:
    image = server.make_image(TARS[:2])
    registry.push(image, "command:1")
    name = f"{registry.domain}/command:1"
    result = limpet("pull", name)
    assert result.stdout.splitlines() == [
        "1: Pulling from command",
        f"Digest: {image.digest}",
        f"Status: Downloaded newer image for {name}",
        name,
    ]
    assert sorted(result.stderr.splitlines()) == sorted(
        f"{server.digest_of(layer)[7:19]}: Pull complete" for layer in image.layers
    )
    quiet = limpet("pull", "-q", name)
    assert (quiet.stdout, quiet.stderr) == (f"{name}\n", "")
    missing = limpet("pull", f"{registry.domain}/command:2", check=False)
    assert missing.returncode == 1
    assert f"manifest for {registry.domain}/command:2 not found" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert limpet("pull", "Bad Name", check=False).returncode == 1


def test_all_tags(limpet: Any, registry: server.Registry) -> None:
    for tag in ("2", "1", "sha256-" + "0" * 64):
        registry.push(server.make_image(TARS[:1]), f"all/tags:{tag}")
    result = limpet("pull", "-q", "-a", f"{registry.domain}/all/tags")
    assert result.stdout.splitlines() == [f"{registry.domain}/all/tags:{tag}" for tag in "12"]
    refused = limpet("pull", "-a", f"{registry.domain}/all/tags:1", check=False)
    assert (refused.returncode, "leave out the tag" in refused.stderr) == (1, True)
    missing = limpet("pull", "-a", f"{registry.domain}/never", check=False)
    assert "no such repository" in missing.stderr


# What goes wrong, or is meant to.


def test_other_bytes_than_the_manifest_says(store: Store, fake: server.Scripted) -> None:
    image = server.make_image(TARS[:3])
    fake.add(image, "1")
    digest = server.digest_of(image.layers[1])
    damaged = bytearray(image.layers[1])
    damaged[-100] ^= 1
    fake.documents[digest] = ("", bytes(damaged))
    with pytest.raises(Corrupt):
        pull(store, f"{fake.domain}/app:1")
    nothing_left(store)
    fake.add(image, "1")
    assert pull(store, f"{fake.domain}/app:1").id == image.id


def test_a_layer_that_is_right_but_for_its_name(store: Store, fake: server.Scripted) -> None:
    """Sound gzip of the right tar, but not the bytes of the digest: nothing becomes visible."""
    image = server.make_image(TARS[:1])
    fake.add(image, "1")
    again = gzip.compress(TARS[0], 1)
    manifest = json.loads(image.manifest)
    manifest["layers"][0]["size"] = len(again)
    fake.documents["1"] = (media.OCI_MANIFEST, json.dumps(manifest).encode())
    fake.documents[server.digest_of(image.layers[0])] = ("", again)
    with pytest.raises(Corrupt, match="the bytes have the digest"):
        pull(store, f"{fake.domain}/app:1")
    nothing_left(store)


def test_another_tar_than_the_config_says(store: Store, fake: server.Scripted) -> None:
    image = server.make_image(TARS[:1])
    other = server.make_image(TARS[1:2])
    fake.add(image, "1")
    fake.add(other, "2")
    manifest = json.loads(image.manifest)
    manifest["layers"] = json.loads(other.manifest)["layers"]
    fake.documents["1"] = (media.OCI_MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(Corrupt, match="the layer is sha256"):
        pull(store, f"{fake.domain}/app:1")
    nothing_left(store)


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_layer_cut_short(store: Store, fake: server.Scripted, cut: int) -> None:
    image = server.make_image(TARS[:1], pack=lambda tar: gzip.compress(tar)[:-cut])
    fake.add(image, "1")
    with pytest.raises(Corrupt, match="cut off"):
        pull(store, f"{fake.domain}/app:1")
    nothing_left(store)


def test_a_bomb(store: Store, fake: server.Scripted) -> None:
    """2 GiB of zeros in 2 MB: stopped by its ratio, whatever the tar says."""
    packer = compression.Compressor("zstd")
    bomb = packer.write(server.tar_of({"a": b""})[:512])
    bomb += b"".join(packer.write(bytes(1 << 20)) for _ in range(300)) + packer.finish()
    image = server.make_image(TARS[:1], pack=lambda tar: bomb, layer_type=media.OCI_LAYER_ZSTD)
    fake.add(image, "1")
    with pytest.raises(Invalid, match="LIMPET_MAX_LAYER_RATIO"):
        pull(store, f"{fake.domain}/app:1")
    nothing_left(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["layers"].pop(), "the config names 2 layers, the manifest 1"),
        (lambda m: m["layers"][0].update(mediaType="application/x-thing"), "application/x-thing"),
        (
            lambda m: m["layers"][0].update(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            "foreign layer",
        ),
        (lambda m: m["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json"), "artifact of type"),
        (lambda m: m["config"].update(size=5 << 20), "config of"),
        (lambda m: m.update(schemaVersion=1), "schema 1"),
    ],
)
def test_manifests_that_are_refused(store: Store, fake: server.Scripted, change: Any, message: str) -> None:
    image = server.make_image(TARS[:2])
    fake.add(image, "1")
    manifest = json.loads(image.manifest)
    change(manifest)
    fake.documents["1"] = (media.OCI_MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(Invalid, match=message):
        pull(store, f"{fake.domain}/app:1")
    nothing_left(store)


def test_indexes_in_indexes_end(store: Store, fake: server.Scripted) -> None:
    inner = server.make_image(TARS[:1])
    fake.add(inner, "inner")
    data, kind = inner.manifest, media.OCI_MANIFEST
    for _ in range(6):
        entry = {"mediaType": kind, "digest": server.digest_of(data), "size": len(data)}
        data, kind = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(), media.OCI_INDEX
        fake.documents[server.digest_of(data)] = (kind, data)
    fake.documents["1"] = (kind, data)
    with pytest.raises(Invalid, match="indexes in indexes"):
        pull(store, f"{fake.domain}/app:1")


def test_one_bad_layer_stops_the_others(store: Store, fake: server.Scripted) -> None:
    image = server.make_image(TARS)
    fake.add(image, "1")
    del fake.documents[server.digest_of(image.layers[2])]
    with pytest.raises(LimpetError, match="not found"):
        pull(store, f"{fake.domain}/app:1")
    nothing_left(store)


def test_layers_of_a_failed_pull_are_found_by_the_next(store: Store, fake: server.Scripted) -> None:
    image = server.make_image(TARS)
    fake.add(image, "1")
    last = server.digest_of(image.layers[4])
    del fake.documents[last]
    with pytest.raises(LimpetError):
        pull(store, f"{fake.domain}/app:1")
    fake.add(image, "1")
    seen = Recording()
    pull(store, f"{fake.domain}/app:1", progress=seen)
    assert "Already exists" in seen.ended


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(limpet: Any, store: Store, fake: server.Scripted) -> None:
    """The registry hangs in the middle of a layer."""
    image = server.make_image(TARS[:2])
    fake.add(image, "1")
    reached: list[int] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if "/blobs/" not in handler.path or handler.path.endswith(image.id):
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(image.blobs[handler.path.rpartition("/")[2]])))
        handler.end_headers()
        handler.wfile.write(image.layers[0][:1000])
        reached.append(1)
        handler.rfile.read(1)  # until the client is gone
        return True

    fake.answer = answer
    process = subprocess.Popen(
        [*limpet.command, "pull", f"{fake.domain}/app:1"], env=limpet.environment, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 20
    while len(reached) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - began < 10
    assert b"Traceback" not in errors
    assert os.listdir(limpet.root / "tmp") == []


@pytest.mark.slow
def test_memory_stays_small(limpet: Any, registry: server.Registry) -> None:
    """300 MB of layers, three at a time."""
    tars = [server.tar_of({"big": bytes([number]) * 100_000_000}) for number in range(3)]
    image = server.make_image(tars, pack=lambda tar: gzip.compress(tar, 1))
    registry.push(image, "big:1")
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [limpet.command[0], "-c", code, *limpet.command, "pull", "-q", f"{registry.domain}/big:1"]
    result = subprocess.run(command, env=limpet.environment, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 150 * 1024
