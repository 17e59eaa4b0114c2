"""The context is read while a base image is on its way."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.build.copying.ahead import ReadAhead
from limpet.build.copying.context import Tree, context
from limpet.build.copying.digests import Digests
from limpet.build.language import ignore
from limpet.store.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    (place / "below").mkdir(parents=True)
    (place / "below" / "file").write_text("content")
    (place / "ignored").write_text("content")
    (place / ".dockerignore").write_text("ignored\n")
    (place / "Dockerfile").write_text("FROM localhost:9/far\nCOPY below /\n")
    time.sleep(2.1)  # what was changed just now is not remembered
    return place


def test_what_is_read_ahead_is_not_read_again(store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = context(str(directory), ignore.read(str(directory)), Digests(store, str(directory)))
    try:
        with ReadAhead(tree) as ahead:
            ahead.begin()
            ahead.begin()
            assert ahead._thread is not None
            ahead._thread.join(20)
        read: list[str] = []
        monkeypatch.setattr(Tree, "open", lambda self, path: read.append(path))
        entries = {entry.path: entry for entry in tree.everything()}
        assert sorted(entries) == [".dockerignore", "Dockerfile", "below", "below/file"]
        assert len(tree.content(entries["below/file"])) == 64
        assert read == []
    finally:
        tree.close()


def test_it_is_read_while_a_base_is_brought_in(limpet: Any, directory: Path) -> None:
    """The registry answers only when the file of the context was opened."""
    import socket
    import threading

    opened = directory / "below" / "file"
    os.utime(opened, (1, time.time() - 100))
    before = opened.stat().st_atime
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (directory / "Dockerfile").write_text(f"FROM localhost:{port}/far\nCOPY below /\n")
        seen: list[bool] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                end = time.monotonic() + 20
                while opened.stat().st_atime == before and time.monotonic() < end:
                    time.sleep(0.01)
                seen.append(opened.stat().st_atime != before)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        result = limpet("build", directory, check=False)
        thread.join(30)
    assert seen == [True], result.stderr
    assert result.returncode == 1
