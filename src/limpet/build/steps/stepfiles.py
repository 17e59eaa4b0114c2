"""Files of a RUN step that has ended, for whoever wants to know why: its image with what it changed."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from limpet.build.copying.place import look, real
from limpet.build.reporting import hints
from limpet.kernel import fs
from limpet.layers.driver import driver
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.store.store import Store


@contextmanager
def root(store: Store, layers: list[str], upper: str) -> Iterator[hints.Look]:
    """A function that gives the beginning of a file by its absolute path, links followed; None if there is none."""
    work = store.temporary("work")
    os.mkdir(work, 0o700)
    try:
        mounted = driver(store).mount(layers, upper, work)
        try:
            yield lambda path: _file(mounted, path)
        finally:
            os.close(mounted)
    finally:
        remove_tree(work)


def _file(root: int, path: str) -> hints.File | None:
    name = real(root, path.strip("/"))
    info = look(root, name)
    if info is None or not stat.S_ISREG(info.st_mode):
        return None
    try:
        fd = fs.openat2(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return None
    try:
        return hints.File(os.pread(fd, hints.HEAD, 0), stat.S_IMODE(info.st_mode))
    except OSError:
        return None
    finally:
        os.close(fd)
