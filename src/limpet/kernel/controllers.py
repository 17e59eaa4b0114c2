"""Limits of a container: the one interface to the controllers, wherever this host has them.

A controller is bound to the one hierarchy of version 2, or to one of version 1 (cgroup-v2.rst, "Mounting"). On a host
with version 2 alone a container has one group, `limpet/<id>`, and the limits are files in it. On a hybrid host it has
groups of the same name in those hierarchies of version 1 that it needs: memory, pids and blkio always, since what is
used can't be counted afterwards, cpu and cpuset once a limit asks for them. Groups of others are left as they are.
In a scope of systemd the weights count for the scope, which is systemd's to write: it is told (`_outside`).
"""

from __future__ import annotations

import errno
import os

from limpet.kernel import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Resources = dict[str, Any]

NAMES = ("memory", "pids", "io", "cpu", "cpuset")
"""As version 2 has them; of version 1's hierarchies only blkio has another name."""

_ALWAYS = ("memory", "pids", "io")
_OLD = {"io": "blkio"}
_JOINED = ("memory", "pids", "blkio", "cpu", "cpuset", "cpuacct", "devices", "freezer")
"""Hierarchies in which a container may have a group: ours, and those that runc adds."""

_BASE = "/sys/fs/cgroup"
_FREEZING = 5.0  # seconds


class LimitError(OSError):
    """A limit that the kernel refused. `what`: the file and the text."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, os.strerror(number))
        self.what = what


def version(controller: str) -> int:
    """2 or 1, by which hierarchy the controller is bound to; 0 if this host has it in neither."""
    root = cgroup.root()
    if root is not None and controller in _read(f"{root}/cgroup.controllers").split():
        return 2
    return 1 if not cgroup.delegated() and os.path.exists(f"{_hierarchy(controller)}/tasks") else 0


def path(name: str, controller: str) -> str | None:
    """Where the group of that name has the controller's files, whether it is there or not; None without controller."""
    found = version(controller)
    if found == 2:
        return cgroup.path(name)
    return f"{_hierarchy(controller)}/{cgroup.below(name)}" if found else None


def counts_swap() -> bool:
    """Whether the kernel limits swap: version 1 leaves it out when it was started so (swapaccount=0)."""
    if version("memory") == 1:
        return os.path.exists(f"{_BASE}/memory/memory.memsw.limit_in_bytes")
    return os.path.exists("/proc/swaps")


def create(name: str, resources: Resources) -> list[int]:
    """Makes the groups, with their limits, for a container that is about to start. Raises LimitError, OSError.

    The group of version 2 is there already (`cgroup.create`). Returns descriptors for `join`; the caller closes them.
    """
    needed: list[str] = []
    if resources.keys() - {"devices"}:
        from limpet.kernel import controlfiles

        needed = controlfiles.controllers(resources)
    for controller in NAMES:
        if controller in needed or _limited_above(name, controller):
            _make(name, controller)
        elif controller in _ALWAYS:
            try:
                _make(name, controller)
            except OSError:
                pass  # inside another container, say: it runs uncounted, since nothing has to be limited
    if needed:
        apply(name, resources)
    return entrances(name)


def _limited_above(name: str, controller: str) -> bool:
    """Whether a group of version 1 holds a limit for all in it: who is in no group below would be outside of it."""
    if "/" not in name or version(controller) != 1:
        return False
    parent = os.path.dirname(path(name, controller) or "")
    return parent != _hierarchy(controller) and os.path.isdir(parent)


def create_parent(name: str, resources: Resources) -> None:
    """Makes groups with limits for all that will be in them; they go with the last one. Raises LimitError, OSError."""
    from limpet.kernel import controlfiles

    for controller in controlfiles.controllers(resources):
        _make(name, controller)
        cgroup.mark(path(name, controller) or "")
    apply(name, resources)


