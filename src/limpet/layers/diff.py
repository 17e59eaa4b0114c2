"""What a container changed: its overlay upper directory, as a list of changes and as a layer's tar.

overlayfs's marks become those of the OCI image spec (layer.md#representing-changes): a character device 0/0 is a
whiteout, `trusted.overlay.opaque=y` an opaque directory. Containers mount with `metacopy=off,redirect_dir=off`, so each
file of the upper is whole and each directory is where it seems to be.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.layers import owners
from limpet.layers.rootfs_tar import TarWriter, add_open, list_open, open_beneath, read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator


def changes(upper: str, lower: int, *, leave_out: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """(kind, path) in order of names: 'A' added, 'C' changed, 'D' deleted, as `docker diff` has them.

    `lower` is a descriptor of the read-only stack below. `leave_out`: paths from the root, without the first slash, of
    what the engine itself put there; a directory that is in the upper only for their sake is no change.
    """
    for name, fd, info in _walk(upper, leave_out):
        shown = "/" + os.fsdecode(name)
        if _is_whiteout(info):
            yield "D", shown
            continue
        below = _open_below(lower, name)
        if below < 0:
            yield "A", shown
            continue
        try:
            yield "C", shown
            if stat.S_ISDIR(info.st_mode) and stat.S_ISDIR(os.fstat(below).st_mode) and _is_opaque(fd):
                for gone in sorted(set(list_open(below)) - set(list_open(fd))):
                    yield "D", f"{shown}/{os.fsdecode(gone)}"
        finally:
            os.close(below)


def write_tar(
    upper: str,
    out: Callable[[bytes], None],
    *,
    leave_out: Collection[str] = (),
    max_mtime: int | None = None,
) -> int:
    """Writes the layer's tar, the same bytes for the same upper. Its number of entries; 0 means nothing changed.

    `max_mtime` (seconds) is the latest time that a file may have: later ones get it (SOURCE_DATE_EPOCH's rule), and
    Python's compiled files go with their sources (`bytecode`).
    """
    tar = TarWriter(out)
    links: dict[tuple[int, int], bytes] = {}
    count = 0
    root = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name, fd, info in _walk(upper, leave_out):
            count += _add(tar, root, name, fd, info, links, max_mtime)
    finally:
        os.close(root)
    tar.finish()
    return count


def _add(
    tar: TarWriter,
    root: int,
    name: bytes,
    fd: int,
    info: os.stat_result,
    links: dict[tuple[int, int], bytes],
    max_mtime: int | None,
) -> int:
    """Enters what is at a name of the upper; how many entries that are."""
    if _is_whiteout(info):
        directory, _, base = name.rpartition(b"/")
        tar.whiteout(directory, base)
        return 1
    mtime_ns = info.st_mtime_ns
    if max_mtime is not None:
        mtime_ns = min(mtime_ns, max_mtime * 10**9)
        if name.endswith(b".pyc") and stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
            from limpet.layers import bytecode

            data = bytecode.fitting(root, name, fd, info.st_size, max_mtime)
            if data is not None:
                xattrs = read_xattrs(b"/proc/self/fd/%d" % fd, follow=True)
                tar.file(name, data, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, mtime_ns, xattrs)
                return 1
    count = int(add_open(tar, fd, name, info, links, mtime_ns))
    if stat.S_ISDIR(info.st_mode) and _is_opaque(fd):
        tar.opaque(name)
    return count


def _walk(upper: str, leave_out: Collection[str]) -> Iterator[tuple[bytes, int, os.stat_result]]:
    """(name from the root, handle, its stat), parents first, sorted bytewise in each directory.

    Everything is opened from the root beneath it, links refused: the container may be running, and change names for
    links to places of the host meanwhile. What is gone when its turn comes is left out.
    """
    skipped = {os.fsencode(path).strip(b"/") for path in leave_out}
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = list_open(root)[::-1]
        while names:
            name = names.pop()
            if name in skipped:
                continue
            try:
                fd = open_beneath(root, name)
            except OSError as e:
                if e.errno == errno.ENAMETOOLONG:
                    raise Invalid(f"the path /{os.fsdecode(name[:80])}… is too long for a layer") from e
                continue
            try:
                info = owners.seen(fd, os.fstat(fd))
                if stat.S_ISDIR(info.st_mode):
                    if _only_skipped(root, name, fd, skipped):
                        continue
                    names += [name + b"/" + base for base in reversed(list_open(fd))]
                yield name, fd, info
            finally:
                os.close(fd)
    finally:
        os.close(root)


def _only_skipped(root: int, name: bytes, fd: int, skipped: set[bytes]) -> bool:
    """Whether a directory holds what is left out and nothing else: it was copied up, or made, for the engine's sake."""
    if not any(path.startswith(name + b"/") for path in skipped) or _is_opaque(fd):
        return False
    inside = list_open(fd)
    for base in inside:
        path = name + b"/" + base
        if path in skipped:
            continue
        try:
            below = open_beneath(root, path)
        except OSError:
            return False
        try:
            if not stat.S_ISDIR(os.fstat(below).st_mode) or not _only_skipped(root, path, below, skipped):
                return False
        finally:
            os.close(below)
    return bool(inside)


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", f"{owners.space()}overlay.opaque") == b"y"
    except OSError:
        return False


def _open_below(lower: int, name: bytes) -> int:
    try:
        return open_beneath(lower, name)
    except OSError:
        return -1
