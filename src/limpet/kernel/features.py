"""What this kernel can do, found by doing it: for `limpet info`. Needs root, and leaves nothing behind.

What depends on the file system is tried on the store's own, with a file that never has a name. Only what can't be
tried without a change to the host is read from the kernel's version, and says so below.
"""

from __future__ import annotations

import os
import struct

from limpet.kernel import bpf, cgroup, fs, idmap, mounts, process, quota
from limpet.kernel.sys import by_machine, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

USED, UNUSED, MISSING = "used", "unused", "missing"
"""States of a feature. Unused: the kernel has it, this release of limpet does nothing with it yet."""


class Feature:
    """`since`: the kernel that brought it. `use`: what limpet does with it. `cost`: what its lack means, in words."""

    __slots__ = ("cost", "name", "since", "state", "use")

    def __init__(self, name: str, works: bool, since: str, use: str, cost: str, *, used: bool = True) -> None:
        self.name = name
        self.state = MISSING if not works else USED if used else UNUSED
        self.since = since
        self.use = use
        self.cost = cost

    @property
    def works(self) -> bool:
        return self.state != MISSING


_FANOTIFY_INIT, _FANOTIFY_MARK = by_machine(300, 262), by_machine(301, 263)
_SECCOMP = by_machine(317, 277)
_CGROUP_DEVICE = 15  # BPF_PROG_TYPE_CGROUP_DEVICE
_NOTHING_RUNS = "no container can run"
_UNFILTERED = "a container that may make device nodes can open any device"


def probe(store_root: str) -> list[Feature]:
    """`store_root`: an existing directory on the store's file system."""
    group = cgroup.root()
    if cgroup.delegated() and group is None:
        none = "no pause, no limits: there is no control group that is delegated to you"
    else:
        none = f"no pause at commit, no device filter: {_UNFILTERED}"
    return [
        *_of_mounts(store_root),
        *_of_processes(),
        Feature(
            "cgroup v2",
            group is not None,
            "4.5",
            "freezing, killing as a whole, the device filter",
            none,
        ),
        Feature(
            "BPF device filter",
            group is not None and _works(_device_filter),
            "4.15",
            "a container opens only the devices that it was given",
            "devices are the host's files, and their modes count"
            if idmap.nested()
            else _UNFILTERED
            if group is None
            else _NOTHING_RUNS,
        ),
        Feature(
            "cgroup v2 controllers",
            group is not None and _has_controllers(group),
            "4.5",
            "limits of memory, CPU and processes",
            "no limits"
            if cgroup.delegated()
            else "limits go by the hierarchies of version 1: more groups for each container",
        ),
        Feature(
            "cgroup.kill",
            # The root group has no such file, and making another would be a change.
            group is not None and _version() >= (5, 14),
            "5.14",
            "ending a container at once",
            "containers end by their PID namespace",
        ),
        Feature(
            "pressure (PSI)",
            _works(_pressure),
            "4.20",
            "for how long processes wait: stats --pressure",
            "stats and metrics have no pressure (boot with psi=1)",
        ),
        Feature(
            "fanotify pre-access",
            _works(lambda: _pre_access(store_root)),
            "6.14",
            "filling lazy images on demand: with a later release",
            "images are pulled whole",
            used=False,
        ),
    ]


def _of_mounts(store_root: str) -> list[Feature]:
    return [
        Feature("mount API", _works(_mount_api), "5.12", "mounts that no crash leaves behind", _NOTHING_RUNS),
        Feature("overlayfs", _filesystem("overlay"), "3.18", "writable containers over layers", _NOTHING_RUNS),
        Feature(
            "overlay layers by descriptor",
            _works(lambda: _layer_by_descriptor(store_root)),
            "6.13",
            "layers without a path",
            "layers are passed as paths",
        ),
        Feature(
            "overlay over detached mounts",
            _works(_detached_layers),
            "6.15",
            "the host's mount table stays empty",
            "layers are unpacked (storage driver dir)",
        ),
        Feature(
            "erofs on plain files",
            _works(lambda: _erofs(store_root)),
            "6.12",
            "layers are mounted, not unpacked",
            "layers are unpacked (storage driver dir): slower pulls, twice the disk",
        ),
        Feature(
            "prjquota",
            _works(lambda: _projects(store_root)),
            "5.14",
            "--storage-opt size= and volumes with a size are held by the file system",
            "a container's layer is measured now and then, a volume with a size is a file with a file system",
        ),
    ]


