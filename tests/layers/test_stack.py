"""Layers over each other: what a layer hides, links and leaves to those below."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limpet.errors import Corrupt, LimpetError
from limpet.kernel import mounts
from limpet.layers.driver import driver
from limpet.store.files import remove_tree
from limpet.store.store import Store
from tests.descriptors import opened
from tests.layers.archive import END, directory, file, hard_link, header, pax, symlink
from tests.layers.conftest import mounted
from tests.layers.trees import listing


def tree(home: Any, tmp_path: Path, *diff_ids: str) -> dict[bytes, dict[str, Any]]:
    with mounted(home, list(diff_ids), tmp_path / "mnt") as root:
        return listing(root)


def test_whiteouts_and_opaque_directories(home: Any, ingest: Any, tmp_path: Path) -> None:
    below = ingest(
        b"".join(file(name) for name in (b"keep", b"gone", b"dir/x", b"opq/old", b"swap/old", b"re/old")) + END
    )
    above = ingest(
        file(b".wh.gone") + file(b".wh.dir") + file(b"opq/.wh..wh..opq") + file(b"opq/new") + file(b".wh.swap")
        + file(b"swap/new") + file(b"re/new") + file(b".wh.re") + file(b".wh..wh.plnk") + END
    )  # fmt: skip
    found = tree(home, tmp_path, below, above)
    assert sorted(found) == [b"keep", b"opq", b"opq/new", b"re", b"re/new", b"swap", b"swap/new"]


def test_a_whiteout_that_hides_nothing_is_not_listed(home: Any, ingest: Any, tmp_path: Path) -> None:
    below = ingest(file(b"a/x") + directory(b"real/d") + file(b"real/d/y") + symlink(b"l", b"real") + END)
    above = ingest(
        file(b".wh.nothing") + file(b"fresh/.wh.x") + file(b"a/.wh..wh..opq") + file(b"a/b/.wh.x") + file(b"a/.wh.x")
        + directory(b"l") + file(b"l/d/.wh.y") + file(b"real/d/.wh.z") + END
    )  # fmt: skip
    alone = tree(home, tmp_path, above)
    assert sorted(alone) == [b"a", b"a/b", b"fresh", b"l", b"l/d", b"real", b"real/d"]
    found = tree(home, tmp_path, below, above)
    assert sorted(found) == [b"a", b"a/b", b"fresh", b"l", b"l/d", b"real", b"real/d", b"real/d/y"]


def test_an_opaque_root_hides_all_below(home: Any, ingest: Any, tmp_path: Path) -> None:
    layers = [
        ingest(file(b"one") + END),
        ingest(file(b".wh..wh..opq") + file(b"two") + END),
        ingest(file(b"three") + END),
    ]
    assert sorted(tree(home, tmp_path, *layers)) == [b"three", b"two"]
    assert sorted(tree(home, tmp_path, layers[1], layers[0])) == [b"one", b"two"]


def test_directories_that_are_not_in_the_tar_are_those_below(home: Any, ingest: Any, tmp_path: Path) -> None:
    record = pax({b"SCHILY.xattr.user.k": b"v"})
    below = ingest(
        header(b"tmp", b"5", mode=0o1777, uid=7, gid=8, mtime=99) + record + header(b"etc", b"5", mode=0o700, mtime=5)
        + header(b"srv", b"5", mode=0o700) + END
    )  # fmt: skip
    above = ingest(file(b"tmp/x") + file(b"etc/deep/x") + file(b"srv/.wh..wh..opq") + file(b"srv/y") + END)
    found = tree(home, tmp_path, below, above)
    assert (found[b"tmp"]["mode"], found[b"tmp"]["owner"], found[b"tmp"]["mtime"]) == (0o1777, (7, 8), 99 * 10**9)
    assert (found[b"etc"]["mode"], found[b"etc"]["xattrs"]) == (0o700, {"user.k": b"v"})
    assert (found[b"etc/deep"]["mode"], found[b"etc/deep"]["mtime"]) == (0o755, 0)


def test_one_layer_in_several_stacks(home: Any, ingest: Any, store: Store, tmp_path: Path) -> None:
    """Its implied directories are those of each; where nothing else is to do, no tar is read for it."""
    stacks = [
        ingest(header(b"tmp", b"5", mode=0o1777, uid=7, gid=1 << 20, mtime=99) + directory(b"tmp/a", 0o700) + END),
        ingest(pax({b"mtime": b"-5.75"}) + header(b"tmp", b"5", mode=0o2700) + file(b"tmp/a", b"no directory") + END),
        ingest(directory(b"other") + symlink(b"tmp", b"other") + END),
        ingest(file(b"nothing") + END),
    ]
    above = ingest(file(b"tmp/a/x", b"1" * 600) + file(b"tmp/a/y") + hard_link(b"tmp/z", b"tmp/a/x") + END)
    found = [tree(home, tmp_path, below, above) for below in stacks]
    tmp = [(f[b"tmp"]["mode"], f[b"tmp"]["owner"], f[b"tmp"].get("mtime")) for f in found]
    assert tmp[0] == (0o1777, (7, 1 << 20), 99 * 10**9)
    assert tmp[1] == (0o2700, (0, 0), -5_750_000_000)
    assert tmp[3] == (0o755, (0, 0), 0)
    assert (found[0][b"tmp/a"]["mode"], found[1][b"tmp/a"]["mode"]) == (0o700, 0o755)
    assert b"other/a/x" in found[2]
    assert found[0][b"tmp/z"]["links"] == [b"tmp/a/x", b"tmp/z"]
    assert home.check(above) is None
    if home.name == "erofs":
        with open(f"{store.layer_path(above)}/data", "r+b") as data:
            data.write(b"no header")  # a form for another stack is made without looking at it
        assert b"tmp/a/x" in tree(home, tmp_path, stacks[0], stacks[3], above)


def test_members_below_a_link_of_a_layer_below(home: Any, ingest: Any, tmp_path: Path) -> None:
    below = ingest(directory(b"usr/lib", 0o711) + symlink(b"lib", b"usr/lib") + symlink(b"abs", b"/usr") + END)
    above = ingest(file(b"lib/new", b"1") + file(b"abs/lib/newer", b"2") + file(b"lib/.wh.none") + END)
    found = tree(home, tmp_path, below, above)
    assert found[b"lib"]["link"] == b"usr/lib"
    assert sorted(found) == [b"abs", b"lib", b"usr", b"usr/lib", b"usr/lib/new", b"usr/lib/newer"]
    assert found[b"usr/lib"]["mode"] == 0o711


def test_a_hard_link_to_a_file_below_shares_its_inode(home: Any, ingest: Any, tmp_path: Path) -> None:
    below = ingest(
        pax({b"SCHILY.xattr.user.k": b"v"}) + file(b"d/target", b"content" * 1000, mode=0o4711, uid=3, mtime=77)
        + symlink(b"d/link", b"target") + header(b"fifo", b"6") + header(b"null", b"3", device=(1, 3))
        + symlink(b"e", b"d") + END
    )  # fmt: skip
    above = ingest(
        hard_link(b"one", b"d/target") + hard_link(b"x/two", b"/e/target") + hard_link(b"three", b"one")
        + hard_link(b"link", b"d/link") + hard_link(b"pipe", b"fifo") + hard_link(b"zero", b"null") + END
    )  # fmt: skip
    found = tree(home, tmp_path, below, above)
    assert found[b"one"]["links"] == [b"d/target", b"one", b"three", b"x/two"]
    assert found[b"one"] == found[b"d/target"]
    assert (found[b"one"]["mode"], found[b"one"]["owner"], found[b"one"]["mtime"]) == (0o4711, (3, 0), 77 * 10**9)
    assert (found[b"one"]["size"], found[b"one"]["xattrs"]) == (7000, {"user.k": b"v"})
    assert found[b"link"]["link"] == b"target"
    assert found[b"zero"]["device"] == os.makedev(1, 3)
    assert found[b"pipe"]["links"] == [b"fifo", b"pipe"]


def test_a_hard_link_to_nothing_is_an_error(home: Any, ingest: Any, store: Store) -> None:
    below, above = ingest(file(b"x") + END), ingest(hard_link(b"one", b"missing") + END)
    with pytest.raises(Corrupt, match="in no layer"):
        home.seal([below, above])
    with pytest.raises(Corrupt, match="in no layer"):
        home.mount([below, above])
    assert not [n for n in os.listdir(store.layer_path(above)) if n.startswith(("index", "extra", "tree"))]


def test_hard_links_in_any_order(home: Any, ingest: Any, tmp_path: Path) -> None:
    tar = (
        hard_link(b"a", b"b") + hard_link(b"b", b"./c") + file(b"c", b"content") + hard_link(b"d", b"a")
        + hard_link(b"replaced", b"c") + file(b"replaced", b"own") + hard_link(b"later", b"z") + file(b"later", b"own")
        + hard_link(b"dir/e", b"z") + file(b"dir") + file(b"z", b"z") + END
    )  # fmt: skip
    found = tree(home, tmp_path, ingest(tar))
    assert found[b"a"]["links"] == [b"a", b"b", b"c", b"d"]
    assert found[b"replaced"]["links"] == [b"replaced"]
    assert found[b"later"]["links"] == [b"later"]
    assert found[b"z"]["links"] == [b"z"]
    assert found[b"dir"]["size"] == 0


def test_the_form_belongs_to_the_stack(home: Any, ingest: Any, tmp_path: Path) -> None:
    """The same layer over different ones, and again after the first stack."""
    one, two = ingest(file(b"f", b"one") + END), ingest(file(b"f", b"two") + END)
    link = ingest(hard_link(b"g", b"f") + END)
    for below, content in ((one, b"one"), (two, b"two"), (one, b"one")):
        with mounted(home, [below, link], tmp_path / "mnt") as root:
            assert (root / "g").read_bytes() == content


def test_500_layers(home: Any, ingest: Any, tmp_path: Path) -> None:
    layers = [ingest(file(b"%d" % i) + file(b"same", b"%d" % i) + END) for i in range(501)]
    with mounted(home, layers[:500], tmp_path / "mnt") as root:
        assert len(os.listdir(root)) == 501
        assert (root / "same").read_bytes() == b"499"
    with pytest.raises(LimpetError) as caught:
        home.mount(layers)
    assert "501 layers" in caught.value.message
    assert "500" in caught.value.hint


def test_a_writable_top(home: Any, ingest: Any, tmp_path: Path) -> None:
    layer = ingest(file(b"f", b"below") + file(b"gone") + END)
    for name in ("upper", "work", "mnt"):
        (tmp_path / name).mkdir()
    for volatile in (False, True):
        fd = home.mount([layer], str(tmp_path / "upper"), str(tmp_path / "work"), volatile=volatile)
        mounts.attach(fd, str(tmp_path / "mnt"))
        os.close(fd)
        try:
            line = next(
                text for text in Path("/proc/self/mountinfo").read_text().splitlines() if f"{tmp_path}/mnt" in text
            )
            assert ("volatile" in line) == volatile
            if volatile:
                assert (tmp_path / "mnt/f").read_bytes() == b"above"
                continue
            (tmp_path / "mnt/f").write_bytes(b"above")
            (tmp_path / "mnt/gone").unlink()
        finally:
            mounts.umount(str(tmp_path / "mnt"))
    assert (tmp_path / "upper/f").read_bytes() == b"above"
    assert (tmp_path / "upper/gone").is_char_device()
    with mounted(home, [layer], tmp_path / "mnt") as root:
        assert (root / "f").read_bytes() == b"below"
        with pytest.raises(OSError, match="Read-only"):
            (root / "f").write_bytes(b"x")


def test_the_same_layer_twice(home: Any, ingest: Any, tmp_path: Path) -> None:
    one = ingest(file(b"d/x", b"one") + file(b".wh.gone") + END)
    two = ingest(file(b"d/x", b"two") + file(b"d/y") + file(b"gone") + END)
    with mounted(home, [one, two, one, one], tmp_path / "mnt") as root:
        assert sorted(listing(root)) == [b"d", b"d/x", b"d/y"]
        assert (root / "d/x").read_bytes() == b"one"


def test_no_layers_at_all(home: Any, tmp_path: Path) -> None:
    assert tree(home, tmp_path) == {}


def test_nothing_is_left_mounted(home: Any, ingest: Any, store: Store) -> None:
    def mounts_of_the_store() -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if store.root in line]

    layers = [ingest(file(b"x") + END), ingest(file(b".wh.x") + END)]
    os.close(home.mount(layers))
    before = opened()
    os.close(home.mount(layers))
    with pytest.raises(LimpetError):
        home.mount([*layers, "sha256:" + "0" * 64])
    assert mounts_of_the_store() == []
    assert opened() == before


NAMES = ["a", "b", "c"]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
changes = st.one_of(
    st.tuples(st.just("file"), paths), st.tuples(st.just("dir"), paths), st.tuples(st.just("whiteout"), paths),
    st.tuples(st.just("opaque"), paths), st.tuples(st.just("symlink"), paths),
)  # fmt: skip


def layer_of(members: list[tuple[str, str]], number: int) -> bytes:
    """A layer as an engine makes it: parents first, each name once, whiteouts before what they are followed by."""
    buffer = io.BytesIO()
    kinds: dict[str, str] = {}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def put(name: str, kind: bytes, **fields: Any) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mtime, member.mode = kind, 1_600_000_000 + number, 0o755
            for key, value in fields.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.size else None)

        for kind, name in sorted(members, key=lambda m: m[1].count("/")):
            parts = name.split("/")
            parents = ["/".join(parts[:i]) for i in range(1, len(parts))]
            if name in kinds or any(kinds.get(parent, "dir") != "dir" for parent in parents):
                continue
            for parent in parents:
                if parent not in kinds:
                    kinds[parent] = "dir"
                    put(parent, tarfile.DIRTYPE)
            base = f"{'/'.join(parts[:-1])}/" if parents else ""
            if kind == "whiteout":
                put(f"{base}.wh.{parts[-1]}", tarfile.REGTYPE)
            elif kind in ("dir", "opaque"):
                put(name, tarfile.DIRTYPE)
                if kind == "opaque":
                    put(f"{name}/.wh..wh..opq", tarfile.REGTYPE)
                kind = "dir"
            elif kind == "symlink":
                put(name, tarfile.SYMTYPE, linkname="target")
            else:
                put(name, tarfile.REGTYPE, size=10 * number + 1)
            kinds[name] = kind
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["erofs", "dir"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stack=st.lists(st.lists(changes, max_size=8), min_size=2, max_size=4))
def test_umoci_unpacks_the_same(name: str, store: Store, tmp_path: Path, stack: list[Any]) -> None:
    """A random stack as an image, unpacked by umoci, entry by entry."""
    if shutil.which("umoci") is None:
        pytest.skip("needs Debian's umoci")
    place = tmp_path / os.urandom(8).hex()
    place.mkdir()
    home = driver(store, name)
    subprocess.run(["umoci", "init", "--layout", place / "oci"], check=True)
    subprocess.run(["umoci", "new", "--image", f"{place}/oci:x"], check=True)
    diff_ids: list[str] = []
    for number, members in enumerate(stack):
        tar = layer_of(members, number)
        (place / "layer.tar").write_bytes(tar)
        subprocess.run(["umoci", "raw", "add-layer", "--image", f"{place}/oci:x", place / "layer.tar"], check=True)
        with store.lease(), home.ingest() as layer:
            layer.write(tar)
            diff_ids.append(layer.finish().diff_id)
    subprocess.run(["umoci", "unpack", "--image", f"{place}/oci:x", place / "bundle"], check=True, capture_output=True)
    expected = listing(place / "bundle/rootfs")
    with mounted(home, diff_ids, tmp_path / "mnt") as root:
        assert listing(root) == expected
    remove_tree(str(place))
