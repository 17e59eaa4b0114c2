"""The digest of a directory of the context: by what is remembered as by looking at every file."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from limpet.build.copying.context import Entry, context
from limpet.build.copying.copy import _line
from limpet.build.copying.digests import Digests
from limpet.build.copying.grouped import Grouped, scan
from limpet.build.language import ignore

OLD = 1_000_000_000


class Directory:
    """A context, with a memory between builds; each build says how many files it had to look at one by one."""

    def __init__(self, place: Path, root: Path) -> None:
        self.place = place
        self.store: Any = SimpleNamespace(root=str(root))

    def digests(self, target: str = "/app") -> tuple[str, str, int]:
        """(as it is scanned, as every file is looked at, how many files the scan looked at)."""
        import hashlib

        found = []
        for fast in (True, False):
            tree = context(str(self.place), ignore.read(str(self.place)), Digests(self.store, str(self.place)))
            grouped = Grouped()
            count = 0

            def line(entry: Entry, tree: Any = tree) -> str:
                nonlocal count
                count += 1
                return _line(entry, tree)

            if fast:
                top = tree.whole_directory("")
                assert top is not None
                implied = Entry("", target, stat.S_IFDIR | 0o755, implied=True)
                grouped.add(implied, _line(implied, tree))
                assert scan(tree, top, target, grouped, line, "")
                looked = count
            else:
                for entry in tree.copies(("",), target, target_is_directory=True):
                    grouped.add(entry, _line(entry, tree))
            total = hashlib.sha256()
            grouped.into(total)
            found.append(total.hexdigest())
            tree.close()
        return found[0], found[1], looked


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Directory:
    """Files that were changed just now are not remembered: here all count as old."""
    monkeypatch.setattr("limpet.build.copying.grouped.RACY", -(10**12))
    place = tmp_path / "context"
    for name in ("a/b/c", "a/empty", "z"):
        (place / name).mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three", "a/b/c/four", "z/five", "a-b"):
        (place / name).write_text(name)
    (place / "z/link").symlink_to("five")
    (tmp_path / "store/cache").mkdir(parents=True)
    return Directory(place, tmp_path / "store")


@pytest.mark.parametrize("target", ["/app", "/"])
def test_what_changed_is_seen_and_nothing_else_is_looked_at(directory: Directory, target: str) -> None:
    place = directory.place
    fast, slow, looked = directory.digests(target)
    assert fast == slow
    assert looked == 12
    assert directory.digests(target) == (fast, slow, 0)
    seen = {fast}
    changes: list[tuple[Any, int]] = [
        (lambda: (place / "a/b/three").write_text("THREE"), 2),  # it and the directory beside it
        (lambda: (place / "a/b/three").chmod(0o700), 2),
        (lambda: (place / "a/b/three").rename(place / "a/b/trois"), 2),
        (lambda: (place / "z/link").unlink(), 1),
        (lambda: (place / "z/link").symlink_to("elsewhere"), 2),
        (lambda: (place / "a/empty/new").write_text(""), 1),
        (lambda: (place / "a/empty").chmod(0o700), 3),
        (lambda: (place / "one").unlink(), 3),
        (lambda: (place / ".dockerignore").write_text("a/b\n"), 9),
    ]
    for change, count in changes:
        change()
        fast, slow, looked = directory.digests(target)
        assert fast == slow
        assert looked == count
        assert fast not in seen
        seen.add(fast)
    os.utime(place / "z/five", (OLD, OLD))  # a time is no input, but a reason to look
    assert directory.digests(target) == (fast, slow, 2)


def test_what_was_changed_just_now_is_not_remembered(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limpet.build.copying.grouped.RACY", 3_600 * 10**9)
    assert directory.digests()[2] == 12
    assert directory.digests()[2] == 12


def test_names_in_any_order_and_of_any_bytes(directory: Directory) -> None:
    shuffle = random.Random(1)
    for _ in range(200):
        name = bytes(shuffle.choice(b"ab-. \xc3\xa9\xff") for _ in range(3)).strip(b".")
        if name:
            Path(os.fsdecode(os.fsencode(directory.place) + b"/z/n" + name)).write_bytes(name)
    fast, slow, _ = directory.digests()
    assert fast == slow


def test_hard_links_are_left_to_the_other_way(directory: Directory) -> None:
    os.link(directory.place / "one", directory.place / "uno")
    tree = context(str(directory.place), None, Digests(directory.store, str(directory.place)))
    assert not scan(tree, "", "/app", Grouped(), lambda entry: "", "")
    tree.close()
