"""A build as plain lines, for pipes, CI and logs: one when a step begins and one when it ends, its output between.

If several stages are built their steps may run at once, so each line of output then has its step's number before it.
Otherwise output goes through as it is, byte by byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.reporting import report
from limpet.cli.building.screen import harmless
from limpet.cli.building.tree import spent

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.build.reporting.record import Record, Seen
    from limpet.build.reporting.report import Event

_LINE = 64 << 10
"""Bytes without a line feed after which a line is shown all the same."""


class Lines:
    def __init__(self, record: Record, write: Callable[[bytes], None], *, clean: bool = False) -> None:
        """`write` gets whole lines, or output as it comes. `clean`: for a terminal, which must not obey a step."""
        self._record = record
        self._write = write
        self._clean = clean
        self._rest: dict[int, bytes] = {}

    def show(self, event: Event, seen: Seen | None) -> None:
        if isinstance(event, report.Output):
            self._output(event)
        elif isinstance(event, report.Note):
            self._say(f"{self._head(seen) if seen else ''}{'warning: ' if event.warning else ''}{event.text}")
        elif isinstance(event, report.Transfer) and event.status:
            self._say(f"{event.label}: {event.status}")
        elif isinstance(event, report.Making) and seen is not None:
            if seen.step.kind != "workdir":  # whether this has anything to do is known when it is done
                self._say(self._title(seen))
        elif isinstance(event, report.Ended) and seen is not None:
            self._end(seen)

    def stop(self) -> None:
        for number in list(self._rest):
            self._flush(number)

    def _end(self, seen: Seen) -> None:
        self._flush(seen.step.number)
        if seen.result in (report.CACHED, report.EMPTY):
            self._say(f"{self._title(seen)}: {'cached' if seen.result == report.CACHED else 'is there already'}")
            return
        if seen.step.kind == "workdir" and seen.making is not None:
            self._say(self._title(seen))
        word = {report.RAN: "ran in", report.FAILED: "failed after"}.get(seen.result, "cancelled after")
        self._say(f"{self._head(seen)}{word} {spent(seen.seconds)}")

    def _output(self, event: report.Output) -> None:
        if self._record.stages <= 1 and not self._clean:
            self._write(event.data)
            return
        *lines, rest = (self._rest.get(event.step, b"") + event.data).split(b"\n")
        if len(rest) > _LINE:
            lines, rest = [*lines, rest], b""
        self._rest[event.step] = rest
        if lines:
            self._write(b"".join(self._line(event.step, line) for line in lines))

    def _flush(self, number: int) -> None:
        rest = self._rest.pop(number, b"")
        if rest:
            self._write(self._line(number, rest))

    def _line(self, number: int, line: bytes) -> bytes:
        if self._clean:
            line = harmless(line.decode(errors="replace")).encode(errors="replace")
        return (b"#%d %b\n" % (number, line)) if self._record.stages > 1 else line + b"\n"

    def _head(self, seen: Seen) -> str:
        return f"[{seen.step.number}/{len(self._record.steps)}] " + (f"{seen.step.stage}: " if seen.step.stage else "")

    def _title(self, seen: Seen) -> str:
        return self._head(seen) + seen.step.text

    def _say(self, text: str) -> None:
        self._write(f"{harmless(text) if self._clean else text}\n".encode(errors="surrogateescape"))
