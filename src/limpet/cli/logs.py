"""logs."""

from __future__ import annotations

import sys
import time

from limpet.cli.table import Command, Option
from limpet.containers import state
from limpet.containers.logging import logs as reading
from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}


def logs(call: Call) -> int:
    container = state.find(call.store, call.arguments[0])
    entries = reading.read(
        call.store,
        container,
        tail=tail(call["tail"]),
        since=moment(call["since"]),
        until=moment(call["until"]),
        follow=call["follow"],
    )
    stamp = call["timestamps"]
    begins = {"stdout": True, "stderr": True}
    last = sys.stdout
    for entry in entries:
        target = sys.stderr if entry.stream == "stderr" else sys.stdout
        if target is not last:  # both may be one terminal or file
            last.buffer.flush()
            last = target
        # Every entry carries a time, but parts of one long line are one line.
        prefix = f"{_nine_digits(entry.time)} " if stamp and begins.get(entry.stream, True) else ""
        if call["details"] and begins.get(entry.stream, True):
            prefix += f"{_details(entry)} "
        begins[entry.stream] = entry.text.endswith("\n")
        target.buffer.write((prefix + entry.text).encode("utf-8", "surrogateescape"))
        if call["follow"]:
            target.buffer.flush()
    sys.stdout.buffer.flush()
    dropped = state.status(call.store, container).log_dropped
    if dropped:
        text = f"limpet: {dropped} lines of {container.name} are not in its log: it was too slow for them, or full\n"
        sys.stderr.buffer.write(text.encode())
    sys.stderr.buffer.flush()
    return 0


def _details(entry: reading.Entry) -> str:
    """What `--log-opt` tag, labels and env picked, as Docker shows it: a query string, sorted by name."""
    from urllib.parse import quote

    return ",".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted((entry.attributes or {}).items()))


def moment(text: str) -> float:
    """A time as Docker takes it: RFC 3339, its beginning, Unix seconds, or a duration back from now. 0 for ""."""
    if not text:
        return 0.0
    try:
        return float(text)
    except ValueError:
        pass
    back = duration(text)
    if back is not None:
        return time.time() - back
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()  # without a zone: the caller's
    except (ValueError, OverflowError):
        raise Invalid(
            f"invalid time '{text}'",
            "write 2026-11-24T12:00:00Z, Unix seconds, or a duration like 10m",
            exit_code=1,
        ) from None


def duration(text: str) -> float | None:
    """Go's "1h30m", "1.5s" in seconds; None for what is none."""
    total, rest = 0.0, text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        letters = len(rest[digits:]) - len(rest[digits:].lstrip("hmsnu"))
        unit = _UNITS.get(rest[digits : digits + letters])
        if not digits or unit is None or rest[:digits].count(".") > 1:
            return None
        total += float(rest[:digits]) * unit
        rest = rest[digits + letters :]
    return total if text else None


def tail(text: str) -> int | None:
    if text in ("", "all"):
        return None
    if not text.lstrip("-").isdigit():
        raise Invalid(f"invalid value '{text}' for --tail", "write a number of lines, or all", exit_code=1)
    return None if text.startswith("-") else int(text)


def _nine_digits(text: str) -> str:
    """The log drops trailing zeros of the fraction, `logs -t` shows nine digits (moby `logstream.go`)."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9s}Z"


COMMANDS = {
    "logs": Command(
        name="logs",
        handler=logs,
        usage="[OPTIONS] CONTAINER",
        summary="Show what a container wrote",
        options=(
            Option("details", help="Show the tag, labels and variables that --log-opt picked"),
            Option("follow", "f", help="Go on as it writes, until it ends"),
            Option("since", kind="string", default="", metavar="TIME", help="From this time, or that long ago (10m)"),
            Option("tail", "n", kind="string", default="all", metavar="N", help="Only the last n lines"),
            Option("timestamps", "t", help="Show when each line came"),
            Option("until", kind="string", default="", metavar="TIME", help="Up to this time"),
        ),
        examples=("limpet logs -f web", "limpet logs --tail 20 -t web"),
        min_args=1,
        max_args=1,
        complete="container",
    ),
}
