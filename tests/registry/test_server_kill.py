"""A SIGKILL at every step of a push and of a deletion: what can be pulled is whole, and doing it again works.

The server is first traced for the fault points that it passes (`limpet.store.faults`), then killed at each of them.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.registry.ours import Ours, serving
from tests.registry.server import Image, digest_of, make_image, tar_of
from tests.registry.test_server_gc import age, blobs
from tests.registry.test_server_protocol import artifact, image_of, push, push_blob, put_manifest

from limpet.registry.server import gc
from limpet.registry.server.storage import Storage

IMAGE = image_of("killed")
BLOBS, ABOUT = artifact(IMAGE, "application/x.sbom", {})


def everything(ours: Ours) -> None:
    push(ours, "a/b", "x", IMAGE)
    for data in BLOBS.values():
        push_blob(ours, "a/b", data)
    assert put_manifest(ours, "a/b", digest_of(ABOUT), ABOUT).status == 201


def nothing(ours: Ours) -> None:
    assert ours("DELETE", f"/v2/a/b/manifests/{digest_of(ABOUT)}").status in (202, 404)
    assert ours("DELETE", f"/v2/a/b/manifests/{IMAGE.digest}").status in (202, 404)


def whole(ours: Ours) -> None:
    """Whatever is said to be there is there, with all that it names."""
    answer = ours("GET", "/v2/a/b/manifests/x")
    assert answer.status in (200, 404)
    if answer.status == 200:
        assert answer.body == IMAGE.manifest
    if ours("GET", f"/v2/a/b/manifests/{IMAGE.digest}").status == 200:
        for digest, data in IMAGE.blobs.items():
            assert ours("GET", f"/v2/a/b/blobs/{digest}").body == data
    for entry in ours("GET", f"/v2/a/b/referrers/{IMAGE.digest}").json()["manifests"]:
        assert ours("GET", f"/v2/a/b/manifests/{entry['digest']}").body == ABOUT
    for path in (ours.directory / "blobs/sha256").iterdir():
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"


@pytest.mark.slow
@pytest.mark.parametrize("work", [everything, nothing], ids=["push", "delete"])
def test_killed_at_every_step(tmp_path: Path, work: Callable[[Ours], None]) -> None:
    def prepare(directory: Path) -> None:
        Storage(str(directory))
        if work is nothing:
            with serving(directory) as ours:
                everything(ours)

    prepare(tmp_path / "traced")
    trace = tmp_path / "trace"
    with serving(tmp_path / "traced", environment={"LIMPET_FAULT": f"trace:{trace}"}) as ours:
        work(ours)
    points = trace.read_text().split()
    assert len(points) > 3
    for number in range(1, len(points) + 1):
        directory = tmp_path / str(number)
        prepare(directory)
        with serving(directory, environment={"LIMPET_FAULT": f"kill:{number}"}) as ours:
            with pytest.raises((OSError, http.client.HTTPException)):
                work(ours)
            assert ours.process.wait(20) == -9
        with serving(directory) as ours:
            whole(ours)
            work(ours)
            whole(ours)
            assert ours("GET", "/v2/a/b/manifests/x").status == (200 if work is everything else 404)
        age(directory)
        gc.collect(Storage(str(directory)), upload_seconds=60)
        needed = {IMAGE.digest, *IMAGE.blobs, digest_of(ABOUT), *BLOBS} if work is everything else set()
        assert blobs(directory) == needed
        assert list((directory / "new").iterdir()) == list((directory / "uploads").iterdir()) == []


@pytest.mark.slow
def test_killed_while_it_makes_its_directory(tmp_path: Path) -> None:
    for number in range(1, 5):
        directory = tmp_path / str(number)
        with (
            pytest.raises(AssertionError, match="did not start"),
            serving(directory, environment={"LIMPET_FAULT": f"kill:{number}"}),
        ):
            pass
        with serving(directory) as ours:
            everything(ours)
            whole(ours)


def test_the_same_blob_by_many_at_once(tmp_path: Path) -> None:
    """And one manifest, by several workers: all are told that it is there, and it is, once."""
    image: Image = make_image([tar_of({"same": b"x" * 300_000})])
    with serving(tmp_path / "data", "--workers", "2") as ours:
        failures: list[BaseException] = []

        def pushing() -> None:
            try:
                for _ in range(3):
                    push(ours, "a", "x", image)
            except BaseException as e:
                failures.append(e)

        threads = [threading.Thread(target=pushing) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert blobs(ours.directory) == {image.digest, *image.blobs}
        for digest, data in image.blobs.items():
            assert ours("GET", f"/v2/a/blobs/{digest}").body == data
        assert list((ours.directory / "uploads").iterdir()) == []
