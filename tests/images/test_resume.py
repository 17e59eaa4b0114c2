"""A pull that was cut off goes on with the next; pulls of one layer at the same time fetch it once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.registry import server

from limpet.errors import Corrupt, LimpetError
from limpet.images import catalog, collect
from limpet.images.pull import pull
from limpet.progress import Progress
from limpet.registry import connection
from limpet.store import blobs, partial

if TYPE_CHECKING:
    import http.server
    from collections.abc import Iterator
    from typing import Any

    from limpet.store.store import Store

    Handler = http.server.BaseHTTPRequestHandler

pytestmark = pytest.mark.slow

TAR = server.tar_of({"file": os.urandom(3_000_000)})
IMAGE = server.make_image([TAR])
(LAYER,) = IMAGE.layers
DIGEST = server.digest_of(LAYER)
HALF = 1 << 20


class Notes(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ended: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)

    def finish(self, key: str, status: str) -> None:
        self.ended.append(status)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[server.Scripted]:
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    with server.scripted() as state:
        state.add(IMAGE, "1")
        yield state


def ranges(fake: server.Scripted) -> list[str]:
    """The ranges that were asked for of the layer."""
    return [headers.get("range", "") for path, headers in fake.requests if path.endswith(DIGEST)]


class Cut:
    """Serves the first half of the layer; then holds the line, or breaks it for good."""

    def __init__(self, fake: server.Scripted, *, hold: bool) -> None:
        self.reached = threading.Event()
        self._hold = hold
        fake.answer = self

    def __call__(self, handler: Handler) -> bool:
        if not handler.path.endswith(DIGEST):
            return False
        if handler.headers.get("Range") and not self._hold:
            server.send(handler, 403, b"gone")
            return True
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(LAYER)))
        handler.end_headers()
        handler.wfile.write(LAYER[:HALF])
        handler.wfile.flush()
        self.reached.set()
        if self._hold:
            handler.rfile.read(1)  # until the client is gone
        handler.close_connection = True
        return True


def usual(handler: Handler) -> bool:
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_after_a_kill(limpet: Any, fake: server.Scripted, how: signal.Signals) -> None:
    cut = Cut(fake, hold=True)
    words = [*limpet.command, "pull", "-q", f"{fake.domain}/app:1"]
    process = subprocess.Popen(words, env=limpet.environment, stderr=subprocess.DEVNULL)
    assert cut.reached.wait(20)
    path = limpet.root / "partial" / DIGEST.replace(":", "-")
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < HALF:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    process.wait()
    assert limpet("images", "-q").stdout == ""
    fake.answer = usual
    limpet("pull", f"{fake.domain}/app:1")
    assert ranges(fake) == ["", f"bytes={HALF}-"]
    assert (limpet.root / "blobs/sha256" / DIGEST[7:]).read_bytes() == LAYER
    assert os.listdir(limpet.root / "partial") == []
    assert limpet("system", "check").returncode == 0


def test_after_an_error(store: Store, fake: server.Scripted) -> None:
    Cut(fake, hold=False)
    with pytest.raises(LimpetError):
        pull(store, f"{fake.domain}/app:1")
    assert os.listdir(f"{store.root}/blobs/sha256") == []
    fake.answer = usual
    assert pull(store, f"{fake.domain}/app:1").id == IMAGE.id
    assert ranges(fake)[-1] == f"bytes={HALF}-"


def _leave(store: Store, data: bytes) -> str:
    path = partial.path_of(store, DIGEST)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return path


def test_all_of_it_was_here(store: Store, fake: server.Scripted) -> None:
    _leave(store, LAYER)
    assert pull(store, f"{fake.domain}/app:1").id == IMAGE.id
    assert ranges(fake) == []


@pytest.mark.parametrize(
    "data",
    [LAYER[:500] + b"x" + LAYER[501:HALF], bytes(HALF), LAYER[:-1] + bytes([LAYER[-1] ^ 1]), LAYER + b"more"],
    ids=["damaged", "zeros after a crash", "the last byte", "longer"],
)
def test_what_is_here_is_damaged(store: Store, fake: server.Scripted, data: bytes) -> None:
    _leave(store, data)
    seen = Notes()
    assert pull(store, f"{fake.domain}/app:1", progress=seen).id == IMAGE.id
    assert ranges(fake)[-1] == ""
    assert blobs.read(store, DIGEST, len(LAYER)) == LAYER
    assert os.listdir(f"{store.root}/partial") == []
    assert any("fetched again" in line for line in seen.lines) or len(data) > len(LAYER)


def test_the_registry_is_the_one_that_lies(store: Store, fake: server.Scripted) -> None:
    """What came is thrown away: the next pull does not go on with it."""
    fake.documents[DIGEST] = ("", LAYER[:-1] + bytes([LAYER[-1] ^ 1]))
    with pytest.raises(Corrupt):
        pull(store, f"{fake.domain}/app:1")
    assert os.listdir(f"{store.root}/partial") == []


def test_two_at_once_fetch_it_once(limpet: Any, fake: server.Scripted) -> None:
    """The second waits for the first, then finds the layer."""
    arrived, go = threading.Event(), threading.Event()

    def answer(handler: Handler) -> bool:
        if handler.path.endswith(DIGEST):
            arrived.set()
            go.wait(20)
        return False

    fake.answer = answer
    words = [*limpet.command, "pull", f"{fake.domain}/app:1"]
    options: dict[str, Any] = {"env": limpet.environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    first = subprocess.Popen(words, **options)
    assert arrived.wait(20)
    second = subprocess.Popen(words, **options)
    assert second.stderr is not None
    waiting = second.stderr.readline()
    go.set()
    ends = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert b"waiting for another pull" in waiting
    assert b"Pull complete" in ends[0]
    assert b"Already exists" in ends[1]
    assert len(ranges(fake)) == 1
    assert os.listdir(limpet.root / "partial") == []


def test_the_second_takes_over(limpet: Any, fake: server.Scripted) -> None:
    """The first is killed half-way: the second goes on with what it left."""
    cut = Cut(fake, hold=True)
    words = [*limpet.command, "pull", f"{fake.domain}/app:1"]
    options: dict[str, Any] = {"env": limpet.environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    first = subprocess.Popen(words, **options)
    assert cut.reached.wait(20)
    path = limpet.root / "partial" / DIGEST.replace(":", "-")
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < HALF:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = subprocess.Popen(words, **options)
    assert second.stderr is not None
    assert b"waiting" in second.stderr.readline()
    fake.answer = usual
    first.kill()
    first.communicate()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert ranges(fake) == ["", f"bytes={HALF}-"]


def test_what_nobody_goes_on_with_is_collected(limpet: Any, store: Store, fake: server.Scripted) -> None:
    path = _leave(store, LAYER[:HALF])
    assert collect.sweep(store).files == []
    old = time.time() - partial.STALE - 10
    os.utime(path, (old, old))
    assert collect.sweep(store).files == [path]
    assert not os.path.exists(path)


def test_a_pull_of_what_is_here_is_one_request(store: Store, fake: server.Scripted) -> None:
    amd = server.make_image([TAR])
    index = server.make_index({"linux/amd64": amd, "linux/arm64": amd})
    fake.documents["index"] = ("application/vnd.oci.image.index.v1+json", index)
    for tag in ("1", "index"):
        pull(store, f"{fake.domain}/app:{tag}", platform="linux/amd64" if tag == "index" else None)
        fake.requests.clear()
        assert pull(store, f"{fake.domain}/app:{tag}").id == IMAGE.id
        assert [path for path, _ in fake.requests] == [f"/v2/app/manifests/{tag}"]


def test_a_long_wait_is_said(limpet: Any, fake: server.Scripted) -> None:
    refused: list[str] = []

    def answer(handler: Handler) -> bool:
        if refused or not handler.path.endswith(DIGEST):
            return False
        refused.append(handler.path)
        server.send(handler, 429, b"{}", {"Retry-After": "2"})
        return True

    fake.answer = answer
    result = limpet("pull", f"{fake.domain}/app:1")
    assert f"{fake.domain}: HTTP 429: trying again in 2 s\n" in result.stderr


def test_rates(limpet: Any, fake: server.Scripted) -> None:
    began = time.monotonic()
    limpet("pull", "-q", "--limit-rate", "2m", f"{fake.domain}/app:1")
    assert 1.0 < time.monotonic() - began < 15
    refused = limpet("pull", "--limit-rate", "fast", f"{fake.domain}/app:1", check=False)
    assert "invalid size 'fast' for limit-rate" in refused.stderr


def test_images_are_found_by_their_names_again(store: Store, fake: server.Scripted) -> None:
    assert catalog.find(store, pull(store, f"{fake.domain}/app:1").id).id == IMAGE.id
