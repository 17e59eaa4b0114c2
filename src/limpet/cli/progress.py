"""Progress for people: bars on a terminal, a plain line per event otherwise, nothing with `-q`.

All of it goes to standard error. rich costs 40 ms to import, so it comes in only when something lasts longer than a
moment on a terminal.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from limpet.progress import Progress, current
from limpet.units import size_decimal

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_PATIENCE = 0.2
"""Seconds until bars appear."""

_PAUSE = 0.05
"""Seconds between two pictures."""

_WIDE = 72
"""Columns of a terminal that has room for the rate and the time left."""

_ALL = "all of them"


def progress(*, quiet: bool = False) -> PlainProgress | Bars | Quiet:
    """What fits the terminal. Use it as a context manager."""
    if quiet:
        return Quiet()
    try:
        terminal = os.isatty(2) and os.environ.get("TERM", "") != "dumb"
    except OSError:
        terminal = False
    return Bars() if terminal else PlainProgress()


class Quiet(Progress):
    """Says nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class PlainProgress(Progress):
    """A line when something begins to be shown and when it ends."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> PlainProgress:
        current.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current.remove(self)

    def begin(self, key: str, label: str, total: int | None = None) -> None:
        with self._lock:
            self._labels[key] = label

    def finish(self, key: str, status: str) -> None:
        with self._lock:
            label = self._labels.pop(key, key)
        self.note(f"{label}: {status}")

    def note(self, line: str) -> None:
        with self._lock:
            print(line, file=sys.stderr, flush=True)


class Bars(Progress):
    """A bar for each key with bytes, rate and time left, one for all of them; what is finished folds into a line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = time.monotonic() + _PATIENCE
        self._drawn: Any = None
        self._tasks: dict[str, Any] = {}
        self._open: dict[str, tuple[str, int | None, int]] = {}  # label, total, done
        self._finished = (0, 0)  # how many, and their bytes

    def __enter__(self) -> Bars:
        current.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current.remove(self)
        with self._lock:
            if self._drawn is not None:
                self._drawn.stop()
                self._drawn = None

    def begin(self, key: str, label: str, total: int | None = None) -> None:
        with self._lock:
            self._open[key] = (label, total, 0)
            self._draw()

    def advance(self, key: str, count: int) -> None:
        with self._lock:
            label, total, done = self._open.get(key, (key, None, 0))
            self._open[key] = (label, total, done + count)
            self._draw()

    def finish(self, key: str, status: str) -> None:
        with self._lock:
            label, _, done = self._open.pop(key, (key, None, 0))
            count, size = self._finished
            self._finished = (count + 1, size + done)
            if self._drawn is not None and key in self._tasks:
                self._drawn.remove_task(self._tasks.pop(key))
                self._drawn.refresh()
            self._print(f"{label}: {status}" + (f" ({size_decimal(done)})" if done else ""))

    def note(self, line: str) -> None:
        with self._lock:
            self._print(line)

    def _print(self, line: str) -> None:
        if self._drawn is not None:
            self._drawn.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        """Tells rich how far things are, at most twenty times a second: chunks come by the thousand."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PAUSE
        if self._drawn is None:
            self._drawn = _bars()
            self._tasks[_ALL] = self._drawn.add_task("All", visible=False)  # the top line, wherever others come and go
            self._drawn.start()
        count, size = self._finished
        rows = self._open
        self._drawn.update(
            self._tasks[_ALL],
            completed=size + sum(done for _, _, done in rows.values()),
            total=size + sum(done if total is None else max(total, done) for _, total, done in rows.values()),
            visible=count + len(rows) > 1,
        )
        for key, (label, total, done) in rows.items():
            if key not in self._tasks:
                self._tasks[key] = self._drawn.add_task(label, total=total)
            self._drawn.update(self._tasks[key], completed=done, total=total)


def _bars() -> Any:
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
    columns = [rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), rich.DownloadColumn()]
    if console.width >= _WIDE:
        columns += [rich.TransferSpeedColumn(), rich.TimeRemainingColumn()]
    return rich.Progress(*columns, console=console, transient=True)
