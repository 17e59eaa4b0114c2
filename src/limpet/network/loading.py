"""The programs and their maps, as they come into the kernel: by whoever starts the first container.

That takes some 4 ms, most of it the kernel's check. A process that waits for its order uses the time (`prepare`).
"""

from __future__ import annotations

import os

from limpet.kernel import bpf, bpfmaps, cgroup
from limpet.network import addresses

GENERATION = 3
"""Of programs and maps: another number for each change of what they are, so that containers of both go on."""
_ENTRIES = 1 << 12  # containers that run at once
_NAMESPACES = 256  # of the network, in which ports are published at once
FINDER, FINDER_HOOK = "bind4", 8  # the program by which the others are known to be there: the last that is attached
LISTENER, LISTENER_HOOK = "listen", 3  # the program without which nothing can be published
_SPECIAL = "bind6"  # the program that wants to know where the kernel keeps something
_SOMEBODY = "x"  # the name of a group that there isn't
_INITIAL_NAMESPACE = 0xEFFFFFFB  # inode of the first cgroup namespace (linux/proc_ns.h)


class Maps:
    """Descriptors of the maps; `close` closes them.

    containers: id of a group → `assembly.ENTRY`; owners: address of 16 bytes → id; sockets: `assembly.KEPT` each;
    listeners: `assembly.PLACE` → socket; lookups: cookie of a network namespace → id of a link (see `publication`).
    """

    __slots__ = ("containers", "listeners", "lookups", "owners", "sockets")

    def __init__(self, containers: int, owners: int, sockets: int, listeners: int, lookups: int) -> None:
        self.containers = containers
        self.owners = owners
        self.sockets = sockets
        self.listeners = listeners
        self.lookups = lookups

    def close(self) -> None:
        for descriptor in (self.containers, self.owners, self.sockets, self.listeners, self.lookups):
            os.close(descriptor)


class _Ready:
    """Loaded, and not attached yet. `hooks`: descriptors of programs by their names."""

    __slots__ = ("hooks", "level", "maps")

    def __init__(self, level: int) -> None:
        from limpet.network import assembly

        self.level = level
        self.maps = Maps(
            bpfmaps.create(bpfmaps.HASH, 8, assembly.ENTRY, _ENTRIES, "containers", bpfmaps.NO_PREALLOC),
            bpfmaps.create(bpfmaps.HASH, 16, 8, 2 * _ENTRIES, "owners", bpfmaps.NO_PREALLOC),
            bpfmaps.create(bpfmaps.SK_STORAGE, 4, assembly.KEPT, 0, "sockets", bpfmaps.NO_PREALLOC),
            bpfmaps.create(bpfmaps.SOCKHASH, assembly.PLACE, 8, _ENTRIES, "listeners"),
            bpfmaps.create(bpfmaps.HASH, 8, 4, _NAMESPACES, "lookups"),
        )
        self.hooks: dict[str, int] = {}

    def load(self, hook: str, v6only: tuple[int, int] | None) -> None:
        """Raises OSError with what the kernel's check says."""
        from limpet.network import assembly, programs

        place, kind, _ = programs.HOOKS[hook]
        code = programs.assemble(hook, self.maps, self.level, addresses.PREFIX6, v6only)
        license = assembly.BOTH if hook == _SPECIAL else bpf.LICENSE
        try:
            self.hooks[hook] = bpf.load(kind, code, name(hook), place, license)
        except OSError:
            if hook != LISTENER:  # an older kernel: addresses without publishing are something
                raise

    def close(self) -> None:
        for descriptor in self.hooks.values():
            os.close(descriptor)
        self.maps.close()


_ready: list[_Ready] = []


def prepare() -> None:
    """Loads what can be loaded before it is known what for, unless a container runs: then all is there."""
    place = cgroup.path(_SOMEBODY)
    if place is None or cgroup.parents():
        return
    try:
        check()
        ready = _Ready(cgroup.level(place))
        _ready.append(ready)
        from limpet.network import programs

        for hook in programs.HOOKS:
            if hook != _SPECIAL:
                ready.load(hook, None)
    except OSError:
        drop()  # whoever needs it will say why


def drop() -> None:
    """What was prepared for nothing."""
    while _ready:
        _ready.pop().close()


def check() -> None:
    """Raises OSError where nobody can tell how far below the root of the hierarchy a group is."""
    if os.stat("/proc/self/ns/cgroup").st_ino != _INITIAL_NAMESPACE:
        raise OSError(95, "limpet runs in a control group namespace, and doesn't know where in the hierarchy that is")


def attach(directory: int, run: str, level: int) -> Maps:
    """Loads the programs and attaches them to the group that `directory` is a descriptor of; their maps.

    `run`: a directory for what is remembered until the next boot. `level`: how far the containers' groups are below the
    root of the hierarchy. Raises OSError.
    """
    from limpet.network import programs

    check()
    for hook, (kind, _, _) in programs.HOOKS.items():
        _detach(directory, kind, name(hook))  # of a start that was killed
    if _ready and _ready[0].level != level:
        drop()
    ready = _ready.pop() if _ready else _Ready(level)
    try:
        v6only = _v6only(run)
        for hook in programs.HOOKS:
            if hook not in ready.hooks:
                ready.load(hook, v6only)
        for descriptor in (ready.maps.listeners, ready.maps.lookups):
            bpf.bind_map(ready.hooks[FINDER], descriptor)
        for hook in sorted(ready.hooks, key=lambda hook: hook == FINDER):
            bpf.attach(ready.hooks[hook], directory, programs.HOOKS[hook][0], bpf.F_ALLOW_MULTI)
    except BaseException:
        ready.close()
        raise
    for program in ready.hooks.values():
        os.close(program)
    return ready.maps


def loads() -> frozenset[str]:
    """Which of the programs the kernel takes: all that addresses need, or none; and LISTENER or not."""
    from limpet.network import programs

    try:
        check()
        ready = _Ready(2)
    except OSError:
        return frozenset()
    try:
        for hook in programs.HOOKS:
            ready.load(hook, None)
        return frozenset(ready.hooks)
    except OSError:
        return frozenset()
    finally:
        ready.close()


def name(hook: str) -> str:
    """At most 15 bytes."""
    return f"l{GENERATION}_{hook}"


def _detach(directory: int, kind: int, name: str) -> None:
    for program, called, _ in bpf.programs(directory, kind):
        if called == name:
            bpf.detach(program, directory, kind)


def _v6only(run: str) -> tuple[int, int] | None:
    """Where a socket says that it is of IPv6 alone: 4 ms of reading, once a boot. None if the kernel doesn't tell."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    path = f"{run}/skc_ipv6only"
    try:
        with open(path, encoding="ascii") as file:
            then, place, mask = file.read().split()
        if then == boot:
            return int(place), int(mask)
    except (OSError, ValueError):
        pass
    from limpet.kernel import btf

    try:
        found = btf.bit_of("sock_common", "skc_ipv6only")
    except (OSError, LookupError):
        return None
    from limpet.store import files

    files.write_file(path, f"{boot} {found[0]} {found[1]}".encode(), 0o644, durable=False)
    return found
