"""The collection: what is needed stays, whatever happens at the same time; what is not goes."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.registry.ours import Ours, serving
from tests.registry.server import Image, digest_of, make_image, make_index, tar_of
from tests.registry.test_server_protocol import artifact, image_of, push, push_blob, put_manifest

from limpet.oci import media
from limpet.registry.server import gc
from limpet.registry.server.storage import Storage

pytestmark = pytest.mark.slow


def age(directory: Path, seconds: float = 7200) -> None:
    """Makes all files and directories older."""
    for base, directories, names in os.walk(directory):
        for name in [*directories, *names]:
            state = os.stat(f"{base}/{name}")
            os.utime(f"{base}/{name}", (state.st_atime - seconds, state.st_mtime - seconds))


def blobs(directory: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (directory / "blobs/sha256").iterdir()}


@pytest.fixture
def ours(tmp_path: Path) -> Any:
    with serving(tmp_path / "data", "--gc-interval", "0") as registry:
        yield registry


def test_what_a_manifest_needs_stays(ours: Ours) -> None:
    image, other = image_of("kept"), image_of("gone")
    push(ours, "a", "x", image)
    push(ours, "a", "y", other)
    push(ours, "b", "y", other)
    extra = push_blob(ours, "a", b"named by no manifest")
    ours("DELETE", f"/v2/a/manifests/{other.digest}")
    age(ours.directory)
    report = gc.collect(Storage(str(ours.directory)), dry_run=True)
    assert (report.blobs, report.links) == (1, 3)
    assert extra in blobs(ours.directory)
    report = gc.collect(Storage(str(ours.directory)))
    assert (report.blobs, report.links, report.freed) == (1, 3, len(b"named by no manifest"))
    assert blobs(ours.directory) == {image.digest, *image.blobs, other.digest, *other.blobs}
    assert ours("HEAD", f"/v2/a/blobs/{extra}").status == 404
    for digest in other.blobs:
        assert ours("HEAD", f"/v2/a/blobs/{digest}").status == 404
        assert ours("HEAD", f"/v2/b/blobs/{digest}").status == 200
    ours("DELETE", f"/v2/b/manifests/{other.digest}")
    age(ours.directory)
    gc.collect(Storage(str(ours.directory)))
    assert blobs(ours.directory) == {image.digest, *image.blobs}
    assert not (ours.directory / "repositories/b").exists()
    push(ours, "b", "y", other)  # the repository is made again
    assert ours("GET", "/v2/b/manifests/y").body == other.manifest


def test_what_is_young_or_asked_for_stays(ours: Ours) -> None:
    young = push_blob(ours, "a", b"young")
    gc.collect(Storage(str(ours.directory)))
    assert young in blobs(ours.directory)
    age(ours.directory)
    assert ours("HEAD", f"/v2/a/blobs/{young}").status == 200  # a client that will not push it again
    gc.collect(Storage(str(ours.directory)))
    assert young in blobs(ours.directory)


def test_untagged_manifests(ours: Ours) -> None:
    """They go if asked for, with what refers to them; children of an index and referrers of what stays stay."""
    child, loose = image_of("child"), image_of("loose")
    for image in (child, loose):
        push(ours, "a", "tmp", image)
    index = make_index({"linux/amd64": child})
    assert put_manifest(ours, "a", "index", index, media.OCI_INDEX).status == 201
    kept, gone = artifact(child, "application/x.a", {}), artifact(loose, "application/x.b", {})
    for documents, manifest in (kept, gone):
        for data in documents.values():
            push_blob(ours, "a", data)
        assert put_manifest(ours, "a", digest_of(manifest), manifest).status == 201
    ours("DELETE", "/v2/a/manifests/tmp")
    age(ours.directory)
    assert gc.collect(Storage(str(ours.directory))).manifests == 0
    assert gc.collect(Storage(str(ours.directory)), untagged=True).manifests == 2
    for digest, status in (
        (child.digest, 200),
        (digest_of(kept[1]), 200),
        (loose.digest, 404),
        (digest_of(gone[1]), 404),
    ):
        assert ours("HEAD", f"/v2/a/manifests/{digest}").status == status
    assert ours("GET", f"/v2/a/referrers/{loose.digest}").json()["manifests"] == []
    assert blobs(ours.directory) == {child.digest, *child.blobs, digest_of(index), digest_of(kept[1]), *kept[0]}


def test_the_layout_lists_the_tags(ours: Ours) -> None:
    image = image_of("listed")
    push(ours, "team/app", "1", image)
    gc.collect(Storage(str(ours.directory)))
    (entry,) = json.loads((ours.directory / "index.json").read_text())["manifests"]
    assert entry == {
        "mediaType": media.OCI_MANIFEST,
        "digest": image.digest,
        "size": len(image.manifest),
        "annotations": {"org.opencontainers.image.ref.name": "team/app:1"},
    }


def test_uploads_expire_unless_they_are_in_use(ours: Ours) -> None:
    location = ours("POST", "/v2/a/blobs/uploads/").headers["Location"]
    (ours.directory / "new/left").write_bytes(b"by a server that was killed")
    age(ours.directory, 48 * 3600)
    fresh = ours("POST", "/v2/a/blobs/uploads/").headers["Location"]
    assert gc.collect(Storage(str(ours.directory))).uploads == 2
    assert ours("GET", location).code == "BLOB_UPLOAD_UNKNOWN"
    assert ours("GET", fresh).status == 204
    assert list((ours.directory / "new").iterdir()) == []


def test_a_damaged_repository_is_left_alone(ours: Ours) -> None:
    image = image_of("damaged")
    push(ours, "a", "x", image)
    extra = push_blob(ours, "a", b"extra")
    (ours.directory / "blobs/sha256" / image.digest[7:]).write_bytes(b"{")
    age(ours.directory)
    report = gc.collect(Storage(str(ours.directory)))
    assert len(report.damaged) == 1
    assert extra in blobs(ours.directory)


def test_pushes_go_on_while_it_runs(ours: Ours) -> None:
    """With no grace at all and hardly a pause: a push either succeeds whole, or is told what to send again.

    On a busy machine a push may be told so again and again: then the next one is tried.
    """
    stop = threading.Event()
    failures: list[str] = []
    succeeded: list[int] = []

    def collecting() -> None:
        storage = Storage(str(ours.directory))
        while not stop.is_set():
            gc.collect(storage, grace=0.0, upload_seconds=3600)
            stop.wait(random.uniform(0.0, 0.02))

    def pushing(number: int) -> None:
        for turn in range(15):
            image = make_image([tar_of({"shared": b"x"}), tar_of({"own": f"{number} {turn}".encode()})])
            for _ in range(200):
                for data in image.blobs.values():
                    push_blob(ours, f"r{number % 2}", data)
                answer = put_manifest(ours, f"r{number % 2}", f"t{number}", image.manifest)
                if answer.status == 201:
                    succeeded.append(number)
                    whole(ours, f"r{number % 2}", image, failures)
                    break
                if answer.code != "MANIFEST_BLOB_UNKNOWN":
                    failures.append(f"{answer.status} {answer.body!r}")
                    return

    collector = threading.Thread(target=collecting)
    pushers = [threading.Thread(target=pushing, args=(number,)) for number in range(4)]
    for thread in (collector, *pushers):
        thread.start()
    for thread in pushers:
        thread.join()
    stop.set()
    collector.join()
    assert failures == []
    assert set(succeeded) == {0, 1, 2, 3}


def whole(ours: Ours, repository: str, image: Image, failures: list[str]) -> None:
    """A manifest that was accepted can be pulled with everything that it names."""
    for digest, data in image.blobs.items():
        answer = ours("GET", f"/v2/{repository}/blobs/{digest}")
        if answer.body != data:
            failures.append(f"{digest} is gone: {answer.status}")
    if ours("GET", f"/v2/{repository}/manifests/{image.digest}").body != image.manifest:
        failures.append(f"{image.digest} is gone")


def test_the_server_collects_by_itself(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--gc-interval", "1s", "--grace", "0") as ours:
        digest = push_blob(ours, "a", b"not needed")
        deadline = time.monotonic() + 20
        while digest in blobs(ours.directory):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_command(ours: Ours, limpet: Any) -> None:
    push_blob(ours, "a", b"0123456789")
    age(ours.directory)
    result = limpet("registry", "gc", "--storage", ours.directory, "--dry-run")
    assert result.stdout == f"{ours.directory}: would remove 0 manifests, 1 links, 1 blobs (10B), 0 uploads\n"
    result = limpet("registry", "gc", "--storage", ours.directory)
    assert result.stdout == f"{ours.directory}: removed 0 manifests, 1 links, 1 blobs (10B), 0 uploads\n"
    result = limpet("registry", "gc", "--storage", "/proc", check=False)
    assert result.returncode == 1
    assert "/proc is not a registry's directory" in result.stderr
    result = limpet("registry", "gc", "--storage", ours.directory, "--grace", "soon", check=False)
    assert "--grace soon: not understood" in result.stderr
