"""COPY: files of the context become a layer, without a container.

The destination is resolved in the image built so far, links followed within it, as a copy into a running container
would be. Directories on the way that are there already are listed in the layer with the attributes that they have, so
that the layer changes nothing but what it brings; missing ones are made, mode 0755, root's.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from limpet.kernel import fs
from limpet.layers.driver import driver
from limpet.layers.rootfs_tar import TarWriter

if TYPE_CHECKING:
    from limpet.build.context import Context, Entry
    from limpet.store.store import Store

_MAX_LINKS = 40


def resolve(store: Store, layers: list[str], target: str) -> tuple[str, bool]:
    """(the path that `target` means in the image, without links; whether it is a directory to copy into)."""
    root = driver(store).mount(layers)
    try:
        path = _real(root, target.strip("/"))
        info = _look(root, path)
    finally:
        os.close(root)
    is_directory = target.endswith("/") or (info is not None and stat.S_ISDIR(info.st_mode))
    return "/" + path, is_directory


def write_copy(store: Store, layers: list[str], context: Context, entries: list[Entry], mtime: int) -> str:
    """Makes the layer; its diff ID. Owner 0:0, all times `mtime`. The caller holds a lease."""
    home = driver(store)
    with home.ingest() as ingest:
        tar = TarWriter(ingest.write, mtime=mtime)
        root = home.mount(layers)
        try:
            listed: set[str] = set()
            for entry in entries:
                _parents(tar, root, posixpath.dirname(entry.target.strip("/")), listed)
                _add(tar, context, entry, listed)
        finally:
            os.close(root)
        tar.finish()
        diff_id = ingest.finish(durable=True).diff_id
    home.seal([*layers, diff_id])
    return diff_id


def _add(tar: TarWriter, context: Context, entry: Entry, listed: set[str]) -> None:
    name = entry.target.strip("/")
    if stat.S_ISDIR(entry.mode):
        if name not in listed:
            listed.add(name)
            tar.directory(name, stat.S_IMODE(entry.mode))
    elif stat.S_ISLNK(entry.mode):
        tar.symlink(name, entry.link)
    else:
        fd = context.open(entry.path)
        try:
            tar.copy(name, fd, stat.S_IMODE(entry.mode))
        finally:
            os.close(fd)


def _parents(tar: TarWriter, root: int, path: str, listed: set[str]) -> None:
    if not path or path in listed:
        return
    _parents(tar, root, posixpath.dirname(path), listed)
    listed.add(path)
    info = _look(root, path)
    if info is not None and stat.S_ISDIR(info.st_mode):
        tar.directory(path, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns)
    else:
        tar.directory(path)


def _real(root: int, path: str) -> str:
    """Follows links part by part; `..` in a link stops at the root."""
    done: list[str] = []
    todo = [part for part in path.split("/") if part]
    links = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            del done[-1:]
            continue
        here = "/".join([*done, part])
        info = _look(root, here)
        if info is None or not stat.S_ISLNK(info.st_mode) or links == _MAX_LINKS:
            done.append(part)
            continue
        links += 1
        link = os.readlink(here, dir_fd=root)
        if link.startswith("/"):
            done = []
        todo = [each for each in link.split("/") if each not in ("", ".")] + todo
    return "/".join(done)


def _look(root: int, path: str) -> os.stat_result | None:
    try:
        fd = fs.openat2(path or ".", os.O_PATH | os.O_NOFOLLOW, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
