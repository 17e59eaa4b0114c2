"""Which namespaces a container has of its own, which are another's, and which parameters of the kernel it may set.

A parameter that is not a namespace's own would be the host's: it is refused (docker/cli `opts.ValidateSysctl`, runc
`libcontainer/configs/validate`).
"""

from __future__ import annotations

from limpet.errors import Conflict, Invalid, NotFound, Refused
from limpet.kernel import idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.options import Options
    from limpet.store.store import Store

_OF_IPC = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni"
    " kernel.shm_rmid_forced".split(" ")
)
_MODES = (
    ("pid", ("", "private", "host")),
    ("ipc", ("", "private", "shareable", "host", "none")),
    ("uts", ("", "private", "host")),
    ("cgroupns", ("", "private", "host")),
    ("userns", ("", "auto", "host")),
)

_IN_A_SLICE = str.maketrans(":_.-", "aaaa")


CONTAINER = "container:"
PATH = "ns:"
_JOINABLE = {  # the option: the OCI runtime specification's kind, and the name in /proc/<pid>/ns
    "pid": ("pid", "pid"),
    "network": ("network", "net"),
    "ipc": ("ipc", "ipc"),
    "uts": ("uts", "uts"),
    "cgroupns": ("cgroup", "cgroup"),
}
SHARED_MEMORY = "/dev/shm"


def namespaces(options: Options) -> list[str]:
    """Those of its own, of the OCI runtime specification's kinds."""
    kinds = ["mount", "pid", "ipc", "uts", "cgroup"]
    for kind, mode in (
        ("pid", options.pid),
        ("ipc", options.ipc),
        ("uts", options.uts),
        ("cgroup", options.cgroupns),
    ):
        if mode == "host" or mode.startswith(CONTAINER):
            kinds.remove(kind)
    if options.network != "host" and not options.network.startswith((CONTAINER, PATH)):
        kinds.append("network")
    if options.userns == "auto":
        kinds.append("user")
    return kinds


def joins(options: Options) -> dict[str, str]:
    """Those that are another container's: option → that one's id, or a name until `resolve`."""
    modes = {kind: str(getattr(options, kind)) for kind in _JOINABLE}
    return {kind: mode.removeprefix(CONTAINER) for kind, mode in modes.items() if mode.startswith(CONTAINER)}


def connected(options: Options) -> bool:
    """Whether its network is made for it, before it begins: it is on networks of its own."""
    return options.network == "private" or bool(options.networks and options.network not in ("host", "none"))


def network_names(options: Options) -> list[str]:
    """The networks that it was made for, or its mode."""
    names = [text.removeprefix("name=").partition(":")[0].partition(",")[0] for text in options.networks]
    return names or [options.network]


def resolve(store: Store, options: Options) -> None:
    """The containers that `--pid`, `--network` and their like name, by id from here on. Raises NotFound, Refused."""
    from limpet.containers import state
    from limpet.containers.plan import hostfiles

    for kind, name in joins(options).items():
        try:
            found = state.find(store, name)
        except NotFound as e:  # the other one is missing, so that no container was made: `run` fails, with its code
            raise NotFound(e.message, e.hint) from None
        if kind == "ipc" and found.options.ipc not in ("shareable", "host") and "ipc" not in joins(found.options):
            raise Refused(
                f"cannot join the IPC namespace of container {found.name}: it does not share it",
                "make that one with --ipc shareable",
            )
        if kind == "uts":
            theirs = hostfiles.hostname(found.options, found.id)
            if options.hostname not in ("", theirs) or options.domainname not in ("", found.options.domainname):
                raise Invalid("conflicting options: hostname and the UTS mode", "the name is the other container's")
            options.hostname = theirs
            options.domainname = found.options.domainname
        setattr(options, kind, CONTAINER + found.id)
    if options.networks:
        from limpet.containers.network import networking

        networking.resolve(store, options)


def joined(store: Store, options: Options) -> dict[str, str]:
    """The kinds that are another container's, of the runtime specification, and where they are now.

    Raises Conflict if that one does not run.
    """
    from limpet.containers import state

    found = {}
    for option, other in joins(options).items():
        kind, name = _JOINABLE[option]
        pid = state.running_pid(store, other)
        if not pid:
            short = other[:12]
            gone = not store.db.row("SELECT 1 FROM container WHERE id = ?", other)
            why, hint = ("it was removed", "") if gone else ("it is not running", f"limpet start {short}")
            raise Conflict(f"cannot join the {kind} namespace of container {short}: {why}", hint)
        found[kind] = f"/proc/{pid}/ns/{name}"
    if options.network.startswith(PATH):
        found["network"] = options.network.removeprefix(PATH)
    return found


