"""A plan as a picture: a box for each stage with its steps, an arrow for what one takes from another. Plain SVG.

Stages stand in columns by how many others have to be done before them; an arrow ends at the step that needs what it
brings, or at the stage's head if the stage stands on it. Images and the context are small boxes, one in each column
where somebody takes from them. Nothing in it is random: equal plans give equal pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from limpet.build.language.lines import printable
from limpet.build.planning import plan as plans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.build.planning.plan import Origin, Plan, Stage, Step

_WIDTH, _GAP, _LINE, _PAD = 420, 90, 18, 10
_SHOWN = 56
_STYLE = (
    "text{font:12px monospace;fill:#222}.head{font-weight:bold}.note{fill:#888}"
    "rect{fill:#fff;stroke:#456}.target{stroke-width:3}.image{fill:#eef3f8}path{fill:none;stroke:#789;stroke-width:1.5;opacity:.7}"
)

_Key = tuple[str, str, int]
"""("stage", its number, 0), or ("image", its name, the column where it stands: left of who takes from it)."""


def to_svg(plan: Plan) -> str:
    """What `limpet build --print=graph` prints."""
    stages = _columns(plan)
    edges = list(_edges(plan, stages))
    columns = {("stage", str(number), 0): column for number, column in stages.items()}
    columns.update((source, source[2]) for source, _, _ in edges if source[0] == "image")
    places: dict[_Key, tuple[int, int]] = {}
    boxes: list[str] = []
    bottom = 0
    below: dict[int, int] = {}
    for key, column in sorted(columns.items(), key=lambda each: (each[1], each[0][0], each[0][1].rjust(6, "0"))):
        x, y = _PAD + column * (_WIDTH + _GAP), below.get(column, _PAD)
        places[key] = (x, y)
        stage = plan.stage(int(key[1])) if key[0] == "stage" else None
        height = _LINE * (len(stage.steps) + 1 if stage else 1) + _PAD
        boxes += _box(x, y, height, key, stage, is_target=stage is plan.target)
        below[column] = y + height + 2 * _PAD
        bottom = max(bottom, y + height)
    arrows = [_arrow(places[source], places[target], line) for source, target, line in edges]
    width = _PAD * 2 + (max(columns.values()) + 1) * (_WIDTH + _GAP) - _GAP
    head = (
        '<marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" style="fill:#789"/></marker>'
    )
    size = f'width="{width}" height="{bottom + _PAD}" viewBox="0 0 {width} {bottom + _PAD}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<title>{_text(plan.path)}</title><style>{_STYLE}</style><defs>{head}</defs>",
        *boxes,
        *arrows,
        "</svg>",
    ]
    return "\n".join(parts)


def _edges(plan: Plan, columns: dict[int, int]) -> Iterator[tuple[_Key, _Key, int]]:
    """(where from, where to, which line of the box: 0 is its head)."""
    for stage in plan.stages:
        target = ("stage", str(stage.number), 0)
        taken = [(stage.base, 0)]
        for line, step in enumerate(stage.steps, 1):
            taken += [(origin, line) for origin in _origins(step)]
        for origin, line in taken:
            if origin.kind == "stage":
                yield ("stage", str(origin.stage), 0), target, line
            elif origin.kind != "scratch":
                yield ("image", origin.image or "the build context", columns[stage.number] - 1), target, line


def _origins(step: Step) -> list[Origin]:
    if isinstance(step, plans.Copy):
        return [step.origin] if step.sources else []
    return [each.origin for each in step.mounts] if isinstance(step, plans.Run) else []


def _columns(plan: Plan) -> dict[int, int]:
    """A stage stands right of all that it takes from; `plan.stages` are in such an order."""
    found: dict[int, int] = {}
    for stage in plan.stages:
        origins = [stage.base, *(origin for step in stage.steps for origin in _origins(step))]
        before = [found[each.stage] if each.kind == "stage" else 0 for each in origins if each.kind != "scratch"]
        found[stage.number] = max(before, default=-1) + 1
    return found


def _box(x: int, y: int, height: int, key: _Key, stage: Stage | None, *, is_target: bool) -> list[str]:
    kind = "image" if stage is None else "target" if is_target else "stage"
    title = key[1] if stage is None else stage.title
    if stage is not None and stage.platform:
        title += f" ({stage.platform})"
    lines = [f'<rect class="{kind}" x="{x}" y="{y}" width="{_WIDTH}" height="{height}" rx="6"/>']
    lines.append(_written(x, y, 0, title, "head"))
    for line, step in enumerate(stage.steps if stage else (), 1):
        lines.append(_written(x, y, line, step.place.text, "note" if isinstance(step, plans.Note) else "step"))
    return lines


def _written(x: int, y: int, line: int, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x + _PAD}" y="{y + _LINE * (line + 1)}">{_text(text)}</text>'


def _text(text: str) -> str:
    text = printable(" ".join(text.split()))
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return escape(shown)


def _arrow(source: tuple[int, int], target: tuple[int, int], line: int) -> str:
    begin, start = source[0] + _WIDTH, source[1] + _LINE - 4
    end, stop = target[0], target[1] + _LINE * (line + 1) - 4
    middle = _GAP // 2
    path = f"M{begin} {start}C{begin + middle} {start} {end - middle} {stop} {end} {stop}"
    return f'<path d="{path}" marker-end="url(#end)"/>'
