"""`linux.resources` of config.json as what is written into the files of a group, for both versions of cgroup. Pure.

(runtime-spec config-linux.md "Control groups"; cgroup-v2.rst "Controllers"; Documentation/admin-guide/cgroup-v1/.) The
conversions from values of version 1, in which the specification speaks, to those of version 2 are runc's, as systemd
and crun have them: a container means the same wherever it runs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Resources = dict[str, Any]
    Write = tuple[str, str, str]
    """(controller, file, text). A file may have alternatives, separated by |: the first that is there is written."""

_THROTTLES = (
    ("throttleReadBpsDevice", "read_bps", "rbps"),
    ("throttleWriteBpsDevice", "write_bps", "wbps"),
    ("throttleReadIOPSDevice", "read_iops", "riops"),
    ("throttleWriteIOPSDevice", "write_iops", "wiops"),
)


def controllers(resources: Resources) -> list[str]:
    """Those that the resources need, by their names in version 2."""
    named = (("cpu", "cpu"), ("memory", "memory"), ("pids", "pids"), ("blockIO", "io"))
    found = [name for key, name in named if resources.get(key)]
    cpu = resources.get("cpu") or {}
    if "cpus" in cpu or "mems" in cpu:
        found.append("cpuset")
        if not {"shares", "quota", "period"} & cpu.keys():
            found.remove("cpu")
    return found


def version1(resources: Resources) -> list[Write]:
    """In the order in which they must be written into a new group."""
    cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
    found: list[Write] = []
    for key, name in (("limit", "limit_in_bytes"), ("swap", "memsw.limit_in_bytes")):
        if key in memory:
            found.append(("memory", f"memory.{name}", str(memory[key])))
    if "reservation" in memory:
        found.append(("memory", "memory.soft_limit_in_bytes", str(memory["reservation"])))
    if "swappiness" in memory:
        found.append(("memory", "memory.swappiness", str(memory["swappiness"])))
    for key, name in (("shares", "shares"), ("period", "cfs_period_us"), ("quota", "cfs_quota_us")):
        if key in cpu:
            found.append(("cpu", f"cpu.{name}", str(cpu[key])))
    found += _cpuset(cpu)
    found += _pids(resources)
    block = resources.get("blockIO") or {}
    if "weight" in block:
        found.append(("io", "blkio.weight|blkio.bfq.weight", str(block["weight"])))
    for item in block.get("weightDevice", ()):
        text = f"{item['major']}:{item['minor']} {item['weight']}"
        found.append(("io", "blkio.weight_device|blkio.bfq.weight_device", text))
    for key, name, _ in _THROTTLES:
        for item in block.get(key, ()):
            text = f"{item['major']}:{item['minor']} {item['rate']}"
            found.append(("io", f"blkio.throttle.{name}_device", text))
    return found


def version2(resources: Resources) -> list[Write]:
    """As `version1`, in the files of version 2."""
    cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
    found: list[Write] = []
    if "limit" in memory:
        found.append(("memory", "memory.max", _most(memory["limit"])))
    if "swap" in memory:
        limit = max(memory.get("limit", 0), 0)
        swap = memory["swap"]
        found.append(("memory", "memory.swap.max", _most(swap if swap < 0 else max(swap - limit, 0))))
    if "reservation" in memory:
        found.append(("memory", "memory.low", str(max(memory["reservation"], 0))))
    if "shares" in cpu:
        found.append(("cpu", "cpu.weight", str(weight_of_shares(cpu["shares"]))))
    if "quota" in cpu or "period" in cpu:
        found.append(("cpu", "cpu.max", f"{_most(cpu.get('quota', -1))} {cpu.get('period') or 100_000}"))
    found += _cpuset(cpu)
    found += _pids(resources)
    block = resources.get("blockIO") or {}
    if "weight" in block:
        found.append(("io", "io.bfq.weight|io.weight", str(block["weight"])))
    for item in block.get("weightDevice", ()):
        found.append(("io", "io.bfq.weight|io.weight", f"{item['major']}:{item['minor']} {item['weight']}"))
    for key, _, name in _THROTTLES:
        for item in block.get(key, ()):
            text = f"{item['major']}:{item['minor']} {name}={_most(item['rate'] or -1)}"
            found.append(("io", "io.max", text))
    return found


def weight_of_shares(shares: int) -> int:
    """2…262144 → 1…10000 (runc `ConvertCPUSharesToCgroupV2Value`)."""
    shares = min(max(shares or 1024, 2), 262_144)
    return 1 + (shares - 2) * 9999 // 262_142


def _cpuset(cpu: dict[str, Any]) -> list[Write]:
    return [("cpuset", f"cpuset.{key}", str(cpu[key])) for key in ("cpus", "mems") if key in cpu]


def _pids(resources: Resources) -> list[Write]:
    pids = resources.get("pids") or {}
    return [("pids", "pids.max", _most(pids["limit"] or -1))] if "limit" in pids else []


def _most(value: int) -> str:
    return "max" if value < 0 else str(value)
