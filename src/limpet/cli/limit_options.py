"""The options of `create`, `run` and `update` that limit a container, and those that watch over its health."""

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


HEALTH = (
    Option("health-cmd", kind="string", default="", metavar="COMMAND", help="Shell command that checks its health"),
    Option("health-interval", kind="string", default="", metavar="TIME", help="Time between two checks (30s)"),
    Option(
        "health-on-failure",
        kind="string",
        default="",
        metavar="ACTION",
        help="What to do when it becomes unhealthy: none, kill, restart, stop",
        choices=("none", "kill", "restart", "stop"),
    ),
    _number("health-retries", "Failures in a row that make it unhealthy (3)"),
    Option(
        "health-start-interval",
        kind="string",
        default="",
        metavar="TIME",
        help="As --health-interval, in that time (5s)",
    ),
    Option(
        "health-start-period",
        kind="string",
        default="",
        metavar="TIME",
        help="Time to start, in which no failure counts",
    ),
    Option("health-timeout", kind="string", default="", metavar="TIME", help="Time that a check may take (30s)"),
    Option("no-healthcheck", help="No health check, whatever the image says"),
)


def health(call: Call) -> dict[str, Any]:
    """What was said, for `Options.health`. Raises Invalid."""
    said = [option.name for option in HEALTH if call.get(option.name) not in (None, "", False)]
    if not said:
        return {}
    from limpet.cli.logs import duration
    from limpet.errors import Invalid

    found: dict[str, Any] = {}
    for name in said:
        value = call[name]
        key = "".join(word.capitalize() for word in name.removeprefix("health-").split("-"))
        if name == "health-cmd":
            found["Test"] = ["CMD-SHELL", value]
        elif name == "no-healthcheck":
            if len(said) > 1:
                raise Invalid("--no-healthcheck conflicts with --health-* options", "leave out one of the two")
            found["Test"] = ["NONE"]
        elif name in ("health-retries", "health-on-failure"):
            found[key] = value
        else:
            seconds = 0.0 if value == "0" else duration(value.removeprefix("-"))
            if seconds is None:
                raise Invalid(f'invalid argument "{value}" for "--{name}" flag', "write a duration like 1m30s")
            if value.startswith("-"):
                raise Invalid(f"--{name} cannot be negative")
            found[key] = round(seconds * 10**9)
    return {key: value for key, value in found.items() if value}


def limits(call: Call, *, lifting: bool = False) -> dict[str, Any]:
    """What was said, for `Options.limits`; {} costs no import. `lifting`: see `limits.parse`."""
    if all(call.get(option.name) in (None, "", []) for option in LIMITS):
        return {}
    from limpet.containers.plan import limits

    return limits.parse(call.get, lifting=lifting)
