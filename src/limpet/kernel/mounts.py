"""Mounts: mount(2), umount2(2), and the descriptor API (fsopen, fsmount, open_tree, move_mount, mount_setattr).

Why descriptors: a mount that was never attached (`erofs`, `overlay`, `open_tree` give one) is in no mount table, goes
with its last descriptor, and so survives no crash; and a refusal comes with the kernel's own sentence, which each
OSError raised here carries. Kernels: fsopen 5.2, mount_setattr 5.12, overlay's `lowerdir+` 6.7 (by descriptor 6.13,
of detached mounts 6.15), EROFS on plain files 6.12.
"""

from __future__ import annotations

import errno
import os
import struct

from limpet.kernel import fs, process
from limpet.kernel.sys import Buffer, by_machine, fail, syscall, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_MOUNT = by_machine(165, 40)
_UMOUNT2 = by_machine(166, 39)
_PIVOT_ROOT = by_machine(155, 41)
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_REMOUNT = 1, 2, 4, 8, 16, 32
MS_DIRSYNC, MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME = 128, 256, 1024, 2048
MS_BIND, MS_MOVE, MS_REC = 4096, 8192, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME = 1 << 21, 1 << 24
_FROM_FD, _TO_FD = 4, 0x40  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_IDMAP = 0x10, 0x20, 0x80, 0x100000

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_CLOEXEC, _CLONE = os.O_CLOEXEC, 1
_SET_FLAG, _SET_STRING, _SET_FD, _CREATE = 0, 1, 5, 6


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    try:
        syscall(_MOUNT, text(source), text(target), text(fstype), flags, text(data))
    except OSError as e:
        fail(e, f"mount {fstype or 'bind'} {source or ''} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    try:
        syscall(_UMOUNT2, text(target), flags)
    except OSError as e:
        fail(e, f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2); `("." , ".")` stacks the old root under the new one (man page, "pivot_root(\".\", \".\")")."""
    try:
        syscall(_PIVOT_ROOT, text(new), text(old))
    except OSError as e:
        fail(e, f"pivot_root {new}")


class FsContext:
    """One fsopen(2): set options, then `mount` gives a detached mount.

    with FsContext("tmpfs") as context:
        context.set("mode", "755")
        fd = context.mount(MOUNT_ATTR_NOSUID)
    """

    def __init__(self, fstype: str) -> None:
        self.fstype = fstype
        self._open: list[int] = []
        try:
            self.fd = syscall(_FSOPEN, text(fstype), 1)
        except OSError as e:
            fail(e, f"fsopen {fstype}")

    def __enter__(self) -> FsContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in (self.fd, *self._open):
            os.close(fd)

    def set(self, key: str, value: str) -> None:
        self._config(_SET_STRING, key, text(value), 0, f"{key}={value}")

    def set_path(self, key: str, path: str) -> None:
        """As `set`; fsconfig(2) takes no strings from 256 bytes on, so a longer path goes by descriptor."""
        if len(os.fsencode(path)) >= 256:
            self._open.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
            path = f"/proc/self/fd/{self._open[-1]}"
        self.set(key, path)

    def flag(self, key: str) -> None:
        self._config(_SET_FLAG, key, None, 0, key)

    def set_fd(self, key: str, fd: int) -> None:
        self._config(_SET_FD, key, None, fd, f"{key} by descriptor")

    def mount(self, attributes: int = 0) -> int:
        """Makes the superblock; a descriptor of the detached mount."""
        self._config(_CREATE, None, None, 0, "mount")
        try:
            return syscall(_FSMOUNT, self.fd, 1, attributes)
        except OSError as e:
            fail(e, f"{self.fstype}: fsmount{self._log()}")

    def _config(self, command: int, key: str | None, value: bytes | None, extra: int, what: str) -> None:
        try:
            syscall(_FSCONFIG, self.fd, command, text(key), value, extra)
        except OSError as e:
            fail(e, f"{self.fstype}: {what}{self._log()}")

    def _log(self) -> str:
        """The kernel's words about this context, as " (…)"; lines begin with "e ", "w " or "i "."""
        lines: list[str] = []
        while True:
            try:
                lines.append(os.read(self.fd, 8192).decode(errors="replace")[2:].strip())
            except OSError:
                return f" ({'; '.join(lines)})" if lines else ""


def erofs(index: str, devices: Sequence[str] = ()) -> int:
    """A file-backed EROFS, read-only; `devices` in the order of its device table. A detached mount.

    MOUNT_ATTR_NODEV does not hinder whiteouts (char 0/0): overlayfs looks at the inode and never opens the device.
    """
    with FsContext("erofs") as context:
        context.set_path("source", index)
        for device in devices:
            context.set_path("device", device)
        context.flag("ro")
        return context.mount(MOUNT_ATTR_RDONLY)


def overlay(
    lowers: Sequence[int | str],
    upper: str | int | None = None,
    work: str | int | None = None,
    options: Sequence[str] = (),
    attributes: int = 0,
) -> int:
    """An overlay over `lowers` (topmost first; a path, or a descriptor of a directory or a detached mount).

    Without an upper the kernel wants at least two lowers and says so only in dmesg (EINVAL). A kernel before 6.13 takes
    no descriptors: it gets them as paths, /proc/self/fd/N, which serve for directories of this mount namespace; the
    detached mounts that it gets that way it refuses up to 6.14 (EINVAL); what serves there is `layers.older`.
    """
    with FsContext("overlay") as context:
        context.set("source", "limpet")
        for lower in lowers:
            _layer(context, "lowerdir+", lower)
        for key, value in (("upperdir", upper), ("workdir", work)):
            if value is not None:
                _layer(context, key, value)
        for option in options:
            key, equals, value = option.partition("=")
            if equals:
                context.set(key, value)
            else:
                context.flag(key)
        return context.mount(attributes)


def tmpfs(attributes: int = 0, **options: str) -> int:
    """A detached tmpfs: `tmpfs(MOUNT_ATTR_NOSUID, mode="755", size="64m")`."""
    with FsContext("tmpfs") as context:
        for key, value in options.items():
            context.set(key, value)
        return context.mount(attributes)


class Private:
    """`with Private():` the calling thread is in a mount namespace of its own: it and its children see what is mounted.

    The working directory is kept. A thread that is begun meanwhile is in that namespace, and stays there.
    """

    def __init__(self) -> None:
        self._home = self._here = -1

    def __enter__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        process.unshare(process.CLONE_NEWNS)
        mount(None, "/", flags=MS_REC | MS_PRIVATE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process.unshare(process.CLONE_FS)  # a thread begun meanwhile shares it, and setns(2) would refuse
        process.setns(self._home, process.CLONE_NEWNS)
        os.fchdir(self._here)
        os.close(self._home)
        os.close(self._here)


def attach(fd: int, target: str, *, dirfd: int = _AT_FDCWD) -> None:
    """move_mount(2): a detached mount gets a place, which may be `dirfd` itself (with an empty `target`)."""
    flags = _FROM_FD | (0 if target else _TO_FD)
    try:
        syscall(_MOVE_MOUNT, fd, b"", dirfd, text(target), flags)
    except OSError as e:
        fail(e, f"move_mount to {target}")


def make_private(target: str) -> None:
    """What is mounted there from now on stays in this mount namespace, and what elsewhere does not come."""
    mount(None, target, None, MS_PRIVATE)


def below(path: str) -> list[str]:
    """The mount points at and beneath `path` in this mount namespace, parents first (proc_pid_mountinfo(5))."""
    found = []
    with open("/proc/thread-self/mountinfo", "rb") as file:
        for line in file:
            point = os.fsdecode(_unescape(line.split(b" ", 5)[4]))
            if point == path or point.startswith(f"{path}/"):
                found.append(point)
    return found


def detach_below(path: str) -> None:
    """Takes away all that is mounted there. Nothing of what was mounted is touched. Raises OSError."""
    for point in reversed(below(path)):
        umount(point, MNT_DETACH | UMOUNT_NOFOLLOW)


def _unescape(name: bytes) -> bytes:
    if b"\\" not in name:
        return name
    parts = name.split(b"\\")
    return parts[0] + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in parts[1:])


def open_tree(path: str, *, recursive: bool = False, dirfd: int = _AT_FDCWD) -> int:
    """A detached bind mount of `path`."""
    flags = _CLONE | _CLOEXEC | (_AT_RECURSIVE if recursive else 0) | (0 if path else _AT_EMPTY_PATH)
    try:
        return syscall(_OPEN_TREE, dirfd, text(path), flags)
    except OSError as e:
        fail(e, f"open_tree {path}")


def open_tree_in(namespace: int, path: str, *, recursive: bool = False) -> int:
    """As `open_tree`, in another mount namespace, by its descriptor; `path` may have no symbolic links.

    open_tree(2) itself copies mounts of the caller's namespace only (fs/namespace.c, may_copy_tree), while what it
    made may be attached anywhere. The process must have one thread; its root and working directory are kept.
    """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        process.setns(namespace, process.CLONE_NEWNS)
        try:
            place = fs.openat2(path, os.O_PATH, resolve=fs.RESOLVE_NO_SYMLINKS)
            try:
                return open_tree("", recursive=recursive, dirfd=place)
            finally:
                os.close(place)
        finally:
            process.setns(home, process.CLONE_NEWNS)
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(here)
    finally:
        for fd in (home, root, here):
            os.close(fd)


def set_attributes(
    fd: int, set: int = 0, clear: int = 0, *, recursive: bool = False, propagation: int = 0, userns: int = 0
) -> None:
    """mount_setattr(2) on a mount's descriptor. `propagation` is MS_PRIVATE, MS_SLAVE, MS_SHARED or 0."""
    attributes = struct.pack("<4Q", set, clear, propagation, userns)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    try:
        syscall(_MOUNT_SETATTR, fd, b"", flags, Buffer(attributes), len(attributes))
    except OSError as e:
        fail(e, "mount_setattr")


def _layer(context: FsContext, key: str, layer: int | str) -> None:
    if isinstance(layer, str):
        context.set_path(key, layer)
        return
    try:
        context.set_fd(key, layer)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EBADF):
            raise
        context.set(key, f"/proc/self/fd/{layer}")
