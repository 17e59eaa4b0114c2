"""Places in the image built so far: what is there, what a path means, and the directories on the way of a new layer."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from limpet.containers.plan import users
from limpet.errors import Invalid
from limpet.kernel import fs
from limpet.layers import owners
from limpet.layers.driver import driver
from limpet.layers.rootfs_tar import TarWriter

if TYPE_CHECKING:
    from limpet.store.store import Store

_MAX_LINKS = 40


class Place:
    """A layer being written over a mounted root. `owner` is (uid, gid) of the directories that are made."""

    def __init__(self, root: int, tar: TarWriter, owner: tuple[int, int], mode: int = 0o755) -> None:
        self.tar = tar
        self._root = root
        self._owner = owner
        self._mode = mode
        self._listed: set[str] = {""}

    def take(self, path: str) -> bool:
        """Whether a directory is not listed yet; it is now."""
        if path in self._listed:
            return False
        self._listed.add(path)
        return True

    def directory(self, path: str) -> None:
        """A directory and those above it: as they are in the image, or new. Raises Invalid for what is none."""
        if path in self._listed:
            return
        self.directory(posixpath.dirname(path))
        self._listed.add(path)
        info = look(self._root, path)
        if info is None:
            self.tar.directory(path, self._mode, *self._owner)
        elif stat.S_ISDIR(info.st_mode):
            self.tar.directory(path, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns)
        else:
            raise Invalid(f"cannot copy below /{path}: it is no directory", "name another destination, or RUN rm first")


def write_directory(store: Store, layers: list[str], path: str, user: str, epoch: int) -> str | None:
    """WORKDIR: a layer with the directory, its diff ID; None if it is there. Raises Invalid. The caller has a lease."""
    home = driver(store)
    root = home.mount(layers)
    try:
        whole = real(root, path.strip("/"))
        info = look(root, whole)
        if info is not None and stat.S_ISDIR(info.st_mode):
            return None
        found = users.resolve(root, user) if user else None
        with home.ingest() as ingest:
            place = Place(root, TarWriter(ingest.write, mtime=epoch), (found.uid, found.gid) if found else (0, 0))
            place.directory(whole)
            place.tar.finish()
            diff_id = ingest.finish().diff_id
    finally:
        os.close(root)
    home.seal([*layers, diff_id])
    return diff_id


def owner(root: int, text: str) -> tuple[int, int]:
    """(uid, gid) of `--chown`; a number alone is the group's too (Dockerfile reference, "COPY --chown")."""
    found = users.resolve(root, text)
    name, colon, _ = text.partition(":")
    if not colon and name.isascii() and name.isdigit():
        return found.uid, found.uid
    return found.uid, found.gid


def resolve(root: int, target: str) -> tuple[str, bool]:
    """(the path that `target` means in the image, without links on the way; whether it is a directory to copy into).

    A link at its end is followed to a directory; one to a file is what is replaced.
    """
    path = real(root, target.strip("/"))
    info = look(root, path)
    if not target.endswith("/") and not (info is not None and stat.S_ISDIR(info.st_mode)):
        parent, name = posixpath.split(target.strip("/"))
        return "/" + posixpath.join(real(root, parent), name), False
    return "/" + path, True


def real(root: int, path: str) -> str:
    """A path of the image without links. Follows links part by part; `..` in a link stops at the root."""
    done: list[str] = []
    todo = [part for part in path.split("/") if part]
    links = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            del done[-1:]
            continue
        here = "/".join([*done, part])
        info = look(root, here)
        if info is None or not stat.S_ISLNK(info.st_mode) or links == _MAX_LINKS:
            done.append(part)
            continue
        links += 1
        link = os.readlink(here, dir_fd=root)
        if link.startswith("/"):
            done = []
        todo = [each for each in link.split("/") if each not in ("", ".")] + todo
    return "/".join(done)


def look(root: int, path: str) -> os.stat_result | None:
    """What is at a path of the image, no link at its end followed; None if nothing is."""
    try:
        fd = fs.openat2(path or ".", os.O_PATH | os.O_NOFOLLOW, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return None
    try:
        return owners.seen(fd, os.fstat(fd))
    finally:
        os.close(fd)
