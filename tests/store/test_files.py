"""Files that are written whole, and trees that are removed whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

from limpet.store.files import remove_tree, write_file


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for data in (b"first", b"second"):
        write_file(str(tmp_path / "f"), data)
        assert (tmp_path / "f").read_bytes() == data
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_tree_deeper_than_descriptors_and_paths_reach(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "tree")
    fd = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(3000):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.mkdir("d" * 10, dir_fd=fd)
        below = os.open("d" * 10, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/link").symlink_to(tmp_path / "outside")
    (tmp_path / "top").symlink_to(tmp_path / "outside")
    for name in ("tree", "top", "missing", "missing/below"):
        remove_tree(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside/kept").exists()
