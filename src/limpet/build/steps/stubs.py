"""Places that a RUN's mounts need and the image lacks: the engine makes them, so they don't belong to the layer."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.kernel import fs
from limpet.layers.driver import driver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.store.store import Store


class Stubs:
    """What is missing is looked up before the step; `remove` takes it away afterwards, where the step left it empty."""

    def __init__(self, store: Store, layers: Sequence[str], targets: Sequence[str]) -> None:
        self._paths: list[str] = []
        if not targets:
            return
        root = driver(store).mount(layers)
        try:
            for target in targets:
                path = target.strip("/")
                while path and not _is_there(root, path):
                    self._paths.append(path)
                    path = os.path.dirname(path)
        finally:
            os.close(root)

    def remove(self, upper: str) -> None:
        """`upper` was the container's: no link in it is followed."""
        if not self._paths:
            return
        top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path in sorted(set(self._paths), key=lambda path: -path.count("/")):
                _remove_empty(top, path)
        finally:
            os.close(top)


def _is_there(root: int, path: str) -> bool:
    try:
        os.close(fs.openat2(path, os.O_PATH, dirfd=root, resolve=fs.RESOLVE_IN_ROOT))
    except OSError:
        return False
    return True


def _remove_empty(top: int, path: str) -> None:
    parent, name = os.path.split(path)
    try:
        fd = fs.openat2(
            parent or ".", os.O_RDONLY | os.O_DIRECTORY, dirfd=top, resolve=fs.RESOLVE_BENEATH | fs.RESOLVE_NO_SYMLINKS
        )
    except OSError:
        return  # the step removed it, or put a link there
    try:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(name, dir_fd=fd)
        elif stat.S_ISREG(info.st_mode) and info.st_size == 0:
            os.unlink(name, dir_fd=fd)
    except OSError:
        pass  # not empty: the step's own
    finally:
        os.close(fd)
