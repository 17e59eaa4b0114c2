"""Where the time of a build went, as a picture (SVG, a Gantt chart) or as trace events (chrome://tracing, Perfetto).

Both have a row for each step that was looked at and each transfer, grouped by stage.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.sax.saxutils import escape

from limpet.build.language.lines import printable
from limpet.build.reporting import report
from limpet.errors import Invalid
from limpet.units import size_decimal

if TYPE_CHECKING:
    from limpet.build.reporting.record import Record

_LABEL, _CHART, _NOTE, _ROW, _PAD = 380, 620, 150, 20, 12
_SHOWN = 52
_STYLE = (
    "text{font:12px monospace;fill:#222}.head{font-weight:bold}.note{fill:#666}.axis{fill:#666;text-anchor:middle}"
    "line{stroke:#ddd}.ran{fill:#4a8f5c}.cached{fill:#5b9bd5}.empty{fill:#aaa}.failed{fill:#c0392b}.cancelled{fill:#e0a030}"
    ".fetched{fill:#8e6bbf}.looking{fill:#000;opacity:.25}"
)
_STEPS = (1, 2, 5)


class _Bar(NamedTuple):
    """A row of the picture. Seconds since the build's begin; `looking`: until when it was looked for in the cache."""

    lane: str
    title: str
    begin: float
    looking: float
    end: float
    kind: str
    size: int
    cpu: float
    more: dict[str, Any]


def check(path: str) -> None:
    """Raises Invalid for a name from which the form can't be told."""
    if not path.endswith((".svg", ".json")):
        raise Invalid(f"--profile {path}: .svg or .json is wanted at its end", "SVG is a picture, JSON trace events")


def write(path: str, record: Record) -> None:
    """Raises Invalid if the file can't be written."""
    text = to_svg(record) if path.endswith(".svg") else to_trace(record)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as e:
        raise Invalid(f"{path}: {(e.strerror or '').lower()}", "--profile names a file to write") from e


def to_trace(record: Record) -> str:
    """Trace Event Format, "Complete Events" and thread names: a thread is a stage. Microseconds."""
    bars = _bars(record)
    lanes = {lane: number for number, lane in enumerate(dict.fromkeys(bar.lane for bar in bars), 1)}
    events: list[dict[str, Any]] = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": lane}}
        for lane, number in lanes.items()
    ]
    for bar in bars:
        args = {"result": bar.kind, "layer_bytes": bar.size, **bar.more}
        if bar.cpu >= 0:
            args["cpu_seconds"] = round(bar.cpu, 6)
        place = {"pid": 1, "tid": lanes[bar.lane], "ts": _micro(bar.begin)}
        events.append(
            {"name": bar.title, "cat": bar.kind, "ph": "X", **place, "dur": _micro(bar.end - bar.begin), "args": args}
        )
        if bar.looking > bar.begin:
            looked = {"name": "cache look-up", "cat": "cache", "ph": "X", **place}
            events.append({**looked, "dur": _micro(bar.looking - bar.begin)})
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, indent=1) + "\n"


def to_svg(record: Record) -> str:
    bars = _bars(record)
    total = max([record.ended - record.began, *(bar.end for bar in bars), 0.001])
    rows: list[str] = []
    y = _PAD + 2 * _ROW
    lane = None
    for bar in bars:
        if bar.lane != lane:
            lane = bar.lane
            rows.append(f'<text class="head" x="{_PAD}" y="{y + 14}">{_text(lane)}</text>')
            y += _ROW
        rows += _drawn(bar, y, total)
        y += _ROW
    ticks = []
    for second in _ticks(total):
        x = _x(second, total)
        ticks.append(f'<line x1="{x}" y1="{_PAD + _ROW}" x2="{x}" y2="{y}"/>')
        ticks.append(f'<text class="axis" x="{x}" y="{_PAD + 14}">{second:g} s</text>')
    width, height = 2 * _PAD + _LABEL + _CHART + _NOTE, y + _PAD
    size = f'width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}">',
            f"<title>{_text(record.path)}: {total:.2f} s</title><style>{_STYLE}</style>",
            f'<rect {size} fill="#fff"/>',
            *ticks,
            *rows,
            "</svg>\n",
        ]
    )


def _drawn(bar: _Bar, y: int, total: float) -> list[str]:
    begin, end = _x(bar.begin, total), _x(bar.end, total)
    notes = [f"{bar.end - bar.begin:.2f} s", "" if bar.kind in ("ran", "fetched") else bar.kind]
    notes.append(f"cpu {bar.cpu:.2f} s" if bar.cpu >= 0 else "")
    notes.append(size_decimal(bar.size) if bar.size and bar.kind in ("ran", "fetched") else "")
    note = ", ".join(filter(None, notes))
    size = f'y="{y + 3}" height="{_ROW - 6}" rx="2"'
    box = f'<rect class="{bar.kind}" x="{begin}" width="{max(end - begin, 1):.1f}" {size}>'
    drawn = [
        f'<text x="{_PAD}" y="{y + 14}">{_text(bar.title)}</text>',
        f"{box}<title>{_text(bar.title, 400)}: {note}</title></rect>",
    ]
    if bar.looking > bar.begin:
        width = max(_x(bar.looking, total) - begin, 0)
        drawn.append(f'<rect class="looking" x="{begin}" width="{width:.1f}" {size}/>')
    drawn.append(f'<text class="note" x="{round(max(end, begin + 1) + 4, 1)}" y="{y + 14}">{escape(note)}</text>')
    return drawn


def _bars(record: Record) -> list[_Bar]:
    found = []
    for each in record.fetched:
        last, end = each.last, each.ended or record.ended
        begin = each.began - record.began
        ended = end - record.began
        found.append(_Bar("fetched", last.label, begin, begin, ended, "fetched", last.done, -1.0, {}))
    for seen in record.steps.values():
        if not seen.began:
            continue
        end = seen.ended if seen.result else record.ended
        begin = seen.began - record.began
        looking = (seen.making or seen.began) - record.began
        kind = seen.result or report.CANCELLED
        more = {"line": seen.step.line, "layer": seen.layer, "output_bytes": seen.written}
        title = f"[{seen.step.number}/{len(record.steps)}] {seen.step.text}"
        lane = seen.step.stage or "steps"
        found.append(_Bar(lane, title, begin, looking, end - record.began, kind, seen.size, seen.cpu, more))
    return sorted(found, key=lambda bar: bar.lane != "fetched")


def _x(second: float, total: float) -> float:
    return round(_PAD + _LABEL + _CHART * min(max(second, 0), total) / total, 1)


def _ticks(total: float) -> list[float]:
    """At most ten, at round numbers."""
    unit = 1e-4
    while True:
        for step in _STEPS:
            if total / (unit * step) <= 10:
                return [round(unit * step * number, 6) for number in range(int(total / (unit * step)) + 1)]
        unit *= 10


def _micro(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


def _text(text: str, room: int = _SHOWN) -> str:
    text = printable(" ".join(text.split()))
    return escape(text if len(text) <= room else text[: room - 1] + "…")
