"""Overlays as a kernel before 6.15 wants them; newer ones take them too, so this runs anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from limpet.layers import older


def opened(layers: list[Path]) -> list[int]:
    return [os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for layer in layers]


def closed(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def read(tree: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=tree)
    try:
        return os.read(fd, 64).decode()
    finally:
        os.close(fd)


def test_500_layers_with_an_upper(tmp_path: Path) -> None:
    layers = [tmp_path / f"a:name,with\\all {number}" for number in range(500)]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / "file").write_text(f"{number}")
        (layer / f"{number}").write_text("its own")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    before, here = Path("/proc/self/mountinfo").read_text(), os.getcwd()
    lowers = opened(layers)
    tree = older.overlay(lowers, str(tmp_path / "upper"), str(tmp_path / "work"), ("index=off", "xino=off"), 0)
    closed(lowers)
    try:
        assert read(tree, "file") == "0"  # the topmost is the first
        assert read(tree, "499") == "its own"
        fd = os.open("new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=tree)
        os.close(fd)
    finally:
        os.close(tree)
    assert os.listdir(tmp_path / "upper") == ["new"]
    assert Path("/proc/self/mountinfo").read_text() == before
    assert os.getcwd() == here


def test_one_layer_alone_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/file").write_text("there")
    lowers = opened([tmp_path / "layer"])
    tree = older.overlay(lowers, None, None, (), 1)
    closed(lowers)
    try:
        assert os.listdir(f"/proc/self/fd/{tree}") == ["file"]
        assert read(tree, "file") == "there"
        with pytest.raises(OSError, match="Read-only"):
            os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=tree)
    finally:
        os.close(tree)


def test_a_layer_that_was_replaced_meanwhile_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    lowers = opened([tmp_path / "layer"])
    (tmp_path / "layer").rename(tmp_path / "old")
    (tmp_path / "old").rmdir()
    (tmp_path / "layer").mkdir()
    with pytest.raises(OSError, match=r"layer"):
        older.overlay(lowers, None, None, (), 1)
    closed(lowers)
