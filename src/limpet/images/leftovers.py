"""Files in the store that no row names: what a kill or a crash left behind. All of it is garbage by the write order.

The caller holds `Store.exclusive`, so no one is between a file and its row. Temporary files of a living process are
left alone all the same: a container's monitor replaces its status, and a remover empties a directory in tmp/, without
a lease.
"""

from __future__ import annotations

import os
import time

from limpet.kernel import mounts
from limpet.kernel.process import start_time
from limpet.store.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.store.store import Store


_WEEK = 7 * 24 * 3600


class Leftover:
    __slots__ = ("bytes", "path", "what")

    def __init__(self, path: str, what: str, bytes: int) -> None:
        self.path = path
        self.what = what  # for a person: "a layer that no row names"
        self.bytes = bytes  # on disk


def find(store: Store) -> list[Leftover]:
    """Everything that may go, in a stable order."""
    return [Leftover(path, what, tree_bytes(path)) for path, what in _find(store)]


def remove(leftover: Leftover) -> None:
    if os.path.basename(os.path.dirname(leftover.path)) in ("volumes", "tmp"):
        mounts.detach_below(leftover.path)  # a volume that a driver had mounted there
    remove_tree(leftover.path)


def _find(store: Store) -> Iterator[tuple[str, str]]:
    from limpet.store import partial  # it hashes, and that is slow to import: `rm` does not need it

    root, db = store.root, store.db
    for name in _list(f"{root}/tmp"):
        if not _in_use(f"{root}/tmp/{name}", _pid(name, "-", 1)):
            yield f"{root}/tmp/{name}", "a temporary file"
    for name in _list(f"{root}/partial"):
        if partial.stale(f"{root}/partial/{name}"):
            yield f"{root}/partial/{name}", "a download that nobody went on with"
    for name in _list(f"{root}/builds"):
        if _age(f"{root}/builds/{name}") > _WEEK:
            yield f"{root}/builds/{name}", "the log of a build a week ago"
    algorithms = {digest.partition(":")[0] for (digest,) in db.rows("SELECT digest FROM blob")} | {"sha256"}
    known = {digest.replace(":", "/") for (digest,) in db.rows("SELECT digest FROM blob")}
    for algorithm in _list(f"{root}/blobs"):
        if algorithm not in algorithms:
            yield f"{root}/blobs/{algorithm}", "a directory of no blob"
            continue
        for name in _list(f"{root}/blobs/{algorithm}"):
            if f"{algorithm}/{name}" not in known and not _being_written(f"{root}/blobs/{algorithm}/{name}"):
                yield f"{root}/blobs/{algorithm}/{name}", "a blob that no row names"
    known = {diff_id.partition(":")[2] for (diff_id,) in db.rows("SELECT diff_id FROM layer")}
    for name in _list(f"{root}/layers"):
        if name not in known:
            yield f"{root}/layers/{name}", "a layer that no row names"
        else:
            yield from _half_written(f"{root}/layers/{name}")
    containers = {container_id for (container_id,) in db.rows("SELECT id FROM container")}
    for name in _list(f"{root}/containers"):
        if name not in containers:
            yield f"{root}/containers/{name}", "a container that no row names"
        else:
            yield from _half_written(f"{root}/containers/{name}")
    known = {volume for (volume,) in db.rows("SELECT name FROM volume")}
    for name in _list(f"{root}/volumes"):
        if name not in known:
            yield f"{root}/volumes/{name}", "a volume that no row names"
    yield from _half_written(root)
    for name in _list(store.run):
        if len(name) == 64 and name not in containers and os.path.isdir(f"{store.run}/{name}"):
            yield f"{store.run}/{name}", "the run directory of a container that no row names"


def _half_written(directory: str) -> Iterator[tuple[str, str]]:
    """`write_file`'s temporary names whose writer is gone."""
    for name in _list(directory):
        path = f"{directory}/{name}"
        if ".new-" in name and not _being_written(path):
            yield path, "a half-written file"


def _being_written(path: str) -> bool:
    return ".new-" in path and _in_use(path, _pid(path, ".new-", -1))


def _pid(name: str, separator: str, position: int) -> int:
    """The process id in a temporary name (`store.files.write_file`, `Store.temporary`); 0 if there is none."""
    parts = name.rsplit(separator, 2) if separator == "-" else name.split(separator)
    text = parts[position] if len(parts) > 1 else ""
    return int(text) if text.isdecimal() and len(text) < 11 else 0


def _in_use(path: str, pid: int) -> bool:
    """Whether the process that made the file still lives: it has that id and was there before the file changed."""
    ticks = start_time(pid) if pid and pid != os.getpid() else 0
    if not ticks:
        return False
    try:
        changed = os.lstat(path).st_ctime
    except FileNotFoundError:
        return False
    return _booted() + ticks / os.sysconf("SC_CLK_TCK") <= changed + 2  # btime is in whole seconds


def _booted() -> int:
    with open("/proc/stat", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"btime "))


def tree_bytes(path: str, seen: set[int] | None = None) -> int:
    """Bytes that a file or a tree occupies on disk, as `du -x` counts: directories too, a hard-linked file once.

    `seen` holds the inode numbers of hard-linked files; share one between trees to count a file once in all of them.
    """
    seen = set() if seen is None else seen
    try:
        top = os.lstat(path)
        if not _is_directory(top.st_mode):
            return top.st_blocks * 512
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return 0
    total, below = _blocks_in(fd, top.st_dev, seen)
    total += top.st_blocks
    # Down and up again by one descriptor, since a container may nest deeper than PATH_MAX. What a running one moves
    # meanwhile is not counted: `..` must lead where we came from.
    above: list[tuple[tuple[int, int], list[str]]] = []
    try:
        while True:
            if below:
                try:
                    inner = os.open(below.pop(), _DIRECTORY, dir_fd=fd)
                except OSError:
                    continue
                above.append((_identity(fd), below))
                os.close(fd)
                fd = inner
                blocks, below = _blocks_in(fd, top.st_dev, seen)
                total += blocks
            elif above:
                outer = os.open("..", _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = outer
                where, below = above.pop()
                if _identity(fd) != where:
                    return total * 512
            else:
                return total * 512
    finally:
        os.close(fd)


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _blocks_in(fd: int, device: int, seen: set[int]) -> tuple[int, list[str]]:
    """Blocks of all that is in one directory, the directories among it, and the names of those."""
    total = 0
    below = []
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_dev != device:
                continue
            if _is_directory(status.st_mode):
                below.append(entry.name)
            elif status.st_nlink > 1:
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            total += status.st_blocks
    return total, below


def _is_directory(mode: int) -> bool:
    return mode & 0o170000 == 0o040000


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _age(path: str) -> float:
    """Seconds since it was last written; 0 if it is gone."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0
