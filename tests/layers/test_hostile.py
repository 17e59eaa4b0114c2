"""What a hostile layer does: one clear error, nothing outside the store, nothing left behind."""

from __future__ import annotations

import os
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.errors import Corrupt, Invalid, LimpetError, quoted
from limpet.layers.limits import Limits
from limpet.store.store import Store
from tests.layers.archive import END, directory, file, hard_link, header, padded, pax, symlink
from tests.layers.conftest import mounted
from tests.layers.trees import listing

GOOD = file(b"good", b"x" * 700)
HUGE = b"\x80" + bytes(3) + (1 << 60).to_bytes(8, "big")

REFUSED: dict[str, tuple[bytes, str]] = {
    "parent in the name": (file(b"../../outside"), "path traversal"),
    "parent inside the name": (file(b"a/../../outside"), "path traversal"),
    "nothing but parents": (directory(b".."), "path traversal"),
    "parent in a pax name": (pax({b"path": b"x/../../outside"}) + file(b"x"), "path traversal"),
    "parent in a hard link": (hard_link(b"x", b"../../../etc/passwd"), "path traversal"),
    "hard link to a directory": (directory(b"d") + hard_link(b"x", b"d"), "hard link"),
    "hard link to the root": (hard_link(b"x", b"/"), "hard link"),
    "link to itself as a parent": (symlink(b"a", b"a") + file(b"a/b"), "too many symbolic links"),
    "links in a circle": (symlink(b"a", b"b/x") + symlink(b"b", b"a/x") + file(b"a/b"), "too many symbolic links"),
    "root is a file": (file(b"./"[:1]), "root of the layer"),
    "name with NUL": (pax({b"path": b"a\0b"}) + file(b"x"), "bad name"),
    "link with NUL": (pax({b"linkpath": b"a\0b"}) + symlink(b"x", b"y"), "bad target"),
    "link to nothing": (symlink(b"x", b""), "bad target"),
    "name too long": (pax({b"path": b"n" * 256}) + file(b"x"), "longer than 255"),
    "directory's name too long": (pax({b"path": b"n" * 256 + b"/x"}) + file(b"x"), "longer than 255"),
    "path too long": (pax({b"path": b"d/" * 2048 + b"x"}) + file(b"x"), "too long"),
    "path too long through links": (
        pax({b"path": b"d/" * 2000}) + directory(b"x") + pax({b"linkpath": b"d/" * 2000}) + symlink(b"l", b"x")
        + pax({b"path": b"l/" + b"e/" * 100 + b"x"}) + file(b"x"),
        "too long",
    ),
    "whiteout of itself": (file(b"d/.wh.."), "bad whiteout"),
    "whiteout of the parent": (file(b"d/.wh..."), "bad whiteout"),
    "device 0/0": (header(b"x", b"3"), "whiteout"),
    "device out of range": (header(b"x", b"4", device=(0o77777, 1)), "out of range"),
    "unknown type": (header(b"x", b"Z"), "not known"),
    "another volume's rest": (header(b"x", b"M", 10), "not known"),
    "owner out of range": (pax({b"uid": b"4294967296"}) + file(b"x"), "out of range"),
    "negative owner": (pax({b"uid": b"-5"}) + file(b"x"), "not a number"),
    "time out of range": (pax({b"mtime": b"9" * 19}) + file(b"x"), "time"),
    "time that is none": (pax({b"mtime": b"--5"}) + file(b"x"), "not a time"),
    "size that is no number": (header(b"x", size_field=b"12x45678901\0"), "not a number"),
    "negative size": (header(b"x", size_field=b"\xff" * 12), "negative size"),
    "size beyond everything": (header(b"x", size_field=HUGE) + padded(b"x"), "truncated"),
    "pax size that is no number": (pax({b"size": b"1e9"}) + file(b"x"), "not a number"),
    "checksum wrong": (GOOD + header(b"x", checksum=b"000001\0 "), "checksum"),
    "no tar at all": (b"this is not a tar, and longer than a block " * 40, "not a tar"),
    "garbage after a member": (GOOD + os.urandom(600).replace(b"\0", b"\1"), "not a tar"),
    "bytes after the end": (GOOD + END + b"trailing", "follow the end"),
    "members after the end": (GOOD + bytes(512) + GOOD, "follow the end"),
    "cut in a header": (GOOD + GOOD[:100], "truncated"),
    "cut in the data": (GOOD[:-512], "truncated"),
    "cut before a pax body": (pax({b"path": b"x"})[:512], "truncated"),
    "cut after a pax header": (pax({b"path": b"x"}), "without its member"),
    "end after a pax header": (pax({b"path": b"x"}) + END, "without its member"),
    "empty": (b"", "empty"),
    "pax header of 2 MiB": (header(b"x", b"x", 2 << 20) + bytes(2 << 20), "extension header"),
    "pax record without a value": (header(b"x", b"x", 6) + padded(b"6 abc\n") + GOOD, "malformed"),
    "pax length too long": (header(b"x", b"x", 9) + padded(b"99 a=bcd\n") + GOOD, "malformed"),
    "pax length zero": (header(b"x", b"x", 6) + padded(b"0 a=b\n") + GOOD, "malformed"),
    "attribute with NUL": (pax({b"SCHILY.xattr.user.a\0b": b"1"}) + file(b"x"), "extended attribute"),
    "attribute too long": (pax({b"SCHILY.xattr.user.a": b"1" * 65536}) + file(b"x"), "extended attribute"),
    "attribute's name too long": (pax({b"SCHILY.xattr.user." + b"a" * 255: b"1"}) + file(b"x"), "extended attribute"),
    "too many attributes": (
        pax({b"SCHILY.xattr.user.%d" % i: b"1" * 60000 for i in range(8)}) + file(b"x"), "extended attributes",
    ),
    "capability damaged": (pax({b"SCHILY.xattr.security.capability": b"1" * 20}) + file(b"x"), "capability"),
    "ACL damaged": (pax({b"SCHILY.xattr.system.posix_acl_access": b"1" * 12}) + file(b"x"), "ACL"),
    "ACL without owner": (
        pax({b"SCHILY.xattr.system.posix_acl_access": b"\2\0\0\0" + b"\4\0\7\0\xff\xff\xff\xff"}) + file(b"x"), "ACL",
    ),
    "sparse map beyond the file": (
        pax({b"GNU.sparse.size": b"10", b"GNU.sparse.map": b"0,11"}) + file(b"x", b"12345678901"), "out of order",
    ),
    "sparse map out of order": (
        pax({b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"50,1,0,1"}) + file(b"x", b"12"), "out of order",
    ),
    "sparse map with half a piece": (
        pax({b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"50,1,60"}) + file(b"x", b"12"), "without a length",
    ),
    "sparse data missing": (
        pax({b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,50"}) + file(b"x", b"12"), "less data",
    ),
    "sparse map without end": (
        pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"100"})
        + file(b"x", b"1" * 600), "no end",
    ),
    "sparse bomb": (
        pax({b"GNU.sparse.size": b"1" + b"0" * 18, b"GNU.sparse.map": b"0,1"}) + file(b"x", b"1"), "larger than",
    ),
    "old sparse without its map": (header(b"x", b"S", 512, rest=bytes(137) + b"\1" + b"%011o\0" % 512), "truncated"),
}  # fmt: skip


