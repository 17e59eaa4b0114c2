"""Where a volume's files are: drivers behind one small interface, `Driver`, as the local one and plugins have it.

`local` is a directory of the store, or what `-o` says is to be mounted there. Every other name is that of a plugin in
Docker's protocol (`plugin`). Nothing here is imported for a volume that is a directory and nothing else.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from limpet.store.store import Store

    class Driver(Protocol):
        """All raise LimpetError. `options` are what `volume create -o` said, `user` who mounts: one name, one mount.

        Each call may come again, after a crash, and then does what is left to do.
        """

        name: str

        def create(self, volume: str, options: dict[str, str]) -> dict[str, str]:
            """The options to be kept."""

        def mount(self, volume: str, options: dict[str, str], user: str) -> str:
            """The directory with its files, which stays until `unmount`."""

        def unmount(self, volume: str, options: dict[str, str], user: str, *, last: bool) -> None: ...

        def remove(self, volume: str, options: dict[str, str]) -> None: ...

        def usage(self, volume: str) -> int | None:
            """Bytes on this host's disk; None: who knows."""


def driver(store: Store, name: str) -> Driver:
    """Raises NotFound for a plugin that is not there."""
    if name == "local":
        from limpet.containers.mounts.volumedrivers.local import Local

        return Local(store)
    from limpet.containers.mounts.volumedrivers.plugin import Plugin

    return Plugin(name)
