"""Python's compiled files in a layer whose times are set back: they hold the time of their source, and would be stale.

Python compares that time with the source's at each import, compiles again if it differs, and where it may not write,
each time again (PEP 3147, PEP 552; importlib's `_validate_timestamp_pyc`). So a compiled file that fitted its source
gets the time that its source gets. It is the same each time then, too.
"""

from __future__ import annotations

import os
import stat

from limpet.layers.rootfs_tar import open_beneath

_LARGEST = 64 << 20


def fitting(root: int, name: bytes, fd: int, size: int, max_mtime: int) -> bytes | None:
    """The content that the file shall have; None for one that stays as it is.

    `root`: the descriptor of the changed files, `name` the file's in it, `fd` a handle of it. `max_mtime`, in seconds,
    is the latest time that a file of the layer has.
    """
    source = _source(name)
    if not source or not 16 <= size <= _LARGEST:
        return None
    with open(b"/proc/self/fd/%d" % fd, "rb", buffering=0) as file:
        head = file.read(16)
        if len(head) < 16 or head[2:4] != b"\r\n" or head[4:8] != bytes(4):  # no flags: it has the source's time
            return None
        time = _time(root, source)
        if time <= max_mtime or head[8:12] != _field(time):
            return None
        return head[:8] + _field(max_mtime) + head[12:] + file.read(_LARGEST)


def _source(name: bytes) -> bytes:
    """`a/__pycache__/b.cpython-311.pyc` → `a/b.py`, `a/b.pyc` → `a/b.py`; b"" for what is no compiled file."""
    directory, _, base = name.rpartition(b"/")
    if not base.endswith(b".pyc"):
        return b""
    above, _, last = directory.rpartition(b"/")
    if last == b"__pycache__":
        directory, base = above, base.partition(b".")[0] + b".pyc"
    return (directory + b"/" if directory else b"") + base[:-1]


def _time(root: int, path: bytes) -> int:
    """The time of a regular file, in seconds; -1 if there is none."""
    try:
        fd = open_beneath(root, path)
    except OSError:
        return -1
    try:
        info = os.fstat(fd)
        return int(info.st_mtime_ns // 10**9) if stat.S_ISREG(info.st_mode) else -1
    finally:
        os.close(fd)


def _field(time: int) -> bytes:
    return (time & 0xFFFFFFFF).to_bytes(4, "little")
