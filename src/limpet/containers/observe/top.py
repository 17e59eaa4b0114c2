"""The processes of a container, as the host sees them: by /proc, for `top`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from limpet.containers import state
from limpet.errors import Conflict, LimpetError
from limpet.kernel import cgroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.containers.state import Container
    from limpet.store.store import Store

HEADERS = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
"""What `ps -ef` shows, Docker's default for `top`."""


def pids(store: Store, container: Container) -> list[int]:
    """All processes in it, in the host's numbers. Raises Conflict if it does not run."""
    status = state.status(store, container)
    if not status.running:
        raise Conflict(f"container {container.name} is not running", exit_code=1)
    place = cgroup.path(container.group)
    found = cgroup.pids(place) if place is not None else []
    return sorted(found or in_namespace_of(status.pid))


def processes(store: Store, container: Container) -> list[tuple[str, ...]]:
    """A row of HEADERS for each."""
    rows = (_row(pid) for pid in pids(store, container))
    return [row for row in rows if row is not None]


def with_ps(store: Store, container: Container, options: Sequence[str]) -> str:
    """What the host's ps prints for the container's processes with `options`."""
    import subprocess

    wanted = {str(pid) for pid in pids(store, container)}
    try:
        result = subprocess.run(["ps", *options], capture_output=True, text=True)
    except FileNotFoundError:
        raise LimpetError("ps is not installed on this host", "leave out the options") from None
    if result.returncode:
        raise LimpetError(f"ps {' '.join(options)}: {result.stderr.strip().splitlines()[0]}", exit_code=1)
    header, *lines = result.stdout.splitlines()
    names = header.split()
    if "PID" not in names:
        raise LimpetError("the options of ps must print the column PID", exit_code=1)
    column = names.index("PID")
    return "\n".join(
        [header, *(line for line in lines if line.split()[column : column + 1] and line.split()[column] in wanted)]
    )


def in_namespace_of(pid: int) -> list[int]:
    """Without cgroup2: whoever is in PID 1's namespace."""
    try:
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.readlink(f"/proc/{name}/ns/pid") == namespace:
                found.append(int(name))
        except OSError:
            continue
    return found


def _row(pid: int) -> tuple[str, ...] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    values = tail.split()
    ticks = os.sysconf("SC_CLK_TCK")
    used = (int(values[11]) + int(values[12])) // ticks
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    running = max(up - int(values[19]) / ticks, 0)
    started = time.localtime(time.time() - running)
    shown = command or f"[{head.partition(b'(')[2].decode(errors='replace')}]"
    return (
        _user(uid),
        str(pid),
        values[1].decode(),
        str(min(int(used * 100 / running) if running else 0, 99)),
        time.strftime("%H:%M" if running < 86400 else "%b%d", started),
        _terminal(int(values[4])),
        f"{used // 3600:02d}:{used // 60 % 60:02d}:{used % 60:02d}",
        shown,
    )


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(device: int) -> str:
    if not device:
        return "?"
    major, minor = os.major(device), os.minor(device)
    return f"pts/{minor}" if 136 <= major <= 143 else f"tty{minor}" if major == 4 else "?"
