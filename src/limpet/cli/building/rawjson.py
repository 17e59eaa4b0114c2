"""`--progress=rawjson`: one JSON object a line, in the shape of BuildKit's (`client.SolveStatus`, moby/buildkit).

    {"vertexes": [{"digest", "inputs", "name", "started", "completed", "cached", "error"}]}
    {"statuses": [{"id", "vertex", "name", "current", "total", "timestamp", "started", "completed"}]}
    {"logs":     [{"vertex", "stream", "data", "timestamp"}]}
    {"warnings": [{"vertex", "level", "short", "url", "range"}]}

`data` and `short` are base64, times RFC 3339 in UTC, keys without a value are left out. A vertex is a step, and comes
again with each change of it; its digest names it within this build only. A finished one also has what BuildKit doesn't
tell: `result` (ran, cached, empty, failed, cancelled), `layer` (its diff ID), `size` (that layer's bytes) and `cpu`
(seconds of processor time, of a RUN).
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from limpet.build.reporting import report

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.build.reporting.record import Record, Seen
    from limpet.build.reporting.report import Event

_PAUSE = 0.1
"""Seconds between two statuses of one transfer."""

_INTERNAL = "sha256:" + hashlib.sha256(b"internal").hexdigest()


class RawJson:
    def __init__(self, record: Record, write: Callable[[bytes], None]) -> None:
        self._record = record
        self._write = write
        self._clock = time.time() - report.now()
        self._digests: dict[int, str] = {}
        self._told: dict[str, float] = {}
        self._internal: dict[str, Any] = {}

    def show(self, event: Event, seen: Seen | None) -> None:
        if isinstance(event, report.Planned):
            self._plan(event)
        elif isinstance(event, (report.Began, report.Ended)) and seen is not None:
            self._tell("vertexes", self._vertex(seen))
        elif isinstance(event, report.Output):
            data = base64.b64encode(event.data).decode()
            self._log(event.step, event.stream, data, event.at)
        elif isinstance(event, report.Transfer):
            self._transfer(event)
        elif isinstance(event, report.Note):
            self._note(event)

    def stop(self) -> None:
        if self._internal:
            self._tell("vertexes", {**self._internal, "completed": self._time(report.now())})

    def _plan(self, event: report.Planned) -> None:
        for step in event.steps:
            text = f"{event.path}\0{step.number}\0{step.line}\0{step.text}"
            self._digests[step.number] = f"sha256:{hashlib.sha256(text.encode(errors='replace')).hexdigest()}"
        self._tell("vertexes", *map(self._vertex, self._record.steps.values()))

    def _vertex(self, seen: Seen) -> dict[str, Any]:
        step = seen.step
        stage = f"{step.stage} " if step.stage else ""
        vertex: dict[str, Any] = {
            "digest": self._digests[step.number],
            "inputs": [self._digests[number] for number in step.inputs],
            "name": f"[{stage}{step.number}/{len(self._record.steps)}] {step.text}",
            "started": self._time(seen.began) if seen.began else "",
            "completed": self._time(seen.ended) if seen.result else "",
            "cached": seen.result == report.CACHED,
            "error": seen.error,
            "result": seen.result,
            "layer": seen.layer,
            "size": seen.size,
            "cpu": round(seen.cpu, 6) if seen.cpu >= 0 else None,
        }
        return {key: value for key, value in vertex.items() if value}

    def _transfer(self, event: report.Transfer) -> None:
        if not event.status and event.at < self._told.get(event.key, 0.0) + _PAUSE:
            return
        began = next((each.began for each in self._record.fetched if each.last.key == event.key), event.at)
        self._told[event.key] = event.at
        status: dict[str, Any] = {
            "id": event.key,
            "vertex": self._of(event.step, event.at),
            "name": event.label,
            "current": event.done,
            "timestamp": self._time(event.at),
            "started": self._time(began),
        }
        if event.total > 0:
            status["total"] = event.total
        if event.status:
            status["completed"] = self._time(event.at)
        self._tell("statuses", status)

    def _note(self, event: report.Note) -> None:
        text = base64.b64encode(event.text.encode(errors="replace")).decode()
        if not event.warning:
            self._log(event.step, 2, text, event.at)
            return
        warning: dict[str, Any] = {"vertex": self._of(event.step, event.at), "level": 1, "short": text}
        if event.url:
            warning["url"] = event.url
        if event.line:
            warning["range"] = [{"start": {"line": event.line}, "end": {"line": event.line}}]
        self._tell("warnings", warning)

    def _log(self, step: int, stream: int, data: str, at: float) -> None:
        vertex = self._of(step, at)
        self._tell("logs", {"vertex": vertex, "stream": stream, "data": data, "timestamp": self._time(at)})

    def _of(self, step: int, at: float) -> str:
        """The digest of a step; of what belongs to none one more vertex, which readers must have heard of before."""
        if step in self._digests:
            return self._digests[step]
        if not self._internal:
            self._internal = {"digest": _INTERNAL, "name": "[internal] build", "started": self._time(at)}
            self._tell("vertexes", self._internal)
        return _INTERNAL

    def _tell(self, kind: str, *rows: dict[str, Any]) -> None:
        self._write(json.dumps({kind: rows}).encode() + b"\n")

    def _time(self, at: float) -> str:
        seconds, rest = divmod(round((at + self._clock) * 10**6), 10**6)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:06d}Z"
