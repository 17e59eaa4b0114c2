"""What a mounted layer shows is what GNU tar unpacks, entry by entry, for all that a tar can hold."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limpet.layers.driver import driver
from limpet.store.files import remove_tree
from limpet.store.store import Store
from tests.layers import archive
from tests.layers.archive import pax
from tests.layers.conftest import mounted
from tests.layers.trees import listing


def add(tar: tarfile.TarFile, name: str, data: bytes | None = None, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    if data is not None:
        member.size = len(data)
    tar.addfile(member, io.BytesIO(data) if data is not None else None)


def awkward(format: int) -> bytes:
    """One of everything."""
    buffer = io.BytesIO()
    pax = format == tarfile.PAX_FORMAT
    directory, link, symlink = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        add(tar, "./", type=directory, mode=0o755, mtime=1)
        add(tar, "./etc", type=directory, mode=0o711, uid=5, gid=6, mtime=1600000000)
        add(tar, "etc/passwd", b"root:x:0:0\n", mode=0o644, mtime=1700000000.25 if pax else 17)
        add(tar, "etc/empty", b"", mode=0o600)
        add(tar, "etc/hard", type=link, linkname="etc/passwd")
        add(tar, "etc/hard2", type=link, linkname="./etc/passwd")
        add(tar, "no/parents/here", b"x" * 511, mode=0o4755, uid=70000, gid=80000)
        add(tar, "sticky", type=directory, mode=0o1777)
        add(tar, "e512", b"y" * 512)
        add(tar, "e513", b"z" * 513, mtime=-5 if pax else 0)
        add(tar, "before", b"b", mtime=-1.5 if pax else 1)
        add(tar, "big", os.urandom(300_001), mode=0o400)
        add(tar, "big-uid", b"u", uid=3_000_000_000, gid=4_000_000_000)
        add(tar, "link", type=symlink, linkname="../x", mode=0o777)
        add(tar, "longlink", type=symlink, linkname="q/" * 200, mode=0o777)
        add(tar, "vlonglink", type=symlink, linkname="r/" * 1500, mode=0o777)
        add(tar, "d/" * 100 + "deep", b"deep")
        add(tar, "n" * 255, b"long name")
        add(tar, "un\u00ef/\u0444\u0430\u0439\u043b", "\u0444".encode())
        add(tar, b"raw-\xff\xfe".decode("utf-8", "surrogateescape"), b"not UTF-8")
        add(tar, "null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add(tar, "blk", type=tarfile.BLKTYPE, devmajor=259, devminor=70000, mode=0o660)
        add(tar, "fifo", type=tarfile.FIFOTYPE, mode=0o640)
        add(tar, "contiguous", b"type 7", type=tarfile.CONTTYPE)
        for i in range(300):
            add(tar, f"many/{i:03d}-{'k' * (i % 90)}", str(i).encode())
        for i in range(60):
            add(tar, f"links/{i}", type=symlink, linkname="s" * (8 * i + 1))
        add(tar, "twice", b"first")
        add(tar, "twice", b"second, the one that counts")
        add(tar, "was-dir/inner", b"gone")
        add(tar, "was-dir-too", type=directory)
        add(tar, "mode-later/file", b"1")
        add(tar, "mode-later", type=directory, mode=0o750, uid=9)
        if pax:
            capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # cap_net_raw+ep
            headers = {
                "SCHILY.xattr.security.capability": capability.decode("latin1"),
                "SCHILY.xattr.user.k": "v" * 700,
            }
            add(tar, "ping", b"ping", mode=0o755, pax_headers=headers)
            add(tar, "xdir", type=directory, mode=0o755, pax_headers={"SCHILY.xattr.user.d": "1"})
    return buffer.getvalue()


def unpack(tar: bytes, place: Path) -> Path:
    place.mkdir()
    command = [
        "tar",
        "-xpPf",
        "-",
        "--delay-directory-restore",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-C",
        str(place),
    ]
    result = subprocess.run(command, input=tar, capture_output=True, cwd=place)
    assert result.returncode == 0, result.stderr.decode()
    return place


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_everything_that_a_tar_can_hold(home: Any, ingest: Any, tmp_path: Path, format: int) -> None:
    tar = awkward(format)
    expected = listing(unpack(tar, tmp_path / "expected"))
    with mounted(home, [ingest(tar)], tmp_path / "mnt") as root:
        found = listing(root)
    assert found[b"etc"]["mtime"] == 1600000000 * 10**9
    implied = {b"etc", b"no", b"no/parents", b"un\xc3\xaf", b"many", b"links", b"was-dir"}
    implied |= {key for key in expected if key == b"d" or key.startswith(b"d/")}
    for key in implied & found.keys():  # GNU tar gives what it comes back to the time of the unpacking
        found[key].pop("mtime")
        expected[key].pop("mtime")
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "old"])
def test_sparse_files_of_every_form(home: Any, ingest: Any, tmp_path: Path, version: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        for at in (0, 1_000_000, 5_000_000, 50_000_000):
            file.seek(at)
            file.write(os.urandom(5000))
        for i in range(30):  # more pieces than the old header holds
            file.seek(60_000_000 + i * 100_000)
            file.write(b"piece")
        file.truncate(100_000_000)
    form = ["--format=gnu"] if version == "old" else ["--format=pax", f"--sparse-version={version}"]
    tar = subprocess.run(["tar", "-cSf", "-", *form, "-C", str(source), "sparse"], check=True, capture_output=True)
    assert len(tar.stdout) < 1_000_000
    with mounted(home, [ingest(tar.stdout)], tmp_path / "mnt") as root:
        assert listing(root)[b"sparse"]["content"] == listing(source)[b"sparse"]["content"]
        assert (root / "sparse").stat().st_size == 100_000_000


@pytest.mark.slow
def test_a_directory_of_100_000_entries_and_a_file_over_4_gib(home: Any, store: Store, tmp_path: Path) -> None:
    size = (4 << 30) + 12345
    with store.lease(), home.ingest() as layer:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for i in range(100_000):
                tar.addfile(tarfile.TarInfo(f"dir/{i}"))
                if buffer.tell() > 1 << 20:
                    layer.write(buffer.getvalue())
                    buffer.seek(0)
                    buffer.truncate()
            member = tarfile.TarInfo("huge")
            member.size = size
            if home.name == "dir":
                member.size = size = 1 << 20  # twice 4 GiB on disk is more than a test should cost
            layer.write(buffer.getvalue() + member.tobuf(tarfile.PAX_FORMAT))
            left = size
            zeros = bytes(1 << 20)
            while left > 0:
                layer.write(zeros[: min(left, len(zeros))])
                left -= len(zeros)
            layer.write(bytes(-size % 512) + bytes(1024))
        diff_id = layer.finish().diff_id
    with mounted(home, [diff_id], tmp_path / "mnt") as root:
        assert len(os.listdir(root / "dir")) == 100_000
        assert (root / "huge").stat().st_size == size
        with open(root / "huge", "rb") as file:
            file.seek(size - 5)
            assert file.read() == bytes(5)
    home.remove(diff_id)


def test_access_control_lists(home: Any, ingest: Any, tmp_path: Path) -> None:
    """As on a file system: the mode and the list agree, and a list that says no more than the mode is none."""
    entry = struct.Struct("<HHI")

    def acl(*entries: tuple[int, int, int]) -> bytes:
        return b"\2\0\0\0" + b"".join(entry.pack(*e) for e in entries)

    nobody = 0xFFFFFFFF
    named = acl((1, 6, nobody), (2, 4, 1000), (4, 4, nobody), (16, 7, nobody), (32, 0, nobody))
    minimal = acl((1, 6, nobody), (4, 4, nobody), (32, 4, nobody))
    access, default = b"SCHILY.xattr.system.posix_acl_access", b"SCHILY.xattr.system.posix_acl_default"
    tar = (
        pax({access: named}) + archive.file(b"f", mode=0o640)
        + pax({access: minimal}) + archive.file(b"minimal", mode=0o640)
        + pax({access: named, default: named}) + archive.header(b"d", b"5", mode=0o750)
        + pax({access: named, default: named}) + archive.symlink(b"l", b"f")
        + pax({default: named}) + archive.file(b"no-default") + archive.END
    )  # fmt: skip
    with mounted(home, [ingest(tar)], tmp_path / "mnt") as root:
        found = listing(root)
    assert found[b"f"]["mode"] == 0o640
    permissions = {
        (tag, who): bits for tag, bits, who in entry.iter_unpack(found[b"f"]["xattrs"]["system.posix_acl_access"][4:])
    }
    assert permissions == {(1, nobody): 6, (2, 1000): 4, (4, nobody): 4, (16, nobody): 4, (32, nobody): 0}
    assert found[b"minimal"]["xattrs"] == found[b"no-default"]["xattrs"] == found[b"l"]["xattrs"] == {}
    assert set(found[b"d"]["xattrs"]) == {"system.posix_acl_access", "system.posix_acl_default"}


def test_attributes_that_linux_refuses_are_left_out(home: Any, ingest: Any, tmp_path: Path) -> None:
    records = {b"SCHILY.xattr.user.k": b"v", b"SCHILY.xattr.trusted.t": b"", b"SCHILY.xattr.com.apple.quarantine": b"x"}
    tar = b"".join(
        pax(records) + member
        for member in (
            archive.file(b"f"),
            archive.symlink(b"l", b"t"),
            archive.header(b"p", b"6"),
            archive.directory(b"d"),
        )
    )
    with mounted(home, [ingest(tar + archive.END)], tmp_path / "mnt") as root:
        found = {name: entry["xattrs"] for name, entry in listing(root).items()}
    both, one = {"user.k": b"v", "trusted.t": b""}, {"trusted.t": b""}
    assert found == {b"f": both, b"d": both, b"l": one, b"p": one}


def test_odd_headers(home: Any, ingest: Any, tmp_path: Path) -> None:
    """Old programs, global headers, labels, numbers at their limits: as GNU tar has it."""
    tar = (
        archive.header(b"label", b"V") + pax({b"mtime": b"1234567890.5", b"comment": b"for all"}, b"g")
        + archive.header(b"v7dir/", b"\0", magic=b"")
        + archive.header(b"v7", b"\0", 3, magic=b"") + archive.padded(b"old")
        + pax({b"mtime": b"-1.25", b"uid": b"4294967295", b"gid": b"4294967294"}) + archive.file(b"limits", b"x")
        + archive.header(b"prefixed", b"0", rest=b"some/prefix")
        + archive.header(b"contiguous", b"7", 1) + archive.padded(b"c")
        + archive.header(b"linked", b"1", 5, link=b"v7")
        + archive.header(b"blanks", size_field=b"      12 \0  ") + archive.padded(b"0123456789")
        + archive.header(b"no-terminator", size_field=b"000000000003") + archive.padded(b"end")
        + archive.header(b"old-gnu", magic=b"ustar  \0", rest=b"12345670123\0") + archive.END
    )  # fmt: skip
    expected = listing(unpack(tar, tmp_path / "expected"))
    with mounted(home, [ingest(tar)], tmp_path / "mnt") as root:
        found = listing(root)
    for key in (b"some", b"some/prefix"):
        del expected[key]["mtime"], found[key]["mtime"]
    assert found == expected
    assert found[b"limits"]["owner"] == (0, 4294967294)
    assert found[b"limits"]["mtime"] == -1_250_000_000


def test_an_empty_record_is_none(home: Any, ingest: Any, tmp_path: Path) -> None:
    """POSIX, and Go's reader; GNU tar would take the empty name."""
    tar = pax({b"path": b"", b"mtime": b"5", b"uid": b""}) + archive.file(b"name", b"y", uid=7) + archive.END
    with mounted(home, [ingest(tar)], tmp_path / "mnt") as root:
        found = listing(root)[b"name"]
    assert (found["mtime"], found["owner"]) == (5 * 10**9, (7, 0))


