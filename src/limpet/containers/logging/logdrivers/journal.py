"""Reads a container's lines back from the journal, by `journalctl -o json` (systemd.io/JOURNAL_EXPORT_FORMATS)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from limpet import jsontext
from limpet.containers.logging import logfile
from limpet.containers.logging.logs import Entry, Waiter
from limpet.errors import LimpetError, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from limpet.containers.state import Container
    from limpet.store.store import Store

_PIECE = 1 << 16
_OWN = frozenset(
    "MESSAGE PRIORITY CONTAINER_ID CONTAINER_ID_FULL CONTAINER_NAME CONTAINER_TAG IMAGE_NAME SYSLOG_IDENTIFIER"
    " SYSLOG_TIMESTAMP CONTAINER_PARTIAL_ID CONTAINER_PARTIAL_ORDINAL CONTAINER_PARTIAL_LAST"
    " CONTAINER_PARTIAL_MESSAGE SYSLOG_PID SYSLOG_FACILITY".split()
)


def read(
    store: Store, container: Container, *, tail: int | None, since: float, until: float, follow: bool
) -> Iterator[Entry]:
    """As `logs.read`. Raises Refused where there is no journal to read."""
    if shutil.which("journalctl") is None:
        raise Refused(
            f"container {container.name}: its log is in the journal, and there is no journalctl",
            "install systemd, or use --log-driver json-file",
            exit_code=1,
        )
    wait = Waiter(store, container) if follow else None
    _sync()
    cursor = ""
    alive = True
    try:
        while True:
            words = ["--since", f"@{since:.6f}"] if since and not cursor else []
            words += ["--after-cursor", cursor] if cursor else []
            words += ["--until", f"@{until:.6f}"] if until else []
            words += ["--lines", str(tail)] if tail is not None and not cursor else []
            for values in _query(container, words):
                cursor = values.get("__CURSOR", cursor)
                yield _entry(values)
            if wait is None or not alive:
                return
            alive = _wait(container, wait, cursor, until)
            if not alive:
                _sync()
    finally:
        if wait is not None:
            wait.close()


def _sync() -> None:
    """Whatever was sent is written when this returns; not every user may ask for that."""
    subprocess.run(["journalctl", "--sync"], stdin=subprocess.DEVNULL, capture_output=True)


def _command(container: Container, words: list[str]) -> list[str]:
    field = f"CONTAINER_ID_FULL={container.id}"
    return ["journalctl", "--all", "--quiet", "--no-pager", "--output", "json", *words, field]


def _query(container: Container, words: list[str]) -> Iterator[dict[str, Any]]:
    with subprocess.Popen(
        _command(container, words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as found:
        assert found.stdout is not None
        assert found.stderr is not None
        for line in found.stdout:
            try:
                yield jsontext.loads(line)
            except ValueError:  # cut off
                continue
        said = found.stderr.read().decode(errors="replace").strip()
    if found.returncode and said:
        raise LimpetError(f"container {container.name}: journalctl: {said.splitlines()[0]}", exit_code=1)


def _wait(container: Container, wait: Waiter, cursor: str, until: float) -> bool:
    """Until there is more in the journal, or the container's monitor has ended: then False."""
    words = ["--follow", *(["--after-cursor", cursor] if cursor else ["--no-tail"])]
    command = _command(container, words)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as more:
        assert more.stdout is not None
        wait.poll.register(more.stdout)
        try:
            while wait(until):
                os.set_blocking(more.stdout.fileno(), False)
                if more.stdout.read(1):
                    return True
                if (until and time.time() > until) or more.poll() is not None:
                    return False
            return False
        finally:
            wait.poll.unregister(more.stdout)
            more.kill()


def _entry(values: dict[str, Any]) -> Entry:
    message = values.get("MESSAGE")
    if isinstance(message, list):  # bytes that are no text
        message = bytes(n for n in message if isinstance(n, int) and 0 <= n < 256).decode("utf-8", "replace")
    text = str(message or "")
    if values.get("CONTAINER_PARTIAL_MESSAGE") != "true":
        text += "\n"
    moment = values.get("SYSLOG_TIMESTAMP")
    if not isinstance(moment, str):
        moment = logfile.timestamp(int(values.get("__REALTIME_TIMESTAMP", 0)) * 1000)
    more = {name: str(value) for name, value in values.items() if name not in _OWN and not name.startswith("_")}
    return Entry("stderr" if values.get("PRIORITY") == "3" else "stdout", text, moment, more)
