"""Which renderer a build has, and what stands around it: its log, its profile, its last words."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Protocol

from limpet.build.reporting import logs, report
from limpet.build.reporting.masking import Masking
from limpet.build.reporting.record import Record
from limpet.cli.building import KINDS
from limpet.cli.building.lines import Lines
from limpet.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from limpet.build.reporting.record import Seen
    from limpet.build.reporting.report import Event
    from limpet.store.store import Store

MODES = KINDS[1:]  # what auto comes to is one of them


def mode(wanted: str) -> str:
    """One of MODES, for what `--progress` says; nothing said is BUILDKIT_PROGRESS, or else auto. Raises Invalid."""
    wanted = wanted or os.environ.get("BUILDKIT_PROGRESS", "") or "auto"
    if wanted == "auto":
        return "tty" if _is_terminal() and os.environ.get("TERM", "") != "dumb" else "plain"
    if wanted not in MODES:
        raise Invalid(f"BUILDKIT_PROGRESS={wanted[:40]} is not known", f"one of auto, {', '.join(MODES)} is wanted")
    if wanted == "tty" and not _is_terminal():
        raise Invalid("--progress=tty: standard error is not a terminal", "--progress=plain writes lines")
    return wanted


class Renderer(Protocol):
    def show(self, event: Event, seen: Seen | None) -> None:
        """`seen`: the step that it is about, as it is now."""

    def stop(self) -> None:
        """Nothing more will come."""


class Shown(report.Report):
    """`with Shown(…) as report:` builds tell `report`; at the end it says where the time went, or what failed."""

    def __init__(
        self,
        store: Store,
        mode: str,
        *,
        secrets: Iterable[bytes] = (),
        profile: Iterable[str] = (),
        after: Iterable[str] = (),
    ) -> None:
        """`mode` is one of MODES; `secrets` are masked in all output; `profile`: files to write (.svg, .json).

        `after`: lines to show when all is done, however that went; it may be filled until then.
        """
        super().__init__()
        self.mode = mode
        self.record = Record()
        self._store = store
        self._lock = threading.Lock()
        self._masking = Masking(secrets)
        self._after = after
        self._profile = tuple(profile)
        if self._profile:  # for those who want one: what it imports takes as long as a build that is all cached
            from limpet.build.reporting import profile as profiles

            for name in self._profile:
                profiles.check(name)
        self._renderers: list[Renderer] = []
        self._log: logs.Log | None = None
        if self.mode == "tty":
            from limpet.cli.building.tree import Tree

            self._renderers.append(Tree(self.record, self._lock))
        elif self.mode == "rawjson":
            from limpet.cli.building.rawjson import RawJson

            self._renderers.append(RawJson(self.record, to_stderr))
        elif self.mode == "plain":
            self._renderers.append(Lines(self.record, to_stderr, clean=_is_terminal()))
        if self.mode in ("tty", "quiet"):  # they show a part: the rest has to be somewhere
            self._log = logs.Log(store)
            self._renderers.append(Lines(self.record, self._log.write))

    def emit(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, report.Output):
                data = self._masking.feed(event.step, event.stream, event.data)
                if data:
                    self._show(event._replace(data=data))
                return
            if isinstance(event, report.Ended):
                for stream, data in self._masking.rest(event.step):
                    self._show(report.Output(event.at, event.step, stream, data))
            self._show(event)

    def _show(self, event: Event) -> None:
        if self._log is not None and isinstance(event, report.Output):
            self._log.open()
        seen = self.record.take(event)
        for renderer in self._renderers:
            renderer.show(event, seen)

    def __enter__(self) -> Shown:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for renderer in self._renderers:
            renderer.stop()
        if self._log is not None:
            self._log.close()
        path = self._log.path if self._log is not None else ""
        if self.mode != "rawjson" and error is not None:
            from limpet.cli.building import summary

            lines = summary.failure(self.record, path, whole=self.mode == "plain" and self.record.stages <= 1)
            to_stderr("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        to_stderr("".join(f"{line}\n" for line in self._after).encode(errors="surrogateescape"))
        if error is None:
            self._finish()
        if self._profile:
            from limpet.build.reporting import profile as profiles

            for name in self._profile:
                profiles.write(name, self.record)

    def _finish(self) -> None:
        for seen in self.record.with_result(report.RAN):
            if seen.layer:
                logs.remember(self._store, seen.layer, seen.seconds)
        if self.mode in ("tty", "plain"):
            from limpet.cli.building import summary

            cached = self.record.with_result(report.CACHED)
            saved = sum(logs.seconds(self._store, seen.layer) for seen in cached if seen.layer)
            lines = summary.times(self.record, saved, table=self.mode == "plain")
            to_stderr("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


def to_stderr(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]


def _is_terminal() -> bool:
    try:
        return os.isatty(2)
    except OSError:
        return False
