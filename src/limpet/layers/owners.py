"""Whose a file is, and which device, where a user namespace lacks the id or the right: an attribute says so.

`user.containers.override_stat` is that of containers/storage (`pkg/idtools`, Stat.FormatContainersOverrideXattr):
"UID:GID:0MODE:TYPE", the type as file, dir, char-MAJOR-MINOR, … On disk such a file is root's of the namespace, and a
device is an empty file. What leaves the store, or is compared with it, has what is written there. overlayfs copies it
up.

Only the owner counts of it, and that it is a device; and only while the file is root's: chown(2) to another id wins,
and so does chmod(2). A link can't have such an attribute: it becomes root's.
"""

from __future__ import annotations

import errno
import os
import stat

from limpet.kernel import idmap
from limpet.layers import attributes

ATTRIBUTE = os.fsdecode(attributes.OVERRIDE)

_WORDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
_DEVICES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK}
_MORE = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blksize", "st_blocks", "st_rdev")


def space() -> str:
    """The name space of overlayfs's own attributes here, with the dot (overlayfs.rst, "User xattr")."""
    return "user." if idmap.nested() else "trusted."


def settable(name: bytes) -> bool:
    """Whether a file can have an attribute of that name here: root of a user namespace may not set each."""
    return not idmap.nested() or name == b"security.capability" or not name.startswith((b"trusted.", b"security."))


def can_be(mode: int, rdev: int) -> bool:
    """Whether such a file can be made here: devices can't, but for a whiteout."""
    return not idmap.nested() or not rdev or not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))


def give(file: int | str | bytes, uid: int, gid: int, mode: int, rdev: int = 0, *, link: bool = False) -> None:
    """chown(2), as far as it goes; the rest is written down. `mode`: kind and permissions of what the file stands for.

    `link`: `file` is a path, and a link is not followed. Raises OSError.
    """
    known = idmap.has(uid) and idmap.has(gid, "gid")
    if known and can_be(mode, rdev):
        os.chown(file, uid, gid, follow_symlinks=not link)
        return
    if link and stat.S_ISLNK(mode):
        return
    kind = _WORDS.get(stat.S_IFMT(mode), "")
    if not kind:
        kind = f"{'char' if stat.S_ISCHR(mode) else 'block'}-{os.major(rdev)}-{os.minor(rdev)}"
    try:
        os.setxattr(file, ATTRIBUTE, f"{uid}:{gid}:0{stat.S_IMODE(mode):o}:{kind}".encode(), follow_symlinks=not link)
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EOPNOTSUPP):  # a pipe has no attributes of a user
            raise


def seen(file: int | str | bytes, info: os.stat_result) -> os.stat_result:
    """The stat of a file with what is written at it. `file`: a descriptor, or a path that leads to the file itself."""
    if not idmap.nested() or info.st_uid or info.st_gid:
        return info
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        return info
    try:
        fields = os.getxattr(f"/proc/self/fd/{file}" if isinstance(file, int) else file, ATTRIBUTE).decode().split(":")
        uid, gid = int(fields[0]), int(fields[1])
        mode, rdev = info.st_mode, info.st_rdev
        kind, _, number = (fields[3] if len(fields) > 3 else "").partition("-")
        if kind in _DEVICES and stat.S_ISREG(mode):
            mode, rdev = _DEVICES[kind] | stat.S_IMODE(mode), os.makedev(*map(int, number.split("-")))
    except (OSError, ValueError, IndexError, TypeError, OverflowError):
        return info
    if not (0 <= uid < 1 << 32 and 0 <= gid < 1 << 32):
        return info
    more = {name: getattr(info, name) for name in _MORE}
    return os.stat_result((mode, *info[1:4], uid, gid, *info[6:10]), {**more, "st_rdev": rdev})
