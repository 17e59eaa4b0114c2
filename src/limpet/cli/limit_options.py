"""The options of `create`, `run` and `update` that limit what a container uses."""

from __future__ import annotations

from limpet.cli.table import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.cli.table import Call


def _size(name: str, help: str, short: str = "") -> Option:
    return Option(name, short, kind="string", default="", metavar="SIZE", help=help)


def _number(name: str, help: str, short: str = "") -> Option:
    return Option(name, short, kind="int", metavar="N", help=help)


UPDATABLE = (
    _number("blkio-weight", "Weight at the block devices, 10 to 1000 (needs the scheduler bfq)"),
    Option("cpu-period", kind="int", metavar="MICROSECONDS", help="Period of --cpu-quota (100000)"),
    Option("cpu-quota", kind="int", metavar="MICROSECONDS", help="Processor time in each period"),
    _number("cpu-shares", "Weight at the processors, when they are short (1024)", "c"),
    Option("cpus", kind="string", default="", metavar="NUMBER", help="How many processors' time at most, like 1.5"),
    Option("cpuset-cpus", kind="string", default="", metavar="LIST", help="Processors to run on, like 0-2,4"),
    Option("cpuset-mems", kind="string", default="", metavar="LIST", help="Memory nodes to use"),
    _size("memory", "Memory at most", "m"),
    _size("memory-reservation", "Memory that is left to it when memory is short"),
    _size("memory-swap", "Memory and swap together at most (twice --memory); -1: any amount of swap"),
    _number("pids-limit", "Processes and threads at most; -1: no limit"),
)

LIMITS = (
    *UPDATABLE,
    Option("blkio-weight-device", kind="list", metavar="DEVICE:N", help="Weight at one block device"),
    Option("device-read-bps", kind="list", metavar="DEVICE:RATE", help="Bytes a second read from a device at most"),
    Option("device-read-iops", kind="list", metavar="DEVICE:N", help="Reads a second from a device at most"),
    Option("device-write-bps", kind="list", metavar="DEVICE:RATE", help="Bytes a second written to a device at most"),
    Option("device-write-iops", kind="list", metavar="DEVICE:N", help="Writes a second to a device at most"),
    _number("memory-swappiness", "How readily memory is swapped, 0 to 100 (cgroup version 1 only)"),
)


def limits(call: Call) -> dict[str, Any]:
    """What was said, for `Options.limits`; {} costs no import."""
    if all(call.get(option.name) in (None, "", []) for option in LIMITS):
        return {}
    from limpet.containers import limits

    return limits.parse(call.get)
