"""Sockets that a container is given: handed over, kept over restarts, a start on demand, a stop when idle."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from limpet.containers.network import activation
from limpet.containers.options import Options
from limpet.errors import Invalid

pytestmark = pytest.mark.slow
SERVER = """
import os, socket
kinds = [socket.socket(fileno=3 + number) for number in range(int(os.environ["LISTEN_FDS"]))]
assert os.environ["LISTEN_PID"] == str(os.getpid())
print("ready", os.environ["LISTEN_FDNAMES"], flush=True)
while True:
    connection, _ = kinds[0].accept()
    connection.sendall(connection.recv(100) + b" from %d" % os.getpid())
    connection.close()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def ask(port: int, text: bytes = b"hello") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(text)
        return connection.recv(100)


def serve(limpet: Any, *options: str) -> None:
    program = ("python3", "-c", "import os; exec(os.environ['SERVER'])")
    limpet("run", "-d", "--name", "web", "-e", f"SERVER={SERVER}", *options, "limpet/host", *program)


def status(limpet: Any) -> str:
    text: str = limpet("ps", "-a", "--format", "{{.Status}}").stdout
    return text


@pytest.mark.parametrize("options", [(), ("--no-init",), ("--network", "none"), ("--userns", "auto")])
def test_sockets_are_handed_over(limpet: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
    port, path = free_port(), f"{tmp_path}/s"
    serve(limpet, "--socket", f"127.0.0.1:{port}", "--socket", path, "--socket", f"[::1]:{port}/udp", *options)
    assert ask(port) == (b"hello from 1" if "--no-init" in options else b"hello from 2")
    assert limpet("logs", "web").stdout == f"ready {port}:s:{port}\n"
    limpet("rm", "-f", "web")
    until(lambda: not Path(path).exists())


def test_who_connects_during_a_restart_is_served(limpet: Any) -> None:
    port = free_port()
    serve(limpet, "--socket", f"127.0.0.1:{port}", "--restart", "always")
    until(lambda: "ready" in limpet("logs", "web").stdout)
    limpet("exec", "web", "sh", "-c", "kill -KILL 2; sleep 10", check=False)  # it ends with the container
    answers = [ask(port, b"%d" % number) for number in range(20)]
    assert answers == [b"%d from 2" % number for number in range(20)]


def test_a_port_in_use_is_named(limpet: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        result = limpet("run", "-d", "--socket", f"127.0.0.1:{port}", "limpet/host", "true", check=False)
    assert result.returncode == 125
    assert f"--socket 127.0.0.1:{port}: the port is in use" in result.stderr


def test_a_start_on_demand_and_a_stop_when_idle(limpet: Any) -> None:
    port = free_port()
    serve(limpet, "--socket", f"127.0.0.1:{port}", "--on-demand", "--idle-stop", "1500ms")
    assert status(limpet) == f"Waiting for 127.0.0.1:{port}\n"
    time.sleep(2.5)  # its monitor sleeps by now
    assert limpet("logs", "web").stdout == ""
    assert ask(port) == b"hello from 2"
    assert status(limpet).startswith("Up ")
    with socket.create_connection(("127.0.0.1", port)):  # an open connection keeps it
        time.sleep(3)
        assert status(limpet).startswith("Up ")
    until(lambda: status(limpet).startswith("Waiting for"))
    assert ask(port) == b"hello from 2"
    assert limpet("logs", "web").stdout == f"ready {port}\n" * 2
    limpet("stop", "-t", "1", "web")
    assert status(limpet).startswith("Exited")
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    limpet("start", "web")
    assert status(limpet).startswith("Waiting for")
    limpet("rm", "-f", "web")
    with pytest.raises(ConnectionRefusedError):
        ask(port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sockets": ["x"]}, "invalid --socket 'x'"),
        ({"sockets": ["0"]}, "invalid --socket '0'"),
        ({"sockets": ["nowhere:80"]}, "nowhere is no address"),
        ({"sockets": ["80/sctp"]}, "invalid --socket"),
        ({"sockets": ["/" + "x" * 120]}, "longer than 107 bytes"),
        ({"sockets": ["80", "80"]}, "said twice"),
        ({"on_demand": True, "detach": True}, "need a --socket"),
        ({"sockets": ["80"], "idle_stop": 1.0}, "without --on-demand"),
        ({"sockets": ["80"], "on_demand": True}, "in the background"),
        ({"sockets": ["80"], "on_demand": True, "detach": True, "auto_remove": True}, "--rm"),
        ({"sockets": ["80"], "runtime": "runc"}, "runtime runc"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        activation.check(Options(**options))
    assert message in str(caught.value)
