"""The limit of a writable layer where no file system holds it: the monitor looks how large it is.

The rule: it is measured at the start, and again after the time in which `FASTEST` bytes a second would fill what is
left, but `SOONEST` seconds later at the soonest and `LATEST` at the latest, and so that measuring takes 2 % of a
processor at most. When it is larger than it may be, there is an event `disk-full`, and the container is stopped as by
`stop`; its error says why. So more than the limit may be written for some seconds, and nothing that was is lost.
"""

from __future__ import annotations

import os
import select
import time

from limpet.containers.monitor import early, health, title
from limpet.containers.observe import events
from limpet.images import leftovers
from limpet.kernel import process, timer
from limpet.units import size_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from limpet.containers.state import Container
    from limpet.store.store import Store

FASTEST = 200_000_000
SOONEST = 2.0
LATEST = 60.0
_SHARE = 50


class DiskWatch:
    """From the container's start to its end. `limit`: bytes."""

    def __init__(self, store: Store, container: Container, limit: int, timer_fd: int = -1) -> None:
        self._store = store
        self._container = container
        self._limit = limit
        self.timer = timer_fd if timer_fd >= 0 else timer.create()
        self._pid = self._output = -1
        self._began = 0.0
        if timer_fd < 0:
            timer.arm(self.timer, 0.1)

    @property
    def idle(self) -> bool:
        return self._pid < 0

    def saved(self) -> list[int]:
        return [self._limit, self.timer]

    def interests(self) -> dict[int, int]:
        """Descriptor → events of poll(2)."""
        found = {self.timer: select.POLLIN}
        if self._output >= 0:
            found[self._output] = select.POLLIN
        return found

    def handle(self, fd: int) -> str | None:
        """None if the event is none of ours; "" if all is well, else what is wrong."""
        if fd == self.timer:
            if timer.is_up(fd) and self.idle:
                self._measure()
            return ""
        if self._output >= 0 and fd == self._output:
            return self._finish()
        return None

    def close(self) -> None:
        if self._pid >= 0:
            os.waitpid(self._pid, 0)
            os.close(self._output)
            self._pid = self._output = -1
        os.close(self.timer)
        self.timer = -1

    def _measure(self) -> None:
        try:
            with open(f"{self._store.run_path(self._container.id)}/storage-limit", encoding="ascii") as file:
                self._limit = int(file.read())  # `update` has left another
        except (OSError, ValueError):
            pass
        self._began = time.monotonic()
        self._output, write = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _child(self._store.container_path(self._container.id), self._container.name, write)
        os.close(write)

    def _finish(self) -> str:
        text = os.read(self._output, 32)
        os.close(self._output)
        os.waitpid(self._pid, 0)
        self._pid = self._output = -1
        size = int(text or b"0")
        left, took = self._limit - size, time.monotonic() - self._began
        if left >= 0:
            timer.arm(self.timer, max(SOONEST, min(LATEST, left / FASTEST), took * _SHARE))
            return ""
        what = f"its writable layer has {size_decimal(size)}, more than --storage-opt size={size_decimal(self._limit)}"
        events.tell(self._store, self._container, "disk-full", size=size, limit=self._limit)
        health.end_run(self._store, self._container, for_good=True)
        return what


def _child(directory: str, name: str, output: int) -> NoReturn:
    try:
        early.isolate([output])  # above all the monitor's lock is not ours
        title.set_title(f"limpet disk check of {name}")
        process.set_name(b"limpet-disk")
        trees = (f"{directory}/upper", f"{directory}/image-mounts")
        os.write(output, str(sum(leftovers.tree_bytes(path) for path in trees)).encode())
    finally:
        os._exit(0)
