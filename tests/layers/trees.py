"""What a tree of files looks like, so that two of them can be compared entry by entry."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any


def listing(root: Path, *, times: bool = True) -> dict[bytes, dict[str, Any]]:
    """Path → everything that an entry is. Hard links are the set of names of one inode."""
    found: dict[bytes, dict[str, Any]] = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    top = os.fsencode(root)
    for place, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(place, name)
            info = os.lstat(path)
            key = os.path.relpath(path, top)
            entry: dict[str, Any] = {
                "type": stat.S_IFMT(info.st_mode),
                "mode": stat.S_IMODE(info.st_mode),
                "owner": (info.st_uid, info.st_gid),
                "xattrs": {
                    name: os.getxattr(path, name, follow_symlinks=False)
                    for name in os.listxattr(path, follow_symlinks=False)
                    if not name.startswith("trusted.overlay.")
                },
            }
            if times:
                entry["mtime"] = info.st_mtime_ns
            if stat.S_ISREG(info.st_mode):
                entry["size"] = info.st_size
                with open(path, "rb") as file:
                    entry["content"] = hashlib.file_digest(file, "sha256").hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                entry["link"] = os.readlink(path)
            elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
                entry["device"] = info.st_rdev
            if not stat.S_ISDIR(info.st_mode):
                inodes.setdefault((info.st_dev, info.st_ino), []).append(key)
                entry["links"] = inodes[(info.st_dev, info.st_ino)]
            found[key] = entry
    for entry in found.values():
        if "links" in entry:
            entry["links"] = sorted(entry["links"])
    return found
