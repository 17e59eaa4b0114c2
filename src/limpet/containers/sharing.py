"""Which namespaces a container has of its own, and which kernel parameters it may set there (`--sysctl`).

A parameter that is not a namespace's own would be the host's: it is refused (docker/cli `opts.ValidateSysctl`, runc
`libcontainer/configs/validate`).
"""

from __future__ import annotations

from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.options import Options

_OF_IPC = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni"
    " kernel.shm_rmid_forced".split(" ")
)
_MODES = (
    ("ipc", ("", "private", "host", "none")),
    ("uts", ("", "private", "host")),
    ("cgroupns", ("", "private", "host")),
    ("userns", ("", "auto", "host")),
)


def namespaces(options: Options) -> list[str]:
    """Of the OCI runtime specification's kinds."""
    kinds = ["mount", "pid", "ipc", "uts", "cgroup"]
    for kind, mode in (("ipc", options.ipc), ("uts", options.uts), ("cgroup", options.cgroupns)):
        if mode == "host":
            kinds.remove(kind)
    if options.network == "none":
        kinds.append("network")
    if options.userns == "auto":
        kinds.append("user")
    return kinds


def check(options: Options) -> None:
    """Raises Invalid."""
    for name, known in _MODES:
        mode = getattr(options, name)
        if mode not in known:
            raise Invalid(
                f"--{name} '{mode}' is not supported",
                f"{' and '.join(known[1:])} {'are' if len(known) > 2 else 'is'}; no other",
            )
    if options.uts == "host" and (options.hostname or options.domainname):
        raise Invalid("conflicting options: hostname and the UTS mode", "with --uts host the name is the host's")
    if options.userns == "auto":
        if options.privileged:
            raise Invalid("privileged mode is incompatible with user namespaces", "leave out --privileged or --userns")
        if options.runtime != "limpet":
            raise Invalid(f"--userns auto is not there with the runtime {options.runtime}", "leave out one of the two")
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
