"""The container's file systems, built in the cloned child from config.json (config.md "Mounts", config-linux.md).

The order is what keeps a hostile image in: sources of bind mounts are opened as detached trees while the host is still
visible, then the root is changed, and only then is a path of the container touched, so that every symbolic link in it
resolves inside. No descriptor of a host directory may be open by then (`/proc/self/fd/N` would lead out): the caller
closes them all. Nothing may be imported after `enter`: the import path would lead into the container.
"""

from __future__ import annotations

import errno
import os
import stat

from limpet.kernel import cgroup, idmap, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Config = dict[str, Any]

# Option word: (mount(2) flags to set, to clear)
_FLAGS = {
    "ro": (mounts.MS_RDONLY, 0),
    "rro": (mounts.MS_RDONLY, 0),  # the mounts below it too (config.md "Linux mount options")
    "rw": (0, mounts.MS_RDONLY),
    "nosuid": (mounts.MS_NOSUID, 0),
    "suid": (0, mounts.MS_NOSUID),
    "nodev": (mounts.MS_NODEV, 0),
    "dev": (0, mounts.MS_NODEV),
    "noexec": (mounts.MS_NOEXEC, 0),
    "exec": (0, mounts.MS_NOEXEC),
    "sync": (mounts.MS_SYNCHRONOUS, 0),
    "async": (0, mounts.MS_SYNCHRONOUS),
    "dirsync": (mounts.MS_DIRSYNC, 0),
    "noatime": (mounts.MS_NOATIME, 0),
    "atime": (0, mounts.MS_NOATIME),
    "nodiratime": (mounts.MS_NODIRATIME, 0),
    "diratime": (0, mounts.MS_NODIRATIME),
    "relatime": (mounts.MS_RELATIME, 0),
    "norelatime": (0, mounts.MS_RELATIME),
    "strictatime": (mounts.MS_STRICTATIME, 0),
    "nostrictatime": (0, mounts.MS_STRICTATIME),
    "bind": (mounts.MS_BIND, 0),
    "rbind": (mounts.MS_BIND | mounts.MS_REC, 0),
}
_PROPAGATION = {
    "private": (mounts.MS_PRIVATE, False),
    "rprivate": (mounts.MS_PRIVATE, True),
    "slave": (mounts.MS_SLAVE, False),
    "rslave": (mounts.MS_SLAVE, True),
    "shared": (mounts.MS_SHARED, False),
    "rshared": (mounts.MS_SHARED, True),
}
_ATTRIBUTES = (
    (mounts.MS_RDONLY, mounts.MOUNT_ATTR_RDONLY),
    (mounts.MS_NOSUID, mounts.MOUNT_ATTR_NOSUID),
    (mounts.MS_NODEV, mounts.MOUNT_ATTR_NODEV),
    (mounts.MS_NOEXEC, mounts.MOUNT_ATTR_NOEXEC),
)
# config-linux.md "Default Devices": every runtime supplies these.
DEVICES: tuple[Config, ...] = tuple(
    {"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor}
    for name, major, minor in (
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    )
)  # fmt: skip
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


def open_sources(config: Config, given: Mapping[str, int]) -> dict[int, int]:
    """Position of each bind mount in config["mounts"] → a detached tree with its attributes set. Before `enter`.

    `given`: trees that are open already, by destination.
    """
    trees: dict[int, int] = {}
    for position, mount in enumerate(config["mounts"]):
        flags, propagation, _ = parse_options(mount.get("options", ()))
        if mount["type"] == "cgroup":
            # The container's own group, not a new mount: that takes 12 ms of RCU, and changes the hierarchy's flags
            # for the host when it is made outside a cgroup namespace (kernel/cgroup/cgroup.c, cgroup_get_tree).
            top = cgroup.root()
            if top is None:
                continue
            source = top + config["linux"]["cgroupsPath"]
        elif flags & mounts.MS_BIND:
            source = mount["source"]
        else:
            continue
        tree = given.get(mount["destination"], -1)
        if tree < 0:
            try:
                tree = mounts.open_tree(source, recursive=bool(flags & mounts.MS_REC))
            except OSError as e:
                raise OSError(e.errno, f"bind mount of {source}: {os.strerror(e.errno or 0)}") from e
        wanted = attributes(flags)
        if wanted & mounts.MOUNT_ATTR_RDONLY and "rro" not in mount["options"]:
            mounts.set_attributes(tree, mounts.MOUNT_ATTR_RDONLY)
            wanted &= ~mounts.MOUNT_ATTR_RDONLY
        if wanted:
            mounts.set_attributes(tree, wanted, recursive=True)
        for kind, recursive in propagation:
            mounts.set_attributes(tree, propagation=kind, recursive=recursive)
        trees[position] = tree
    return trees


def enter(root: int, target: str, propagation: str) -> None:
    """Makes the detached mount `root` the root of this (new) mount namespace; the host's mounts are gone afterwards.

    `target` is any directory of the host: `root` is attached there for a moment, in this namespace only.
    """
    # Shared would let the new root's mounts travel to the host, and pivot_root(2) refuses it.
    kind = mounts.MS_PRIVATE if propagation == "private" else mounts.MS_SLAVE
    mounts.mount(None, "/", None, mounts.MS_REC | kind)
    mounts.attach(root, target)
    os.fchdir(root)
    mounts.pivot_root(".", ".")  # the old root is now stacked below the new one (pivot_root(2), NOTES)
    mounts.umount(".", mounts.MNT_DETACH)
    os.chdir("/")


def furnish(config: Config, trees: dict[int, int]) -> None:
    """Mounts, devices, links, and then what hides and protects; all paths are the container's."""
    linux = config["linux"]
    proc = dev = ""
    number = -1
    for position, mount in enumerate(config["mounts"]):
        _refuse_link(mount)
        if proc:
            _refuse_proc(mount, number)
        tree = trees.get(position)
        if tree is not None:
            _attach(tree, mount["destination"])
            os.close(tree)
        elif mount["type"] != "cgroup":  # no cgroup2 on this host
            _mount(mount)
        if mount["type"] == "proc" and not proc:
            proc = mount["destination"]
            number = os.stat(proc).st_dev
        if mount["destination"] == "/dev":
            dev = mount["type"]
    if dev == "tmpfs":  # else it is somebody's, who says what is in it: the host, perhaps
        _make_devices(linux)
    for name, value in linux.get("sysctl", {}).items():
        _write_sysctl(name, value)


def protect(config: Config) -> None:
    """Read-only and masked paths, and the read-only root: the last change to the mounts."""
    linux = config["linux"]
    for path in linux.get("readonlyPaths", ()):
        try:
            tree = mounts.open_tree(path, recursive=True)
        except FileNotFoundError:
            continue
        mounts.set_attributes(tree, mounts.MOUNT_ATTR_RDONLY, recursive=True)
        mounts.attach(tree, path)
        os.close(tree)
    null = -1
    for path in linux.get("maskedPaths", ()):
        try:
            directory = stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if directory:
            mounts.mount("tmpfs", path, "tmpfs", mounts.MS_RDONLY)
            continue
        if null < 0:
            null = _open_device("/dev/null", range(1, 2))
        tree = mounts.open_tree("", dirfd=null)
        mounts.attach(tree, path)
        os.close(tree)
    if null >= 0:
        os.close(null)
    if config["root"].get("readonly"):
        mounts.mount(None, "/", None, mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY)


def bind_console(terminal: str) -> None:
    """The container's terminal is its /dev/console, too. Neither is a link to something else (CVE-2025-52565)."""
    fd = _open_device(terminal, range(136, 144))  # Documentation/admin-guide/devices.txt, "Unix98 PTY slaves"
    tree = mounts.open_tree("", dirfd=fd)
    os.close(fd)
    if os.path.islink("/dev/console"):
        raise OSError(errno.ELOOP, "/dev/console is a symbolic link: refusing to mount the terminal through it")
    _attach(tree, "/dev/console")
    os.close(tree)


def _open_device(path: str, majors: range) -> int:
    """A character device for a bind mount, which is certainly that: /dev may be a volume (CVE-2025-31133)."""
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OSError(errno.ENOENT, f"{path} is missing: what is mounted at /dev lacks it") from None
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or os.major(found.st_rdev) not in majors:
        os.close(fd)
        raise OSError(errno.ENODEV, f"{path} is not the device of that name: refusing to mount it elsewhere")
    return fd


def reopen_null() -> None:
    """Where a standard descriptor is the host's /dev/null, it becomes the container's own (as runc's `reOpenDevNull`).

    A file of a mount that the container doesn't have can't be checkpointed.
    """
    number = os.makedev(1, 3)
    for fd in (0, 1, 2):
        if os.fstat(fd).st_rdev != number:
            continue
        try:
            own = os.open("/dev/null", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # an image's /dev without it
            return
        if os.fstat(own).st_rdev == number:
            os.dup2(own, fd)
        os.close(own)


def parse_options(words: list[str] | tuple[str, ...]) -> tuple[int, list[tuple[int, bool]], str]:
    """OCI mount options → mount(2) flags, propagation changes (flag, recursive), data for the file system."""
    flags = 0
    propagation: list[tuple[int, bool]] = []
    data: list[str] = []
    for word in words:
        if word in _FLAGS:
            put, take = _FLAGS[word]
            flags = flags & ~take | put
        elif word in _PROPAGATION:
            propagation.append(_PROPAGATION[word])
        else:
            data.append(word)
    return flags, propagation, ",".join(data)


def attributes(flags: int) -> int:
    """mount(2)'s flags as mount_setattr(2)'s."""
    return sum(attribute for flag, attribute in _ATTRIBUTES if flags & flag)


def _mount(mount: Config) -> None:
    kind, target = mount["type"], mount["destination"]
    flags, propagation, data = parse_options(mount.get("options", ()))
    make_target(target, directory=True)
    try:
        mounts.mount(mount.get("source", kind), target, kind, flags, data or None)
    except OSError as e:
        raise OSError(e.errno, f"mounting {kind} on {target}: {os.strerror(e.errno or 0)}") from e
    for change, recursive in propagation:
        mounts.mount(None, target, None, change | (mounts.MS_REC if recursive else 0))


def _refuse_link(mount: Config) -> None:
    """A link would put the real /proc where the masks do not reach (CVE-2019-19921)."""
    kind, target = mount["type"], mount["destination"]
    if kind in ("proc", "sysfs") and os.path.islink(target):
        raise OSError(40, f"{target} is a symbolic link in the image: refusing to mount {kind} through it")


_OF_LXCFS = frozenset(
    f"/proc/{name}" for name in "cpuinfo diskstats loadavg meminfo slabinfo stat swaps uptime net/dev".split(" ")
)
"""The files of /proc that may be mounted over, as runc has them (`libcontainer/rootfs_linux.go`, checkProcMount)."""


def _refuse_proc(mount: Config, number: int) -> None:
    """Nobody covers what the kernel says, by a link of the image either (CVE-2019-16884, CVE-2023-28642).

    `number`: of /proc's file system. Who mounts a /proc there may do so.
    """
    target = there = os.path.realpath(mount["destination"])
    while not os.path.exists(there):
        there = os.path.dirname(there)
    inside = os.stat(there).st_dev == number
    if inside and target not in _OF_LXCFS and (target, mount.get("source")) != ("/proc", "/proc"):
        raise OSError(errno.EPERM, f"mounting on {target}: nothing can be mounted inside /proc")


def _attach(tree: int, target: str) -> None:
    directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    make_target(target, directory=directory)
    if os.path.isdir(target) != directory:
        kinds = ("a directory", "a file") if directory else ("a file", "a directory")
        raise NotADirectoryError(20, f"mounting on {target}: {kinds[0]} can't be mounted on {kinds[1]}")
    try:
        mounts.attach(tree, target)
    except OSError as e:
        raise OSError(e.errno, f"mounting on {target}: {os.strerror(e.errno or 0)}") from e


def make_target(path: str, *, directory: bool) -> None:
    """A directory or an empty file to mount on, with the directories above it."""
    try:
        os.stat(path)
        return
    except FileNotFoundError:
        pass
    if os.path.islink(path):  # into a directory that is not there yet, such as /run/systemd/resolve
        path = os.path.realpath(path)
    os.makedirs(path if directory else os.path.dirname(path), 0o755, exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _make_devices(linux: Config) -> None:
    if "uidMappings" not in linux and not idmap.nested():  # else they are bind mounts
        _make_nodes(linux.get("devices", ()))
    core = (("core", "/proc/kcore"),) if os.path.exists("/proc/kcore") else ()
    for name, target in (*_LINKS, *core):
        try:
            os.symlink(target, f"/dev/{name}")
        except FileExistsError:
            pass


def _make_nodes(extra: list[Config] | tuple[Config, ...]) -> None:
    for device in (*DEVICES, *extra):
        os.makedirs(os.path.dirname(device["path"]), 0o755, exist_ok=True)
        try:
            make_node(device["path"], device)
        except FileExistsError:
            continue


def make_node(path: str, device: Config, dirfd: int | None = None) -> None:
    """A device of config.json (config-linux.md "Devices") at `path`, relative to `dirfd`."""
    mask = os.umask(0)
    try:
        kind = stat.S_IFBLK if device["type"] == "b" else stat.S_IFCHR
        number = os.makedev(device["major"], device["minor"])
        os.mknod(path, kind | device.get("fileMode", 0o666), number, dir_fd=dirfd)
        os.chown(path, device.get("uid", 0), device.get("gid", 0), dir_fd=dirfd)
    finally:
        os.umask(mask)


def _write_sysctl(name: str, value: str) -> None:
    path = "/proc/sys/" + name.replace(".", "/")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as e:
        raise OSError(e.errno, f"sysctl {name}={value}: {os.strerror(e.errno or 0)}") from e
