"""What a container's processes use of the machine, read from its groups, in whichever version they are.

(cgroup-v2.rst "Core Interface Files", "Controllers"; cgroup-v1/memory.rst, blkio-controller.rst; accounting/psi.rst)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from limpet.kernel import cgroup, controllers

if TYPE_CHECKING:
    from collections.abc import Sequence

_NONE = 1 << 62
"""A limit of version 1 from here on is none: it is a page less than 2^63."""


class Usage(NamedTuple):
    """Since the container's start, or now. `cpu`, `throttled`: microseconds; memory and I/O: bytes; limits: -1 is none.

    `memory` is without the page cache that can be dropped at once, as Docker counts it. `pressure`: percent of the last
    ten seconds in which a process waited for cpu, memory or io; what the kernel does not measure is not in it.
    """

    cpu: int
    throttled: int
    memory: int
    memory_peak: int
    memory_limit: int
    pids: int
    pids_limit: int
    read: int
    written: int
    oom_kills: int
    pressure: dict[str, float]


def read(name: str) -> Usage | None:
    """Of the groups of that name; None if there are none (any more)."""
    place = cgroup.path(name)
    if place is None or not os.path.isdir(place):
        return None
    usage, peak, limit = _memory(controllers.path(name, "memory") or "")
    pids = controllers.path(name, "pids") or ""
    read, written = _io(name)
    return Usage(
        _keyed(_text(f"{place}/cpu.stat")).get("usage_usec", 0),
        _throttled(name),
        usage,
        peak,
        limit,
        _number(f"{pids}/pids.current"),
        _number(f"{pids}/pids.max", -1),
        read,
        written,
        controllers.oom_kills(name),
        {
            kind: value
            for kind in ("cpu", "memory", "io")
            if (value := _pressure(_text(f"{place}/{kind}.pressure"))) is not None
        },
    )


def of_processes(pids: Sequence[int]) -> Usage:
    """The same by /proc, where there is no group: of the processes that live, and what they have reaped."""
    ticks = os.sysconf("SC_CLK_TCK")
    cpu = memory = read = written = 0
    for pid in pids:
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        cpu += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime (proc_pid_stat(5))
        memory += 1024 * _kilobytes(_text(f"/proc/{pid}/smaps_rollup"), "Pss:")
        io = dict(line.split(": ", 1) for line in _text(f"/proc/{pid}/io").splitlines() if ": " in line)
        read += int(io.get("read_bytes", 0))
        written += int(io.get("write_bytes", 0))
    return Usage(cpu * 10**6 // ticks, 0, memory, memory, -1, len(pids), -1, read, written, 0, {})


def network(pid: int) -> tuple[int, int]:
    """Bytes that came in and went out in the network namespace of a process, all interfaces but lo (proc_net(5))."""
    received = sent = 0
    for line in _text(f"/proc/{pid}/net/dev").splitlines()[2:]:
        interface, _, rest = line.partition(":")
        fields = rest.split()
        if interface.strip() != "lo" and len(fields) > 8:
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def _memory(place: str) -> tuple[int, int, int]:
    """(in use, most ever, limit) bytes."""
    statistics = _keyed(_text(f"{place}/memory.stat"))
    if os.path.exists(f"{place}/memory.current"):
        usage = _number(f"{place}/memory.current")
        peak, limit = _number(f"{place}/memory.peak"), _number(f"{place}/memory.max", -1)
        idle = statistics.get("inactive_file", 0)
    else:
        usage = _number(f"{place}/memory.usage_in_bytes")
        peak, limit = _number(f"{place}/memory.max_usage_in_bytes"), _number(f"{place}/memory.limit_in_bytes", -1)
        idle = statistics.get("total_inactive_file", 0)
    return (usage - idle if idle < usage else usage), peak, (-1 if limit >= _NONE else limit)


def _io(name: str) -> tuple[int, int]:
    place = controllers.path(name, "io") or ""
    read = written = 0
    for line in _text(f"{place}/io.stat").splitlines():
        for field in line.split()[1:]:
            key, _, value = field.partition("=")
            read += int(value) if key == "rbytes" else 0
            written += int(value) if key == "wbytes" else 0
    for line in _text(f"{place}/blkio.throttle.io_service_bytes_recursive").splitlines():
        fields = line.split()
        if len(fields) == 3:
            read += int(fields[2]) if fields[1] == "Read" else 0
            written += int(fields[2]) if fields[1] == "Write" else 0
    return read, written


def _throttled(name: str) -> int:
    """Microseconds for which --cpus held its processes back."""
    statistics = _keyed(_text(f"{controllers.path(name, 'cpu') or ''}/cpu.stat"))
    return statistics.get("throttled_usec", statistics.get("throttled_time", 0) // 1000)


def _pressure(text: str) -> float | None:
    """avg10 of the line `some`."""
    for line in text.splitlines():
        if line.startswith("some avg10="):
            return float(line.split()[1].partition("=")[2])
    return None


def _keyed(text: str) -> dict[str, int]:
    return {key: int(value) for key, _, value in (line.partition(" ") for line in text.splitlines()) if value}


def _kilobytes(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)


def _number(path: str, otherwise: int = 0) -> int:
    """`otherwise` for a file that is not there, and for "max"."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else otherwise


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
