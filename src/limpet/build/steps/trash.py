"""Takes away what steps leave behind (their upper directories), in a thread, while the next ones run."""

from __future__ import annotations

import queue
import threading

from limpet.store.files import remove_tree


class Trash:
    """`take` from any thread; all is gone when `close` returns.

    The thread begins at once: one that a thread began while it is in a mount namespace of its own would be there too,
    and would keep that one from leaving it (setns(2): EINVAL for who shares its working directory).
    """

    def __init__(self) -> None:
        self._paths: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def take(self, path: str) -> None:
        self._paths.put(path)

    def close(self) -> None:
        self._paths.put("")
        self._thread.join()

    def _work(self) -> None:
        while path := self._paths.get():
            try:
                remove_tree(path)
            except OSError:
                pass  # `system prune` finds it in tmp/