def shared_memory(options: Options, joined: dict[str, str]) -> dict[str, Any] | None:
    """/dev/shm as a mount of config.json; None for --ipc none.

    Another container's is named by its path below /proc/<pid>/root: `runtime` opens it in that one's mount namespace.
    """
    flags = ["nosuid", "noexec", "nodev"]
    place = {"destination": SHARED_MEMORY}
    if options.ipc == "none":
        return None
    if "ipc" in joined or options.ipc == "host":
        theirs = joined["ipc"].removesuffix("/ns/ipc") + "/root" if "ipc" in joined else ""
        bind = ["rbind", "rprivate", *flags]
        return {**place, "type": "bind", "source": f"{theirs}{SHARED_MEMORY}", "options": bind}
    size = f"size={options.shm_size}"
    return {**place, "type": "tmpfs", "source": "shm", "options": [*flags, "mode=1777", size]}


def check(options: Options) -> None:
    """Raises Invalid."""
    for name, known in _MODES:
        mode = getattr(options, name)
        if mode not in known and not (name in _JOINABLE and mode.startswith(CONTAINER)):
            more = " and container:NAME" if name in _JOINABLE else ""
            raise Invalid(f"--{name} '{mode}' is not supported", f"{', '.join(known[1:])}{more} are")
    if options.cgroup_parent:
        _check_parent(options.cgroup_parent)
    if options.uts == "host" and (options.hostname or options.domainname):
        raise Invalid("conflicting options: hostname and the UTS mode", "with --uts host the name is the host's")
    others = joins(options)
    if (options.pid == "host" or others) and options.runtime != "limpet":
        raise Invalid(f"namespaces of others are not there with the runtime {options.runtime}", "leave out one of them")
    if options.userns == "auto":
        if idmap.nested():
            raise Refused("--userns auto needs root", "leave it out: your containers are in a user namespace of yours")
        if options.pid == "host" or others:
            raise Invalid("a user namespace of its own, and namespaces of others", "leave out --userns or the others")
        if options.privileged:
            raise Invalid("privileged mode is incompatible with user namespaces", "leave out --privileged or --userns")
        if options.runtime != "limpet":
            raise Invalid(f"--userns auto is not there with the runtime {options.runtime}", "leave out one of the two")
    if options.network not in ("host", "none"):
        from limpet.containers.network import networking

        networking.check(options)
    elif options.ip or options.ip6 or options.mac_address or options.network_alias:
        raise Invalid("--ip, --ip6, --mac-address and --network-alias need a network", "add --network NAME")
    own = namespaces(options)
    for name in options.sysctls:
        kind = (
            "network" if name.startswith("net.") else "ipc" if name in _OF_IPC or name.startswith("fs.mqueue.") else ""
        )
        if not kind or "/" in name:
            raise Invalid(
                f"sysctl '{name}' is the host's: a container can't set it", "set it on the host, with sysctl(8)"
            )
        if kind not in own:
            raise Invalid(
                f"sysctl '{name}' is not allowed with the host's {kind} namespace",
                "set it on the host, with sysctl(8)" + (", or use --network none" if kind == "network" else ""),
            )


def _check_parent(text: str) -> None:
    """A slice of systemd by its name (systemd.slice(5)), or the path of a control group below the root."""
    parts = text.strip("/").split("/")
    if not text.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise Invalid(f"--cgroup-parent '{text}' is no place of a control group", "write NAME.slice, or a path: /a/b")
    if not parts[-1].endswith(".slice"):
        return
    if len(parts) > 1:
        raise Invalid(f"--cgroup-parent '{text}': a slice of systemd is told by its name alone", parts[-1])
    name = parts[-1].removesuffix(".slice")
    if "" in name.split("-") or not (name.isascii() and name.translate(_IN_A_SLICE).isalnum()):
        raise Invalid(f"--cgroup-parent '{text}' is no name of a slice", "one looks like tenants-alice.slice")
