"""Which ids there are in the user namespace that this process is in, and the way into another one.

A user namespace needs no file and no process that keeps it: whoever is in one holds a lock of a file (fcntl(2),
"Advisory record locking"), and the kernel says who that is. So there is no pid in a file that could be another's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from limpet.kernel import process
from limpet.kernel.sys import fail

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit machines: type, whence, start, length, pid
_ALL = (0, 0, 0xFFFFFFFF)

Ranges = tuple[tuple[int, int, int], ...]
"""(first id inside, first id outside, how many)"""


def current(kind: str = "uid") -> Ranges:
    """Of the namespace that this process is in (user_namespaces(7)); `kind`: uid or gid. () if it has none yet."""
    fd = os.open(f"/proc/self/{kind}_map", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 1 << 16).splitlines()
    finally:
        os.close(fd)
    numbers = (line.split() for line in lines)
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in numbers)


_known: dict[str, Ranges] = {}


def _ranges(kind: str) -> Ranges:
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = current(kind)
    return found


def nested() -> bool:
    """Whether this is not the host's own user namespace: root here is not root there."""
    return _ranges("uid") != (_ALL,)


def single() -> bool:
    """Whether there is no id here but one: no file can belong to anybody else."""
    return nested() and sum(count for _, _, count in _ranges("uid")) == 1


def has(id: int, kind: str = "uid") -> bool:
    """Whether the id means somebody here."""
    return not nested() or any(inside <= id < inside + count for inside, _, count in _ranges(kind))


def outside(id: int = 0) -> int:
    """Who somebody of this namespace is outside of it: root, in one of an unprivileged user's, that user."""
    return next((first + id - inside for inside, first, count in _ranges("uid") if inside <= id < inside + count), id)


def hold(fd: int) -> None:
    """This process is in the namespace that the file stands for, until it ends or closes *any* descriptor of it."""
    fcntl.lockf(fd, fcntl.LOCK_SH)


def join(fd: int) -> bool:
    """Into the user namespace of those who hold the file; False if nobody does. The caller has one thread.

    Raises OSError.
    """
    while pid := holder(fd):
        try:
            namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # it ended just now
        try:
            if holder(fd) != pid:
                continue  # else the number is another process's by now
            process.setns(namespace, process.CLONE_NEWUSER)
            _known.clear()
            return True
        finally:
            os.close(namespace)
    return False


def make() -> None:
    """A new user namespace, without ids as yet: this process is nobody in it, with all capabilities. Raises OSError."""
    process.unshare(process.CLONE_NEWUSER)
    _known.clear()


def write_own(uid: int, gid: int) -> None:
    """Gives the namespace that `make` made the one id that needs nobody's leave: root here is who we were."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as e:
            fail(e, f"{name}: {text}")
        finally:
            os.close(fd)
    _known.clear()


def holder(fd: int) -> int:
    """Some process that holds the file, in this PID namespace's numbers; 0 if there is none."""
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as e:
        if e.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
            return 0
        raise
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return pid if kind != fcntl.F_UNLCK else 0
