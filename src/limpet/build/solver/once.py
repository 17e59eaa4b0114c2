"""Equal steps are done once, whoever wants them: other stages of this build, other builds, other users' builds.

`<root>/cache/doing/<key>` is locked (flock) by who does the step with that key; who comes later waits, and finds the
result in the cache. The lock of one that was killed is free at once, and the file is nobody's: the next one takes it.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from limpet.store.store import Store

_PAUSE = 0.05
"""Seconds between two looks: a thread that waits in flock(2) could not be told that the build has been ended."""


class Alone:
    """`with Alone(…) as waited:` nobody else does the step. `waited`: somebody did it until now."""

    def __init__(self, store: Store, key: str, waiting: Callable[[], None], check: Callable[[], None]) -> None:
        """`waiting` is called once, if it has to wait; `check` again and again, and may raise."""
        self._path = f"{store.root}/cache/doing/{key}"
        self._waiting = waiting
        self._check = check
        self._fd = -1

    def __enter__(self) -> bool:
        waited = False
        os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
        while not self._take():
            if not waited:
                self._waiting()
            waited = True
            self._check()
            time.sleep(_PAUSE)
        return waited

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass  # somebody emptied the cache
        os.close(self._fd)

    def _take(self) -> bool:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # else who had it has taken the file away
                self._fd, fd = fd, -1
                return True
        except BlockingIOError:
            pass
        finally:
            if fd >= 0:
                os.close(fd)
        return False
