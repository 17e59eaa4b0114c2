"""What a container may use of the machine: Docker's options, its checks and its words, and the OCI `resources` of them.

The limits are kept as a dict in the container's options (`Options.limits`), only what was said: KEYS has the names.
Sizes are bytes; -1 means no limit where Docker has it so. (moby `daemon/daemon_unix.go`, docker/cli `opts/`.)
"""

from __future__ import annotations

import os

from limpet.containers.options import parse_size
from limpet.errors import Invalid, Refused
from limpet.kernel import cgroup, controllers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Limits = dict[str, Any]

SMALLEST = 6 << 20
"""Bytes of memory that a container needs to start at all (moby `linuxMinMemory`)."""

PERIOD = 100_000
"""Microseconds over which --cpus is measured (CFS)."""

_SHARES = 1024
"""The weight of who says none (cgroup-v1/cpu.shares)."""

_SIZES = ("memory", "memory-reservation", "memory-swap")
_NUMBERS = ("memory-swappiness", "cpu-shares", "cpu-quota", "cpu-period", "pids-limit", "blkio-weight")
_TEXTS = ("cpuset-cpus", "cpuset-mems")
DEVICES = {
    "blkio-weight-device": "weightDevice",
    "device-read-bps": "throttleReadBpsDevice",
    "device-read-iops": "throttleReadIOPSDevice",
    "device-write-bps": "throttleWriteBpsDevice",
    "device-write-iops": "throttleWriteIOPSDevice",
}
KEYS = (*_SIZES, *_NUMBERS, *_TEXTS, "cpus", *DEVICES)
"""Names of the options, which are those of the limits too. `cpus` is kept in billionths (Docker's NanoCpus)."""


LIFTABLE = (*_SIZES, "cpus", "cpu-quota", "cpu-shares", "pids-limit")
"""Which `update` takes away when it says 0."""


def parse(given: Callable[[str], Any], *, lifting: bool = False) -> Limits:
    """`given(option)` as the command line has it: text, a number, a list; "" or None or [] if it was not said.

    0 is as if it was not said; with `lifting` it stays, where there is something that it can take away (see `lifted`).
    """
    found: Limits = {}
    for name in _SIZES:
        text = given(name)
        if text:
            swap = name == "memory-swap" and text == "-1"
            found[name] = -1 if swap else parse_size(text, f"--{name}")
    for name in (*_NUMBERS, *_TEXTS):
        value = given(name)
        if value not in (None, ""):
            found[name] = value
    if given("cpus"):
        found["cpus"] = _billionths(given("cpus"))
    for name in DEVICES:
        items = [_device(name, text) for text in given(name) or ()]
        if items:
            found[name] = items
    kept = ("memory-swappiness", *(LIFTABLE if lifting else ()))
    return {name: value for name, value in found.items() if value != 0 or name in kept}


def lifted(limits: Limits) -> tuple[Limits, dict[str, Any]]:
    """What is left of limits of which some are 0, and the sections that have the kernel forget the others.

    Rates of devices stay in the sections: a rate of 0 is no limit to the kernel either.
    """
    left: Limits = {}
    for name, value in limits.items():
        if name in DEVICES:
            value = [item for item in value if item[1]]
        if value or name == "memory-swappiness":
            left[name] = value
    if "memory" not in left and left.get("memory-swap", 0) > 0:
        del left["memory-swap"]  # together at most: without the one there is no other
    memory: dict[str, Any] = {}
    if limits.get("memory") == 0:
        memory = {"limit": -1, **({"swap": -1} if controllers.counts_swap() else {})}
    if limits.get("memory-reservation") == 0:
        memory["reservation"] = -1
    cpu: dict[str, Any] = {}
    if 0 in (limits.get("cpus"), limits.get("cpu-quota")):
        cpu["quota"] = -1
    if limits.get("cpu-shares") == 0:
        cpu["shares"] = _SHARES
    now = resources({**left, **{name: limits[name] for name in DEVICES if name in limits}})
    for key, section in (("memory", memory), ("cpu", cpu)):
        if section:
            now[key] = {**section, **now.get(key, {})}
    if limits.get("pids-limit") == 0:
        now["pids"] = {"limit": -1}
    return left, now


