"""Where COPY takes files from, as far as a whole build does not show it."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from limpet.build.copying.context import Tree, context, escaped, has_wildcard, unescaped
from limpet.build.copying.digests import Digests
from limpet.build.language import ignore
from limpet.errors import Invalid, NotFound
from limpet.layers.rootfs_tar import TarWriter
from limpet.store.store import Store


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for name in ("a", "d/b", "d/e/c", "ignored/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return context(str(tmp_path), ignore.parse("ignored"))


def test_entries_come_in_one_order_parents_first(tree: Tree) -> None:
    found = tree.copies(("",), "/t", target_is_directory=True)
    assert [(each.path, each.target, each.implied) for each in found] == [
        ("", "/t", True),
        ("a", "/t/a", False),
        ("d", "/t/d", False),
        ("d/b", "/t/d/b", False),
        ("d/e", "/t/d/e", False),
        ("d/e/c", "/t/d/e/c", False),
    ]
    tree.close()


def test_a_file_that_changes_meanwhile_is_noticed(tree: Tree, tmp_path: Path) -> None:
    [entry] = tree.copies(("a",), "/t", target_is_directory=False)
    written: list[bytes] = []
    tar = TarWriter(written.append)
    tree.write(tar, entry, 0)
    (tmp_path / "a").write_text("A")
    with pytest.raises(Invalid, match="a was changed while it was read"):
        tree.write(tar, entry, 0)
    tree.close()


def test_hard_links_within_one_copy(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "z").hardlink_to(tmp_path / "a")
    found = {each.target: each.same_as for each in tree.copies(("",), "/t/", target_is_directory=True)}
    assert (found["/t/a"], found["/t/z"]) == ("", "/t/a")
    for sources in (("a", "z"), ("?",)):  # two sources, two files
        entries = tree.copies(sources, "/t/", target_is_directory=True)
        assert [each.same_as for each in entries if each.target in ("/t/a", "/t/z")] == ["", ""]
    tree.close()


def test_a_tree_that_is_too_deep(tree: Tree, tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(410):
        place = place / "d"
    place.mkdir(parents=True)
    with pytest.raises(Invalid, match="directories more than 400 deep"):
        tree.copies(("",), "/t", target_is_directory=True)
    tree.close()


@pytest.mark.parametrize("pattern", ["[", "a[", "[b-]"])
def test_bad_patterns(tree: Tree, pattern: str) -> None:
    with pytest.raises(Invalid, match="syntax error in pattern"):
        tree.copies((pattern,), "/t", target_is_directory=True)
    tree.close()


def test_what_is_not_there(tree: Tree) -> None:
    with pytest.raises(NotFound) as caught:
        tree.copies(("c",), "/t", target_is_directory=False)
    assert caught.value.hint == "did you mean d/e/c?"
    with pytest.raises(NotFound, match="ignored/x: excluded by"):
        tree.copies(("ignored/x",), "/t", target_is_directory=False)
    with pytest.raises(NotFound):
        tree.copies(("a/b",), "/t", target_is_directory=False)
    tree.close()


def test_escaping() -> None:
    assert not has_wildcard(escaped("a[1]*?\\"))
    assert unescaped(escaped("a[1]*?\\")) == "a[1]*?\\"
    assert has_wildcard("a\\\\*")


def test_digests_are_kept_between_builds(store: Store, tmp_path: Path) -> None:
    place = tmp_path / "tree"
    place.mkdir()
    old = time.time() - 100
    for name in ("old", "new", "changed", "replaced"):
        (place / name).write_text(name)
        if name != "new":
            os.utime(place / name, (old, old))

    def look() -> tuple[dict[str, str], Digests]:
        kept = Digests(store, str(place))
        tree = context(str(place), digests=kept)
        try:
            found = {
                e.path: tree.content(e)
                for e in tree.copies(("",), "/", target_is_directory=True)
                if stat.S_ISREG(e.mode)
            }
        finally:
            tree.close()
        return found, kept

    first, _ = look()
    assert first == {name: hashlib.sha256(name.encode()).hexdigest() for name in first}
    assert not list((Path(store.root) / "cache").glob("context-*"))  # their inodes changed just now
    time.sleep(2.1)
    look()
    (cache,) = (Path(store.root) / "cache").glob("context-*")
    (place / "changed").write_text("CHANGED")
    os.utime(place / "changed", (old, old))
    os.rename(place / "old", place / "replaced")
    second, kept = look()
    assert second["changed"] == hashlib.sha256(b"CHANGED").hexdigest()
    assert second["replaced"] == hashlib.sha256(b"old").hexdigest()
    info = (place / "new").stat()
    stamp = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_dev)
    assert kept.get("new", stamp) == first["new"]
    assert kept.get("new", (*stamp[:-1], 0)) is None
    cache.write_bytes(b"no such thing")
    assert look()[0] == second


def test_exceptions_below_an_ignored_directory(tree: Tree, tmp_path: Path) -> None:
    """An ignored file is not there even if an exception's pattern could reach below its name, were it a directory."""
    tree.close()
    (tmp_path / "by-link").symlink_to("d")
    tree = context(str(tmp_path), ignore.parse("*\n!d*/e*\n!a*\na\n!ignored/none*\n"))
    for source in ("a", "ignored", "d/b"):
        with pytest.raises(NotFound, match=f"{source}: excluded by"):
            tree.copies((source,), "/t", target_is_directory=False)
    for source in ("d", "by-link"):
        found = tree.copies((source,), "/t", target_is_directory=False)
        assert [(each.path, each.target) for each in found] == [("", "/t"), ("d/e", "/t/e"), ("d/e/c", "/t/e/c")]
    assert tree.copies(("i*", "a*"), "/t", target_is_directory=False) == []
    tree.close()
