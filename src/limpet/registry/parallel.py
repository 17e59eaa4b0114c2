"""Several transfers at once: the first that fails stops the others, and its error is the one that is raised."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    T = TypeVar("T")
    R = TypeVar("R")

PATIENCE = 1.0
"""Seconds that an interrupted command waits for transfers that wait for the network; the process ends without them."""


class Stopped(Exception):
    """Another transfer failed; whoever catches this at the end of a thread has nothing to report."""


class Group:
    """`run` gives each of `things` to `work`, up to `count` at a time, and gives the results in order.

    Work that takes long asks now and then by `check`, or reads through `watched`.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self.stopped = False

    def check(self) -> None:
        """Raises Stopped once there is no point in going on."""
        if self.stopped:
            raise Stopped

    def watched(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.check()
            yield piece

    def run(self, work: Callable[[T], R], things: Sequence[T]) -> list[R]:
        queue = list(reversed(list(enumerate(things))))
        results: dict[int, R] = {}
        errors: list[BaseException] = []

        def one_after_the_other() -> None:
            while not self.stopped:
                try:
                    number, thing = queue.pop()
                except IndexError:
                    return
                try:
                    results[number] = work(thing)
                except Stopped:
                    return
                except BaseException as e:
                    errors.append(e)
                    self.stopped = True

        threads = [
            threading.Thread(target=one_after_the_other, daemon=True) for _ in range(min(self._count, len(things)) - 1)
        ]
        for thread in threads:
            thread.start()
        try:
            one_after_the_other()
            for thread in threads:
                thread.join()
        except KeyboardInterrupt as e:
            errors.insert(0, e)
            self.stopped = True
        if errors:
            for thread in threads:
                thread.join(PATIENCE)
            raise errors[0]
        return [results[number] for number in range(len(things))]
