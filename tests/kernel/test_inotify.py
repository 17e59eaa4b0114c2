"""A watch wakes its poll for what happens, and is quiet again when that was drained."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest
from tests.descriptors import opened

from limpet.kernel import inotify


def ready(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_a_directory(tmp_path: Path) -> None:
    fd = inotify.watch(
        str(tmp_path), inotify.IN_CREATE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_DELETE
    )
    try:
        assert not os.get_inheritable(fd)
        assert not ready(fd)
        for change in (
            lambda: (tmp_path / "a").touch(),
            lambda: (tmp_path / "a").rename(tmp_path / "b"),
            lambda: (tmp_path / "b").unlink(),
        ):
            change()
            assert ready(fd)
            inotify.drain(fd)
            assert not ready(fd)
    finally:
        os.close(fd)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    fd = inotify.watch(str(path), inotify.IN_MODIFY | inotify.IN_DELETE_SELF)
    try:
        with path.open("a") as file:
            assert not ready(fd)
            file.write("line\n")
        assert ready(fd)
        inotify.drain(fd)
        path.unlink()
        assert ready(fd)
    finally:
        os.close(fd)


def test_nothing_to_watch(tmp_path: Path) -> None:
    before = opened()
    with pytest.raises(FileNotFoundError) as caught:
        inotify.watch(str(tmp_path / "nowhere"), inotify.IN_MODIFY)
    assert caught.value.filename == str(tmp_path / "nowhere")
    assert opened() == before
