"""The HTTP core with clients that behave badly: each costs a connection for a while, and nothing else."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web import BaseRequest, Response, StreamResponse

from limpet.errors import Conflict, Invalid
from limpet.serving import bodies, files, listen, worker
from limpet.serving.accesslog import AccessLog
from limpet.serving.limits import Bucket, Limits

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"


@contextmanager
def server(handler: worker.Handler, **limits: Any) -> Iterator[int]:
    """Serves in a thread; the port."""
    address, (listener,) = listen.sockets(listen.parse("127.0.0.1:0"), 1)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(worker.serve(handler, listener, limits=Limits(**limits), stop=stop))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield address.port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def echo(request: BaseRequest) -> StreamResponse:
    try:
        data = await bodies.whole(request, 1000, 0.3)
    except bodies.TooLarge:
        return Response(status=413)
    except bodies.BodyError as e:
        return Response(status=400, text=str(e))
    return Response(body=data)


def until_closed(raw: socket.socket) -> bytes:
    raw.settimeout(20)
    data = b""
    while piece := raw.recv(65536):
        data += piece
    return data


def test_bodies() -> None:
    with server(echo) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for size in (0, 1, 1000):
            connection.request("POST", "/", body=b"x" * size)
            assert connection.getresponse().read() == b"x" * size
        connection.request("POST", "/", body=b"x" * 1001)
        response = connection.getresponse()
        assert response.status == 413
        connection.close()
        connection.request("POST", "/", body=iter([b"ab"] * 600), encode_chunked=True)  # no length is announced
        assert connection.getresponse().status == 413
        connection.close()


def test_a_head_that_trickles_in_is_cut_off() -> None:
    with server(echo, idle=0.5) as port, socket.create_connection(("127.0.0.1", port)) as raw:
        started = time.monotonic()
        raw.sendall(b"GET / HTTP/1.1\r\n")
        try:
            while time.monotonic() - started < 20:
                raw.sendall(b"a: b\r\n")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - started < 5


def test_a_connection_without_a_word_is_cut_off() -> None:
    with server(echo, idle=0.3) as port, socket.create_connection(("127.0.0.1", port)) as raw:
        assert until_closed(raw) == b""


def test_a_body_that_falls_silent_is_answered() -> None:
    with server(echo) as port, socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\nabc")
        answer = until_closed(raw)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"no byte of the body came for 0.3 seconds" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["tls", "version", "target", "header", "headers", "lengths", "negative", "smuggling"],
)
def test_heads_that_are_none(head: bytes) -> None:
    with server(echo, idle=2) as port:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            try:
                raw.sendall(head)
                answer = until_closed(raw)
            except ConnectionResetError:
                answer = b""
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400") or answer.startswith(b"HTTP/1.0 400")
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/", body=b"still here")
        assert connection.getresponse().read() == b"still here"
        connection.close()


def test_more_connections_than_allowed() -> None:
    with server(echo, connections=3) as port:
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for one in held:  # an answer: it has been accepted
            one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
            assert one.recv(1000).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert until_closed(raw).startswith(b"HTTP/1.1 503")
        for one in held:
            one.close()
        deadline = time.monotonic() + 10
        while True:
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
                if until_closed(raw).startswith(b"HTTP/1.1 200"):
                    break
            assert time.monotonic() < deadline


def test_one_address_does_not_take_all_connections() -> None:
    """Counted as it comes; addresses of this machine, where proxies are, are not counted."""
    from limpet.serving.worker import _Server

    class Transport(asyncio.Transport):
        cut = False

        def __init__(self, peer: str) -> None:
            super().__init__({"peername": (peer, 1)})

        def abort(self) -> None:
            self.cut = True

    async def count() -> None:
        counted = _Server(echo, 2)
        handlers = [counted() for _ in range(7)]
        peers = ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "127.0.0.1", "127.0.0.1", "::1"]
        transports = [Transport(peer) for peer in peers]
        for handler, transport in zip(handlers, transports, strict=True):
            counted.connection_made(handler, transport)
        assert [one.cut for one in transports] == [False, False, True, False, False, False, False]
        for handler in handlers:
            counted.connection_lost(handler)
        assert counted._counts == {}

    asyncio.run(count())


def test_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    import ssl

    from limpet.serving import tls

    certificate, key, _ = tls.self_made(str(tmp_path), ["127.0.0.1"])
    context = tls.context(certificate, key)
    address, (listener,) = listen.sockets(listen.parse("127.0.0.1:0"), 1)

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", address.port), timeout=10)

    async def main() -> None:
        stop = asyncio.Event()
        renewing = asyncio.create_task(tls.renew(context, certificate, key, 0.01))
        serving = asyncio.create_task(worker.serve(echo, listener, limits=Limits(), stop=stop, context=context))
        before = await asyncio.to_thread(shown)
        assert before == Path(certificate).read_text()
        tls.self_made(str(tmp_path), ["127.0.0.1", "other.example"])
        deadline = time.monotonic() + 10
        while await asyncio.to_thread(shown) != Path(certificate).read_text():
            assert time.monotonic() < deadline
        Path(certificate).write_text("broken")
        assert await asyncio.to_thread(shown) != before
        renewing.cancel()
        stop.set()
        await serving

    asyncio.run(main())


def test_requests_under_way_end_before_the_server_does() -> None:
    began = threading.Event()

    async def slow(request: BaseRequest) -> StreamResponse:
        began.set()
        await asyncio.sleep(0.5)
        return Response(text="whole")

    answers: list[bytes] = []

    def ask(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/")
        answers.append(connection.getresponse().read())
        connection.close()

    with server(slow) as port:
        thread = threading.Thread(target=ask, args=(port,))
        thread.start()
        assert began.wait(10)
    thread.join()
    assert answers == [b"whole"]


@pytest.mark.parametrize("request_of", ["download", "upload"])
def test_a_client_that_went_silent_does_not_hold_up_the_end(
    request_of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour would be allowed to it; the end of the block waits for the server's."""
    monkeypatch.setattr(worker, "_MOTIONLESS", 0.2)
    (tmp_path / "file").write_bytes(bytes(50 << 20))

    async def handler(request: BaseRequest) -> StreamResponse:
        if request.method == "GET":
            fd = os.open(tmp_path / "file", os.O_RDONLY)
            return files.send(request, fd, "x", {})
        try:
            await bodies.whole(request, 1 << 20, 3600)
        except bodies.BodyError as e:
            return Response(status=400, text=str(e))
        return Response()

    with server(handler, grace=3600) as port:
        raw = socket.create_connection(("127.0.0.1", port))
        if request_of == "download":
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert raw.recv(12) == b"HTTP/1.1 200"
        else:
            raw.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10000\r\n\r\n")
            assert raw.recv(12) == b"HTTP/1.1 100"
            raw.sendall(b"part")
    assert len(until_closed(raw)) < 50 << 20
    raw.close()


