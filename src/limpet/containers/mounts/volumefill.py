"""An empty volume begins with what the image has at its mount point (moby `create_unix.go`; `nocopy` stops it)."""

from __future__ import annotations

import os

from limpet.containers.files import treecopy
from limpet.kernel import fs


def fill(root: int, target: str, destination: str) -> None:
    """Copies the directory `target` of the mount `root` into the host directory `destination`, if that is empty.

    Owner, mode, times and extended attributes stay; links, devices and fifos are made anew; hard links within the
    tree stay links. Nothing is followed out of `root`.
    """
    with os.scandir(destination) as entries:
        if next(entries, None) is not None:
            return
    try:
        source = fs.openat2(
            target.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dirfd=root, resolve=fs.RESOLVE_IN_ROOT
        )
    except (FileNotFoundError, NotADirectoryError):
        return
    place = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        treecopy.copy(source, place)
    finally:
        os.close(source)
        os.close(place)
