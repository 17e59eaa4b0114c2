"""Many containers: how long a hundred take, and how each figure grows from 10 to 1,000 that run.

`growth` draws `docs/growth.svg`: one panel for each figure, one line for each engine, both axes logarithmic.
"""

from __future__ import annotations

import math
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from engines import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from engines import Engine

IDLE = ("sleep", "100000")
PLOT = CHECKOUT / "docs/growth.svg"
SETTLE = 5  # seconds: limpet's monitors give their memory back after 2 s of silence


class Figure(NamedTuple):
    """`points` has for each engine (number of containers that run, value in `unit`)."""

    title: str
    unit: str
    points: dict[str, list[tuple[int, float]]]


def start(engine: Engine, image: str, count: int, at_once: int = 1) -> list[str]:
    """The ids of `count` idle containers."""
    words = ("run", "-d", *engine.run_options, image, *IDLE)
    with ThreadPoolExecutor(at_once) as pool:
        return [text.strip() for text in pool.map(lambda _: engine(*words), range(count))]


def remove(engine: Engine, ids: Sequence[str]) -> None:
    for first in range(0, len(ids), 100):
        engine("rm", "-f", *ids[first : first + 100])


def grow(engines: Sequence[Engine], image: str, counts: Sequence[int], rounds: int) -> list[Figure]:
    """Measures each engine by itself, with nothing of the others running."""
    measured: dict[str, Callable[[Engine, str], object]] = {
        "run --rm IMAGE true": lambda e, _: e("run", "--rm", *e.run_options, image, "true"),
        "exec true": lambda e, one: e("exec", one, "true"),
        "ps -a": lambda e, _: e("ps", "-a"),
        "stats --no-stream": lambda e, _: e("stats", "--no-stream"),
    }
    figures = {title: Figure(title, "ms", {}) for title in measured}
    memory = Figure("memory for each container (PSS)", "MiB", {})
    for engine in engines:
        before, ids = engine.memory(), []
        try:
            for count in counts:
                ids += start(engine, image, count - len(ids), at_once=2)
                time.sleep(SETTLE)
                taken = (engine.memory() - before) / count / 2**20
                memory.points.setdefault(engine.name, []).append((count, taken))
                for title, act in measured.items():
                    times = []
                    for _ in range(rounds):
                        began = time.perf_counter()
                        act(engine, ids[-1])
                        times.append(time.perf_counter() - began)
                    value = statistics.median(times) * 1e3
                    figures[title].points.setdefault(engine.name, []).append((count, value))
                words = ", ".join(f"{f.title} {f.points[engine.name][-1][1]:.1f}" for f in figures.values())
                print(f"  {engine.name}, {count}: {words}, {taken:.2f} MiB each", flush=True)
        finally:
            remove(engine, ids)
    return [*figures.values(), memory]


# -- the drawing

COLOURS = {"limpet": "#00796b", "docker": "#1565c0", "podman": "#8e24aa"}
WIDTH, HEIGHT, LEFT, TOP = 250, 170, 52, 34
STEP_X, STEP_Y = WIDTH + LEFT + 24, HEIGHT + TOP + 44


def draw(figures: Sequence[Figure], path: Path) -> None:
    columns = 3
    rows = math.ceil(len(figures) / columns)
    panels = [
        f'<g transform="translate({number % columns * STEP_X + LEFT},{number // columns * STEP_Y + TOP})">'
        f"{_panel(figure)}</g>"
        for number, figure in enumerate(figures)
    ]
    across, down = columns * STEP_X, rows * STEP_Y
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" width="{across}" height="{down}" '
        'font-family="sans-serif" font-size="11" fill="#37474f">\n<rect width="100%" height="100%" fill="white"/>\n'
    )
    path.write_text(head + "\n".join(panels) + "\n</svg>\n")


def _panel(figure: Figure) -> str:
    """Both axes logarithmic; the ordinate shows whole decades."""
    numbers = sorted({count for line in figure.points.values() for count, _ in line})
    values = [max(value, 1e-3) for line in figure.points.values() for _, value in line]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def x(count: int) -> float:
        first, last = math.log(numbers[0]), math.log(numbers[-1])
        return WIDTH * (math.log(count) - first) / (last - first or 1)

    def y(value: float) -> float:
        return HEIGHT * (1 - (math.log10(max(value, 1e-3)) - low) / (high - low))

    parts = [f'<text x="0" y="-14" font-weight="bold">{figure.title}, {figure.unit}</text>']
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M0 {at:.1f}H{WIDTH}" stroke="#cfd8dc"/>')
        parts.append(f'<text x="-6" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    parts += [f'<text x="{x(n):.1f}" y="{HEIGHT + 16}" text-anchor="middle">{n:,}</text>' for n in numbers]
    for name, line in figure.points.items():
        colour = COLOURS[name]
        path = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(c):.1f}" cy="{y(v):.1f}" r="2.5" fill="{colour}"/>' for c, v in line]
    for number, name in enumerate(figure.points):
        parts.append(f'<text x="{WIDTH - 4}" y="{HEIGHT - 6 - 13 * number}" text-anchor="end" '
                     f'fill="{COLOURS[name]}">{name}</text>')  # fmt: skip
    return "".join(parts)
