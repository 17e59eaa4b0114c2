"""The `erofs` driver: a layer is its tar and an EROFS index over it; a mount is an overlay over detached mounts."""

from __future__ import annotations

import os

from limpet.errors import Corrupt
from limpet.kernel import mounts
from limpet.layers import known, stored
from limpet.layers.driver import overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from limpet.kernel.userns import Mapped
    from limpet.layers.ingest import Ingest
    from limpet.layers.limits import Limits
    from limpet.store.store import Store

_KEPT = 200  # mounts kept while a stack is sealed: with those of the stack itself they must not exceed 1024 descriptors


class ErofsDriver:
    name = "erofs"

    def __init__(self, store: Store) -> None:
        self._store = store

    def ingest(self, limits: Limits | None = None) -> Ingest:
        from limpet.layers.index import write_index
        from limpet.layers.ingest import Ingest

        return Ingest(self._store, self.name, write_index, limits)

    def seal(self, diff_ids: Sequence[str], start: int = 0) -> None:
        opened: dict[str, int] = {}
        try:
            for position in range(start, len(diff_ids)):
                place = self._store.layer_path(diff_ids[position])
                suffix = stored.suffix(place, stored.below(diff_ids, position))
                if suffix and not os.path.exists(f"{place}/index{suffix}"):
                    self._make(diff_ids, position, opened)
        finally:
            for fd in opened.values():
                os.close(fd)

    def mount(
        self,
        diff_ids: Sequence[str],
        upper: str | None = None,
        work: str | None = None,
        *,
        volatile: bool = False,
        mapped: Mapped | None = None,
    ) -> int:
        """Raises Corrupt for a layer that is not there, OSError with the kernel's words for the rest."""
        kept = self._store.kept if mapped is None else None  # a mount that is mapped is so for all
        return self._mount(diff_ids, upper, work, volatile=volatile, mapped=mapped, opened=kept)

    def _mount(
        self,
        diff_ids: Sequence[str],
        upper: str | None = None,
        work: str | None = None,
        *,
        volatile: bool = False,
        mapped: Mapped | None = None,
        opened: dict[str, int] | None = None,
    ) -> int:
        """`opened` keeps the layers' own mounts for the next time, by the index."""

        def open_layer(place: str, suffix: str, position: int) -> int:
            index = f"{place}/index{suffix}"
            if opened is not None and index in opened:
                return os.dup(opened[index])
            if not os.path.exists(index):
                self._make(diff_ids, position, opened)
            fd = _mount_layer(place, suffix)
            if opened is not None and len(opened) < _KEPT:
                opened[index] = os.dup(fd)
            return fd

        lowers = stored.open_stack(self._store, diff_ids, open_layer)
        try:
            return overlay(lowers, upper, work, volatile=volatile, mapped=mapped)
        finally:
            for fd in lowers:
                os.close(fd)

    def _make(self, diff_ids: Sequence[str], position: int, opened: dict[str, int] | None) -> None:
        from limpet.layers.index import write_index
        from limpet.layers.seal import make

        make(self._store, lambda below: self._mount(below, opened=opened), diff_ids, position, write_index)

    def open_tar(self, diff_id: str) -> BinaryIO:
        return stored.open_tar(self._store, diff_id)

    def remove(self, diff_id: str) -> None:
        stored.remove(self._store, diff_id)

    def usage(self, diff_id: str) -> int:
        return stored.usage(self._store, diff_id)

    def check(self, diff_id: str) -> str | None:
        return stored.check(self._store, diff_id)


def _mount_layer(place: str, suffix: str) -> int:
    devices = [f"{place}/data"]
    if os.path.exists(f"{place}/extra{suffix}"):
        devices.append(f"{place}/extra{suffix}")
    fd = mounts.erofs(f"{place}/index{suffix}", devices)
    if not known.reads_right(f"{place}/index{suffix}", fd):
        os.close(fd)
        raise Corrupt(
            f"layer sha256:{os.path.basename(place)} does not read as it was written",
            "`limpet system check` looks for damage",
        )
    return fd