def test_a_client_that_goes_on_gets_all_of_it_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_MOTIONLESS", 3.0)
    (tmp_path / "file").write_bytes(bytes(50 << 20))
    got: list[int] = []

    async def handler(request: BaseRequest) -> StreamResponse:
        return files.send(request, os.open(tmp_path / "file", os.O_RDONLY), "x", {})

    def go_on(connection: http.client.HTTPConnection) -> None:
        response = connection.getresponse()
        while piece := response.read(1 << 18):
            got.append(len(piece))
            time.sleep(0.005)
        connection.close()

    with server(handler, grace=3600) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/")
        thread = threading.Thread(target=go_on, args=(connection,))
        thread.start()
        while not got:
            time.sleep(0.001)
    thread.join()
    assert sum(got) == 50 << 20


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data := os.urandom(5 << 20))

    async def send(request: BaseRequest) -> StreamResponse:
        return files.send(request, os.open(path, os.O_RDONLY), "tag", {})

    with server(send) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(2):
            connection.request("GET", "/")
            assert connection.getresponse().read() == data
            connection.request("GET", "/", headers={"Range": "bytes=4000000-"})
            assert connection.getresponse().read() == data[4000000:]
            connection.request("HEAD", "/")
            response = connection.getresponse()
            assert (response.read(), response.headers["Content-Length"]) == (b"", str(len(data)))
        connection.close()
        with socket.create_connection(("127.0.0.1", port)) as raw:  # gone in the middle of it
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            raw.recv(1000)
        connection.request("GET", "/")
        assert connection.getresponse().read() == data
        connection.close()


