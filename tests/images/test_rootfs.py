"""`import`: one layer from a tar or a directory, with the changes asked for."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests import needs

from limpet.errors import Invalid, LimpetError, NotFound
from limpet.images import catalog, rootfs
from limpet.layers.driver import driver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from limpet.store.store import Store


def identity(data: bytes) -> bytes:
    return data


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "compress", [identity, gzip.compress, lzma.compress, bz2.compress, pytest.param(zstd, marks=needs.program("zstd"))]
)
def test_a_tar_is_kept_to_the_byte(
    store: Store, busybox_tar: Path, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    plain = busybox_tar.read_bytes()
    (tmp_path / "file").write_bytes(compress(plain))
    image = rootfs.import_rootfs(store, str(tmp_path / "file"), "busybox:test")
    assert catalog.find(store, "busybox:test").id == image.id
    assert catalog.layers(store, image.id) == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
    assert image.config["history"][0]["comment"] == "Imported from file"


def test_a_stream(store: Store, busybox_tar: Path) -> None:
    image = rootfs.import_rootfs(store, io.BytesIO(busybox_tar.read_bytes()), message="my words")
    assert image.names == []
    assert image.config["history"][0]["comment"] == "my words"


def test_a_directory(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/file").write_text("x")
    os.chown(root / "etc/file", 5, 6)
    (root / "etc/file").chmod(0o4711)  # after chown, which clears setuid
    os.utime(root / "etc/file", ns=(0, 1_234_567_890_123_456_789))
    os.setxattr(root / "etc/file", "user.key", b"value")
    os.link(root / "etc/file", root / "hard")
    os.symlink("etc/file", root / "soft")
    os.mkfifo(root / "fifo")
    image = rootfs.import_rootfs(store, str(root), "dir:1")
    with (
        driver(store).open_tar(catalog.layers(store, image.id)[0]) as file,
        tarfile.open(fileobj=file) as tar,
    ):
        members = {member.name: member for member in tar}
    found = members["etc/file"]
    assert (found.mode, found.uid, found.gid, found.pax_headers["mtime"]) == (0o4711, 5, 6, "1234567890.123456789")
    assert found.pax_headers["SCHILY.xattr.user.key"] == "value"
    assert members["hard"].linkname == "etc/file"
    assert members["soft"].linkname == "etc/file"
    assert members["fifo"].isfifo()
    again = rootfs.import_rootfs(store, str(root))
    assert catalog.layers(store, again.id) == catalog.layers(store, image.id)


def test_changes_message_and_platform(store: Store, busybox_tar: Path) -> None:
    image = rootfs.import_rootfs(
        store,
        str(busybox_tar),
        "x",
        changes=['CMD ["sh"]', "ENV A=1"],
        message="hello",
        wanted_platform="linux/arm/v6",
    )
    assert image.config["config"] == {"Cmd": ["sh"], "Env": ["A=1"]}
    assert (image.config["architecture"], image.config["variant"]) == ("arm", "v6")


def test_source_date_epoch_makes_it_reproducible(
    store: Store, busybox_tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    first = rootfs.import_rootfs(store, str(busybox_tar))
    assert first.config["created"] == "1970-01-02T00:00:00Z"
    assert rootfs.import_rootfs(store, str(busybox_tar)).id == first.id


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"no tar at all", "tar"),
        (gzip.compress(b"x" * 10_000, mtime=0)[:-9], "cut off|tar"),
        (b"\x1f\x8b broken", "gzip"),
    ],
)
def test_what_is_no_tar_leaves_nothing_behind(store: Store, tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(Invalid, match=message):
        rootfs.import_rootfs(store, str(tmp_path / "file"), "x")
    assert catalog.all_images(store) == []
    assert os.listdir(f"{store.root}/layers") == os.listdir(f"{store.root}/tmp") == []


def test_what_cannot_be(store: Store, busybox_tar: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        rootfs.import_rootfs(store, str(tmp_path / "nothing"))
    with pytest.raises(Invalid, match="reference"):
        rootfs.import_rootfs(store, str(busybox_tar), "UPPER")
    with pytest.raises(Invalid, match="has a digest"):
        rootfs.import_rootfs(store, str(busybox_tar), "a@sha256:" + "0" * 64)
    with pytest.raises(Invalid, match="cannot be applied"):
        rootfs.import_rootfs(store, str(busybox_tar), changes=["RUN x"])
    with pytest.raises(Invalid, match="URL"):
        rootfs.import_rootfs(store, "https://example.com/x.tar")
    with pytest.raises(LimpetError, match="platform"):
        rootfs.import_rootfs(store, str(busybox_tar), wanted_platform="a/b/c/d")
