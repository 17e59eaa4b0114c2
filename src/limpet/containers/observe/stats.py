"""How much of the machine containers use, measured over a moment: the rows of `stats`, in Docker's fields."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from limpet.containers import state
from limpet.containers.observe import top
from limpet.kernel import cgroup, usage
from limpet.units import size_binary, size_decimal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.containers.state import Container, Status
    from limpet.kernel.usage import Usage
    from limpet.store.store import Store


class Sample(NamedTuple):
    """A look at one container. `usage` is None for one that does not run; `moment`: seconds, of a clock of its own."""

    container: Container
    status: Status
    usage: Usage | None
    network: tuple[int, int]
    moment: float


def samples(store: Store, containers: Sequence[Container], *, all: bool = False) -> list[Sample]:
    """Of those that run, or with `all` of each."""
    found = []
    for container in containers:
        status = state.status(store, container)
        now = usage.read(container.group) if status.running else None
        if now is None and status.running and cgroup.root() is None:
            now = usage.of_processes(top.in_namespace_of(status.pid))
        if now is None and not all:
            continue
        network = _network(container, status) if now is not None else (0, 0)
        found.append(Sample(container, status, now, network, time.monotonic()))
    return found


def _network(container: Container, status: Status) -> tuple[int, int]:
    """Bytes in and out: of its own network's interfaces, or of its sockets on the host's."""
    if container.options.network != "host":
        return usage.network(status.pid)
    from limpet.containers.network import policing

    traffic = policing.traffic(container)
    return traffic.bytes if traffic is not None else (0, 0)


def fields(sample: Sample, before: Sample | None, *, full: bool = False) -> dict[str, Any]:
    """Docker's placeholders (docker/cli `formatter_stats.go`), and what is measured beyond them.

    The share of the processors is that between `before` and `sample`: 100 % is one processor.
    """
    now = sample.usage
    container = sample.container
    memory, limit = (now.memory, _limit(now.memory_limit)) if now is not None else (0, 0)
    shown = {
        "Container": container.id if full else container.id[:12],
        "ID": container.id if full else container.id[:12],
        "Name": container.name,
        "CPUPerc": f"{cpu_percent(sample, before):.2f}%",
        "MemUsage": f"{size_binary(memory)} / {size_binary(limit)}",
        "MemPerc": f"{memory / limit * 100 if limit else 0:.2f}%",
        "NetIO": " / ".join(map(_three, sample.network)),
        "BlockIO": f"{_three(now.read if now else 0)} / {_three(now.written if now else 0)}",
        "PIDs": str(now.pids if now else 0),
        "PIDsLimit": str(now.pids_limit) if now is not None and now.pids_limit >= 0 else "max",
        "MemPeak": size_binary(now.memory_peak if now else 0),
        "OOMKills": str(now.oom_kills if now else 0),
        "Throttled": f"{(now.throttled if now else 0) / 10**6:.2f}s",
    }
    pressure = now.pressure if now is not None else {}
    for kind, name in (("cpu", "CPUPressure"), ("memory", "MemPressure"), ("io", "IOPressure")):
        shown[name] = f"{pressure[kind]:.2f}%" if kind in pressure else "--"
    return shown


def cpu_percent(sample: Sample, before: Sample | None) -> float:
    """0 where there are no two looks at the same run."""
    if before is None or before.usage is None or sample.usage is None:
        return 0.0
    if before.status.started_at != sample.status.started_at or sample.moment <= before.moment:
        return 0.0
    used = (sample.usage.cpu - before.usage.cpu) / 10**6
    return max(used, 0.0) / (sample.moment - before.moment) * 100


def _limit(own: int) -> int:
    """What a container without a limit may have at most: all memory that there is."""
    whole: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(own, whole) if own >= 0 else whole


def _three(count: int) -> str:
    return size_decimal(count)
