"""The context is read while a base image is being brought in: the network's time is the disk's.

What comes of it are the digests that `Tree.content` keeps, and nothing else: a file that changes later is seen by its
stat, as at every build, and what is wrong with one is said when it counts. hashlib reads without Python's global lock.
"""

from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING

from limpet.errors import LimpetError

if TYPE_CHECKING:
    from limpet.build.copying.context import Tree

LARGEST = 64 << 20
"""Bytes of a file that is read ahead: nobody waits longer than for one of these when the base is there."""


class ReadAhead:
    """`with ReadAhead(tree) as ahead: … ahead.begin() …`: it ends with the block."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._thread: threading.Thread | None = None
        self._stopped = False

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        if self._thread is not None:
            self._thread.join()

    def begin(self) -> None:
        """Once; later calls do nothing."""
        if self._thread is None and self._tree.keeps_digests:
            self._thread = threading.Thread(target=self._work, name="limpet context", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        try:
            for entry in self._tree.everything():
                if self._stopped:
                    return
                if stat.S_ISREG(entry.mode) and entry.size <= LARGEST:
                    self._tree.content(entry)
        except (LimpetError, OSError):
            pass