def check(limits: Limits) -> None:
    """Docker's checks, in its words, and whether this host can hold the limits. Raises Invalid, Refused."""
    _check_memory(limits)
    _check_processors(limits)
    weight = limits.get("blkio-weight")
    if weight is not None and not 10 <= weight <= 1000:
        raise Invalid("Range of blkio weight is from 10 to 1000")
    if limits.get("pids-limit", 0) < -1:
        raise Invalid(f"invalid pids limit {limits['pids-limit']}", "-1 is no limit")
    if "memory-swap" in limits and controllers.version("memory") and not controllers.counts_swap():
        raise Refused("--memory-swap: this kernel does not count swap", "leave it out: --memory holds all the same")
    for option, controller in _needs(limits):
        if not controllers.version(controller) and cgroup.delegated():
            raise Refused(f"--{option} needs a control group of yours with the controller '{controller}'", cgroup.WAY)
        if not controllers.version(controller):
            raise Refused(
                f"--{option}: this host has no controller '{controller}', neither in cgroup version 2 nor in version 1",
                "leave the option out; `limpet info` shows which limits there are",
            )
        if option in ("blkio-weight", "blkio-weight-device") and not _has_weights():
            raise Refused(
                f"--{option}: no block device of this host is scheduled by bfq, so nothing would weigh",
                "write bfq into /sys/block/NAME/queue/scheduler; or limit, by --device-read-bps and its like",
            )


def _needs(limits: Limits) -> list[tuple[str, str]]:
    """(option, controller)"""
    known = {"memory": "memory", "pids": "pids", "cpuset": "cpuset", "cpu": "cpu", "cpus": "cpu"}
    return [(name, known.get(name.partition("-")[0], "io")) for name in limits]


def _has_weights() -> bool:
    """Whether anything acts by them: the files are there with any scheduler (block/bfq-iosched.rst, section 4)."""
    if os.path.exists("/sys/fs/cgroup/blkio/blkio.weight"):
        return True  # CFQ, before Linux 5.0
    for name in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{name}/queue/scheduler") as file:
                if "[bfq]" in file.read():
                    return True
        except OSError:
            continue  # a device without a queue, or one that went just now
    try:
        with open("/sys/fs/cgroup/io.cost.qos") as file:
            return controllers.version("io") == 2 and "enable=1" in file.read()
    except OSError:
        return False


