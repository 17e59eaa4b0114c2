"""Layers written without a sync: settled by a later one, or verified after the machine went down before it.

The row of such a layer has the id of the boot during which it was written (DESIGN.md, "On disk"). `<root>/boot` has the
id of the boot in which nothing is left to verify, so that a mount need not ask the database.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from limpet import SOURCE
from limpet.errors import Corrupt
from limpet.kernel import fs
from limpet.layers import stored
from limpet.store.files import remove_tree, write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.store.store import Store


def boot_id() -> str:
    """Names this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def verify(store: Store, diff_ids: Sequence[str]) -> None:
    """Hashes those of the layers that an earlier boot left unsettled; their forms are made again. Raises Corrupt."""
    boot = boot_id()
    suspects = {row[0] for row in store.db.rows("SELECT diff_id FROM layer WHERE boot != ?", boot)}
    for diff_id in dict.fromkeys(diff_ids):
        if diff_id not in suspects:
            continue
        place = store.layer_path(diff_id)
        drop_forms(place)
        problem = stored.check(store, diff_id)
        if problem is not None:
            raise Corrupt(
                f"layer {diff_id} did not survive the last crash: {problem}",
                "`limpet system check --repair` makes it again or drops it",
            )
        # What was just read came from the disk, not from what an earlier boot left in memory.
        store.db.run("UPDATE layer SET boot = NULL WHERE diff_id = ?", diff_id)
        suspects.remove(diff_id)
    if not suspects:
        write_file(f"{store.root}/boot", f"{boot}\n".encode(), durable=False)


def drop_forms(place: str) -> None:
    """Takes away all that can be made again from a layer's tar."""
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return
    for name in names:
        if name.partition("-")[0].partition(".")[0] in stored.FORMS:
            remove_tree(f"{place}/{name}")


def unsettle(store: Store, diff_id: str) -> None:
    """A form was written to a layer without a sync."""
    store.db.run("UPDATE layer SET boot = ? WHERE diff_id = ? AND boot IS NULL", boot_id(), diff_id)


def settle_later(store: Store) -> None:
    """`settle` in a process of its own, which nobody waits for: for the end of a command that brought layers in.

    A fresh interpreter, since a forked process must not use SQLite again. LIMPET_SETTLE=off leaves it out, for stores
    that are thrown away: all that it saves is hashing the layers once after a reboot.
    """
    if os.environ.get("LIMPET_SETTLE") == "off":
        return
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):  # whoever reads our output must not wait for this
            os.dup2(null, fd)
        if os.fork() == 0:
            source = SOURCE
            os.execv(sys.executable, [sys.executable, "-S", "-I", "-c", _SETTLE, source, store.root, store.run])
    finally:
        os._exit(0)


_SETTLE = (
    "import os, sys; sys.path.insert(0, sys.argv[1])\n"
    "if not os.path.exists(sys.argv[2] + '/state.db'): sys.exit()\n"  # gone meanwhile: opening it would make it again
    "from limpet.layers.durable import settle\n"
    "from limpet.store.store import Store\n"
    "settle(Store(sys.argv[2], sys.argv[3]))\n"
)


def settle(store: Store) -> None:
    """One syncfs makes all that this boot wrote durable, then the rows say so."""
    boot = boot_id()
    # What to mark is read before the sync: what comes in meanwhile is not covered by it.
    layers = [row[0] for row in store.db.rows("SELECT diff_id FROM layer WHERE boot = ?", boot)]
    blobs = [row[0] for row in store.db.rows("SELECT digest FROM blob WHERE boot = ?", boot)]
    if not layers and not blobs:
        return
    fd = os.open(store.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fs.syncfs(fd)
    finally:
        os.close(fd)
    with store.db.transaction():
        for diff_id in layers:
            store.db.run("UPDATE layer SET boot = NULL WHERE diff_id = ? AND boot = ?", diff_id, boot)
        for digest in blobs:
            store.db.run("UPDATE blob SET boot = NULL WHERE digest = ? AND boot = ?", digest, boot)
