"""`limpet registry serve` as a process of a test's own, and a small client that says exactly what it sends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import START

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the first error."""
        found: str = self.json()["errors"][0]["code"]
        return found


@dataclass
class Ours:
    """`domain` is host:port; `log` what the server has printed so far."""

    domain: str
    directory: Path
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    context: ssl.SSLContext | None = None

    def __call__(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own. `path` may be a Location."""
        if self.context is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.domain, timeout=30, context=self.context
            )
        else:
            connection = http.client.HTTPConnection(self.domain, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@contextmanager
def serving(
    directory: Path, *args: str, context: ssl.SSLContext | None = None, environment: dict[str, str] | None = None
) -> Iterator[Ours]:
    """Runs until the block ends, on a free port of loopback unless `args` has another --addr."""
    address = () if "--addr" in args else ("--addr", "127.0.0.1:0")
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", START, "registry", "serve", "--storage", str(directory), *address, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "LIMPET_ROOT": f"{directory}-store", **(environment or {})},
    )
    assert process.stdout is not None
    log: list[str] = []
    domain = ""
    for line in process.stdout:
        log.append(line)
        if line.startswith("serving "):
            domain = line.rpartition(" on ")[2].strip().partition("://")[2]
            break
    if not domain:
        process.wait()
        process.stdout.close()
    assert domain, f"the server did not start: {''.join(log)}"
    drain = threading.Thread(target=lambda: log.extend(process.stdout or ()))
    drain.start()
    try:
        yield Ours(domain, directory, process, log, context)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        drain.join()
        process.stdout.close()
