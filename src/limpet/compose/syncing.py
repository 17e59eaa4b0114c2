"""Files of the context into a running container, without a build: what was changed there is the same here.

Copied files belong to root, as COPY makes them, and keep their modes and times. Paths are resolved in the container's
root by the kernel: whatever links its programs make, nothing of the host is written.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tempfile
from typing import TYPE_CHECKING

from limpet.containers.files.copyroot import container_root
from limpet.containers.files.unpack import unpack
from limpet.layers.rootfs_tar import TarWriter
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from limpet.compose.directives import Sync
    from limpet.containers.files.copyroot import Root
    from limpet.containers.state import Container
    from limpet.store.store import Store


def plan(syncs: Iterable[Sync], changed: Iterable[str]) -> dict[str, Sync] | None:
    """Which rule each changed path falls under; None if one falls under none, so that a build is needed."""
    rules = tuple(syncs)
    found: dict[str, Sync] = {}
    for path in changed:
        rule = next((each for each in rules if each.covers(path)), None)
        if rule is None or not path:
            return None
        found[path] = rule
    return found


def apply(store: Store, container: Container, directory: str, planned: Mapping[str, Sync]) -> int:
    """Copies and removes; how many paths. Raises LimpetError."""
    places = {path: rule.place(path) for path, rule in planned.items()}
    with container_root(store, container) as root, tempfile.TemporaryFile() as stream:

        def write(data: bytes) -> None:
            stream.write(data)

        tar = TarWriter(write)
        for path in sorted(places):
            _add(tar, os.path.join(directory, path), places[path], root)
        tar.finish()
        stream.seek(0)
        unpack(stream, root, "/")
    return len(places)


def _add(tar: TarWriter, source: str, target: str, root: Root) -> None:
    """A file as it is now; what is no longer there is removed."""
    name = target.strip("/")
    try:
        info = os.lstat(source)
        if stat.S_ISLNK(info.st_mode):
            tar.symlink(name, os.readlink(source), mtime_ns=info.st_mtime_ns)
        elif stat.S_ISREG(info.st_mode):
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                tar.copy(name, fd, stat.S_IMODE(info.st_mode), mtime_ns=info.st_mtime_ns)
            finally:
                os.close(fd)
        elif stat.S_ISDIR(info.st_mode):
            tar.directory(name, stat.S_IMODE(info.st_mode), mtime_ns=info.st_mtime_ns)
    except FileNotFoundError:
        _remove(root, target)


def _remove(root: Root, target: str) -> None:
    parent, base = posixpath.split(target)
    try:
        fd = root.open(parent, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        remove_tree(f"/proc/self/fd/{fd}/{base}")
    finally:
        os.close(fd)