def take(home: Any, store: Store, tar: bytes, expected: str | None = None) -> str:
    with store.lease(), home.ingest() as layer:
        layer.write(tar)
        diff_id: str = layer.finish(expected).diff_id
        return diff_id


@pytest.mark.parametrize("case", REFUSED)
def test_refused(home: Any, store: Store, tmp_path: Path, case: str) -> None:
    tar, words = REFUSED[case]
    before = listing(tmp_path)
    with pytest.raises(LimpetError) as caught:
        take(home, store, tar)
    assert isinstance(caught.value, Invalid)
    assert words in caught.value.message
    assert "\n" not in str(caught.value)
    assert os.listdir(f"{store.root}/tmp") == []
    assert os.listdir(f"{store.root}/layers") == []
    assert store.db.rows("SELECT * FROM layer") == []
    assert {path for path in listing(tmp_path) if not path.startswith(b"store/state.db")} == {
        path for path in before if not path.startswith(b"store/state.db")
    } | ({b"store/lock"} if os.path.exists(f"{store.root}/lock") else set())


@pytest.mark.parametrize(
    ("limits", "words"),
    [(Limits(max_size=5000), "LIMPET_MAX_LAYER_SIZE"), (Limits(max_entries=3), "LIMPET_MAX_LAYER_ENTRIES")],
)
def test_limits_stop_it_early(home: Any, store: Store, limits: Limits, words: str) -> None:
    written: list[int] = []

    def pour() -> None:
        with store.lease(), home.ingest(limits) as layer:
            for i in range(1000):
                layer.write(GOOD)
                written.append(i)

    with pytest.raises(Invalid, match=words):
        pour()
    assert len(written) < 10
    assert os.listdir(f"{store.root}/tmp") == []