def entrances(name: str) -> list[int]:
    """Descriptors for `join`: one for each group of version 1 that the container has."""
    found = []
    for hierarchy in _JOINED if not cgroup.delegated() else ():
        try:
            found.append(os.open(f"{_BASE}/{hierarchy}/{cgroup.below(name)}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            pass  # not there
    return found


def join(descriptors: Sequence[int]) -> None:
    """Moves the calling process, which has one thread, into the groups, and closes the descriptors.

    By `tasks` and not by `cgroup.procs`: the kernel moves a thread that moves itself without stopping the forks of the
    whole machine for it (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
    """
    for fd in descriptors:
        os.write(fd, b"0")
        os.close(fd)


def apply(name: str, resources: Resources) -> None:
    """Writes limits into groups that are there. Raises LimitError for what the kernel does not take."""
    from limpet.kernel import controlfiles

    kinds = {controller: version(controller) for controller in controlfiles.controllers(resources)}
    for controller, kind in kinds.items():
        if not kind:
            raise LimitError(errno.ENOENT, f"the controller {controller}")
    old = [item for item in controlfiles.version1(resources) if kinds.get(item[0]) == 1]
    new = [item for item in controlfiles.version2(resources) if kinds.get(item[0]) == 2]
    if kinds.get("memory") == 1:
        old = _in_order(name, old, resources["memory"])
    for controller, files, text in (*old, *new):
        directory = path(name, controller)
        file = next((file for file in files.split("|") if os.path.exists(f"{directory}/{file}")), None)
        if file is None:
            raise LimitError(errno.ENOENT, files.partition("|")[0])
        try:
            _write(f"{directory}/{file}", text)
        except OSError as e:
            raise LimitError(e.errno or 0, f"{file} = {text}") from e
    if cgroup.in_scope(name):
        _outside(name, resources)


def update(name: str, resources: Resources) -> None:
    """As `apply`, for a running container: what it lacks of groups is made, and its processes are moved into them."""
    from limpet.kernel import controlfiles

    missing = []
    for controller in controlfiles.controllers(resources):
        place = path(name, controller)
        if version(controller) == 1 and place is not None and not os.path.isdir(place):
            missing.append(controller)
        _make(name, controller)
    apply(name, resources)
    if missing:
        _move_all(name, missing)


def remove(name: str) -> None:
    """Takes the groups of version 1 away, whose processes have ended or are just ending."""
    for hierarchy in _JOINED:
        place = f"{_BASE}/{hierarchy}/{cgroup.below(name)}"
        if os.path.isdir(place):
            cgroup.remove(place)


def oom_kills(name: str) -> int:
    """How many processes of the group the kernel killed for want of memory, since it was made."""
    place = path(name, "memory")
    if place is None:
        return 0
    text = _read(f"{place}/memory.events") or _read(f"{place}/memory.oom_control")
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def oom_victim(name: str) -> dict[str, str]:
    """What the kernel killed last in the group: its name and pid, by the kernel's log; {} where that can't be read."""
    found: dict[str, str] = {}
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    top, place = cgroup.root() if version("memory") == 2 else _hierarchy("memory"), path(name, "memory") or ""
    mark = f"oom_memcg={place.removeprefix(top or '')},".encode()
    try:
        while True:
            try:
                record = os.read(fd, 8192)  # one a read (Documentation/ABI/testing/dev-kmsg)
            except BrokenPipeError:
                continue  # that one was overwritten
            if mark in record:
                parts = record.partition(mark)[2].partition(b"\n")[0].decode(errors="replace").split(",")
                values = dict(part.split("=", 1) for part in parts if "=" in part)
                found = {"process": values.get("task", ""), "pid": values.get("pid", "")}
    except OSError:
        return found
    finally:
        os.close(fd)


def _outside(name: str, resources: Resources) -> None:
    """Weights and protections of the scope: groups compete with their neighbours. Raises LimpetError."""
    from limpet.kernel import controlfiles, systemd

    found = [
        (systemd.PROPERTIES[file], ("t", int(text)))
        for _, files, text in controlfiles.version2(resources)
        for file in files.split("|")
        if file in systemd.PROPERTIES and text.isdecimal()
    ]
    if found:
        systemd.set_properties(cgroup.scope_name(name), found, cgroup.of_user_instance())


def _make(name: str, controller: str) -> None:
    """Raises LimitError where that is not allowed."""
    found = version(controller)
    try:
        if found == 2:
            _delegate(name, controller)
        elif found == 1:
            _make_old(name, controller)
    except OSError as e:
        raise LimitError(e.errno or 0, f"a group with the controller {controller}") from e


def _make_old(name: str, controller: str) -> None:
    place = f"{_hierarchy(controller)}/{cgroup.below(name)}"
    cgroup.make(place)
    if controller == "cpuset":  # nobody can be in a group without processors and memory (cgroup-v1/cpusets.rst)
        for file in ("cpuset.cpus", "cpuset.mems"):
            for group in _between(_hierarchy(controller), place)[1:]:
                if not _read(f"{group}/{file}").strip():
                    _write(f"{group}/{file}", _read(f"{os.path.dirname(group)}/{file}").strip())


def _delegate(name: str, controller: str) -> None:
    """Lets the group have the controller: all levels above must give it on ("Top-down Constraint").

    Of a scope it is systemd that decides what it has (`Delegate=`): only what is in the scope is ours.
    """
    root, place = cgroup.root() or "", cgroup.path(name) or ""
    above = [cgroup.scope(name)] if cgroup.in_scope(name) else _between(root, place)[:-1]
    for group in above:
        if controller not in _read(f"{group}/cgroup.subtree_control").split():
            _write(f"{group}/cgroup.subtree_control", f"+{controller}")


def _between(root: str, place: str) -> list[str]:
    """Both, and the groups between them, the root first."""
    found = [root]
    for part in place.removeprefix(root).strip("/").split("/"):
        found.append(f"{found[-1]}/{part}")
    return found


def _in_order(name: str, writes: list[tuple[str, str, str]], memory: dict[str, int]) -> list[tuple[str, str, str]]:
    """The limit of memory and swap together is never below that of memory: who grows does it first."""
    if "limit" not in memory or "swap" not in memory:
        return writes
    now = int(_read(f"{path(name, 'memory')}/memory.memsw.limit_in_bytes") or 0)
    if 0 <= memory["limit"] <= now:
        return writes
    both = [item for item in writes if item[1].endswith("limit_in_bytes")]
    return [both[1], both[0], *(item for item in writes if item not in both[:2])]


def _move_all(name: str, controllers: list[str]) -> None:
    """All processes of the container into its new groups. It stands still meanwhile: nobody escapes by a fork."""
    place = cgroup.path(name)
    if place is None:
        return
    paused = cgroup.frozen(place)
    if not paused:
        cgroup.freeze(place)
    try:
        cgroup.settled(place, True, _FREEZING)
        for pid in cgroup.pids(place):
            for controller in controllers:
                try:
                    _write(f"{path(name, controller)}/cgroup.procs", str(pid))
                except ProcessLookupError:
                    pass  # it ended just now
    finally:
        if not paused:
            cgroup.thaw(place)


def _hierarchy(controller: str) -> str:
    return f"{_BASE}/{_OLD.get(controller, controller)}"


def _read(path: str) -> str:
    """ "" for what is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 16).decode()
    except OSError:
        return ""
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
