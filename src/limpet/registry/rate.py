"""A limit on bytes a second, shared by all transfers of one command (`--limit-rate`)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BURST = 0.25
"""Seconds of unused allowance that may be caught up with."""

_LARGEST_WAIT = 0.25
"""Seconds that one piece may make its sender wait: a larger one is cut, so that the line is never silent for long."""


class Rate:
    """`take` blocks until its bytes are due. Any thread may call it; they share the allowance."""

    def __init__(self, bytes_per_second: int) -> None:
        self._per_second = bytes_per_second
        self._lock = threading.Lock()
        self._due = time.monotonic()

    def take(self, count: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - _BURST) + count / self._per_second
            wait = self._due - now
        if wait > 0:
            time.sleep(wait)

    def piece(self, usual: int) -> int:
        """How many bytes to move at once, where `usual` would be moved without a limit."""
        return max(1024, min(usual, int(self._per_second * _LARGEST_WAIT)))

    def limited(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same bytes, as fast as allowed."""
        for piece in pieces:
            step = self.piece(len(piece))
            for start in range(0, len(piece), step):
                part = piece[start : start + step]
                self.take(len(part))
                yield part