def test_limits_come_from_the_environment(home: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMPET_MAX_LAYER_ENTRIES", "2")
    with pytest.raises(Invalid, match="more than 2 entries"):
        take(home, store, GOOD * 3)


def test_another_digest_is_never_visible(home: Any, store: Store) -> None:
    with pytest.raises(Corrupt, match="but the image says"):
        take(home, store, GOOD + END, "sha256:" + "0" * 64)
    assert os.listdir(f"{store.root}/tmp") == []
    assert os.listdir(f"{store.root}/layers") == []


def test_links_lead_nowhere_else(home: Any, ingest: Any, tmp_path: Path) -> None:
    """Members below links, absolute or with `..`, stay in the layer, as in a chroot."""
    outside = tmp_path / "outside"
    outside.mkdir()
    tar = (
        pax({b"linkpath": os.fsencode(outside)}) + symlink(b"absolute", b"-") + file(b"absolute/a", b"a")
        + pax({b"linkpath": b"../" * 20 + os.fsencode(outside)[1:]}) + symlink(b"up", b"-") + file(b"up/b", b"b")
        + symlink(b"usr-lib", b"usr/lib") + directory(b"usr/lib") + file(b"usr-lib/c", b"c") + END
    )  # fmt: skip
    with mounted(home, [ingest(tar)], tmp_path / "mnt") as root:
        found = listing(root)
    assert os.listdir(outside) == []
    inside = os.fsencode(outside)[1:]
    assert inside + b"/a" in found
    assert inside + b"/b" in found
    assert b"usr/lib/c" in found
    assert found[b"usr-lib"]["link"] == b"usr/lib"


def test_orders_to_overlayfs_are_not_obeyed(home: Any, ingest: Any, tmp_path: Path) -> None:
    below = ingest(directory(b"d") + file(b"d/shown", b"1") + file(b"f", b"2") + END)
    records = {b"SCHILY.xattr.trusted.overlay.opaque": b"y", b"SCHILY.xattr.trusted.overlay.redirect": b"/etc"}
    metacopy = {b"SCHILY.xattr.trusted.overlay.metacopy": b"", b"SCHILY.xattr.user.overlay.whiteout": b"y"}
    above = ingest(pax(records) + directory(b"d") + pax(metacopy) + file(b"f", b"3") + END)
    with mounted(home, [below, above], tmp_path / "mnt") as root:
        assert (root / "d/shown").read_bytes() == b"1"
        assert (root / "f").read_bytes() == b"3"


BOMBS: dict[str, bytes] = {
    "directories replaced again and again": b"".join(
        file(b"top/%d/x" % (i % 200)) + file(b"top") for i in range(20_000)
    ),
    "pax headers without members": pax({b"SCHILY.xattr.user.a": b"1" * 3000}) * 5000 + GOOD,
    "hard links in the worst order": b"".join(hard_link(b"%d" % i, b"%d" % (i + 1)) for i in range(30_000))
    + file(b"30000", b"x"),
    "a chain of links": b"".join(symlink(b"l%d" % i, b"l%d" % (i + 1)) for i in range(39))
    + symlink(b"l39", b"./" * 40 + b"d")
    + b"".join(file(b"l0/%d" % i) for i in range(20_000)),
    "very many deep paths": b"".join(pax({b"path": b"%d/" % i + b"d/" * 1990 + b"x"}) + file(b"x") for i in range(3)),
    "deep": pax({b"path": b"d/" * 2000 + b"x"}) + file(b"x"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BOMBS)
def test_costs_what_its_length_costs(home: Any, store: Store, case: str) -> None:
    start = time.process_time()
    home.remove(take(home, store, BOMBS[case] + END))  # some are too deep for pytest to clear away
    assert time.process_time() - start < 20  # quadratic ones take minutes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"etc/motd", "'etc/motd'"),
        ("größe".encode(), "'größe'"),
        (b"\xff\x00\x1b[2J", r"'\xff\x00\x1b[2J'"),
        (b"two\nlines", r"'two\nlines'"),
    ],
)
def test_names_from_outside_are_shown_as_text(data: bytes, shown: str) -> None:
    assert quoted(data) == shown


@pytest.mark.parametrize("case", REFUSED)
def test_no_message_has_python_in_it(home: Any, store: Store, case: str) -> None:
    with pytest.raises(LimpetError) as caught:
        take(home, store, REFUSED[case][0])
    assert not re.search(r"""(?<![\w\\])b['"]""", str(caught.value))
