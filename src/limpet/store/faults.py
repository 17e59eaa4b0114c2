"""Fault points: named steps at which a test kills the process, or makes the step fail.

`LIMPET_FAULT=kill:N` sends SIGKILL to the process when it reaches its N-th fault point (counted from 1 over all
names, per process, children go on counting from their parent's number); `LIMPET_FAULT=kill:NAME:N` counts only
that name. `LIMPET_FAULT=trace:FILE` appends each name reached to FILE, so that a test knows how many there are.
Unset, `reach` is one global look-up.
"""

from __future__ import annotations

import os

_fault = os.environ.get("LIMPET_FAULT", "")
_count = 0


def reach(name: str) -> None:
    """Marks a step. Call it after the step has taken effect and before the next one."""
    if _fault:
        _act(name)


def _act(name: str) -> None:
    global _count
    action, _, rest = _fault.partition(":")
    if action == "trace":
        fd = os.open(rest, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(fd, name.encode() + b"\n")
        os.close(fd)
        return
    only, _, number = rest.rpartition(":")
    if only and only != name:
        return
    _count += 1
    if _count == int(number):
        os.kill(os.getpid(), 9)
