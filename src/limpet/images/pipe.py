"""A bounded pipe of byte pieces between two threads: one puts, one takes, neither gets far ahead of the other."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cancelled(Exception):
    """The other end is gone; whoever catches this at the end of a thread has nothing to report."""


class Pipe:
    """`put` and `read` block. The writer says `end`, the reader may `cancel`; iterating reads to the end."""

    def __init__(self, limit: int = 4 << 20) -> None:
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, piece: bytes) -> None:
        """Raises Cancelled when the reader is gone."""
        with self._changed:
            while self._held > self._limit and not self._ended:
                self._changed.wait()
            if self._ended:
                raise Cancelled
            self._pieces.append(piece)
            self._held += len(piece)
            self._changed.notify_all()

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, which stay; fewer if there are no more. Raises the writer's error."""
        with self._changed:
            while self._held < count and not self._ended:
                self._changed.wait()
            if not self._pieces and self._error is not None:
                raise self._error
            return b"".join(piece[:count] for piece in self._pieces)[:count]

    def read(self, count: int) -> bytes:
        """The next up to `count` bytes, b"" at the end. Raises the writer's error, after all that it put."""
        with self._changed:
            while not self._pieces and not self._ended:
                self._changed.wait()
            if not self._pieces:
                if self._error is not None:
                    raise self._error
                return b""
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
                piece = piece[:count]
            was_full = self._held > self._limit
            self._held -= len(piece)
            if was_full:
                self._changed.notify_all()
            return piece

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1 << 62):
            yield piece

    def end(self, error: BaseException | None = None) -> None:
        """The writer is done, or failed with `error`, which the reader gets."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """The reader wants no more."""
        with self._changed:
            self._pieces.clear()
            self._held = 0
            self._ended, self._error = True, Cancelled()
            self._changed.notify_all()
