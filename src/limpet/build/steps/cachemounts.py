"""Directories that live longer than a build: `RUN --mount=type=cache`.

    caches/<id>/data      what the steps see
    caches/<id>/lock      flock: shared while a step uses it; exclusive for `sharing=locked` and `private`, to remove it
    caches/<id>/name      the id as the Dockerfile has it
    caches/<id>/size      the bytes of the data as they were last counted, with the lock's time of then

`<id>` is 32 digits of the SHA-256 of the name. A `private` cache that is in use elsewhere gives its second user another
one, `<id>.1`, and so on.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from limpet.frozen import dataclass
from limpet.kernel import fs
from limpet.store.files import remove_tree, write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from limpet.build.language.mounts import Mount
    from limpet.store.store import Store


FETCHED = "fetched"
"""A file that says that the directory is none of a mount."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Times in Unix seconds; `used`: when a step last had it. `bytes` on disk.

    `fetched`: it is no mount, but what a build fetched from elsewhere (`sources.kept`).
    """

    key: str
    name: str
    used: float
    bytes: int
    created: float = 0.0
    fetched: bool = False


class CacheMount:
    """`with CacheMount(…) as path:` a cache that is this step's for the time, made if it is new."""

    def __init__(self, store: Store, mount: Mount, origin: str, say: Callable[[str], None]) -> None:
        """`origin`: the directory that a new one begins as a copy of, or ""."""
        self._store = store
        self._mount = mount
        self._origin = origin
        self._say = say
        self._lock = -1

    def __enter__(self) -> str:
        key = hashlib.sha256(self._mount.id.encode(errors="surrogateescape")).hexdigest()[:32]
        number = 0
        while True:
            place = f"{directory(self._store)}/{key}{f'.{number}' if number else ''}"
            if self._take(place):
                return self._made(place)
            number += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def _take(self, place: str) -> bool:
        """False if it is another step's, and this one wants a private one."""
        os.makedirs(place, 0o700, exist_ok=True)
        lock = os.open(f"{place}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        how = fcntl.LOCK_SH if self._mount.sharing in ("", "shared") else fcntl.LOCK_EX
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if self._mount.sharing == "private":
                os.close(lock)
                return False
            self._say(f"waiting for the cache {self._mount.id}, which another build uses")
            fcntl.flock(lock, how)
        if not os.path.exists(f"{place}/lock"):  # removed while we waited
            os.close(lock)
            return self._take(place)
        os.utime(lock)
        self._lock = lock
        return True

    def _made(self, place: str) -> str:
        data = f"{place}/data"
        if not os.path.isdir(data):
            write_file(f"{place}/name", self._mount.id.encode(errors="surrogateescape"), durable=False)
            new = f"{place}/new-{os.urandom(4).hex()}"
            if self._origin:
                _copy_tree(self._origin, new)
            else:
                os.mkdir(new)
            if not self._origin or self._mount.mode is not None:
                os.chmod(new, 0o755 if self._mount.mode is None else self._mount.mode)
            os.chown(new, self._mount.uid or 0, self._mount.gid or 0)
            try:
                fs.renameat2(new, data, fs.RENAME_NOREPLACE)  # rename(2) would replace one that is empty yet
            except FileExistsError:  # another step that shares it was first
                remove_tree(new)
        return data


def directory(store: Store) -> str:
    return f"{store.root}/caches"


def caches(store: Store, *, exact: bool = True) -> list[Cache]:
    """All of them, the one that was used last first. Not `exact`: one that no step had since is not counted again."""
    found = []
    try:
        names = os.listdir(directory(store))
    except FileNotFoundError:
        return []
    for key in names:
        place = f"{directory(store)}/{key}"
        try:
            used = os.stat(f"{place}/lock").st_mtime
            created = os.stat(f"{place}/name").st_mtime
            with open(f"{place}/name", encoding="utf-8", errors="surrogateescape") as file:
                name = file.read()
        except OSError:
            continue  # it is being made, or was removed
        fetched = os.path.exists(f"{place}/{FETCHED}")
        found.append(Cache(key, name, used, _bytes(place, exact), created, fetched))
    return sorted(found, key=lambda cache: -cache.used)


def _bytes(place: str, exact: bool) -> int:
    from limpet.images.leftovers import tree_bytes

    try:
        stamp = os.stat(f"{place}/lock").st_mtime_ns
        if not exact:
            with open(f"{place}/size", encoding="ascii") as file:
                size, _, when = file.read(64).partition(" ")
            if when == str(stamp):
                return int(size)
    except (OSError, ValueError):
        stamp = 0
    size_now = tree_bytes(place)
    if stamp:
        try:
            write_file(f"{place}/size", f"{size_now} {stamp}".encode(), durable=False)
        except OSError:
            pass  # it only saves time
    return size_now


def remove(store: Store, key: str) -> bool:
    """False if a step is using it."""
    place = f"{directory(store)}/{key}"
    try:
        lock = os.open(f"{place}/lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside = store.temporary("cache")
        os.rename(place, aside)
        remove_tree(aside)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def _copy_tree(source: str, target: str) -> None:
    """Files, links and directories with owner, mode and times; what is none of these is left out."""

    def copy(one: str, other: str) -> None:
        info = os.lstat(one)
        if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
            shutil.copy2(one, other, follow_symlinks=False)
            os.chown(other, info.st_uid, info.st_gid, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, copy_function=copy)
    for directory, _, _ in os.walk(target):
        info = os.lstat(os.path.join(source, os.path.relpath(directory, target)))
        os.chown(directory, info.st_uid, info.st_gid)