def test_a_file_takes_the_place_of_a_full_directory(home: Any, ingest: Any, tmp_path: Path) -> None:
    """containerd's rule; GNU tar would refuse."""
    tar = archive.file(b"d/x/y") + archive.file(b"d", b"now a file") + archive.file(b"d2") + archive.file(b"d2/inside")
    with mounted(home, [ingest(tar + archive.END)], tmp_path / "mnt") as root:
        assert (root / "d").read_bytes() == b"now a file"
        assert (root / "d2/inside").exists()


names = st.lists(st.sampled_from(["a", "b", "c", "d\u00e9", "x" * 110]), min_size=1, max_size=4).map("/".join)
modes = st.sampled_from([0o644, 0o755, 0o4711, 0o2755, 0o1777, 0o000, 0o600])
entries = st.one_of(
    st.tuples(st.just("file"), names, modes, st.binary(max_size=1500)),
    st.tuples(st.just("dir"), names, modes, st.just(b"")),
    st.tuples(st.just("symlink"), names, st.just(0o777), st.sampled_from([b"target", b"../up", b"/abs", b"l" * 300])),
    st.tuples(st.just("fifo"), names, modes, st.just(b"")),
)


def build(members: list[tuple[str, str, int, bytes]]) -> bytes:
    """A tar whose entries GNU tar can unpack in this order: nothing goes through what is no directory."""
    kinds: dict[str, str] = {}
    buffer = io.BytesIO()
    kind_of = {"dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE, "file": tarfile.REGTYPE}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, (kind, name, mode, data) in enumerate(members):
            parts = name.split("/")
            parents = ["/".join(parts[:i]) for i in range(1, len(parts))]
            if any(kinds.get(parent, "dir") != "dir" for parent in parents):
                continue
            if kinds.get(name, kind) == "dir" and kind != "dir":
                continue  # GNU tar does not replace a directory that is not empty
            if kinds.get(name) not in (None, "dir") and kind == "dir":
                continue  # nor a link by a directory, when it is told to keep links
            for path in [*parents, name]:
                kinds.setdefault(path, "dir")
            kinds[name] = kind
            if kind == "dir":
                mode &= ~0o2000  # directories that GNU tar makes below would inherit the group
            fields: dict[str, Any] = {"type": kind_of[kind], "mode": mode, "mtime": 1_500_000_000 + number}
            if kind == "symlink":
                fields["linkname"] = data.decode()
            add(tar, name, data if kind == "file" else None, uid=number % 5, gid=number % 7, **fields)
        files = [n for n, k in kinds.items() if k == "file"]
        for number, name in enumerate(files[:2]):
            if f"hard{number}" not in kinds:
                add(tar, f"hard{number}", type=tarfile.LNKTYPE, linkname=name)
    return buffer.getvalue()


def named(tar: bytes) -> set[bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        return {os.fsencode(name) for name in members.getnames()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["erofs", "dir"])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.lists(entries, max_size=20))
def test_random_tars(name: str, store: Store, tmp_path: Path, members: list[Any]) -> None:
    home = driver(store, name)
    tar = build(members)
    place = tmp_path / os.urandom(8).hex()
    expected = listing(unpack(tar, place))
    remove_tree(str(place))
    with store.lease(), home.ingest() as layer:
        layer.write(tar)
        diff_id = layer.finish().diff_id
    with mounted(home, [diff_id], tmp_path / "mnt") as root:
        found = listing(root)
    for key in expected.keys() - named(tar):  # implied: GNU tar gives them the time of the unpacking
        expected[key].pop("mtime")
        found[key].pop("mtime")
    assert found == expected
