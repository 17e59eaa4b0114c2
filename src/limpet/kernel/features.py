"""What this kernel can do, found by doing it where that is harmless: for `limpet info`."""

from __future__ import annotations

import os

from limpet.kernel import cgroup, mounts
from limpet.kernel.sys import by_machine, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Feature:
    """`works`: it is here. `since`: the kernel that brought it. `cost`: what limpet does without it, in words."""

    __slots__ = ("cost", "name", "since", "use", "works")

    def __init__(self, name: str, works: bool, since: str, use: str, cost: str) -> None:
        self.name = name
        self.works = works
        self.since = since
        self.use = use
        self.cost = cost


_FANOTIFY_INIT = by_machine(300, 262)
_PRE_CONTENT, _PRE_ACCESS_KERNEL = 0x08, (6, 14)
_SECCOMP = by_machine(317, 277)


def probe() -> list[Feature]:
    """Needs root; changes nothing."""
    group = cgroup.root()
    return [
        Feature(
            "erofs",
            _filesystem("erofs"),
            "6.12",
            "layers are mounted, not unpacked",
            "layers are unpacked (storage driver dir): slower pulls, twice the disk",
        ),
        Feature("overlayfs", _filesystem("overlay"), "3.18", "writable containers over layers", "no container can run"),
        Feature(
            "mount API",
            _works(lambda: os.close(mounts.tmpfs())),
            "5.2",
            "mounts that no crash leaves behind",
            "no container can run",
        ),
        Feature(
            "detached layers",
            _works(_detached_layers),
            "6.15",
            "the host's mount table stays empty",
            "no container can run with the driver erofs; dir works",
        ),
        Feature(
            "cgroup v2",
            group is not None,
            "4.5",
            "freezing, killing as a whole, the device filter",
            "no device filter, no pause at commit",
        ),
        Feature(
            "cgroup v2 controllers",
            group is not None and _has_controllers(group),
            "4.5",
            "not used yet: limits come with a later release",
            "limits will go to version 1 hierarchies",
        ),
        Feature(
            "cgroup kill",
            group is not None and _version() >= (5, 14),
            "5.14",
            "ending a container at once",
            "containers end by their PID namespace",
        ),
        Feature("seccomp", _works(_seccomp), "3.17", "Docker's default system call filter", "no filter"),
        Feature("pidfd", _works(_pidfd), "5.3", "waiting for and signalling the right process", "no container can run"),
        Feature(
            "fanotify pre-access",
            _version() >= _PRE_ACCESS_KERNEL and _works(_fanotify),
            "6.14",
            "not used yet: lazy pulling comes with a later release",
            "images are pulled whole",
        ),
        Feature(
            "user namespaces",
            os.path.exists("/proc/self/ns/user"),
            "3.8",
            "not used yet: rootless comes with a later release",
            "root only",
        ),
    ]


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _filesystem(name: str) -> bool:
    """In the kernel already, or a module that fsopen(2) loads."""
    return _works(lambda: os.close(mounts.FsContext(name).fd))


def _detached_layers() -> None:
    layers = [mounts.tmpfs(), mounts.tmpfs()]
    try:
        os.close(mounts.overlay(layers))
    finally:
        for layer in layers:
            os.close(layer)


def _has_controllers(group: str) -> bool:
    with open(f"{group}/cgroup.controllers") as file:
        return bool(file.read().split())


def _seccomp() -> None:
    """SECCOMP_GET_ACTION_AVAIL of ERRNO."""
    syscall(_SECCOMP, 2, 0, (0x00050000).to_bytes(4, "little"))


def _pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _fanotify() -> None:
    os.close(syscall(_FANOTIFY_INIT, _PRE_CONTENT | 1, 0))  # FAN_CLOEXEC


def _version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))] or "0"
    return int(major), int(digits)