def _projects(store_root: str) -> None:
    fd = quota.open_directory(store_root)
    try:
        if not quota.enforced(fd):
            raise OSError
    finally:
        os.close(fd)


def _of_processes() -> list[Feature]:
    return [
        Feature("openat2", _works(_openat2), "5.6", "paths of an image never leave its root", _NOTHING_RUNS),
        Feature("pidfd", _works(_pidfd), "5.3", "waiting for and signalling the right process", _NOTHING_RUNS),
        Feature("seccomp", _works(_seccomp), "4.14", "Docker's default system call filter", "no filter"),
        Feature(
            "user namespaces",
            _user_namespaces(),
            "3.8",
            "containers without root, --userns auto",
            "root only",
        ),
    ]


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _pressure() -> None:
    with open("/proc/pressure/cpu", "rb") as file:  # there, and not to be read, when it was switched off at boot
        file.read()


def _filesystem(name: str) -> bool:
    """In the kernel already, or a module that fsopen(2) loads."""
    return _works(lambda: os.close(mounts.FsContext(name).fd))


def _mount_api() -> None:
    fd = mounts.tmpfs()
    try:
        mounts.set_attributes(fd, mounts.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fd)


def _layer_by_descriptor(directory: str) -> None:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with mounts.FsContext("overlay") as context:
            context.set_fd("lowerdir+", fd)
    finally:
        os.close(fd)


def _detached_layers() -> None:
    layers = [mounts.tmpfs(), mounts.tmpfs()]
    try:
        os.close(mounts.overlay(layers))
    finally:
        for layer in layers:
            os.close(layer)


_EROFS_MODE = 0o40751  # of the root directory below: one that nobody else would give


def _erofs(directory: str) -> None:
    """Mounts the smallest image there is from a file of that file system, and looks whether it is what was mounted."""
    file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, _erofs_image())
        fd = mounts.erofs(f"/proc/self/fd/{file}")
        try:
            if os.stat(fd).st_mode != _EROFS_MODE:
                raise OSError("erofs: another root")
        finally:
            os.close(fd)
    finally:
        os.close(file)


def _erofs_image() -> bytes:
    """One block: the superblock at 1024, the root directory with its two entries at 1152 (erofs_fs.h)."""
    root = 36  # in units of 32 bytes
    superblock = struct.pack("<IIIBBHQQIIII32xIHHHBB36x", 0xE0F5E1E2, 0, 0, 12, 0, root, 1, 0, 0, 1, 0, 0, *[0] * 6)
    inode = struct.pack("<HHHHIIIIHHI", 2 << 1, 0, _EROFS_MODE, 2, 27, 0, 0, 1, 0, 0, 0)  # compact, data inline
    entries = struct.pack("<QHBxQHBx", root, 24, 2, root, 25, 2) + b"..."  # "." and ".."
    return (bytes(1024) + superblock + inode + entries).ljust(4096, b"\0")


def _openat2() -> None:
    os.close(fs.openat2("/", os.O_PATH, resolve=fs.RESOLVE_IN_ROOT))


def _pidfd() -> None:
    fd = os.pidfd_open(os.getpid())
    try:
        process.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)


def _seccomp() -> None:
    """SECCOMP_GET_ACTION_AVAIL of SECCOMP_RET_ERRNO."""
    syscall(_SECCOMP, 2, 0, (0x00050000).to_bytes(4, "little"))


def _device_filter() -> None:
    program = bpf.Assembler()
    program.leave(1)
    os.close(bpf.load(_CGROUP_DEVICE, program.assemble(), "limpet_probe"))


def _user_namespaces() -> bool:
    """By the kernel's own limit: making one would take a process."""
    try:
        with open("/proc/sys/user/max_user_namespaces") as file:
            return int(file.read()) > 0
    except OSError:
        return False


def _has_controllers(group: str) -> bool:
    with open(f"{group}/cgroup.controllers") as file:
        return {"cpu", "memory", "pids"} <= set(file.read().split())


def _pre_access(directory: str) -> None:
    """A mark for FAN_PRE_ACCESS on a file: the file system has to support it too."""
    file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        group = syscall(_FANOTIFY_INIT, 0x08 | 1, os.O_RDWR)  # FAN_CLASS_PRE_CONTENT, FAN_CLOEXEC
        try:
            syscall(_FANOTIFY_MARK, group, 1, 0x00100000, -100, f"/proc/self/fd/{file}".encode())
        finally:
            os.close(group)
    finally:
        os.close(file)


def _version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))] or "0"
    return int(major), int(digits)
