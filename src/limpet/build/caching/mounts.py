"""A cache mount as a tar, out and in: a cache that outlives the machine, a CI's for example.

The tar has the files as the steps see them, its first entry the directory itself; what comes in may be compressed. It
takes the cache's place as a whole, so that a kill leaves the old one, the new one or none.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO

from limpet.build.steps import cachemounts
from limpet.containers.files.copyroot import host_root
from limpet.containers.files.unpack import unpack
from limpet.errors import Conflict, Corrupt, Invalid, NotFound
from limpet.layers import compression
from limpet.layers.fields import number, verify_checksum
from limpet.layers.limits import from_environment
from limpet.layers.rootfs_tar import write_tree
from limpet.store.files import remove_tree, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.store.store import Store

_BLOCK = 512
_PIECE = 64 << 10
_NO_ID = (1 << 32) - 1


def export(store: Store, name: str, out: Callable[[bytes], object]) -> None:
    """The cache with this name or key, as a tar; of several that `sharing=private` made, the one used last.

    Raises NotFound, Conflict while a step has it.
    """
    found = [
        cache
        for cache in cachemounts.caches(store, exact=False)
        if name in (cache.name, cache.key) and not cache.fetched
    ]
    if not found:
        raise NotFound(f"no such cache: {name}", "`limpet cache ls --filter type=mount` lists them", exit_code=1)
    place = f"{cachemounts.directory(store)}/{found[0].key}"
    lock = _lock(place, found[0].name)

    def write(data: bytes) -> None:
        out(data)

    try:
        write_tree(f"{place}/data", write)
    finally:
        os.close(lock)


def import_(store: Store, name: str, stream: BinaryIO) -> int:
    """The tar becomes the cache with this name, in place of the one that is there: the bytes of its files.

    Raises Invalid for what is no tar, Conflict while a step has the cache.
    """
    if not name or "\0" in name:
        raise Invalid("a cache needs a name: its mount's id, or its target", exit_code=1)
    new = store.temporary("cache")
    os.mkdir(new, 0o700)
    try:
        with io.BufferedReader(_Plain(stream), _PIECE) as plain:
            mode, uid, gid = _top(plain.peek(_PIECE))
            with host_root() as root:
                size = unpack(plain, root, new)
        os.chown(new, uid, gid)
        os.chmod(new, mode)
        _replace(store, name, new)
    except BaseException:
        remove_tree(new)
        raise
    return size


def _replace(store: Store, name: str, new: str) -> None:
    key = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:32]
    place = f"{cachemounts.directory(store)}/{key}"
    os.makedirs(place, 0o700, exist_ok=True)
    lock = _lock(place, name)
    try:
        write_file(f"{place}/name", name.encode(errors="surrogateescape"), durable=False)
        aside = store.temporary("cache")
        if os.path.exists(f"{place}/data"):
            os.rename(f"{place}/data", aside)
        os.rename(new, f"{place}/data")
        os.utime(lock)
        remove_tree(aside)
    finally:
        os.close(lock)


def _lock(place: str, name: str) -> int:
    lock = os.open(f"{place}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Conflict(f"the cache {name} is in use by a build", "try again when it is over", exit_code=1) from None
    return lock


def _top(head: bytes) -> tuple[int, int, int]:
    """(mode, uid, gid) of the directory that a tar begins with; 0755 and root's if it doesn't."""
    try:
        verify_checksum(head[:_BLOCK])
        if head[156:157] in (b"x", b"g"):  # times and attributes of what follows
            size = number(head[124:136], head[:100])
            head = head[_BLOCK + max(0, size) + -size % _BLOCK :]
            verify_checksum(head[:_BLOCK])
        mode, uid, gid = (number(head[at : at + 8], head[:100]) for at in (100, 108, 116))
    except (Corrupt, IndexError):
        raise Invalid("not a tar", "`limpet cache export` writes one", exit_code=1) from None
    name = head[:100].split(b"\0", 1)[0]
    if head[156:157] != b"5" or name not in (b".", b"./"):
        return 0o755, 0, 0
    if not (0 <= uid < _NO_ID and 0 <= gid < _NO_ID and mode >= 0):
        raise Invalid(f"the tar's directory has the owner {uid}:{gid}", exit_code=1)
    return stat.S_IMODE(mode), uid, gid


class _Plain(io.RawIOBase):
    """What a stream has in it, decompressed."""

    def __init__(self, stream: BinaryIO) -> None:
        source = io.BufferedReader(stream) if isinstance(stream, io.RawIOBase) else stream
        head = source.read(_PIECE)
        pending = [head]

        def read(count: int) -> bytes:
            return pending.pop() if pending else source.read(count)

        ratio = from_environment().max_ratio
        self._pieces: Iterator[bytes] = compression.decompress(read, compression.detect(head), max_ratio=ratio)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
