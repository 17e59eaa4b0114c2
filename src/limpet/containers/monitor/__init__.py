"""The process beside each running container: its life, its streams and those who listen, its health."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def wake(program: int, memory: int) -> NoReturn:
    """By this name a monitor calls that an older limpet, where this was a module, put to sleep."""
    from limpet.containers.monitor import monitor

    monitor.wake(program, memory)
