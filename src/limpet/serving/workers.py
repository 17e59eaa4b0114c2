"""Several processes that serve together: forked, watched, started again, stopped in order."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from limpet.errors import LimpetError

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_QUICK = 2.0
_MOST_QUICK = 5


def run(work: Callable[[int, int | None], None], count: int, grace: float) -> None:
    """Calls `work(number, pipe)` in `count` processes and returns when all have ended after SIGTERM or SIGINT.

    With one worker that is this process. A worker that dies is started again, at most one a second; one that does so
    five times in a row as soon as it began has a reason that lasts: then LimpetError is raised. `pipe` is at its
    end when this process is gone, whatever ended it: then a worker stops too. A worker that has not ended `grace`
    seconds and a bit after it was told to is killed.
    """
    if count == 1:
        work(0, None)
        return
    reading, writing = os.pipe2(os.O_CLOEXEC)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    sys.stdout.flush()
    children: dict[int, int] = {}
    started: dict[int, float] = {}
    quick = 0

    def start(number: int) -> None:
        started[number] = time.monotonic()
        pid = os.fork()
        if pid:
            children[pid] = number
            return
        code = 1
        try:
            os.close(writing)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            work(number, reading)
            code = 0
        except BaseException as e:
            print(f"limpet: worker {number}: {type(e).__name__}: {e}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    for number in range(count):
        start(number)
    try:
        while True:
            got = signal.sigwait(_SIGNALS)
            if got != signal.SIGCHLD:
                break
            for number in _reap(children):
                quick = quick + 1 if time.monotonic() - started[number] < _QUICK else 0
                if quick == _MOST_QUICK:
                    raise LimpetError("the workers die as soon as they begin", "what they said stands above")
                print(f"limpet: worker {number} died and is started again", file=sys.stderr, flush=True)
                time.sleep(1)
                start(number)
    finally:
        _stop(children, grace + 5)
        os.close(writing)
        os.close(reading)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _reap(children: dict[int, int]) -> list[int]:
    """The numbers of the workers that have ended."""
    return [children.pop(pid) for pid in list(children) if os.waitpid(pid, os.WNOHANG)[0]]


def _stop(children: dict[int, int], seconds: float) -> None:
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while children:
        left = deadline - time.monotonic()
        if left <= 0:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            for pid in list(children):
                os.waitpid(pid, 0)
            return
        signal.sigtimedwait((signal.SIGCHLD,), left)
        _reap(children)
