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

    from limpet.layers.ingest import Ingest
    from limpet.layers.limits import Limits
    from limpet.store.store import Store


class ErofsDriver:
    name = "erofs"

    def __init__(self, store: Store) -> None:
        self._store = store

    def ingest(self, limits: Limits | None = None) -> Ingest:
        from limpet.layers import seal
        from limpet.layers.ingest import Ingest

        return Ingest(self._store, self.name, seal.write_index, limits)

    def seal(self, diff_ids: Sequence[str]) -> None:
        from limpet.layers import seal

        for position in range(len(diff_ids)):
            place = self._store.layer_path(diff_ids[position])
            suffix = stored.suffix(place, stored.below(diff_ids, position))
            if suffix and not os.path.exists(f"{place}/index{suffix}"):
                seal.make(self._store, self, diff_ids, position, seal.write_index)

    def mount(
        self,
        diff_ids: Sequence[str],
        upper: str | None = None,
        work: str | None = None,
        *,
        volatile: bool = False,
    ) -> int:
        """Raises Corrupt for a layer that is not there, OSError with the kernel's words for the rest."""

        def open_layer(place: str, suffix: str, position: int) -> int:
            index = f"{place}/index{suffix}"
            if not os.path.exists(index):
                from limpet.layers import seal

                seal.make(self._store, self, diff_ids, position, seal.write_index)
            return _mount(place, suffix)

        lowers = stored.open_stack(self._store, diff_ids, open_layer)
        try:
            return overlay(lowers, upper, work, volatile=volatile)
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


def _mount(place: str, suffix: str) -> int:
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
