"""stats."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from limpet.cli import output
from limpet.cli.table import Command, Option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from limpet.cli.table import Call
    from limpet.containers.observe.stats import Sample
    from limpet.containers.state import Container

COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)
_PRESSURE = (("CPU WAIT", "CPUPressure"), ("MEM WAIT", "MemPressure"), ("I/O WAIT", "IOPressure"))
_FIRST, _PERIOD = 0.5, 1.0
"""Seconds over which the first figures are measured, and between two tables."""

_HOME, _REST_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def stats(call: Call) -> int:
    from limpet.containers import state

    everything = call["all"] or bool(call.arguments)
    chosen = [state.find(call.store, name) for name in call.arguments]
    return watch(call, lambda: _containers(call, chosen), COLUMNS, lambda sample: {}, everything=everything)


def watch(
    call: Call,
    containers: Callable[[], list[Container]],
    shown: Sequence[tuple[str, str]],
    more: Callable[[Sample], dict[str, Any]],
    *,
    everything: bool,
) -> int:
    """Shows the figures of what `containers` gives, again and again; `more`: fields beside the usual ones."""
    from limpet.containers.observe import stats as measuring

    def look() -> list[Sample]:
        return measuring.samples(call.store, containers(), all=everything)

    before = look()
    time.sleep(_FIRST)
    live = not call["no-stream"]
    screen = live and os.isatty(1) and call["format"] in ("", "table")
    if screen:
        print("\x1b[2J", end="")
    while True:
        now = look()
        earlier = {sample.container.id: sample for sample in before}
        full = call["no-trunc"]
        rows = [{**measuring.fields(each, earlier.get(each.container.id), full=full), **more(each)} for each in now]
        columns = (*shown, *_PRESSURE) if call["pressure"] else shown
        text = output.formatted(call["format"], rows, columns, keep="Name")
        if screen:
            text = _HOME + text.replace("\n", f"{_REST_OF_LINE}\n") + f"{_REST_OF_LINE}\n{_BELOW}"
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            output.say(text)
            sys.stdout.flush()
        if not live:
            return 0
        before = now
        time.sleep(_PERIOD)


def _containers(call: Call, chosen: list[Container]) -> list[Container]:
    """Those that were named, or all that there are by now."""
    from limpet.containers import state

    return chosen or state.all_containers(call.store)


COMMANDS = {
    "stats": Command(
        name="stats",
        handler=stats,
        usage="[OPTIONS] [CONTAINER...]",
        summary="Show what containers use of the machine",
        options=(
            Option("all", "a", help="Those that do not run, too"),
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option("no-stream", help="Once, not again and again"),
            Option("no-trunc", help="Do not cut anything"),
            Option("pressure", help="Show how long processes waited for processors, memory and disks (PSI)"),
        ),
        examples=("limpet stats", "limpet stats --no-stream --format '{{.Name}}: {{.MemUsage}}'"),
        complete="container",
    ),
}
