"""ACLs as text (`tar --acls`): what a layer shows is what GNU tar restores."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from limpet.errors import Invalid
from limpet.layers import acl
from tests.layers import archive
from tests.layers.archive import pax
from tests.layers.conftest import mounted
from tests.layers.trees import listing

if TYPE_CHECKING:
    from pathlib import Path

ACCESS, DEFAULT = b"SCHILY.acl.access", b"SCHILY.acl.default"
NOBODY = 0xFFFFFFFF

needs_acl = pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs Debian's acl")


def entries(value: bytes) -> list[tuple[int, int, int]]:
    return list(struct.Struct("<HHI").iter_unpack(value[4:]))


def restored(tar: bytes, place: Path) -> dict[bytes, dict[str, Any]]:
    """What GNU tar makes of it."""
    place.mkdir()
    result = subprocess.run(
        ["tar", "--acls", "--numeric-owner", "-xpf", "-", "-C", place], input=tar, capture_output=True
    )
    assert result.returncode in (0, 2), result.stderr
    return listing(place)


def shown(home: Any, ingest: Any, tar: bytes, place: Path) -> dict[bytes, dict[str, Any]]:
    diff_id = ingest(tar)
    with mounted(home, [diff_id], place) as root:
        found = listing(root)
    assert home.check(diff_id) is None
    return found


@needs_acl
def test_as_gnu_tar_restores_its_own(home: Any, ingest: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("numbers", "names", "masked", "plain", "setuid"):
        source.mkdir(exist_ok=True)
        (source / name).write_text(name)
    (source / "directory/inner").mkdir(parents=True)
    os.link(source / "names", source / "hard")
    (source / "link").symlink_to("names")
    os.chmod(source / "setuid", 0o4755)
    for words in (
        ["-m", "u:1234:rw,u:70000:x,g:77:r,m::rwx", "numbers"],
        ["-m", "u:daemon:rwx,g:tty:-", "names"],
        ["-m", "u:5:rwx", "masked"],
        ["-m", "u:daemon:r,u:3:w", "directory"],
        ["-d", "-m", "u:daemon:rwx,g:77:r", "directory"],
        ["-d", "-m", "o::-", "directory/inner"],
        ["-m", "u:9:x", "setuid"],
    ):
        subprocess.run(["setfacl", *words], cwd=source, check=True)
    os.chmod(source / "masked", 0o640)
    made = subprocess.run(["tar", "--acls", "--xattrs", "-cf", "-", "-C", source, "."], capture_output=True, check=True)
    assert b"SCHILY.acl.default" in made.stdout
    found = shown(home, ingest, made.stdout, tmp_path / "mnt")
    assert found == restored(made.stdout, tmp_path / "restored")
    assert (2, 7, 1) in entries(found[b"names"]["xattrs"]["system.posix_acl_access"])


@pytest.mark.parametrize(
    ("records", "mode"),
    [
        ({ACCESS: b"user::rw-\nuser:7:r--\ngroup::r--\nmask::rwx\nother::---\n"}, 0o600),  # the list decides the mode
        ({ACCESS: b"user::r--\ngroup::-w-\nother::--x\n"}, 0o777),  # as much as a mode, so none is kept
        ({ACCESS: b"u::rwx,u:7:rx,g::r,m::rx,o::r"}, 0o755),  # the short form
        ({ACCESS: b"user::rwx # a comment\n\nuser:9:r-x\nuser:7:r--\ngroup::---\nmask:r-x\nother:---\n"}, 0o750),
        ({ACCESS: b"user::rw-\nuser:nosuchuser-at-all:rwx\ngroup::r--\nmask::rwx\nother::r--\n"}, 0o674),
        ({DEFAULT: b"user::rwx\nuser:7:rwx\ngroup::r-x\nmask::rwx\nother::r-x\n"}, 0o700),
        ({ACCESS: b""}, 0o640),
    ],
)
def test_as_gnu_tar_restores_what_others_write(
    home: Any, ingest: Any, tmp_path: Path, records: dict[bytes, bytes], mode: int
) -> None:
    tar = (
        pax(records) + archive.file(b"file", b"content", mode=mode)
        + pax(records) + archive.header(b"directory", b"5", mode=mode)
        + pax(records) + archive.symlink(b"link", b"file")
        + archive.END
    )  # fmt: skip
    assert shown(home, ingest, tar, tmp_path / "mnt") == restored(tar, tmp_path / "restored")


def test_names_are_those_of_the_layer(home: Any, ingest: Any, tmp_path: Path) -> None:
    """Before the host's; star's number goes before both."""
    text = b"u::rw-,u:daemon:r--,u:own:r--,u:daemon:-w-:4321,g::r--,g:team:rw-,m::rw-,o::---"
    tar = (
        pax({ACCESS: text}) + archive.file(b"file", b"content")
        + archive.file(b"etc/passwd", b"root:x:0:0::/:/bin/sh\ndaemon:x:501:1::/:\nown:x:502:2::/:\nbad:x:-1:1\n\n")
        + archive.file(b"etc/group", b"team:x:600:\n")
        + archive.END
    )  # fmt: skip
    found = shown(home, ingest, tar, tmp_path / "mnt")
    assert entries(found[b"file"]["xattrs"]["system.posix_acl_access"]) == [
        (1, 6, NOBODY), (2, 4, 501), (2, 4, 502), (2, 2, 4321), (4, 4, NOBODY), (8, 6, 600), (16, 6, NOBODY),
        (32, 0, NOBODY),
    ]  # fmt: skip


def test_a_directory_listed_twice_has_the_list_of_the_last(home: Any, ingest: Any, tmp_path: Path) -> None:
    first, second = (b"user::rwx\nuser:%d:r--\ngroup::r-x\nmask::r-x\nother::r-x\n" % who for who in (7, 8))
    tar = (
        pax({ACCESS: first}) + archive.directory(b"d") + archive.file(b"d/x")
        + pax({ACCESS: second}) + archive.directory(b"d") + archive.END
    )  # fmt: skip
    found = shown(home, ingest, tar, tmp_path / "mnt")
    assert (2, 4, 8) in entries(found[b"d"]["xattrs"]["system.posix_acl_access"])
    assert found == restored(tar, tmp_path / "restored")


@pytest.mark.parametrize(
    "text",
    [
        b"user::rwx\n",
        b"nonsense",
        b"user::rwz\ngroup::r--\nother::---\n",
        b"user::rwx\ngroup::r--\nother::---\nother::---\n",
        b"user::rwx\nuser:5:r--\ngroup::r--\nother::---\n",  # named, but without a mask
        b"mask:5:rwx\nuser::rwx\ngroup::r--\nother::---\n",
        b"user::rwx\ngroup::r--\nother::---\nuser:1:2:3:4\n",
        b"".join(b"user:%d:r--\n" % who for who in range(9000)) + b"user::rwx\ngroup::r--\nmask::r--\nother::---\n",
    ],
)
def test_what_is_no_list_is_refused(home: Any, ingest: Any, text: bytes) -> None:
    with pytest.raises(Invalid, match=r"ACL of 'x' is damaged|too long"):
        ingest(pax({ACCESS: text}) + archive.file(b"x") + archive.END)


def test_numbers_beyond_the_kernels_are_names() -> None:
    asked: list[tuple[bytes, bytes]] = []

    def lookup(kind: bytes, name: bytes) -> int | None:
        asked.append((kind, name))
        return None

    assert acl.parse(b"user:4294967295:r--", b"x", lookup) is None
    assert acl.parse(b"user:4294967294:r--", b"x", lookup) == [(2, 4, 4294967294)]
    assert asked == [(b"user", b"4294967295")]
