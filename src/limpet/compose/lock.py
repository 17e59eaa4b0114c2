"""One command at a time works on a project: `up` and `down` of the same name wait for each other."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.store.store import Store


@contextmanager
def held(store: Store, name: str, say: Callable[[str], None]) -> Iterator[bool]:
    """The lock of the project `name`: a file in the run directory, held by flock, so that it ends with its holder.

    The value is whether another one had it, and may have changed all that was seen before; `say` is told of the wait.
    It is of the name, not of the directory: the names of containers and images come from it.
    """
    if store.absent:
        yield False  # nothing is there, and nothing is made
        return
    path = f"{store.run}/project-{name}.lock"
    fd, waited = _take(path, lambda: say(f"Project {name}: another limpet works on it, waiting"))
    try:
        yield waited
    finally:
        os.unlink(path)  # whoever waits for it notices, and makes it anew
        os.close(fd)


def _take(path: str, waits: Callable[[], None]) -> tuple[int, bool]:
    told = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waits()
                told = True
                fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd, told
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
