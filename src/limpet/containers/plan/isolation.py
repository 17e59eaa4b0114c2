"""Degrees of isolation by one word (`--isolate`): each is a set of options, and what the user says of one of them wins.

none     another userland, and nothing else: all that the host has, seen and touched
light    processes of its own; no filter of system calls, the host's names and IPC
default  Docker's
strict   root is nobody on the host; no network, no capabilities, nothing writable but /tmp, /run and /var/tmp

Landlock adds to `strict` what its namespaces don't say once `--network host` is beside it: abstract Unix sockets, which
belong to the network namespace and have no owner (CVE-2020-15257). Paths are the mounts' affair, and TCP ports the
network's; the PID namespace holds signals, and a scope of them would keep `exec` from sending any.
"""

from __future__ import annotations

from limpet.kernel import idmap, landlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from limpet.containers.options import Options

LEVELS = ("none", "light", "default", "strict")
SINGLE = ("privileged", "pid", "ipc", "uts", "cgroupns", "userns", "network", "read_only")
"""Options that a level may set and that have one value, which the user may have written himself."""

_SETS: dict[str, dict[str, Any]] = {
    "none": {
        "privileged": True,
        "pid": "host",
        "ipc": "host",
        "uts": "host",
        "cgroupns": "host",
        "address": ["0.0.0.0"],
    },
    "light": {"ipc": "host", "uts": "host", "cgroupns": "host", "security_opt": ["seccomp=unconfined"]},
    "default": {},
    "strict": {
        "userns": "auto",
        "network": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges", "landlock=sockets"],
        "read_only": True,
        "tmpfs": ["/tmp:mode=1777", "/run:mode=755", "/var/tmp:mode=1777"],
    },
}


def apply(options: Options, said: Collection[str]) -> None:
    """Sets what the level of `options` means. `said`: the options that the user wrote; they stay, lists grow."""
    for name, value in _SETS[options.isolate or "default"].items():
        if name == "security_opt":
            given = {text.partition("=")[0].partition(":")[0] for text in options.security_opt}
            value = [text for text in value if text.partition("=")[0] not in given]
            if landlock.version() < landlock.SCOPES:
                value = [text for text in value if not text.startswith("landlock")]
        elif name == "tmpfs":
            taken = _targets(options)
            value = [text for text in value if text.partition(":")[0] not in taken]
        elif name == "address":
            value = [] if options.address else value
        elif name == "userns" and idmap.nested():
            continue  # it is nobody on the host already
        if isinstance(value, list):
            setattr(options, name, [*value, *getattr(options, name)])
        elif name not in said:
            setattr(options, name, value)


def _targets(options: Options) -> set[str]:
    """Where the user mounts something."""
    found = {text.partition(":")[0] for text in options.tmpfs}
    found.update(text.split(":")[1] for text in options.volumes if ":" in text)
    for text in options.mounts:
        for word in text.split(","):
            key, _, value = word.partition("=")
            if key in ("target", "dst", "destination"):
                found.add(value)
    return {path.rstrip("/") for path in found}
