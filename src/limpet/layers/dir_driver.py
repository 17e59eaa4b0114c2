"""The `dir` driver: plain unpacking, for kernels and file systems that can't mount an EROFS index.

A layer is `tree/`, a directory in overlayfs's own form (`unpack.py`), beside `data`, the exact tar. It costs the time
and the room of unpacking; what an image contains is the same.
"""

from __future__ import annotations

import os

from limpet.kernel import mounts
from limpet.layers import stored
from limpet.layers.driver import overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from limpet.kernel.userns import Mapped
    from limpet.layers.ingest import Ingest
    from limpet.layers.limits import Limits
    from limpet.store.store import Store

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirDriver:
    name = "dir"

    def __init__(self, store: Store) -> None:
        self._store = store

    def ingest(self, limits: Limits | None = None) -> Ingest:
        from limpet.layers.ingest import Ingest
        from limpet.layers.unpack import unpack

        return Ingest(self._store, self.name, unpack, limits)

    def seal(self, diff_ids: Sequence[str], start: int = 0) -> None:
        for position in range(start, len(diff_ids)):
            place = self._store.layer_path(diff_ids[position])
            suffix = stored.suffix(place, stored.below(diff_ids, position))
            if suffix and not os.path.exists(f"{place}/tree{suffix}"):
                self._make(diff_ids, position)

    def mount(
        self,
        diff_ids: Sequence[str],
        upper: str | None = None,
        work: str | None = None,
        *,
        volatile: bool = False,
        mapped: Mapped | None = None,
    ) -> int:
        """As `ErofsDriver.mount`."""

        def open_layer(place: str, suffix: str, position: int) -> int:
            tree = f"{place}/tree{suffix}"
            if not os.path.isdir(tree):
                self._make(diff_ids, position)
            return os.open(tree, _DIRECTORY) if mapped is None else mounts.open_tree(tree)

        lowers = stored.open_stack(self._store, diff_ids, open_layer)
        try:
            return overlay(lowers, upper, work, volatile=volatile, mapped=mapped)
        finally:
            for fd in lowers:
                os.close(fd)

    def open_tar(self, diff_id: str) -> BinaryIO:
        return stored.open_tar(self._store, diff_id)

    def remove(self, diff_id: str) -> None:
        stored.remove(self._store, diff_id)

    def usage(self, diff_id: str) -> int:
        return stored.usage(self._store, diff_id)

    def check(self, diff_id: str) -> str | None:
        return stored.check(self._store, diff_id)

    def _make(self, diff_ids: Sequence[str], position: int) -> None:
        from limpet.layers.seal import make
        from limpet.layers.unpack import unpack

        make(self._store, self.mount, diff_ids, position, unpack)
