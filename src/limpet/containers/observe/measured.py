"""`inspect --isolation`: what a running container can and can't do, as /proc and the kernel have it, not its settings.

What counts is its first process: namespaces by their inodes, ids by uid_map (user_namespaces(7)), capabilities, filter
and no_new_privs by status (proc(5)), what is hidden or read-only by mountinfo, devices by the BPF program on its group.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.containers import state
from limpet.containers.plan import spec
from limpet.errors import Conflict
from limpet.kernel import bpf, capabilities, cgroup, idmap

if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.store.store import Store

_KINDS = ("mnt", "pid", "ipc", "uts", "cgroup", "net", "user")
_CGROUP_DEVICE = 6  # linux/bpf.h, BPF_CGROUP_DEVICE


class Measured:
    """The facts about a process, `pid`, and its group. Raises OSError when it ends meanwhile.

    `scoped`: by Landlock. The kernel tells nobody whether a process is, so that is what it was started with.
    """

    def __init__(self, pid: int, group: str, *, scoped: bool) -> None:
        self.own = {kind: _namespace(pid, kind) != _namespace("self", kind) for kind in _KINDS}
        status = dict(line.split(":\t", 1) for line in _read(pid, "status").splitlines() if ":\t" in line)
        self.user = int(status["Uid"].split()[1])
        self.capabilities = _names(int(status["CapBnd"], 16))
        self.effective = _names(int(status["CapEff"], 16))
        self.filters = int(status.get("Seccomp_filters", "0")) if status["Seccomp"].strip() == "2" else 0
        self.no_new_privileges = status["NoNewPrivs"].strip() == "1"
        inside, self.first, self.size = (int(each) for each in _read(pid, "uid_map").split()[:3])
        self.inside = self.user - self.first + inside
        if idmap.nested():  # the numbers that we see are those of our own namespace
            if not self.own["user"]:
                self.own["user"], self.inside = True, self.user
            self.user = idmap.outside(self.user)
        self.hidden: list[str] = []
        self.read_only: list[str] = []
        for line in _read(pid, "mountinfo").splitlines():
            fields, _, rest = line.partition(" - ")
            place, options = fields.split()[4:6]
            kind = rest.split()[0]
            if place.startswith(("/proc/", "/sys/")) and kind in ("tmpfs", "devtmpfs"):
                self.hidden.append(place)
            elif "ro" in options.split(","):
                self.read_only.append(place)
        self.scoped = scoped
        self.devices_filtered = False
        directory = cgroup.path(group)
        if directory is not None:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.devices_filtered = bool(bpf.attached(fd, _CGROUP_DEVICE))
            os.close(fd)

    def may(self, capability: str) -> bool:
        """On the host as a whole: capabilities of a user namespace of its own count for its own things only."""
        return capability in self.capabilities and not self.own["user"]


def explain(store: Store, container: Container) -> list[tuple[str, str]]:
    """(what, how it is) in the order in which people ask. Raises Conflict if it does not run."""
    found = state.status(store, container)
    try:
        if not found.running:
            raise ProcessLookupError
        facts = Measured(found.pid, container.group, scoped=spec.security(container.options)["landlock"])
    except (OSError, ValueError, KeyError) as e:
        hint = "what it can do is measured while it runs"
        raise Conflict(f"container {container.name} is not running", hint, exit_code=1) from e
    return [*_facts(facts), *_abilities(facts)]


def _facts(facts: Measured) -> list[tuple[str, str]]:
    own = " ".join(kind for kind in _KINDS if facts.own[kind])
    shared = " ".join(kind for kind in _KINDS if not facts.own[kind])
    names = " ".join(name.removeprefix("CAP_").lower() for name in facts.capabilities)
    return [
        ("namespaces of its own", own or "none"),
        ("namespaces of the host", shared or "none"),
        (
            "user",
            f"{facts.inside} in it is {facts.user} on the host"
            if facts.own["user"]
            else f"{facts.user}, on the host too",
        ),
        ("capabilities", f"{len(facts.capabilities)}: {names}" if names else "none"),
        ("held by its first process", str(len(facts.effective)) if facts.effective else "none"),
        ("system calls", "filtered" if facts.filters else "all"),
        ("hidden in /proc and /sys", f"{len(facts.hidden)} places" if facts.hidden else "nothing"),
        ("read-only", " ".join(facts.read_only) or "nothing"),
        ("devices", "those of /dev" if facts.devices_filtered else "all that it can make or find"),
    ]


def _abilities(facts: Measured) -> list[tuple[str, str]]:
    """Each a question that operators ask, answered by the facts."""
    bounds = not facts.own["user"]
    rules = [
        ("see and signal the host's processes", not facts.own["pid"]),
        ("use the host's addresses and ports", not facts.own["net"]),
        ("connect to abstract Unix sockets of the host", not facts.own["net"] and not facts.scoped),
        ("see all traffic on the network that it has", "CAP_NET_RAW" in facts.capabilities),
        ("change addresses, routes and firewall of the host", not facts.own["net"] and facts.may("CAP_NET_ADMIN")),
        ("mount file systems", "CAP_SYS_ADMIN" in facts.capabilities),
        ("open the host's disks", not facts.devices_filtered and facts.may("CAP_MKNOD")),
        ("load kernel modules", facts.may("CAP_SYS_MODULE")),
        ("set the host's clock", facts.may("CAP_SYS_TIME")),
        ("change kernel parameters", facts.may("CAP_SYS_ADMIN") and "/proc/sys" not in facts.read_only),
        ("get the rights of set-user-ID programs", not facts.no_new_privileges),
        ("write to its root", "/" not in facts.read_only),
        ("be root for the host, if it breaks out", bounds),
    ]
    return [("can" if can else "can't", what) for what, can in rules]


def _namespace(pid: int | str, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _names(mask: int) -> list[str]:
    return [name for number, name in enumerate(capabilities.NAMES) if mask >> number & 1]
