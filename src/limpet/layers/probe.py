"""Does this kernel mount an EROFS index from the store's own file system, and an overlay over it? Found by doing it."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

from limpet.kernel import mounts
from limpet.layers import erofs
from limpet.layers.limits import Limits
from limpet.layers.tar import Scanner
from limpet.layers.tree import Tree
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from limpet.store.store import Store

_CONTENT = b"limpet\n"


def erofs_works(store: Store) -> bool:
    """Mounts a layer of one file and reads it: without its device EROFS gives zeros and no error (spikes/README.md)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("probe")
        member.size = len(_CONTENT)
        tar.addfile(member, io.BytesIO(_CONTENT))
    tree = Tree()
    scanner = Scanner(tree, Limits())
    scanner.feed(buffer.getvalue())
    scanner.finish()
    path = store.temporary("probe")
    os.mkdir(path, 0o700)
    try:
        for name, pieces in (
            ("data", [buffer.getvalue()]),
            ("index", erofs.build(tree.root, [len(buffer.getvalue())])),
        ):
            with open(f"{path}/{name}", "wb") as file:
                file.writelines(pieces)
        fd = mounts.erofs(f"{path}/index", [f"{path}/data"])
        try:
            found = os.open("probe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
            try:
                return os.read(found, 64) == _CONTENT and _holds_an_overlay(fd)
            finally:
                os.close(found)
        finally:
            os.close(fd)
    except OSError:
        return False
    finally:
        remove_tree(path)


def _holds_an_overlay(layer: int) -> bool:
    """Linux 6.12 to 6.14 have EROFS on plain files, and refuse layers that are detached mounts."""
    empty = mounts.tmpfs()
    try:
        os.close(mounts.overlay([layer, empty]))
    except OSError:
        return False
    finally:
        os.close(empty)
    return True
