"""What a RUN's layer has again only because a mode or an owner changed: overlayfs copies the whole file up for that."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from limpet.build.copying.place import look
from limpet.units import size_decimal

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST = 1 << 20
"""Bytes from which on it is worth a word."""

_FILE = 16 << 10
"""Bytes of a file that is looked at."""


class Cost(NamedTuple):
    """`modes`, `owners`: what was changed."""

    files: int
    bytes: int
    modes: bool
    owners: bool


def count(upper: str, lower: int) -> Cost:
    """`upper` is the step's writable directory, `lower` a descriptor of the root that it began with.

    A file counts if it was there with the same size and time: chmod(2) and chown(2) leave that time alone, and copying
    up keeps it.
    """
    files = total = 0
    modes = owners = False
    for path, now in _files(upper, ""):
        before = look(lower, path)
        if before is None or not stat.S_ISREG(before.st_mode):
            continue
        if (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns):
            continue
        mode = stat.S_IMODE(before.st_mode) != stat.S_IMODE(now.st_mode)
        owner = (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid)
        if mode or owner:
            files, total = files + 1, total + now.st_size
            modes, owners = modes or mode, owners or owner
    return Cost(files, total, modes, owners)


def warning(cost: Cost) -> str:
    """ "" if it is not worth a word."""
    if cost.bytes < LEAST:
        return ""
    what, flags, many = "mode and owner", "--chmod and --chown set", cost.files > 1
    if not (cost.modes and cost.owners):
        what, flags = ("mode", "--chmod sets") if cost.modes else ("owner", "--chown sets")
    files = f"{cost.files} files are" if many else "1 file is"
    whose, where = ("their", "they come") if many else ("its", "it comes")
    size = size_decimal(cost.bytes)
    return f"{files} in this layer again ({size}), only for {whose} {what}: COPY {flags} that where {where} in"


def _files(top: str, path: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(f"{top}/{path}") as entries:
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _files(top, name)
            elif entry.is_file(follow_symlinks=False):
                info = entry.stat(follow_symlinks=False)
                if info.st_size >= _FILE:
                    yield name, info
