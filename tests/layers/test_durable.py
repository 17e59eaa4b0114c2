"""What a crash, a damaged disk or a careless hand does to stored layers, and what is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limpet.errors import Corrupt, LimpetError, NotFound
from limpet.layers import durable, known
from limpet.layers.driver import driver
from limpet.store.files import remove_tree
from limpet.store.store import Store
from tests import needs
from tests.layers.archive import END, file, hard_link, pax
from tests.layers.conftest import mounted
from tests.layers.trees import listing

TAR = file(b"zeros", bytes(600)) + file(b"d/f", b"content" * 100) + END


def crash(store: Store, diff_id: str) -> None:
    """As if the machine had gone down since."""
    store.db.run("UPDATE layer SET boot = 'an earlier one' WHERE diff_id = ?", diff_id)
    if os.path.exists(f"{store.root}/boot"):
        Path(f"{store.root}/boot").write_text("an earlier one\n")


def boot(store: Store, diff_id: str) -> Any:
    return store.db.row("SELECT boot FROM layer WHERE diff_id = ?", diff_id)[0]


def damage(path: str, at: int, data: bytes) -> None:
    with open(path, "r+b") as stored:
        stored.seek(at)
        stored.write(data)


def test_a_layer_is_verified_after_a_crash(home: Any, ingest: Any, store: Store, tmp_path: Path) -> None:
    good, bad = ingest(TAR), ingest(file(b"other", b"x" * 5000) + END)
    assert boot(store, good) == durable.boot_id()
    with mounted(home, [good, bad], tmp_path / "mnt"):
        pass
    for diff_id in (good, bad):
        crash(store, diff_id)
    damage(f"{store.layer_path(bad)}/data", 1000, b"y")
    with mounted(home, [good], tmp_path / "mnt") as root:
        assert b"d/f" in listing(root)
    assert boot(store, good) == durable.boot_id()
    with pytest.raises(Corrupt, match="did not survive"):
        home.mount([good, bad])
    with pytest.raises(Corrupt, match="did not survive"):
        home.mount([good, bad])
    assert "digest" in home.check(bad)


def test_forms_are_made_again_after_a_crash(home: Any, ingest: Any, store: Store, tmp_path: Path) -> None:
    diff_id = ingest(TAR)
    form = f"{store.layer_path(diff_id)}/{'index' if home.name == 'erofs' else 'tree/d/f'}"
    damage(form, 2000 if home.name == "erofs" else 3, b"\xff" * 64)
    crash(store, diff_id)
    with mounted(home, [diff_id], tmp_path / "mnt") as root:
        assert (root / "d/f").read_bytes() == b"content" * 100


def test_a_missing_form_is_made_again(home: Any, ingest: Any, store: Store, tmp_path: Path) -> None:
    diff_id = ingest(TAR)
    place = store.layer_path(diff_id)
    expected = None
    for _ in range(2):
        with mounted(home, [diff_id], tmp_path / "mnt") as root:
            expected = expected or listing(root)
            assert listing(root) == expected
        durable.drop_forms(place)
        assert os.listdir(place) == ["data", "depends-above"] or sorted(os.listdir(place)) == ["data", "depends-above"]


@needs.erofs
def test_the_other_driver_can_use_it(home: Any, ingest: Any, store: Store, tmp_path: Path) -> None:
    diff_id = ingest(TAR)
    other = driver(store, "dir" if home.name == "erofs" else "erofs")
    with mounted(home, [diff_id], tmp_path / "mnt") as root:
        expected = listing(root)
    with mounted(other, [diff_id], tmp_path / "mnt") as root:
        assert listing(root) == expected


def test_settle(home: Any, ingest: Any, store: Store) -> None:
    diff_id = ingest(TAR)
    durable.settle(store)
    assert boot(store, diff_id) is None
    durable.settle(store)


def test_a_durable_layer_is_settled_at_once(home: Any, store: Store, tmp_path: Path) -> None:
    for keep in (True, False, True):
        with store.lease(), home.ingest() as layer:
            layer.write(TAR)
            info = layer.finish(durable=keep)
        assert boot(store, info.diff_id) is None
    assert (info.size, info.entries) == (len(TAR), 2)
    linked = home.ingest()
    with store.lease(), linked as layer:
        layer.write(hard_link(b"g", b"d/f") + END)
        above = layer.finish(durable=True).diff_id
    home.seal([info.diff_id, above])
    assert boot(store, above) == durable.boot_id()  # its form can be made again, and was not synced


def test_a_layer_that_is_here_stays(home: Any, ingest: Any, store: Store) -> None:
    diff_id = ingest(TAR)
    inode = os.stat(f"{store.layer_path(diff_id)}/data").st_ino
    assert ingest(TAR) == diff_id
    assert os.stat(f"{store.layer_path(diff_id)}/data").st_ino == inode
    os.unlink(f"{store.layer_path(diff_id)}/data")
    assert ingest(TAR) == diff_id
    assert home.check(diff_id) is None
    assert os.listdir(f"{store.root}/tmp") == []


def test_many_bring_the_same_layer(home: Any, store: Store, tmp_path: Path) -> None:
    """And the one above it, sealed by all of them at once."""
    program = f"""
