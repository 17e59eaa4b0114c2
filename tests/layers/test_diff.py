"""A container's changes: as Docker's list, and as a layer that makes the same tree again."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limpet.errors import Invalid
from limpet.kernel import mounts
from limpet.layers import diff
from limpet.layers.rootfs_tar import TarWriter, write_tree
from limpet.store.files import remove_tree
from tests.layers.archive import END, directory, file, symlink
from tests.layers.conftest import mounted
from tests.layers.trees import listing

BELOW = (
    directory(b"etc") + file(b"etc/hosts") + file(b"etc/passwd", b"root") + directory(b"var") + directory(b"var/log")
    + file(b"var/log/old") + file(b"gone", b"x") + directory(b"gonedir") + file(b"gonedir/x") + directory(b"redone")
    + file(b"redone/old") + file(b"redone/kept") + symlink(b"link", b"etc") + file(b"mode", b"m") + END
)  # fmt: skip


@pytest.fixture
def container(home: Any, ingest: Any, tmp_path: Path) -> Iterator[Any]:
    """(mounted root, upper, layer below)."""
    below = ingest(BELOW)
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    fd = home.mount([below], str(tmp_path / "upper"), str(tmp_path / "work"))
    mounts.attach(fd, str(tmp_path / "root"))
    os.close(fd)
    yield tmp_path / "root", str(tmp_path / "upper"), below
    mounts.umount(str(tmp_path / "root"), mounts.MNT_DETACH)


def change(root: Path) -> None:
    (root / "gone").unlink()
    shutil.rmtree(root / "gonedir")
    shutil.rmtree(root / "redone")
    (root / "redone").mkdir()
    (root / "redone/kept").write_text("new")
    (root / "etc/passwd").write_text("changed")
    (root / "mode").chmod(0o4711)
    (root / "new").mkdir(mode=0o750)
    (root / "new/file").write_bytes(b"content" * 3000)
    os.link(root / "new/file", root / "new/hard")
    os.setxattr(root / "new/file", "user.k", b"v\0w")
    os.setxattr(root / "new/file", "security.capability", b"\x01\0\0\x02\0\x20" + bytes(14))
    os.utime(root / "new/file", ns=(1, 1_500_000_000_123_456_789))
    os.chown(root / "new/file", 3_000_000_000, 70000)
    (root / "new/link").symlink_to("t" * 150)
    os.mkfifo(root / "new/fifo")
    os.mknod(root / "new/null", 0o20666, os.makedev(1, 3))
    (root / os.fsdecode(b"new/raw-\xff")).write_bytes(b"raw")
    (root / ("new/" + "n" * 200)).write_bytes(b"long")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{os.open(root / 'new', os.O_PATH)}/socket")


def layer_of(upper: str, **options: Any) -> bytes:
    out = io.BytesIO()
    diff.write_tar(upper, out.write, **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_the_list_is_dockers(home: Any, container: Any) -> None:
    root, upper, below = container
    change(root)
    lower = home.mount([below])
    try:
        found = list(diff.changes(upper, lower))
    finally:
        os.close(lower)
    long = "n" * 200
    assert found == [
        ("C", "/etc"), ("C", "/etc/passwd"), ("D", "/gone"), ("D", "/gonedir"), ("C", "/mode"), ("A", "/new"),
        ("A", "/new/fifo"), ("A", "/new/file"), ("A", "/new/hard"), ("A", "/new/link"), ("A", f"/new/{long}"),
        ("A", "/new/null"), ("A", os.fsdecode(b"/new/raw-\xff")), ("A", "/new/socket"), ("C", "/redone"),
        ("D", "/redone/old"), ("C", "/redone/kept"),
    ]  # fmt: skip


def test_the_layer_makes_the_same_tree(home: Any, ingest: Any, container: Any, tmp_path: Path) -> None:
    root, upper, below = container
    change(root)
    tar = layer_of(upper)
    assert tar == layer_of(upper)
    expected = listing(root)
    del expected[b"new/socket"]
    with mounted(home, [below, ingest(tar)], tmp_path / "mnt") as again:
        assert listing(again) == expected


def test_other_tools_read_the_layer(container: Any, tmp_path: Path) -> None:
    root, upper, _ = container
    change(root)
    (tmp_path / "out").mkdir()
    command = ["tar", "-xpf", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(tmp_path / "out")]
    result = subprocess.run(command, input=layer_of(upper), capture_output=True, check=True)
    assert result.stderr == b""
    found, expected = listing(tmp_path / "out"), listing(root)
    assert found[b"new/file"] == expected[b"new/file"]
    assert {b".wh.gone", b".wh.gonedir", b"redone/.wh..wh..opq"} <= set(found)
    with tarfile.open(fileobj=io.BytesIO(layer_of(upper))) as tar:
        names = [os.fsencode(name) for name in tar.getnames()]
        by_directory: dict[bytes, list[bytes]] = {}
        for name in names:
            by_directory.setdefault(os.path.dirname(name), []).append(name)
        assert all(entries == sorted(entries) for entries in by_directory.values() if b".wh." not in b"".join(entries))
        assert all(not any(key.startswith("SCHILY.xattr.trusted.overlay") for key in m.pax_headers) for m in tar)


def test_what_the_engine_made_is_left_out(home: Any, container: Any) -> None:
    root, upper, below = container
    (root / "dev").mkdir()
    (root / "dev/console").touch()
    (root / "etc/hosts").write_text("127.0.0.1 me")
    (root / ".dockerenv").touch()
    left_out = ["dev/console", "etc/hosts", ".dockerenv", "not/there"]
    assert layer_of(upper, leave_out=left_out) == bytes(1024)
    assert diff.write_tar(upper, lambda _: None, leave_out=left_out) == 0
    (root / "etc/passwd").write_text("changed")
    lower = home.mount([below])
    try:
        assert list(diff.changes(upper, lower, leave_out=left_out)) == [("C", "/etc"), ("C", "/etc/passwd")]
    finally:
        os.close(lower)


def test_a_latest_time(container: Any) -> None:
    root, upper, _ = container
    (root / "old").touch()
    os.utime(root / "old", (5, 5))
    (root / "new").touch()
    with tarfile.open(fileobj=io.BytesIO(layer_of(upper, max_mtime=1000))) as tar:
        assert {m.name: m.mtime for m in tar} == {"old": 5, "new": 1000}


def test_a_container_can_go_as_deep_as_it_likes(container: Any) -> None:
    """To where no path leads any more."""
    root, upper, _ = container
    fd = os.open(root, os.O_RDONLY)
    try:
        for depth in range(1, 2501):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
            if depth == 1500:
                assert diff.write_tar(upper, lambda _: None) == 1500
        with pytest.raises(Invalid, match="too long for a layer"):
            diff.write_tar(upper, lambda _: None)
    finally:
        os.close(fd)
        remove_tree(f"{upper}/d")  # pytest could not


def test_a_link_in_the_way_leads_nowhere(tmp_path: Path) -> None:
    """As if a running container had put a link in the place of a directory while it was read."""
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("key")
    real = diff.list_open

    def swapped(fd: int) -> list[bytes]:
        names = real(fd)
        if names == [] and (upper / "d").is_dir() and not (upper / "d").is_symlink():
            (upper / "d").rmdir()
            (upper / "d").symlink_to(tmp_path / "secret")
            return [b"key"]
        return names

    patch = pytest.MonkeyPatch()
    patch.setattr(diff, "list_open", swapped)
    try:
        tar = layer_of(str(upper))
    finally:
        patch.undo()
    assert b"key" not in tar


def test_a_directory_of_the_host(home: Any, ingest: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o711)
    change_root = source
    for name in ("etc", "redone", "gonedir"):
        (source / name).mkdir()
    for name in ("gone", "mode"):
        (source / name).touch()
    change(change_root)
    out = [io.BytesIO(), io.BytesIO()]
    for stream in out:
        write_tree(str(source), stream.write)  # type: ignore[arg-type]
    assert out[0].getvalue() == out[1].getvalue()
    expected = listing(source)
    del expected[b"new/socket"]
    with mounted(home, [ingest(out[0].getvalue())], tmp_path / "mnt") as root:
        assert listing(root) == expected
        assert os.stat(root).st_mode & 0o7777 == 0o711


def test_the_writer_by_itself() -> None:
    out = io.BytesIO()
    tar = TarWriter(out.write, mtime=1000)  # type: ignore[arg-type]
    tar.directory("d/")
    tar.file("d/f", b"data", 0o600, 5, 6, mtime_ns=-1_500_000_000)
    tar.file("big-id", b"", uid=1 << 31)
    tar.symlink("l" * 120, "t")
    tar.hard_link("h", "d/f")
    tar.whiteout(b"d", b"gone")
    tar.opaque(b"d")
    tar.finish()
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as found:
        members = {m.name: m for m in found}
    assert list(members) == ["d", "d/f", "big-id", "l" * 120, "h", "d/.wh.gone", "d/.wh..wh..opq"]
    assert members["d"].mtime == 1000
    assert (members["d/f"].mtime, members["d/f"].uid, members["d/f"].mode) == (-1.5, 5, 0o600)
    assert members["big-id"].uid == 1 << 31
    assert members["h"].linkname == "d/f"
