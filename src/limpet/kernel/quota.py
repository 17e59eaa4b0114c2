"""Project quotas: how much a directory tree may take on a file system that counts by project (ext4, xfs).

A directory with a project id and PROJINHERIT gives it to all that is made in it (ioctl_xfs_fsgetxattr(2)); the limit is
the id's, on the file system (quotactl(2), quotactl_fd of Linux 5.14). Whoever writes beyond it gets EDQUOT.
"""

from __future__ import annotations

import fcntl
import os
import struct

from limpet.kernel.sys import Buffer, syscall

_QUOTACTL_FD = 443
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_XATTR = struct.Struct("<5I8x")  # struct fsxattr: flags, extent size, extents, project id, …
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT
_PROJECT = 2  # PRJQUOTA
_GET, _SET, _STATE = 0x800007, 0x800008, 0x5808  # Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTATV
_DQBLK = struct.Struct("<8Q2I")  # struct if_dqblk: hard and soft limit (KiB), bytes in use, …
_BLOCK_LIMITS = 1  # QIF_BLIMITS
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD


def enforced(fd: int) -> bool:
    """Whether the file system of `fd` holds limits of projects: it is mounted with `prjquota`."""
    state = Buffer(b"\x01" + bytes(255))  # struct fs_quota_statv, FS_QSTATV_VERSION1
    try:
        syscall(_QUOTACTL_FD, fd, _command(_STATE), 0, state)
    except OSError:
        return False
    (flags,) = struct.unpack_from("<H", bytes(state), 2)
    return bool(flags & _ENFORCED)


def project(fd: int) -> int:
    """The id of a file or directory; 0 for none, and where there are no projects."""
    try:
        return int(_XATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_XATTR.size)))[3])
    except OSError:
        return 0


def assign(fd: int, id: int) -> None:
    """The directory, and what will be made in it, counts for that project. Raises OSError."""
    flags, size, extents, _, more = _XATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_XATTR.size)))
    fcntl.ioctl(fd, _FSSETXATTR, _XATTR.pack(flags | _INHERIT, size, extents, id, more))


def usage(fd: int, id: int) -> tuple[int, int]:
    """Bytes that the project has on the file system of `fd`, and may have; 0 is any number. Raises OSError."""
    found = Buffer(_DQBLK.size)
    syscall(_QUOTACTL_FD, fd, _command(_GET), id, found)
    hard, _, used, *_ = _DQBLK.unpack(bytes(found))
    return used, hard * 1024


def limit(fd: int, id: int, size: int) -> None:
    """At most `size` bytes, rounded up to KiB; 0 for any number. Raises OSError."""
    blocks = -(-size // 1024)
    wanted = Buffer(_DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS, 0))
    syscall(_QUOTACTL_FD, fd, _command(_SET), id, wanted)


def _command(number: int) -> int:
    return number << 8 | _PROJECT


def open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