import sys; sys.path[:0] = {[p for p in sys.path if p]!r}
from limpet.layers.driver import driver
from limpet.store.store import Store
from tests.layers import archive
store = Store({store.root!r}); home = driver(store, {home.name!r})
ids = []
sys.stdin.read()
for tar in (archive.file(b"f", b"x" * 100000), archive.hard_link(b"g", b"f") + archive.file(b".wh.none")):
    with store.lease(), home.ingest() as layer:
        layer.write(tar + archive.END)
        ids.append(layer.finish().diff_id)
home.seal(ids)
print(*ids)
"""
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    results = set()
    for process in running:
        assert process.stdout is not None
        results.add(process.stdout.read())
        process.stdout.close()
        assert process.wait() == 0
    (text,) = results
    with mounted(home, text.split(), tmp_path / "mnt") as root:
        assert listing(root)[b"f"]["links"] == [b"f", b"g"]
    assert [home.check(diff_id) for diff_id in text.split()] == [None, None]
    assert os.listdir(f"{store.root}/tmp") == []
    assert not [name for diff_id in text.split() for name in os.listdir(store.layer_path(diff_id)) if ".new-" in name]


def test_what_a_crash_left_is_replaced(home: Any, ingest: Any, store: Store) -> None:
    diff_id = ingest(TAR)
    store.db.run("DELETE FROM layer")
    damage(f"{store.layer_path(diff_id)}/data", 1000, b"damaged")
    assert ingest(TAR) == diff_id
    assert home.check(diff_id) is None
    assert os.listdir(f"{store.root}/tmp") == []


def test_the_exact_tar_comes_out_again(home: Any, ingest: Any) -> None:
    diff_id = ingest(TAR)
    with home.open_tar(diff_id) as stored:
        assert stored.read() == TAR
    home.remove(diff_id)
    home.remove(diff_id)
    with pytest.raises(NotFound):
        home.open_tar(diff_id)
    with pytest.raises(Corrupt, match="not in the store"):
        home.mount([diff_id])
    assert "cannot be read" in home.check(diff_id)
    assert home.usage(diff_id) == 0


def test_usage_counts_blocks(home: Any, ingest: Any, store: Store) -> None:
    diff_id = ingest(file(b"f", b"x" * 1_000_000) + END)
    assert 1_000_000 < home.usage(diff_id) < 3_000_000


@needs.erofs
def test_a_damaged_index_is_noticed(store: Store, tmp_path: Path) -> None:
    home = driver(store, "erofs")
    with store.lease(), home.ingest() as layer:
        layer.write(TAR)
        diff_id = layer.finish().diff_id
    index = f"{store.layer_path(diff_id)}/index"
    assert known.is_whole(index)
    assert home.check(diff_id) is None
    damage(index, os.path.getsize(index) - 5, b"x")
    assert home.check(diff_id) == "its index is damaged"
    damage(index, 0, bytes(1024))
    with pytest.raises(Corrupt, match="does not read as it was written"):
        home.mount([diff_id])


@needs.erofs
def test_a_known_byte_is_looked_at(store: Store) -> None:
    """EROFS reads zeros from a device that is empty, and says nothing."""
    home = driver(store, "erofs")
    with store.lease(), home.ingest() as layer:
        layer.write(TAR)
        diff_id = layer.finish().diff_id
    data = f"{store.layer_path(diff_id)}/data"
    size = os.path.getsize(data)
    with open(data, "r+b") as stored:
        stored.truncate(0)
        stored.truncate(size)
    with pytest.raises(Corrupt, match="does not read as it was written"):
        home.mount([diff_id])


@needs.erofs
def test_a_layer_without_a_byte_to_know(store: Store, tmp_path: Path) -> None:
    home = driver(store, "erofs")
    deep = pax({b"path": b"d/" * 600 + b"f"}) + file(b"x", b"deep")
    for tar in (file(b"empty") + END, file(b"zeros", bytes(5000)) + END, deep + END):
        with store.lease(), home.ingest() as layer:
            layer.write(tar)
            diff_id = layer.finish().diff_id
        with mounted(home, [diff_id], tmp_path / "mnt") as root:
            assert listing(root)
        home.remove(diff_id)


def test_the_choice_is_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMPET_DRIVER", raising=False)
    chosen = driver(store).name
    assert Path(f"{store.root}/driver").read_text() == f"{chosen}\n"
    Path(f"{store.root}/driver").write_text("dir\n")
    assert driver(store).name == "dir"
    monkeypatch.setenv("LIMPET_DRIVER", "erofs")
    assert driver(store).name == "erofs"
    monkeypatch.setenv("LIMPET_DRIVER", "zfs")
    with pytest.raises(LimpetError, match="zfs"):
        driver(store)


def test_what_a_killed_seal_left_is_no_form(home: Any, ingest: Any, store: Store, tmp_path: Path) -> None:
    below, above = ingest(TAR), ingest(hard_link(b"g", b"d/f") + END)
    place = store.layer_path(above)
    for name in ("index", "extra", "tree"):
        Path(f"{place}/{name}-0123456789abcdef0123-00000000.new-999999").write_bytes(b"half")
    with mounted(home, [below, above], tmp_path / "mnt") as root:
        assert (root / "g").read_bytes() == b"content" * 100
    assert home.check(above) is None
    remove_tree(place)
