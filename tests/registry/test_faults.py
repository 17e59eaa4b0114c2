"""Pulls and pushes through a proxy that breaks things at random (`faulty.py`).

Each ends in the right bytes or in one clear error, and succeeds when it is repeated without faults; nothing partial is
ever visible. A failure names its seed: `LIMPET_FAULT_SEED=N` runs that round alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from typing import TYPE_CHECKING

import pytest
from tests.registry import faulty, ours, server

from limpet.errors import LimpetError
from limpet.images import catalog, names
from limpet.images.pull import pull
from limpet.images.push import push
from limpet.oci import reference
from limpet.oci.manifest import Descriptor
from limpet.registry import connection, download, upload
from limpet.registry.client import Registry
from limpet.registry.copying import copy
from limpet.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

QUICK, MANY = 8, 120
"""Rounds for each registry; each is a push, a pull and a copy, so 360 for one registry with the slow ones."""

LIMIT = 25.0
"""Seconds after which no new round begins on a machine that is busy with other things."""


class Scene:
    """A registry, the proxy before it, and two stores."""

    def __init__(self, domain: str, through: str, faults: faulty.Faults, directory: Path) -> None:
        self.domain, self.through, self.faults = domain, through, faults
        self.sender = Store(str(directory / "sender"), str(directory / "sender-run"))
        self.receiver = Store(str(directory / "receiver"), str(directory / "receiver-run"))
        self.real = server.Registry(domain, directory)

    def attempt(self, seed: int, share: float, work: Callable[[], object]) -> bool:
        """Whether it succeeded under faults; an error is one line, and is none of ours when it is tried without."""
        self.faults.begin(seed, share)
        try:
            work()
        except LimpetError as e:
            error = str(e)
        else:
            error = ""
        finally:
            self.faults.end()
        assert "\n" not in error
        return not error


@pytest.fixture(params=["docker-registry", "ours"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(upload, "SINGLE_POST", 4096)
    monkeypatch.setattr(upload, "CHUNK", 40_000)
    monkeypatch.setattr(download, "PATIENCE", 0.0)
    monkeypatch.setattr(download, "WORTH", 100_000)
    monkeypatch.setattr(download, "SLOW", 1 << 40)
    monkeypatch.setattr(download, "SEGMENT", 30_000)
    monkeypatch.setattr(download, "PIECE", 10_000)
    make = server.docker_registry if request.param == "docker-registry" else ours.serving
    with make(tmp_path / "registry") as real, faulty.proxy(real.domain) as (through, faults):
        yield Scene(real.domain, through, faults, tmp_path)


@pytest.mark.parametrize("part", ["quick", pytest.param("many", marks=pytest.mark.slow)])
def test_all_ends_well(scene: Scene, part: str) -> None:
    only = os.environ.get("LIMPET_FAULT_SEED", "")
    seeds = [int(only)] if only else range(QUICK) if part == "quick" else range(1000, 1000 + MANY)
    ended = {True: 0, False: 0}
    began = time.monotonic()
    for seed in seeds:
        if time.monotonic() - began > LIMIT:
            break
        try:
            for done in _round(scene, seed):
                ended[done] += 1
        except BaseException as e:
            e.add_note(f"LIMPET_FAULT_SEED={seed}; faults: {scene.faults.seen}")
            raise
    print(f"{sum(ended.values())} transfers, of which {ended[True]} came through at once")
    if not only:
        assert ended[True] >= 3  # it is no test of the error path alone
        assert sum(ended.values()) >= 3 * 5  # nor of a machine that was too busy for anything


def _round(scene: Scene, seed: int) -> Iterator[bool]:
    dice = random.Random(seed)
    share = dice.choice([0.05, 0.15, 0.4, 0.7])
    tars = [server.tar_of({"file": dice.randbytes(dice.randrange(1, 400_000))}) for _ in range(dice.randrange(1, 4))]
    image = server.make_image(tars, docker=dice.random() < 0.3)
    repository = f"round{seed}"
    scene.real.push(image, f"{repository}/source:1")
    pull(scene.sender, f"{scene.domain}/{repository}/source:1")
    names.tag(scene.sender, f"{scene.domain}/{repository}/source:1", f"{scene.through}/{repository}:1")
    pushed = reference.parse(f"{scene.through}/{repository}:1")

    done = scene.attempt(seed, share, lambda: list(push(scene.sender, [pushed])))
    if not done:
        (again,) = push(scene.sender, [pushed])
        assert again.digest == image.digest
    _is_there(scene.domain, repository, image)
    yield done

    name = f"{scene.through}/{repository}:1"
    done = scene.attempt(seed + 1, share, lambda: pull(scene.receiver, name))
    _only_whole(scene.receiver, image if done else None)
    if not done:
        assert pull(scene.receiver, name).id == image.id
        _only_whole(scene.receiver, image)
    names.remove(scene.receiver, name)
    yield done

    source, target = reference.parse(name), reference.parse(f"{scene.through}/{repository}/copy:1")
    done = scene.attempt(seed + 2, share, lambda: copy(source, target))
    if not done:
        assert copy(source, target).digest == image.digest
    _is_there(scene.domain, f"{repository}/copy", image)
    yield done


def _is_there(domain: str, repository: str, image: server.Image) -> None:
    registry = Registry(domain)
    assert registry.manifest(repository, "1")[0] == image.manifest
    for digest, data in image.blobs.items():
        assert b"".join(registry.blob(repository, Descriptor("", digest, len(data)))) == data


def _only_whole(store: Store, image: server.Image | None) -> None:
    """The image or none; every blob has the bytes of its name; nothing lies about but beginnings of downloads."""
    assert [one.id for one in catalog.all_images(store)] == ([image.id] if image is not None else [])
    for name in os.listdir(f"{store.root}/blobs/sha256"):
        with open(f"{store.root}/blobs/sha256/{name}", "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == name
    assert os.listdir(f"{store.root}/tmp") == []
    for diff_id, size in store.db.rows("SELECT diff_id, size FROM layer"):
        with open(f"{store.layer_path(diff_id)}/data", "rb") as file:
            data = file.read()
        assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (size, diff_id)
    if image is not None:
        assert catalog.layers(store, image.id) == json.loads(image.config)["rootfs"]["diff_ids"]
