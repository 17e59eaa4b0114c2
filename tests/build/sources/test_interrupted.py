"""Ctrl-C and kill while something is fetched: it ends at once, nothing stays, and the next build is as before."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.build.sources.gitserver import Origin, daemon
from tests.build.sources.web import Web

pytestmark = pytest.mark.slow


class Silent:
    """A server that takes connections and says nothing, or only the beginning of an answer."""

    def __init__(self, answer: bytes = b"") -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address: str = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.asked = threading.Event()
        self._answer = answer
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self._open.append(connection)
            connection.recv(1)
            connection.sendall(self._answer)
            self.asked.set()

    def close(self) -> None:
        self.socket.close()
        for connection in self._open:
            connection.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe beginning")
    yield server
    server.close()


@pytest.mark.parametrize("scheme", ["http", "git"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_and_leaves_nothing(build: Any, silent: Silent, scheme: str, how: signal.Signals) -> None:
    source = f"{scheme}://{silent.address}/x.{'git' if scheme == 'git' else 'txt'}"
    (build.directory / "Dockerfile").write_text(f"FROM scratch\nADD {source} /x/\n")
    process = subprocess.Popen(
        [*build.limpet.command, "build", str(build.directory)],
        env=build.limpet.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert silent.asked.wait(60)
    begun = time.monotonic()
    process.send_signal(how)
    process.wait(timeout=30)
    assert process.returncode != 0
    tmp: Path = build.limpet.root / "tmp"
    if how == signal.SIGINT:
        assert time.monotonic() - begun < 10
        assert list(tmp.iterdir()) == []
    else:
        build.limpet("system", "prune", "-f")
        assert list(tmp.iterdir()) == []
    while silent.address in str(_commands()):
        assert time.monotonic() - begun < 60
        time.sleep(0.05)


def test_what_a_killed_fetch_left_is_tidied(build: Any, tmp_path: Path, web: Web) -> None:
    served = tmp_path / "served"
    served.mkdir()
    origin = Origin(served)
    origin.commit("one", file="one\n")
    with daemon(served) as base:
        build("FROM scratch", f"ADD {base}/app.git /x/")
        (place,) = (build.limpet.root / "caches").iterdir()
        (place / "git/objects/pack/tmp_pack_x").write_text("half")
        (place / "git/shallow.lock").write_text("")
        (place / "git-1234").mkdir()
        origin.commit("two", file="two\n")
        build("FROM scratch", f"ADD {base}/app.git /x/")
        assert not (place / "git/objects/pack/tmp_pack_x").exists()
        assert not (place / "git-1234").exists()
        # Of a repository that is no more what it was, nothing is taken on trust.
        for path in (place / "git/objects").rglob("*"):
            if path.is_file():
                path.unlink()
        build("FROM scratch", f"ADD {base}/app.git /x/", options=("--no-cache",))
    url = web.put("/file", "some words\n")
    build("FROM scratch", f"ADD {url} /")
    one = build.id
    for path in (build.limpet.root / "caches").rglob("data-*"):
        path.write_text("other words\n")
    build("FROM scratch", f"ADD {url} /", options=("--no-cache",))
    assert build.id == one


def _commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            pass
    return found
