"""The storage driver of a store: how layers lie on disk and become a mounted root. Small, so that `run` can import it.

    ingest        a layer's tar comes in (ingest.py); `with driver.ingest() as layer: layer.write(…); layer.finish(…)`
    seal          what in a stack depends on the layers below (seal.py), done once when an image is imported, for the
                  layers from `start` on; a mount does it for what is missing
    mount         a stack, with a writable top or without, as a detached mount
    open_tar      the exact bytes of a layer
    remove, usage, check

Two drivers: `erofs` mounts the index of each layer over its tar (Linux 6.12; nothing is unpacked), `dir` unpacks for
kernels and file systems that can't. The choice is made once for a store and kept in `<root>/driver`.
"""

from __future__ import annotations

import errno
import os

from limpet.errors import LimpetError
from limpet.kernel import idmap, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import BinaryIO, Protocol

    from limpet.kernel.userns import Mapped
    from limpet.layers.ingest import Ingest
    from limpet.layers.limits import Limits
    from limpet.store.store import Store

    class Driver(Protocol):
        """Diff IDs are listed bottom first everywhere."""

        name: str

        def ingest(self, limits: Limits | None = None) -> Ingest: ...

        def seal(self, diff_ids: Sequence[str], start: int = 0) -> None: ...

        def mount(
            self,
            diff_ids: Sequence[str],
            upper: str | None = None,
            work: str | None = None,
            *,
            volatile: bool = False,
            mapped: Mapped | None = None,
        ) -> int: ...

        def open_tar(self, diff_id: str) -> BinaryIO: ...

        def remove(self, diff_id: str) -> None: ...

        def usage(self, diff_id: str) -> int: ...

        def check(self, diff_id: str) -> str | None: ...


class keeping:
    """`with keeping(store):` the mounts of single layers stay open for the next stack, where the driver has any.

    Of this `Store` only, which belongs to one thread. The caller has a lease.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.kept = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept, self._store.kept = self._store.kept, None
        for fd in (kept or {}).values():
            os.close(fd)


_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=off", "xino=off")
"""Whatever the kernel's defaults: with metacopy or redirects an upper could not be read as a layer."""

_USER_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=nofollow", "xino=off", "userxattr")
"""In a user namespace, where nobody may set `trusted.*` (overlayfs.rst, "User xattr"). "off" may mean "follow"."""


def driver(store: Store, name: str = "") -> Driver:
    """The driver called `name`, or LIMPET_DRIVER, or the store's own."""
    name = name or os.environ.get("LIMPET_DRIVER", "") or _remembered(store)
    if name == "erofs":
        from limpet.layers.erofs_driver import ErofsDriver

        return ErofsDriver(store)
    if name == "dir":
        from limpet.layers.dir_driver import DirDriver

        return DirDriver(store)
    raise LimpetError(f"unknown storage driver {name!r}", "erofs and dir are known")


def overlay(
    lowers: list[int], upper: str | None, work: str | None, *, volatile: bool, mapped: Mapped | None = None
) -> int:
    """A detached overlay over layers: descriptors, bottom first. The kernel wants two lowers if there is no upper.

    With `mapped` the layers are detached mounts, and the upper is beside its work directory.
    """
    if mapped is not None and upper is not None and work is not None:
        from limpet.layers.mapping import overlay_mapped

        return overlay_mapped(lowers, upper, work, [*_OPTIONS, *(["volatile"] if volatile else [])], mapped)
    layers: list[int | str] = [*reversed(lowers)]
    options = _USER_OPTIONS if idmap.nested() else _OPTIONS
    if volatile and upper is not None:
        options = (*options, "volatile")
    empty = [mounts.tmpfs() for _ in range((1 if upper is not None else 2) - len(lowers))]  # no two may be the same
    try:
        return mounts.overlay([*layers, *empty], upper, work, options)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        from limpet.layers import older

        try:
            return older.overlay([*reversed(lowers)], upper, work, options, len(empty))
        except OSError:
            raise e from None  # it has the kernel's own words
    finally:
        for fd in empty:
            os.close(fd)


def _remembered(store: Store) -> str:
    try:
        fd = os.open(f"{store.root}/driver", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _choose(store)
    try:
        return os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)


def _choose(store: Store) -> str:
    from limpet.layers import probe
    from limpet.store.files import write_file

    name = "erofs" if probe.erofs_works(store) else "dir"
    write_file(f"{store.root}/driver", f"{name}\n".encode())
    return name
