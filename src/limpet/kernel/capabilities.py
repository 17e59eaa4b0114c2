"""Capabilities: names, Docker's default set, and putting them on the calling thread (capabilities(7))."""

from __future__ import annotations

import struct

from limpet.errors import Invalid
from limpet.kernel.process import prctl
from limpet.kernel.sys import Buffer, by_machine, fail, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
        "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
        "PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
"""By number (linux/capability.h)."""

DEFAULT = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)
"""What a container has when nothing else is asked (moby oci/caps/defaults.go)."""

_CAPSET = by_machine(126, 91)
_VERSION_3 = 0x20080522
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 23, 24, 47, 2, 4
_PRCTL = by_machine(157, 167)


def parse(name: str) -> str:
    """ "CAP_NET_ADMIN" for "net_admin", "NET_ADMIN", "cap_net_admin"; "ALL" stays. Raises Invalid."""
    upper = name.strip().upper()
    if upper == "ALL":
        return upper
    upper = upper if upper.startswith("CAP_") else "CAP_" + upper
    if upper not in NAMES:
        raise Invalid(f"invalid capability: {name}", "capabilities(7) lists them; ALL means every one")
    return upper


def last_cap() -> int:
    """The highest capability of this kernel; asked without /proc, which a container's root may lack."""
    low, high = 0, 63
    while low < high:
        middle = (low + high + 1) // 2
        try:
            prctl(_PR_CAPBSET_READ, middle)
        except OSError:
            high = middle - 1
        else:
            low = middle
    return low


def mask(names: Iterable[str]) -> int:
    """A bit mask; names that this table lacks raise ValueError."""
    bits = 0
    for name in names:
        bits |= 1 << NAMES.index(name)
    return bits


def effective() -> tuple[str, ...]:
    """What this process may do at present."""
    with open("/proc/self/status", encoding="ascii") as file:
        bits = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)


def drop_bounding(keep: Iterable[str]) -> None:
    """Takes all but `keep` out of the bounding set. Needs CAP_SETPCAP."""
    kept = mask(keep)
    for capability in range(last_cap() + 1):
        if not kept >> capability & 1:
            prctl(_PR_CAPBSET_DROP, capability)


def set_thread(effective: Iterable[str], permitted: Iterable[str], inheritable: Iterable[str]) -> None:
    """capset(2)."""
    sets = (mask(effective), mask(permitted), mask(inheritable))
    low, high = ([value & 0xFFFFFFFF for value in sets], [value >> 32 for value in sets])
    try:
        syscall(_CAPSET, Buffer(struct.pack("<Ii", _VERSION_3, 0)), Buffer(struct.pack("<6I", *low, *high)))
    except OSError as e:
        fail(e, "capset")


def set_ambient(names: Iterable[str]) -> None:
    """Ambient capabilities must be permitted and inheritable."""
    syscall(_PRCTL, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    for name in names:
        syscall(_PRCTL, _PR_CAP_AMBIENT, _AMBIENT_RAISE, NAMES.index(name), 0, 0)


def apply(
    bounding: Iterable[str],
    effective: Iterable[str],
    permitted: Iterable[str],
    inheritable: Iterable[str],
    ambient: Iterable[str],
) -> None:
    """All five sets, in the order that works: the bounding set while CAP_SETPCAP is still there, ambient last."""
    drop_bounding(bounding)
    set_thread(effective, permitted, inheritable)
    set_ambient(ambient)