def test_rates() -> None:
    bucket = Bucket(2)
    assert [bucket.wait("a", 0) for _ in range(4)] == [0, 0, 0, 0]
    assert bucket.wait("a", 0) == 0.5
    assert bucket.wait("b", 0) == 0
    assert bucket.wait("a", 0.5) == 0
    assert bucket.wait("a", 0.5) > 0
    bucket.give_back("a", 1, 0.5)
    assert bucket.wait("a", 0.5) == 0
    bucket.give_back("a", 100, 0.5)
    assert [bucket.wait("a", 0.5) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    for number in range(200_000):
        bucket.wait(str(number), 1000)
    assert len(bucket._levels) <= Bucket._MOST


def test_addresses() -> None:
    assert listen.parse(":5000") == listen.Address("0.0.0.0", 5000)
    assert listen.parse("tcp://[::1]:80") == listen.Address("::1", 80)
    assert listen.parse("unix:///run/x") == listen.Address(path="/run/x")
    assert [listen.parse(text).loopback for text in ("127.9.9.9:1", "localhost:1", "[::1]:1", "unix:///x")] == [
        True
    ] * 4
    assert [listen.parse(text).loopback for text in (":1", "10.0.0.1:1", "[::]:1", "example.org:1")] == [False] * 4
    assert listen.parse("::1:80") == listen.Address("::1", 80)
    for text in ("5000", "host:", "host:70000", "host:-1", "unix://relative", "", "127.0.0.1:5000:5001", "[x]:1:2"):
        with pytest.raises(Invalid):
            listen.parse(text)


def test_an_address_in_use() -> None:
    """Also one whose workers share it: a second server does not join in."""
    for count in (1, 2):
        address, made = listen.sockets(listen.parse("127.0.0.1:0"), count)
        with pytest.raises(Conflict, match="is in use"):
            listen.sockets(address, 2)
        for one in made:
            one.close()


def test_a_unix_socket_that_nobody_answers_on_is_replaced(tmp_path: Path) -> None:
    address = listen.parse(f"unix://{tmp_path}/x.sock")
    _, (one,) = listen.sockets(address, 1)
    with pytest.raises(Conflict):
        listen.sockets(address, 1)
    one.close()
    _, (one,) = listen.sockets(address, 1)
    assert (tmp_path / "x.sock").stat().st_mode & 0o777 == 0o660
    one.close()
    (tmp_path / "file").write_text("not a socket")
    with pytest.raises(Conflict):
        listen.sockets(listen.parse(f"unix://{tmp_path}/file"), 1)


def test_the_log_is_json_whatever_comes(tmp_path: Path) -> None:
    import json

    async def write() -> None:
        log = AccessLog(str(tmp_path / "log"))
        log.write("::1", 'u"\n', "GET", "/\udcff\x00é", 200, 5, 0.25, "a" * 1000)
        log.flush()

    asyncio.run(write())
    (line,) = (tmp_path / "log").read_text().splitlines()
    found = json.loads(line)
    assert (found["user"], found["status"], found["bytes"], found["seconds"]) == ('u"\n', 200, 5, 0.25)
    assert len(found["agent"]) == 256


@contextmanager
def two_workers() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A parent and its two workers, which say `pid N` when they begin and `end N` when they end."""
    code = f"""
import os, sys
sys.path.insert(0, {str(SOURCE)!r})
from limpet.serving import worker, workers
def say(word):
    os.write(1, f"{{word}} {{os.getpid()}}\\n".encode())
async def main(stop):
    say("pid")
    await stop.wait()
    say("end")
workers.run(lambda number, pipe: worker.run(main, pipe), 2, 5)
say("done")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process, [int(process.stdout.readline().split()[1]) for _ in range(2)]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_a_worker_that_dies_is_started_again() -> None:
    with two_workers() as (process, (first, second)):
        assert process.stdout is not None
        assert process.stderr is not None
        os.kill(first, signal.SIGKILL)
        third = int(process.stdout.readline().split()[1])
        assert third not in (first, second)
        process.terminate()
        assert sorted(process.stdout.read().splitlines()) == sorted(
            [f"end {second}", f"end {third}", f"done {process.pid}"]
        )
        assert process.wait(20) == 0
        assert "died and is started again" in process.stderr.read()


def test_workers_that_cannot_begin() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from limpet.serving import workers
def work(number, pipe):
    raise OSError("no way")
try:
    workers.run(work, 2, 5)
except Exception as e:
    print(e)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "the workers die as soon as they begin" in result.stdout
    assert "OSError: no way" in result.stderr


def test_workers_end_with_their_parent() -> None:
    with two_workers() as (process, pids):
        assert process.stdout is not None
        process.kill()
        rest = process.stdout.read().splitlines()  # up to its end: nobody is left who could write
        assert sorted(rest) == sorted(f"end {pid}" for pid in pids)
