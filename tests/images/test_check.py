"""`system check` finds every kind of damage, and repair puts right what can be and drops only what can be fetched."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests import needs

from limpet.images import catalog, check
from limpet.images.check import Finding
from limpet.layers.driver import driver
from limpet.oci import media
from limpet.store import blobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Runner

    from limpet.images.catalog import Image
    from limpet.store.store import Store

    MakeImage = Callable[..., Image]
    AddContainer = Callable[[Image, str], str]


def damage(path: str) -> None:
    """Flips one bit in the middle, keeping the size."""
    with open(path, "r+b") as file:
        at = os.path.getsize(path) // 2
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def fetched(store: Store, image: Image) -> tuple[str, list[str]]:
    """Makes it look as if the image came from a registry: a manifest, compressed layers, a name with the manifest."""
    digests = []
    for diff_id in catalog.layers(store, image.id):
        with driver(store).open_tar(diff_id) as tar:
            digests.append(blobs.put(store, gzip.compress(tar.read())))
        with store.db.transaction():
            store.db.run("INSERT INTO layer_blob VALUES (?, ?, ?)", digests[-1], diff_id, media.OCI_LAYER_GZIP)
    manifest = blobs.put(store, json.dumps({"layers": digests}).encode())
    with store.db.transaction():
        store.db.run("INSERT INTO manifest VALUES (?, ?, ?)", manifest, image.id, media.OCI_MANIFEST)
        for position, digest in enumerate([image.id, *digests]):
            store.db.run("INSERT INTO manifest_blob VALUES (?, ?, ?)", manifest, position, digest)
        store.db.run("UPDATE name SET manifest = ? WHERE image_id = ?", manifest, image.id)
    return manifest, digests


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_a_sound_store(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}, {"b": b"2"}])
    fetched(store, image)
    add_container(image, "one")
    assert check.check(store) == []
    assert check.check(store, repair=True) == []


def test_garbage_is_no_damage(store: Store) -> None:
    with open(f"{store.root}/blobs/sha256/{'0' * 64}", "w"):
        pass
    finding = only(check.check(store, repair=True))
    assert finding.garbage
    assert finding.what.endswith("0" * 64)


def test_a_damaged_config_is_written_again(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    damage(store.blob_path(image.id))
    finding = only(check.check(store))
    assert finding.what == f"blob {image.id}"
    assert finding.problem.startswith("the content is that of sha256:")
    assert not finding.repaired
    assert only(check.check(store, repair=True)).repaired == "written again from the image's row"
    assert check.check(store) == []


def test_a_missing_and_a_shortened_blob(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    size = os.path.getsize(store.blob_path(image.id))
    os.truncate(store.blob_path(image.id), 3)
    assert only(check.check(store)).problem == f"has 3 bytes instead of {size}"
    os.unlink(store.blob_path(image.id))
    assert only(check.check(store)).problem == "the file is missing"


def test_a_damaged_manifest_or_layer_blob_is_dropped(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    manifest, (layer,) = fetched(store, image)
    damage(store.blob_path(manifest))
    damage(store.blob_path(layer))
    findings = check.check(store, repair=True)
    assert {finding.what for finding in findings} == {f"blob {manifest}", f"blob {layer}"}
    assert {finding.repaired for finding in findings} == {"dropped; a pull fetches it again"}
    assert check.check(store) == []
    assert catalog.find(store, "a:1").id == image.id


def test_a_damaged_layer_is_made_again_from_its_blob(
    store: Store, make_image: MakeImage, add_container: AddContainer
) -> None:
    image = make_image("a:1", layers=[{"a": b"1" * 5000}, {".wh.nothing": b"", "b": b"2"}])
    fetched(store, image)
    add_container(image, "one")
    top = catalog.layers(store, image.id)[1]
    damage(f"{store.layer_path(top)}/data")
    assert only(check.check(store)).what == f"layer {top}"
    assert "made again from blob" in only(check.check(store, repair=True)).repaired
    assert check.check(store) == []
    fd = driver(store).mount(catalog.layers(store, image.id))
    assert sorted(os.listdir(f"/proc/self/fd/{fd}")) == ["a", "b"]  # the whiteout that hides nothing was dropped again
    os.close(fd)


def test_a_layer_without_its_blob_takes_its_images_along_if_they_can_be_fetched(
    store: Store, make_image: MakeImage
) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    _, (blob,) = fetched(store, image)
    (layer,) = catalog.layers(store, image.id)
    os.unlink(store.blob_path(blob))
    os.unlink(f"{store.layer_path(layer)}/data")
    findings = check.check(store, repair=True)
    assert [f.repaired for f in findings if f.what.startswith("layer")] == ["dropped with a:1; a pull fetches it again"]
    assert catalog.all_images(store) == []
    assert [f for f in check.check(store) if not f.garbage] == []


def test_what_only_exists_here_is_never_dropped(
    store: Store, make_image: MakeImage, add_container: AddContainer
) -> None:
    built = make_image("built:1", layers=[{"a": b"1"}])
    (layer,) = catalog.layers(store, built.id)
    damage(f"{store.layer_path(layer)}/data")
    assert only(check.check(store)).advice == (
        "used by image built:1; `limpet system check --repair` makes it again if it can"
    )
    finding = only(check.check(store, repair=True))
    assert finding.repaired == ""
    assert finding.advice == (
        "used by image built:1; nothing here can make it again:"
        " `limpet rmi -f built:1`, and load, import or build it again"
    )
    assert catalog.find(store, "built:1").id == built.id
    pulled = make_image("pulled:1", layers=[{"b": b"1"}])
    _, (blob,) = fetched(store, pulled)
    add_container(pulled, "one")
    (other,) = catalog.layers(store, pulled.id)
    os.unlink(store.blob_path(blob))
    damage(f"{store.layer_path(other)}/data")
    unrepaired = {finding.what: finding.advice for finding in check.check(store, repair=True) if not finding.repaired}
    assert unrepaired.keys() == {f"layer {layer}", f"layer {other}"}
    assert unrepaired[f"layer {other}"] == (
        "used by image pulled:1, container one; nothing here can make it again, copy what you need out of it"
        " (`limpet cp`): `limpet rm one`, then `limpet system check --repair` (which drops the image),"
        " and pull it again"
    )
    assert catalog.find(store, "pulled:1").id == pulled.id


def test_rows_that_differ(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}, {"b": b"2"}])
    with store.db.transaction():
        store.db.run("UPDATE image SET config = '{}'")
    assert only(check.check(store)).problem == "its row has another config"
    assert only(check.check(store, repair=True)).repaired == "written again from its blob"
    assert check.check(store) == []
    with store.db.transaction():
        store.db.run("DELETE FROM image_layer WHERE position = 1")
    assert only(check.check(store)) == Finding(f"image {image.id}", "its layers are not those of its config")


def test_containers_and_volumes(store: Store, make_image: MakeImage, add_container: AddContainer) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    container_id = add_container(image, "one")
    os.rmdir(f"{store.container_path(container_id)}/upper")
    with store.db.transaction():
        store.db.run("INSERT INTO volume (name, created, anonymous, labels) VALUES ('data', 0, 0, '{}')")
    found = {(finding.what, finding.problem.split(" in ")[0]) for finding in check.check(store)}
    assert found == {("container one", "its upper is missing"), ("volume data", "its directory is missing")}


def test_nothing_is_written_without_repair(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    damage(store.blob_path(image.id))
    before = Path(store.blob_path(image.id)).read_bytes()
    check.check(store)
    assert Path(store.blob_path(image.id)).read_bytes() == before


def test_garbage_is_not_told_while_something_is_added(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with open(f"{store.root}/blobs/sha256/{'0' * 64}", "w"):
        pass
    with store.lease():
        assert check.check(store) == []


FORMS = (
    ("mode", lambda place: os.chmod(f"{place}/etc/motd", 0o600), "/etc/motd: has the mode 600 instead of 644"),
    ("content", lambda place: damage(f"{place}/etc/motd"), "/etc/motd: has another"),
    ("size", lambda place: os.truncate(f"{place}/etc/motd", 3), "/etc/motd: has "),
    ("time", lambda place: os.utime(f"{place}/etc/motd", (5, 5)), "/etc/motd: has another time"),
    ("owner", lambda place: os.chown(f"{place}/etc/motd", 7, 8), "/etc/motd: belongs to 7:8 instead of 0:0"),
    ("attribute", lambda place: os.setxattr(f"{place}/etc/motd", "user.a", b""), "has other extended attributes"),
    ("missing", lambda place: os.unlink(f"{place}/etc/motd"), "/etc/motd: is missing"),
    ("kind", lambda place: (os.unlink(f"{place}/a"), os.symlink("etc", f"{place}/a")), "/a: is of another kind"),
)


@pytest.mark.parametrize(("spoil", "said"), [case[1:] for case in FORMS], ids=[case[0] for case in FORMS])
def test_a_tree_of_the_dir_driver_is_compared_with_its_tar(
    store: Store, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[str], object], said: str
) -> None:
    monkeypatch.setenv("LIMPET_DRIVER", "dir")
    image = make_image("a:1", layers=[{"etc/motd": b"hello\n", "a": b"1"}])
    (layer,) = catalog.layers(store, image.id)
    os.close(driver(store).mount([layer]))
    (tree,) = [name for name in os.listdir(store.layer_path(layer)) if name.startswith("tree")]
    assert check.check(store) == []
    spoil(f"{store.layer_path(layer)}/{tree}")
    finding = only(check.check(store))
    assert finding.problem.startswith(f"its {tree} is not what the tar says: ")
    assert said in finding.problem
    assert only(check.check(store, repair=True)).repaired == "made again from its tar"
    assert check.check(store) == []


def test_the_tree_of_a_layer_that_a_running_container_reads_is_left_alone(limpet: Runner, busybox_tar: Path) -> None:
    limpet.environment["LIMPET_DRIVER"] = "dir"
    limpet("import", busybox_tar, "busybox:test")
    limpet("run", "-d", "--name", "one", "busybox:test", "sleep", "1000")
    (passwd,) = limpet.root.glob("layers/*/tree*/etc/passwd")
    times = passwd.stat()
    damage(str(passwd))
    os.utime(passwd, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = limpet("system", "check", "-q", "--repair", check=False)
    assert found.returncode == 1
    assert "/etc/passwd: has another content; used by image busybox:test, container one; " in found.stdout
    assert found.stdout.endswith("`limpet stop one`, then try again\n")
    limpet("stop", "-t", "0", "one")
    assert "(repaired: made again from its tar)" in limpet("system", "check", "-q", "--repair").stdout
    assert limpet("system", "check").stdout == "nothing is wrong\n"


@needs.erofs
def test_a_damaged_index_is_made_again_from_the_tar(store: Store, make_image: MakeImage) -> None:
    image = make_image("a:1", layers=[{"a": b"1"}])
    (layer,) = catalog.layers(store, image.id)
    damage(f"{store.layer_path(layer)}/index")
    assert only(check.check(store, repair=True)).repaired == "made again from its tar"
    assert check.check(store) == []
