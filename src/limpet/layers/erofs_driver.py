"""The `erofs` driver: a layer is its tar and an EROFS index over it; a mount is an overlay over detached mounts."""

from __future__ import annotations

import os

from limpet.errors import Corrupt
from limpet.kernel import mounts
from limpet.layers import stored
from limpet.layers.driver import chain, overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from limpet.layers.ingest import Ingest
    from limpet.layers.limits import Limits
    from limpet.layers.tree import Tree
    from limpet.store.store import Store


class ErofsDriver:
    name = "erofs"

    def __init__(self, store: Store) -> None:
        self._store = store

    def ingest(self, limits: Limits | None = None) -> Ingest:
        from limpet.layers.ingest import Ingest

        return Ingest(self._store, self.name, limits)

    def seal(self, diff_ids: Sequence[str]) -> None:
        from limpet.layers.seal import seal

        seal(self._store, self, diff_ids, _write_index)

    def mount(
        self,
        diff_ids: Sequence[str],
        upper: str | None = None,
        work: str | None = None,
        *,
        volatile: bool = False,
    ) -> int:
        """Raises Corrupt for a layer that is not there, OSError with the kernel's words for the rest."""
        lowers: list[int] = []
        try:
            for position in range(len(diff_ids)):
                fd = self._mount_layer(diff_ids, position)
                lowers.append(fd)  # one by one: an error must find those that are open
            return overlay(lowers, upper, work, volatile=volatile)
        finally:
            for fd in lowers:
                os.close(fd)

    def _mount_layer(self, diff_ids: Sequence[str], position: int) -> int:
        place = self._store.layer_path(diff_ids[position])
        suffix = ""
        if os.path.exists(f"{place}/pending"):
            suffix = f"-{chain(diff_ids[:position])}"
            if not os.path.exists(f"{place}/index{suffix}"):
                suffix = ""
        devices = [f"{place}/data"]
        if os.path.exists(f"{place}/extra{suffix}"):
            devices.append(f"{place}/extra{suffix}")
        try:
            return mounts.erofs(f"{place}/index{suffix}", devices)
        except FileNotFoundError:
            raise Corrupt(
                f"layer {diff_ids[position]} is not in the store", "`limpet system check` finds what is missing"
            ) from None

    def open_tar(self, diff_id: str) -> BinaryIO:
        return stored.open_tar(self._store, diff_id)

    def remove(self, diff_id: str) -> None:
        stored.remove(self._store, diff_id)

    def usage(self, diff_id: str) -> int:
        return stored.usage(self._store, diff_id)

    def check(self, diff_id: str) -> str | None:
        return stored.check(self._store, diff_id)


def _write_index(place: str, suffix: str, tree: Tree, sizes: list[int]) -> None:
    from limpet.layers import erofs
    from limpet.store.files import write_file

    write_file(f"{place}/index{suffix}", erofs.build(tree.root, sizes), durable=False)
