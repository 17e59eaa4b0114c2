"""Which ids of the host a container with a user namespace has: a range that no other one of this store has.

On disk nothing depends on it (layers and volumes are mounted through a map, see `kernel.userns`), so that a range is
only taken when the container starts first after a boot: `<run>/<id>/range` holds its beginning, and goes with it.
"""

from __future__ import annotations

import fcntl
import os

from limpet.errors import LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store

SIZE = 65536
FIRST = 0x40000000
"""Above what distributions give to users in /etc/subuid, within what systemd sets aside for containers (UIDS-GIDS)."""
_COUNT = (0x70000000 - FIRST) // SIZE


def claim(store: Store, container_id: str) -> int:
    """The first id of the container's range. Raises LimpetError if there are none left."""
    path = f"{store.run_path(container_id)}/range"
    directory = os.open(store.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        found = _read(path)
        if found is not None:
            return found
        taken = {_read(f"{store.run}/{name}/range") for name in os.listdir(store.run)}
        begin = int(container_id[:8], 16)
        for step in range(_COUNT):
            base = FIRST + (begin + step) % _COUNT * SIZE
            if base not in taken:
                with open(path, "w", encoding="ascii") as file:
                    file.write(str(base))
                return base
    finally:
        os.close(directory)
    raise LimpetError("there is no free range of ids left for a user namespace", "remove containers that have one")


def _read(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