def _check_memory(limits: Limits) -> None:
    memory, swap = limits.get("memory", 0), limits.get("memory-swap", 0)
    reservation = limits.get("memory-reservation", 0)
    swappiness = limits.get("memory-swappiness", -1)
    if 0 < memory < SMALLEST:
        raise Invalid("Minimum memory limit allowed is 6MB")
    if swap > 0 and memory == 0:
        raise Invalid("You should always set the Memory limit when using Memoryswap limit", "say --memory too")
    if 0 < swap < memory:
        raise Invalid(
            "Minimum memoryswap limit should be larger than memory limit", "it is that of memory and swap together"
        )
    if not -1 <= swappiness <= 100:
        raise Invalid(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < reservation < SMALLEST:
        raise Invalid("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reservation:
        raise Invalid("Minimum memory limit can not be less than memory reservation limit")


def _check_processors(limits: Limits) -> None:
    if "cpus" in limits:
        for name, words in (("cpu-period", "CPU Period"), ("cpu-quota", "CPU Quota")):
            if name in limits:
                raise Invalid(f"Conflicting options: Nano CPUs and {words} cannot both be set")
        count = os.cpu_count() or 1
        if not 10**7 <= limits["cpus"] <= count * 10**9:
            raise Invalid(
                f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available",
                f"--cpus {limits['cpus'] / 10**9:g} is outside",
            )
    period, quota = limits.get("cpu-period"), limits.get("cpu-quota", -1)
    if period is not None and not 1000 <= period <= 1_000_000:
        raise Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if quota < -1 or 0 < quota < 1000:
        raise Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    shares = limits.get("cpu-shares", 2)
    if shares < 0:
        raise Invalid(f"invalid CPU shares ({shares}): value must be a positive integer")
    for name, what, file in (
        ("cpuset-cpus", "CPUs", "/sys/devices/system/cpu/online"),
        ("cpuset-mems", "memory nodes", "/sys/devices/system/node/online"),
    ):
        if name in limits:
            _check_set(limits[name], name, what, file)


def _check_set(text: str, name: str, what: str, file: str) -> None:
    wanted = _numbers(text)
    if wanted is None:
        raise Invalid(f"Invalid value {text} for {name.replace('-', ' ')}", "write numbers and ranges, like 0-2,4")
    try:
        with open(file) as opened:
            online = opened.read().strip()
    except OSError:
        online = "0"
    if not wanted <= (_numbers(online) or set()):
        raise Invalid(f"Requested {what} are not available - requested {text}, available: {online}")


def _numbers(text: str) -> set[int] | None:
    """'0-2,4' → {0, 1, 2, 4}; None for what is no such list, or is far too long."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)) or len(part) > 11:
            return None
        if not int(first) <= int(last or first) <= 1 << 16:
            return None
        found.update(range(int(first), int(last or first) + 1))
    return found


def resources(limits: Limits) -> dict[str, Any]:
    """The sections of `linux.resources` (runtime-spec config-linux.md), but for the devices."""
    found: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    for name, key in (("memory", "limit"), ("memory-reservation", "reservation"), ("memory-swappiness", "swappiness")):
        if limits.get(name, -1) >= 0:
            memory[key] = limits[name]
    if "memory" in limits and controllers.counts_swap():
        memory["swap"] = limits.get("memory-swap") or 2 * limits["memory"]  # as Docker: as much swap as memory
    cpu: dict[str, Any] = {}
    for name, key in (("cpu-shares", "shares"), ("cpu-quota", "quota"), ("cpu-period", "period")):
        if name in limits:
            cpu[key] = limits[name]
    if "cpus" in limits:
        cpu.update(quota=limits["cpus"] * PERIOD // 10**9, period=PERIOD)
    for name, key in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if name in limits:
            cpu[key] = limits[name]
    block: dict[str, Any] = {}
    if "blkio-weight" in limits:
        block["weight"] = limits["blkio-weight"]
    for name, key in DEVICES.items():
        for path, value in limits.get(name, ()):
            number = _block_device(name, path)
            item = {"major": os.major(number), "minor": os.minor(number)}
            block.setdefault(key, []).append({**item, "weight" if key == "weightDevice" else "rate": value})
    if "pids-limit" in limits:
        found["pids"] = {"limit": limits["pids-limit"]}
    sections = {"memory": memory, "cpu": cpu, "blockIO": block}
    return {**found, **{key: section for key, section in sections.items() if section}}


def host_config(limits: Limits) -> dict[str, Any]:
    """As `inspect` shows them (Docker's HostConfig.Resources)."""
    memory = limits.get("memory", 0)
    devices = {
        name: [{"Path": path, "Weight" if name == "blkio-weight-device" else "Rate": value} for path, value in found]
        for name in DEVICES
        if (found := limits.get(name))
    }
    return {
        "Memory": memory,
        "MemoryReservation": limits.get("memory-reservation", 0),
        "MemorySwap": limits.get("memory-swap") or 2 * memory,
        "MemorySwappiness": limits.get("memory-swappiness"),
        "CpuShares": limits.get("cpu-shares", 0),
        "NanoCpus": limits.get("cpus", 0),
        "CpuPeriod": limits.get("cpu-period", 0),
        "CpuQuota": limits.get("cpu-quota", 0),
        "CpusetCpus": limits.get("cpuset-cpus", ""),
        "CpusetMems": limits.get("cpuset-mems", ""),
        "PidsLimit": limits.get("pids-limit"),
        "BlkioWeight": limits.get("blkio-weight", 0),
        "BlkioWeightDevice": devices.get("blkio-weight-device", []),
        "BlkioDeviceReadBps": devices.get("device-read-bps", []),
        "BlkioDeviceReadIOps": devices.get("device-read-iops", []),
        "BlkioDeviceWriteBps": devices.get("device-write-bps", []),
        "BlkioDeviceWriteIOps": devices.get("device-write-iops", []),
        "OomKillDisable": False,
    }


def _block_device(name: str, path: str) -> int:
    try:
        info = os.stat(path)
    except OSError as e:
        raise Invalid(f"--{name} {path}: {e.strerror}") from e
    if info.st_mode & 0o170000 != 0o060000:
        raise Invalid(f"--{name} {path}: not a block device")
    return info.st_rdev


def _billionths(text: str) -> int:
    """'1.5' → 1500000000, and no rounding (docker/cli `opts.ParseCPUs`)."""
    whole, _, part = text.strip().partition(".")
    if not (whole + part).isdecimal() or len(whole) > 9 or not (whole + part).isascii():
        raise Invalid(f"invalid value '{text}' for --cpus", "write a number like 1.5")
    if len(part.rstrip("0")) > 9:
        raise Invalid(f"value '{text}' for --cpus is too precise", "nine decimals count")
    return int(whole or 0) * 10**9 + int(part[:9].ljust(9, "0") or 0)


def _device(name: str, text: str) -> list[Any]:
    """'/dev/vda:1mb' → [path, number]."""
    path, colon, value = text.rpartition(":")
    if not colon:
        raise Invalid(f"bad format: {text}", f"--{name} is written /dev/NAME:NUMBER")
    if not path.startswith("/dev/"):
        raise Invalid(f"bad format for device path: {text}", "it begins with /dev/")
    if name == "blkio-weight-device":
        if not value.isdecimal() or not 10 <= int(value) <= 1000:
            raise Invalid(f"invalid weight for device: {text}", "it is between 10 and 1000")
        return [path, int(value)]
    try:
        number = parse_size(value, name) if name.endswith("bps") else int(value)
        if number < 0:
            raise ValueError
    except ValueError:
        raise Invalid(f"invalid IO/s rate for device: {text}", "it is a positive number") from None
    except Invalid:
        raise Invalid(
            f"invalid rate for device: {text}", "write /dev/NAME:NUMBER[UNIT], the unit one of kb, mb, gb"
        ) from None
    return [path, number]
