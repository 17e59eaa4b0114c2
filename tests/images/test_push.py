"""Push to a real registry: what was pulled goes up to the byte, what was made here can be pulled by others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.registry import server
from tests.registry.test_upload import Uploads

from limpet.errors import Invalid, LimpetError, NotFound
from limpet.images import names
from limpet.images.packing import Packing
from limpet.images.pull import pull
from limpet.images.push import names_of, push
from limpet.layers import compress
from limpet.oci import media
from limpet.progress import Progress
from limpet.registry import connection
from limpet.registry.client import Registry

if TYPE_CHECKING:
    import http.server
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from limpet.images.push import Pushed
    from limpet.store.store import Store

pytestmark = pytest.mark.slow

TARS = [server.tar_of({f"file{number}": os.urandom(50_000) * 2}) for number in range(4)]


class Recording(Progress):
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.lines: list[str] = []
        self.bytes = 0

    def advance(self, key: str, count: int) -> None:
        self.bytes += count

    def finish(self, key: str, status: str) -> None:
        self.ended.append(status)

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Registry]:
    with server.docker_registry(tmp_path_factory.mktemp("other")) as real:
        yield real


def _push(store: Store, text: str, seen: Progress | None = None, **options: Any) -> list[Pushed]:
    return list(push(store, names_of(store, text, False), progress=seen, **options))


@pytest.mark.parametrize("docker", [False, True])
def test_what_was_pulled_goes_up_to_the_byte(
    store: Store, registry: server.Registry, other: server.Registry, docker: bool
) -> None:
    image = server.make_image(TARS, docker=docker)
    registry.push(image, "come:1")
    pull(store, f"{registry.domain}/come:1")
    names.tag(store, f"{registry.domain}/come:1", f"{other.domain}/gone{docker:d}:2".lower())
    seen = Recording()
    (pushed,) = _push(store, f"{other.domain}/gone{docker:d}:2", seen)
    assert (pushed.digest, pushed.size) == (image.digest, len(image.manifest))
    assert pushed.line == f"2: digest: {image.digest} size: {len(image.manifest)}"
    client = Registry(other.domain)
    assert client.manifest(f"gone{docker:d}", "2")[0] == image.manifest
    assert seen.ended == ["Pushed"] * 4 or docker
    again = Recording()
    assert _push(store, f"{other.domain}/gone{docker:d}:2", again) == [pushed]
    assert again.ended == ["Layer already exists"] * 4
    assert again.bytes == 0


def test_another_repository_of_the_registry_has_it(store: Store, registry: server.Registry) -> None:
    image = server.make_image(TARS[:3])
    registry.push(image, "base/image:1")
    pull(store, f"{registry.domain}/base/image:1")
    names.tag(store, f"{registry.domain}/base/image:1", f"{registry.domain}/mounted:1")
    seen = Recording()
    (pushed,) = _push(store, f"{registry.domain}/mounted:1", seen)
    assert pushed.digest == image.digest
    assert seen.ended == ["Mounted from base/image"] * 3
    assert seen.bytes == 0
    client = Registry(registry.domain)
    assert client.has_blob("mounted", server.digest_of(image.layers[0])) == len(image.layers[0])


def test_a_layer_that_is_a_plain_tar(store: Store, registry: server.Registry) -> None:
    image = server.make_image(TARS[:1], pack=lambda tar: tar, layer_type=media.OCI_LAYER)
    registry.push(image, "plain:1")
    pull(store, f"{registry.domain}/plain:1")
    names.tag(store, f"{registry.domain}/plain:1", f"{registry.domain}/plain-again:1")
    store.db.run("UPDATE name SET manifest = NULL WHERE reference LIKE '%/plain:1'")  # so that nothing can be mounted
    assert _push(store, f"{registry.domain}/plain-again:1")[0].digest == image.digest


def test_what_was_made_here(limpet: Any, store: Store, busybox: str, registry: server.Registry) -> None:
    """An imported image: compressed once; what others see has the config that was here; the digest stays."""
    name = f"{registry.domain}/made:1"
    limpet("tag", busybox, name)
    result = limpet("push", name)
    lines = result.stdout.splitlines()
    assert lines[0] == f"The push refers to repository [{registry.domain}/made]"
    assert result.stderr.endswith(": Pushed\n")
    data, media_type, digest = Registry(registry.domain).manifest("made", "1")
    assert lines[1] == f"1: digest: {digest} size: {len(data)}"
    manifest = json.loads(data)
    assert media_type == media.OCI_MANIFEST
    assert [layer["mediaType"] for layer in manifest["layers"]] == [media.OCI_LAYER_GZIP]
    image_id = limpet("image", "inspect", "-f", "{{.Id}}", name).stdout.strip()
    assert manifest["config"]["digest"] == image_id
    assert pull(store, name).id == image_id
    again = limpet("push", "-q", name)
    assert (again.stdout, again.stderr) == (f"{name}\n", "")
    assert Registry(registry.domain).manifest("made", "1")[2] == digest
    limpet("tag", name, f"{registry.domain}/made/elsewhere:1")
    moved = limpet("image", "push", f"{registry.domain}/made/elsewhere:1")
    assert moved.stderr.endswith(": Mounted from made\n")
    assert digest in moved.stdout
    assert digest in limpet("images", "--digests", name).stdout
    assert limpet("system", "check").returncode == 0


def test_the_manifest_as_it_is(limpet: Any, busybox: str, registry: server.Registry) -> None:
    image = server.make_image(TARS[:1])
    registry.push(image, "raw:1")
    limpet("pull", "-q", f"{registry.domain}/raw:1")
    assert limpet("image", "inspect", "--raw", f"{registry.domain}/raw:1").stdout.encode() == image.manifest
    none = limpet("image", "inspect", "--raw", busybox, check=False)
    assert "was made here" in none.stderr


def test_compressions(limpet: Any, busybox: str, registry: server.Registry) -> None:
    client = Registry(registry.domain)
    seen: dict[str, str] = {}
    for number, words in enumerate((["zstd"], ["gzip"], ["gzip", "--compression-level", "9"], ["zstd"])):
        name = f"{registry.domain}/kinds:{number}"
        limpet("tag", busybox, name)
        limpet("push", "--compression", *words, name)
        (layer,) = json.loads(client.manifest("kinds", str(number))[0])["layers"]
        seen[" ".join(words)] = layer["digest"]
        assert layer["mediaType"].endswith(words[0])
    assert len(set(seen.values())) == 3
    for words in (["zstd:chunked"], ["estargz"], ["gzip", "--compression-level", "10"]):
        refused = limpet("push", "--compression", *words, name, check=False)
        assert refused.returncode == 1
        assert words[-1] in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_new_layer_over_a_pulled_one(limpet: Any, registry: server.Registry, busybox_tar: Path) -> None:
    """The base keeps its blob and is mounted; only the new layer is made and sent."""
    base = server.make_image([busybox_tar.read_bytes()], config={"Cmd": ["sh"]})
    registry.push(base, "under:1")
    limpet("pull", "-q", f"{registry.domain}/under:1")
    limpet("run", "--name", "work", f"{registry.domain}/under:1", "sh", "-c", "echo new > /etc/new")
    limpet("commit", "work", f"{registry.domain}/over:1")
    result = limpet("push", f"{registry.domain}/over:1")
    assert sorted(line.partition(": ")[2] for line in result.stderr.splitlines()) == ["Mounted from under", "Pushed"]
    layers = json.loads(Registry(registry.domain).manifest("over", "1")[0])["layers"]
    assert layers[0]["digest"] == server.digest_of(base.layers[0])
    limpet("rm", "work")
    limpet("rmi", f"{registry.domain}/over:1", f"{registry.domain}/under:1")
    assert limpet("run", "--rm", f"{registry.domain}/over:1", "cat", "/etc/new").stdout == "new\n"


def test_all_tags(limpet: Any, busybox: str, registry: server.Registry) -> None:
    for tag in ("1", "2", "x"):
        limpet("tag", busybox, f"{registry.domain}/many:{tag}")
    result = limpet("push", "-a", f"{registry.domain}/many")
    assert [line.partition(":")[0] for line in result.stdout.splitlines()[1:]] == ["1", "2", "x"]
    refused = limpet("push", "-a", f"{registry.domain}/many:1", check=False)
    assert "leave out the tag" in refused.stderr


def _index(registry: server.Registry, name: str, count: int = 3) -> tuple[bytes, list[server.Image]]:
    platforms = ["linux/amd64", "linux/arm64", "linux/s390x"][:count]
    images = [
        server.make_image([TARS[number]], architecture=platform.partition("/")[2])
        for number, platform in enumerate(platforms)
    ]
    index = server.make_index(dict(zip(platforms, images, strict=True)))
    for image in images[1:]:
        registry.push(image, f"{name.partition(':')[0]}:part")
    registry.push(images[0], name, index)
    return index, images


def test_an_index_that_is_whole(store: Store, registry: server.Registry, other: server.Registry) -> None:
    index, images = _index(registry, "whole:1", 2)
    for platform in ("linux/arm64", "linux/amd64"):
        pull(store, f"{registry.domain}/whole:1", platform=platform)
    names.tag(store, f"{registry.domain}/whole:1", f"{other.domain}/whole:1")
    seen = Recording()
    assert _push(store, f"{other.domain}/whole:1", seen)[0].digest == server.digest_of(index)
    assert seen.lines == []
    client = Registry(other.domain)
    assert client.manifest("whole", "1")[0] == index
    for image in images:
        assert client.manifest("whole", image.digest)[0] == image.manifest
    assert _push(store, f"{other.domain}/whole:1")[0].digest == server.digest_of(index)
    (alone,) = _push(store, f"{other.domain}/whole:1", platform="linux/arm64")
    assert alone.digest == images[1].digest


def test_an_index_of_which_a_part_is_here(store: Store, registry: server.Registry, other: server.Registry) -> None:
    _, images = _index(registry, "part:1")
    pull(store, f"{registry.domain}/part:1", platform="linux/arm64")
    names.tag(store, f"{registry.domain}/part:1", f"{other.domain}/part:1")
    seen = Recording()
    (pushed,) = _push(store, f"{other.domain}/part:1", seen)
    assert pushed.digest == images[1].digest
    assert "Only linux/arm64 of the 3 platforms" in seen.lines[0]
    with pytest.raises(NotFound, match="does not match"):
        _push(store, f"{other.domain}/part:1", platform="linux/s390x")
    pull(store, f"{registry.domain}/part:1", platform="linux/amd64")
    with pytest.raises(NotFound, match="linux/s390x is not in the store"):
        _push(store, f"{registry.domain}/part:1", platform="linux/s390x")
    names.tag(store, f"{registry.domain}/part:1", f"{other.domain}/part:2")
    seen = Recording()
    (pushed,) = _push(store, f"{other.domain}/part:2", seen)
    assert "Only linux/amd64, linux/arm64 of the 3 platforms" in seen.lines[0]
    listed = json.loads(Registry(other.domain).manifest("part", "2")[0])["manifests"]
    assert [entry["digest"] for entry in listed] == [images[0].digest, images[1].digest]
    assert _push(store, f"{other.domain}/part:2")[0].digest == pushed.digest


def test_a_blob_that_is_no_more_kept(store: Store, registry: server.Registry) -> None:
    """The registry still has it: the manifest goes up as it came. Another does not: a new one is made."""
    image = server.make_image(TARS[:2])
    registry.push(image, "dropped:1")
    pull(store, f"{registry.domain}/dropped:1")
    gone = server.digest_of(image.layers[0])
    os.unlink(store.blob_path(gone))
    store.db.run("DELETE FROM blob WHERE digest = ?", gone)
    assert _push(store, f"{registry.domain}/dropped:1")[0].digest == image.digest
    names.tag(store, f"{registry.domain}/dropped:1", f"{registry.domain}/dropped/new:1")
    (pushed,) = _push(store, f"{registry.domain}/dropped/new:1")
    assert pushed.digest != image.digest
    assert pull(store, f"{registry.domain}/dropped/new@{pushed.digest}").id == image.id


def test_what_cannot_be_pushed(store: Store, registry: server.Registry) -> None:
    image = server.make_image(TARS[:1])
    registry.push(image, "refused:1")
    pull(store, f"{registry.domain}/refused:1")
    with pytest.raises(NotFound, match=r"does not exist locally with the tag: .*refused:2"):
        _push(store, f"{registry.domain}/refused:2")
    with pytest.raises(Invalid, match="has a digest"):
        _push(store, f"{registry.domain}/refused@{image.digest}")
    with pytest.raises(Invalid, match=r"is an id, not a name; .*limpet tag"):
        _push(store, image.id[7:19])


def test_nobody_may_push(
    store: Store, registry: server.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    registry.push(server.make_image(TARS[:1]), "locked:1")
    pull(store, f"{registry.domain}/locked:1")
    with server.docker_registry(tmp_path / "locked", login=True) as locked:
        names.tag(store, f"{registry.domain}/locked:1", f"{locked.domain}/app:1")
        with pytest.raises(LimpetError, match=r"push access denied for .*/app: .*log in"):
            _push(store, f"{locked.domain}/app:1")


def test_a_collection_spares_what_a_push_made(limpet: Any, busybox: str, registry: server.Registry) -> None:
    limpet("tag", busybox, f"{registry.domain}/kept:1")
    limpet("push", "-q", f"{registry.domain}/kept:1")
    digest = Registry(registry.domain).manifest("kept", "1")[2]
    limpet("system", "prune", "-f")
    assert limpet("push", f"{registry.domain}/kept:1").stdout.splitlines()[-1].split()[2] == digest


def test_packing_is_checked_at_once() -> None:
    with pytest.raises(Invalid, match="zstd:chunked"):
        Packing("zstd:chunked")
    assert Packing("gzip").level == compress.LEVELS["gzip"][2]


def test_a_damaged_blob_is_told(store: Store, registry: server.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    image = server.make_image(TARS[:1])
    registry.push(image, "damaged:1")
    pull(store, f"{registry.domain}/damaged:1")
    digest = server.digest_of(image.layers[0])
    with open(store.blob_path(digest), "r+b") as file:
        file.seek(1000)
        file.write(b"XXXX")
    names.tag(store, f"{registry.domain}/damaged:1", f"{registry.domain}/damaged-again:1")
    store.db.run("UPDATE name SET manifest = NULL WHERE reference LIKE '%/damaged:1'")
    with pytest.raises(LimpetError, match=f"other bytes than {digest}.*system check"):
        _push(store, f"{registry.domain}/damaged-again:1")


def test_a_pruned_store_has_nothing_of_it(limpet: Any, busybox: str, registry: server.Registry) -> None:
    limpet("tag", busybox, f"{registry.domain}/going:1")
    limpet("push", "-q", f"{registry.domain}/going:1")
    limpet("rmi", busybox, f"{registry.domain}/going:1")
    assert os.listdir(limpet.root / "blobs/sha256") == []


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_others_can_read_it(limpet: Any, busybox: str, registry: server.Registry, tmp_path: Path, kind: str) -> None:
    """skopeo checks every digest; for docker's format, which has no zstd, it unpacks the layers too."""
    if shutil.which("skopeo") is None:
        pytest.skip("needs Debian's skopeo")
    name = f"{registry.domain}/read/{kind}:1"
    limpet("tag", busybox, name)
    limpet("push", "-q", "--compression", kind, name)
    target = f"docker-archive:{tmp_path}/a.tar:x:1" if kind == "gzip" else f"oci-archive:{tmp_path}/a.tar:docker.io/x:1"
    words = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", target]
    subprocess.run(words, check=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert "x:1" in limpet("load", "-q", "-i", tmp_path / "a.tar").stdout
    assert (
        limpet("image", "inspect", "-f", "{{.RootFS.Layers}}", "x:1", name).stdout.splitlines()
        == [limpet("image", "inspect", "-f", "{{.RootFS.Layers}}", busybox).stdout.strip()] * 2
    )


def test_an_upload_that_was_killed_goes_on(limpet: Any, tmp_path: Path) -> None:
    """The next push asks the registry how much it has, and sends the rest."""
    uploads = Uploads()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if handler.command != "PUT" or "/manifests/" not in handler.path:
            return uploads(handler)
        uploads.blobs["manifest"] = handler.rfile.read(int(handler.headers["Content-Length"]))
        server.send(handler, 201)
        return True

    with server.scripted() as state:
        state.answer = answer
        (tmp_path / "root").mkdir()
        (tmp_path / "root/file").write_bytes(os.urandom(6 << 20))
        name = f"{state.domain}/app:1"
        limpet("import", tmp_path / "root", name)
        uploads.received = threading.Event()
        words = [*limpet.command, "push", "-q", "--limit-rate", "4m", name]
        process = subprocess.Popen(words, env=limpet.environment)
        assert uploads.received.wait(30)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while not uploads.sessions["0"] and time.monotonic() < deadline:
            time.sleep(0.01)
        before = len(uploads.sessions["0"])
        assert 0 < before < 6 << 20
        uploads.seen.clear()
        limpet("push", "-q", name)
    assert [line for line in uploads.seen if "/upload" in line.partition(" ")[2][:8]] == [
        "GET /upload",
        "PATCH /upload",
        "PUT /upload",
    ]
    (layer,) = json.loads(uploads.blobs["manifest"])["layers"]
    assert server.digest_of(uploads.blobs[layer["digest"]]) == layer["digest"]
    assert os.listdir(limpet.root / "partial") == []


def test_a_push_that_was_killed_is_simply_repeated(limpet: Any, busybox: str, registry: server.Registry) -> None:
    """In the middle of the compression, and in the middle of the upload: nothing lies about that a prune leaves."""
    name = f"{registry.domain}/killed:1"
    limpet("tag", busybox, name)
    for fault in ("blob-written", "blob-renamed", "push-documents"):
        limpet.environment["LIMPET_FAULT"] = f"kill:{fault}:1"
        assert limpet("push", name, check=False).returncode == -9
        del limpet.environment["LIMPET_FAULT"]
    limpet("push", "-q", "--limit-rate", "100m", name)
    assert limpet("system", "check").returncode == 0
    limpet("system", "prune", "-f")
    assert os.listdir(limpet.root / "tmp") == []
    assert limpet("system", "check").returncode == 0
