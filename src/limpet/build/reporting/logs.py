"""What builds leave to be read later: the newest logs, in the store's `builds/`, and how long each layer took to make.

Both are for people: a build never depends on them, so nothing here fails a build, and nothing is synced.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from limpet.store.store import Store

KEPT = 10
"""Logs."""

HEAD = 64 << 20
"""Bytes of a log from its beginning. What comes after is kept only in part."""

TAIL = 1 << 20
"""Bytes of a log's end, if it is longer than HEAD."""

_SECONDS = "user.limpet.seconds"


class Log:
    """One build's. Nothing is written before `open`: a build that finds all in the cache has no log."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fd = -1
        self._early: list[bytes] | None = []
        self._size = 0
        self._end: deque[bytes] = deque()
        self._end_size = 0
        self._left_out = 0
        self.path = ""

    def open(self) -> None:
        if self._early is None:
            return
        early, self._early = self._early, None
        directory = f"{self._store.root}/builds"
        name = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        path = f"{directory}/{name}-{os.getpid()}.log"
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            # Output of steps may tell what is nobody else's business.
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND, 0o600)
        except OSError:
            return
        self.path = path
        self.write(b"".join(early))

    def write(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
            return
        room = max(0, HEAD - self._size)
        self._put(data[:room])
        self._size += len(data)
        if len(data) > room:
            self._end.append(data[room:])
            self._end_size += len(data) - room
            while self._end_size - len(self._end[0]) >= TAIL:
                gone = len(self._end.popleft())
                self._end_size -= gone
                self._left_out += gone

    def close(self) -> None:
        """Also takes older logs away."""
        if self._fd < 0:
            return
        if self._left_out:
            self._put(b"\n[%d bytes left out]\n" % self._left_out)
        self._put(b"".join(self._end))
        os.close(self._fd)
        self._fd = -1
        for path in logs(self._store)[KEPT:]:
            try:
                os.unlink(path)
            except OSError:
                pass

    def _put(self, data: bytes) -> None:
        try:
            while data and self._fd >= 0:
                data = data[os.write(self._fd, data) :]
        except OSError:  # a full disk, say: the step goes on
            os.close(self._fd)
            self._fd, self.path = -1, ""


def forget(store: Store) -> None:
    """Removes all logs."""
    remove_tree(f"{store.root}/builds")


def logs(store: Store) -> list[str]:
    """Paths, the newest first."""
    directory = f"{store.root}/builds"
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [f"{directory}/{name}" for name in sorted(names, reverse=True) if name.endswith(".log")]


def seconds(store: Store, diff_id: str) -> float:
    """How long the step took that made a layer here; 0 if that is not known."""
    try:
        return float(os.getxattr(store.layer_path(diff_id), _SECONDS))
    except (OSError, ValueError):
        return 0.0


def remember(store: Store, diff_id: str, took: float) -> None:
    """At the layer's directory: it goes with it. A file system without such attributes forgets it."""
    try:
        os.setxattr(store.layer_path(diff_id), _SECONDS, f"{took:.3f}".encode())
    except OSError:
        pass
