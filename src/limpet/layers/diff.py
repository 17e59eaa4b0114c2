"""What a container changed: its overlay upper directory, as a list of changes and as a layer's tar.

overlayfs's marks become those of the OCI image spec (layer.md#representing-changes): a character device 0/0 is a
whiteout, `trusted.overlay.opaque=y` an opaque directory. Containers mount with `metacopy=off,redirect_dir=off`, so each
file of the upper is whole and each directory is where it seems to be.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.kernel import fs
from limpet.layers.rootfs_tar import TarWriter, add_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

_OPAQUE = "trusted.overlay.opaque"


def changes(upper: str, lower: int, *, leave_out: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """(kind, path) in order of names: 'A' added, 'C' changed, 'D' deleted, as `docker diff` has them.

    `lower` is a descriptor of the read-only stack below. `leave_out`: paths from the root, without the first slash, of
    what the engine itself put there; a directory that changed only because of them counts as unchanged no more than
    Docker's would.
    """
    for name, path, info in _walk(os.fsencode(upper), leave_out):
        shown = "/" + os.fsdecode(name)
        if _is_whiteout(info):
            yield "D", shown
            continue
        below = _below(lower, name)
        yield ("A" if below is None else "C"), shown
        if stat.S_ISDIR(info.st_mode) and below is not None and _is_opaque(path):
            for gone in _names_below(lower, name):
                if not os.path.lexists(path + b"/" + gone):
                    yield "D", f"{shown}/{os.fsdecode(gone)}"


def write_tar(
    upper: str,
    out: Callable[[bytes], None],
    *,
    leave_out: Collection[str] = (),
    max_mtime: int | None = None,
) -> int:
    """Writes the layer's tar, the same bytes for the same upper. Its number of entries; 0 means nothing changed.

    `max_mtime` (seconds) is the latest time that a file may have: later ones get it (SOURCE_DATE_EPOCH's rule).
    """
    tar = TarWriter(out)
    links: dict[tuple[int, int], bytes] = {}
    count = 0
    for name, path, info in _walk(os.fsencode(upper), leave_out):
        count += 1
        if _is_whiteout(info):
            directory, _, base = name.rpartition(b"/")
            tar.whiteout(directory, base)
            continue
        if max_mtime is not None and info.st_mtime_ns > max_mtime * 10**9:
            info = _at_time(info, max_mtime)
        add_path(tar, path, name, info, links)
        if stat.S_ISDIR(info.st_mode) and _is_opaque(path):
            tar.opaque(name)
    tar.finish()
    return count


def _walk(root: bytes, leave_out: Collection[str]) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """(name from the root, path, lstat), parents first, sorted bytewise.

    A directory that is there only to hold what is left out is left out as well: the engine made it, or overlayfs copied
    it up for the engine's sake.
    """
    skipped = {os.fsencode(path) for path in leave_out}

    def below(prefix: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
        for base in sorted(os.listdir(os.path.join(root, prefix) if prefix else root)):
            name = prefix + b"/" + base if prefix else base
            if name in skipped:
                continue
            path = os.path.join(root, name)
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode):
                yield name, path, info
                continue
            inside = list(below(name)) if any(s.startswith(name + b"/") for s in skipped) else None
            if inside == [] and any(
                os.path.lexists(os.path.join(root, s)) for s in skipped if s.startswith(name + b"/")
            ):
                continue
            yield name, path, info
            yield from below(name) if inside is None else inside

    return below(b"")


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_opaque(path: bytes) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _below(lower: int, name: bytes) -> os.stat_result | None:
    try:
        fd = fs.openat2(name, os.O_PATH | os.O_NOFOLLOW, dirfd=lower, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _names_below(lower: int, name: bytes) -> list[bytes]:
    try:
        fd = fs.openat2(name, os.O_RDONLY | os.O_DIRECTORY, dirfd=lower, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return []
    try:
        return sorted(os.fsencode(entry) for entry in os.listdir(fd))
    finally:
        os.close(fd)


def _at_time(info: os.stat_result, seconds: int) -> os.stat_result:
    return os.stat_result(list(info), {"st_mtime_ns": seconds * 10**9, "st_rdev": info.st_rdev})
