"""How much a container's writable layer (`--storage-opt size=`), or a volume (`-o size=`), may take.

Where the file system counts by project (ext4 or xfs, mounted with `prjquota`) the kernel holds the limit: each tree has
a project id of its own. Elsewhere a container is watched (`diskwatch`), and a volume gets a file system of its own in
a file (`volumedrivers.local`).
"""

from __future__ import annotations

import fcntl
import os

from limpet.containers.options import parse_size
from limpet.errors import Invalid, LimpetError, reason
from limpet.kernel import quota

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store

SMALLEST = 1 << 20
"""Bytes."""

_FIRST = 0x4C000000
"""Project ids from here on: administrators and other engines count from 1."""
_COUNT = 1 << 24


def size_of(options: dict[str, str], what: str) -> int:
    """Bytes; 0 for no limit. Raises Invalid for options that are not known."""
    for key in options:
        if key != "size":
            raise Invalid(f"{what} {key} is not known", f"{what} size=10g is")
    if "size" not in options:
        return 0
    size = parse_size(options["size"], f"{what} size")
    if size < SMALLEST:
        raise Invalid(f"{what} size={options['size']} is too little", "1m is the least")
    return size


def hold(store: Store, directories: list[str], size: int) -> bool:
    """Gives the empty directories a project with this limit. False where that can't be. Raises LimpetError."""
    opened = [quota.open_directory(path) for path in directories]
    try:
        if not quota.enforced(opened[0]):
            return False
        lock = os.open(f"{store.root}/lock.projects", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            id = _free(opened[0])
            quota.limit(opened[0], id, size)
        finally:
            os.close(lock)
        for fd in opened:
            quota.assign(fd, id)
        return True
    except PermissionError:  # a user without root
        return False
    except OSError as e:
        raise LimpetError(f"a limit of {size} bytes for {directories[0]}: {reason(e)}") from e
    finally:
        for fd in opened:
            os.close(fd)


def change(directory: str, size: int) -> bool:
    """Another limit for what has a project; False if it has none. Raises LimpetError."""
    fd = quota.open_directory(directory)
    try:
        id = _ours(fd)
        if id:
            quota.limit(fd, id, size)
        return bool(id)
    except OSError as e:
        raise LimpetError(f"a limit of {size} bytes for {directory}: {reason(e)}") from e
    finally:
        os.close(fd)


def held(directory: str) -> tuple[int, int] | None:
    """(bytes in use, limit) as the kernel has them; None if it doesn't hold one there."""
    fd = quota.open_directory(directory)
    try:
        id = _ours(fd)
        return quota.usage(fd, id) if id else None
    except OSError:
        return None
    finally:
        os.close(fd)


def adopt(directory: str, like: str) -> None:
    """An empty directory that takes the place of `like` counts for the same project."""
    fd = quota.open_directory(like)
    try:
        id = _ours(fd)
    finally:
        os.close(fd)
    if id:
        fd = quota.open_directory(directory)
        try:
            quota.assign(fd, id)
        finally:
            os.close(fd)


def release(directory: str) -> None:
    """Before it is removed: its project id can be another's then."""
    try:
        change(directory, 0)
    except (OSError, LimpetError):
        pass


def _ours(fd: int) -> int:
    id = quota.project(fd)
    return id if _FIRST <= id < _FIRST + _COUNT else 0


def _free(fd: int) -> int:
    """One that nothing counts for, and that has no limit; the caller has the lock."""
    begin = int.from_bytes(os.urandom(3), "little")
    for step in range(_COUNT):
        id = _FIRST + (begin + step) % _COUNT
        try:
            used, limit = quota.usage(fd, id)
        except FileNotFoundError:  # xfs: nobody has asked for it yet
            return id
        if not used and not limit:
            return id
    raise LimpetError("there is no free project id left")
