"""The access log and the audit log: one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import os
import time

from limpet.store.files import write_all

_ESCAPE = json.encoder.encode_basestring_ascii


class AccessLog:
    """Appends to `path` ("-": standard output). Requests are gathered and written a few times a second; a worker that
    is killed loses the last ones."""

    _EVERY = 0.2
    _MOST = 1 << 16

    def __init__(self, path: str) -> None:
        self._fd = 1 if path == "-" else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._lines: list[str] = []
        self._size = 0
        self._waiting: asyncio.TimerHandle | None = None
        self._second, self._stamp = 0, ""

    def write(
        self, client: str, user: str, method: str, target: str, status: int, size: int, seconds: float, agent: str
    ) -> None:
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = (
            f'{{"time":"{self._stamp}.{int(now * 1000) % 1000:03d}Z","client":{_ESCAPE(client)},"user":{_ESCAPE(user)},'
            f'"method":{_ESCAPE(method)},"target":{_ESCAPE(target)},"status":{status},"bytes":{size},'
            f'"seconds":{seconds:.6f},"agent":{_ESCAPE(agent[:256])}}}\n'
        )
        self._lines.append(line)
        self._size += len(line)
        if self._size >= self._MOST:
            self.flush()
        elif self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_later(self._EVERY, self.flush)

    def note(self, **fields: str | int) -> None:
        """One event of any fields, on the disk's way when this returns: for logs that must not lose a line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._lines.append(json.dumps({"time": moment, **fields}) + "\n")
        self.flush()

    def flush(self) -> None:
        """Writes what is gathered. A full disk loses lines, not requests."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        data = "".join(self._lines).encode("ascii", "replace")
        self._lines, self._size = [], 0
        try:
            write_all(self._fd, data)
        except OSError:
            pass
