"""A build context that is watched by inotify(7): what changes in it, but for what `.dockerignore` leaves out.

Ignored directories are not watched, and links are not followed. What happens in one go, as a checkout or a save of an
editor, is told at once: when nothing has happened for `QUIET` seconds.
"""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING

from limpet.errors import LimpetError
from limpet.kernel.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DONT_FOLLOW,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    Watches,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from limpet.build.language.ignore import Ignore

QUIET = 0.2
LONGEST = 3.0
"""Seconds until changes are told even if they go on."""

EVERYTHING = ""
"""Told instead of names when there were too many."""

_EVENTS = IN_ATTRIB | IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO


class ContextWatch:
    """`with ContextWatch(…) as watch:` from then on nothing is missed. `always` are paths that no pattern hides."""

    def __init__(self, directory: str, ignored: Ignore, always: Collection[str] = ()) -> None:
        self._directory = directory
        self._ignored = ignored
        self._always = frozenset(always)
        self._watches = Watches()
        self._paths: dict[int, str] = {}
        try:
            self._enter("", set())
        except BaseException:
            self._watches.close()
            raise

    def __enter__(self) -> ContextWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watches.close()

    def wait(self) -> set[str]:
        """Waits until something has changed; paths in the context, with what is in directories that came."""
        changed: set[str] = set()
        poll = select.poll()
        poll.register(self._watches.fd, select.POLLIN)
        begin = 0.0
        while True:
            left = min(QUIET, begin + LONGEST - time.monotonic()) if changed else -1.0
            ready = poll.poll(max(left, 0.0) * 1000 if changed else None)
            if not ready:
                return changed
            before = bool(changed)
            self._take(changed)
            if changed and not before:
                begin = time.monotonic()

    def _take(self, changed: set[str]) -> None:
        for watch, events, name in self._watches.read():
            if events & IN_Q_OVERFLOW:
                changed.add(EVERYTHING)
                self._enter("", set())  # directories may have come that nobody told of
                continue
            if events & IN_IGNORED:
                self._paths.pop(watch, None)
                continue
            parent = self._paths.get(watch)
            if parent is None or not name:
                continue
            path = f"{parent}/{name}" if parent else name
            if events & IN_ISDIR and events & IN_ATTRIB == 0:
                self._directory_changed(path, events, changed)
            elif self._counts(path):
                changed.add(path)

    def _directory_changed(self, path: str, events: int, changed: set[str]) -> None:
        if events & (IN_MOVED_FROM | IN_DELETE):
            for watch, known in list(self._paths.items()):
                if known == path or known.startswith(f"{path}/"):
                    del self._paths[watch]
                    self._watches.remove(watch)
        else:
            self._enter(path, changed)
        if self._counts(path):
            changed.add(path)

    def _counts(self, path: str) -> bool:
        return path in self._always or not self._ignored.ignores(path)

    def _enter(self, path: str, found: set[str]) -> None:
        """Watches a directory and those below it; `found` gets what is in them."""
        todo = [path]
        while todo:
            path = todo.pop()
            if path and self._ignored.ignores(path) and not self._ignored.reaches(path):
                continue
            place = os.path.join(self._directory, path) if path else self._directory
            try:
                self._paths[self._watches.add(place, _EVENTS | IN_ONLYDIR | IN_DONT_FOLLOW)] = path
                entries = list(os.scandir(place))
            except OSError as e:
                if e.errno == errno.ENOSPC:
                    hint = "raise fs.inotify.max_user_watches, or leave directories out by .dockerignore"
                    raise LimpetError(f"{place}: the kernel watches no more directories", hint, exit_code=1) from None
                if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES) and path:
                    continue  # gone again, or not ours
                raise LimpetError(f"{place}: {e.strerror}", exit_code=1) from None
            for entry in entries:
                inner = f"{path}/{entry.name}" if path else entry.name
                if entry.is_dir(follow_symlinks=False):
                    todo.append(inner)
                if self._counts(inner):
                    found.add(inner)
