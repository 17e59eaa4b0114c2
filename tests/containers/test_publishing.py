"""`-p`: ports of containers at ports of the host, by a socket look-up in the kernel."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.network import inside

from limpet.containers import state
from limpet.containers.network import publishing
from limpet.containers.options import Options
from limpet.errors import Invalid
from limpet.store.store import Store

Limpet = Any


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """No other session has a port there. Before `limpet`, which removes its containers there."""
    with inside.apart():
        yield


BOTH = ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("80", [(address, 0, 80, "tcp") for address in BOTH]),
        ("8080:80", [(address, 8080, 80, "tcp") for address in BOTH]),
        ("8080:80/tcp", [(address, 8080, 80, "tcp") for address in BOTH]),
        (":80", [(address, 0, 80, "tcp") for address in BOTH]),
        ("0.0.0.0:8080:80", [("0.0.0.0", 8080, 80, "tcp"), ("::", 8080, 80, "tcp")]),
        ("[::]:8080:80", [("::", 8080, 80, "tcp")]),
        ("192.0.2.1::80", [("192.0.2.1", 0, 80, "tcp")]),
        ("[::1]:8000-8001:80-81", [("::1", 8000, 80, "tcp"), ("::1", 8001, 81, "tcp")]),
        ("127.0.0.1:8000-8001:80", [("127.0.0.1", 8000, 80, "tcp"), ("127.0.0.1", 8001, 80, "tcp")]),
    ],
)
def test_the_grammar(text: str, found: list[Any]) -> None:
    assert publishing.parse(text) == found


@pytest.mark.parametrize(
    "text", ["", "x", "80:x", "1:2:3", "8000-8002:80-81", "0", "80/sctp", "80/udp", "::1:80:80", "[::1]80", "99999:80"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(Invalid, match="port"):
        publishing.parse(text)


def test_the_default_address_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(publishing.VARIABLE, "0.0.0.0")
    assert publishing.parse("8080:80") == [("0.0.0.0", 8080, 80, "tcp"), ("::", 8080, 80, "tcp")]
    assert publishing.parse("127.0.0.1:8080:80") == [("127.0.0.1", 8080, 80, "tcp")]
    monkeypatch.setenv(publishing.VARIABLE, "[::1]")
    assert publishing.parse("8080:80") == [("::1", 8080, 80, "tcp")]


def test_all_that_is_exposed() -> None:
    options = Options(publish=["8080:80"], publish_all=True)
    found = publishing.wanted(options, ["80/tcp", "443/tcp", "53/udp"])
    assert found == [*publishing.parse("8080:80"), *publishing.parse("443")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(address: str, port: int, *, patiently: bool = True) -> str:
    end = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection((address, port), timeout=5) as client:
                return client.recv(100).decode().strip()
        except ConnectionResetError:
            return "reset"  # it was about to end
        except ConnectionRefusedError:
            if not patiently:
                return "refused"
            assert time.monotonic() < end
            time.sleep(0.01)


def serve(limpet: Limpet, image: str, name: str, *options: str | int) -> None:
    command = ("nc", "-ll", "-p", "80", "-e", "echo", name)
    limpet("run", "-d", "--name", name, *map(str, options), image, *command)


def test_a_published_port(limpet: Limpet, busybox: str) -> None:
    port, other = free_port(), free_port()
    serve(limpet, busybox, "one", "-p", f"{port}:80")
    serve(limpet, busybox, "two", "-p", f"127.0.0.1:{other}:80")
    assert ask("127.0.0.1", port) == "one"
    assert ask("::1", port) == "one"
    assert ask("127.0.0.1", other) == "two"
    assert ask("::1", other, patiently=False) == "refused"
    assert ask("127.0.0.2", port, patiently=False) == "refused"
    assert limpet("port", "one").stdout == f"80/tcp -> 127.0.0.1:{port}\n80/tcp -> [::1]:{port}\n"
    assert limpet("port", "two", "80").stdout == f"127.0.0.1:{other}\n"
    shown = limpet("ps", "--format", "{{.Ports}}", "--filter", f"publish={port}").stdout
    assert shown == f"127.0.0.1:{port}->80/tcp, [::1]:{port}->80/tcp\n"
    found = json.loads(limpet("inspect", "two").stdout)[0]
    assert found["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(other)}]}
    assert found["HostConfig"]["PortBindings"] == found["NetworkSettings"]["Ports"]
    limpet("restart", "-t", "0", "one")
    assert ask("127.0.0.1", port) == "one"
    limpet("rm", "-f", "one")
    assert ask("127.0.0.1", port, patiently=False) == "refused"
    assert ask("127.0.0.1", other) == "two", "the look-up is shared"


def test_every_address_of_the_host_but_not_the_containers(limpet: Limpet, busybox: str) -> None:
    port = free_port()
    serve(limpet, busybox, "one", "-p", f"0.0.0.0:{port}:80")
    limpet("run", "-d", "--name", "two", busybox, "nc", "-ll", "-p", str(port), "-e", "echo", "two")
    own4 = limpet("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "two").stdout.strip()
    for address in ("127.0.0.1", "127.0.3.3", "::1"):
        assert ask(address, port) == "one"
    assert ask(own4, port) == "two", "a container's own port is no port of the host"


def test_free_ports_are_found(limpet: Limpet, busybox: str) -> None:
    serve(limpet, busybox, "one", "-p", "80", "--expose", "81", "-P")
    lines = dict(line.split(" -> 127.0.0.1:") for line in limpet("port", "one").stdout.splitlines() if "127" in line)
    assert lines.keys() == {"80/tcp", "81/tcp"}
    assert ask("127.0.0.1", int(lines["80/tcp"])) == "one"
    assert ask("::1", int(lines["80/tcp"])) == "one"


def test_nothing_listens_yet_and_no_more(limpet: Limpet, busybox: str) -> None:
    port = free_port()
    script = "while read -r _; do nc -l -p 80 -e echo hello; done"
    command = ("run", "-i", "--rm", "--name", "one", "-p", f"{port}:80", busybox, "sh", "-c", script)
    with subprocess.Popen(
        [*limpet.command, *command], env=limpet.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        while not limpet("port", "one", check=False).stdout:
            time.sleep(0.01)
        assert ask("127.0.0.1", port, patiently=False) == "refused"
        for _ in range(2):  # a server that is started again needs nothing from outside
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert ask("127.0.0.1", port) == "hello"
        assert ask("127.0.0.1", port, patiently=False) == "refused"
        process.stdin.close()


def test_a_port_in_use_names_who_has_it(limpet: Limpet, busybox: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = limpet("run", "--name", "one", "-p", f"{port}:80", busybox, "true", check=False)
        assert result.returncode == 125
        mine = f"container one: the port 127.0.0.1:{port}/tcp is in use by "
        assert mine in result.stderr
        assert f"(process {os.getpid()})" in result.stderr
        assert "is free" in result.stderr
    serve(limpet, busybox, "two", "-p", f"{port}:80")
    short = limpet("ps", "-q").stdout.strip()
    result = limpet("start", "one", check=False)
    assert f"the port 127.0.0.1:{port}/tcp is in use by container {short}" in result.stderr
    result = limpet("run", "--rm", "-p", f"0.0.0.0:{port}:80", busybox, "true", check=False)
    assert f"the port 0.0.0.0:{port}/tcp is in use by container {short}" in result.stderr
    assert ask("127.0.0.1", port) == "two"
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    limpet("rm", "-f", "two")
    limpet("start", "-a", "one")


@pytest.mark.parametrize("options", [["--address", "0.0.0.0"], ["--network", "none"]])
def test_where_nothing_can_be_published(limpet: Limpet, busybox: str, options: list[str]) -> None:
    result = limpet("create", "-p", "8080:80", *options, busybox, "true", check=False)
    assert (result.returncode, "-p 8080:80: " in result.stderr) == (125, True)


@pytest.mark.slow
def test_a_monitor_that_sleeps_goes_on_publishing(limpet: Limpet, busybox: str) -> None:
    port = free_port()
    serve(limpet, busybox, "one", "-p", f"{port}:80")
    assert ask("127.0.0.1", port) == "one"
    store = Store(str(limpet.root), f"{limpet.root}/run")
    monitor = state.status(store, state.find(store, "one")).monitor
    end = time.monotonic() + 20
    while os.readlink(f"/proc/{monitor}/exe").startswith(os.path.realpath(sys.executable)[:8]):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert ask("127.0.0.1", port) == "one"
    limpet("stop", "-t", "0", "one")
    assert ask("127.0.0.1", port, patiently=False) == "refused"
    with socket.create_server(("127.0.0.1", port)):
        pass
    limpet("start", "one")
    assert ask("127.0.0.1", port) == "one"


@pytest.mark.slow
def test_a_killed_monitor_leaves_the_port_to_others(limpet: Limpet, busybox: str) -> None:
    port, other = free_port(), free_port()
    serve(limpet, busybox, "one", "-p", f"{port}:80")
    serve(limpet, busybox, "two", "-p", f"{other}:80")
    assert ask("127.0.0.1", port) == "one"
    store = Store(str(limpet.root), f"{limpet.root}/run")
    os.kill(state.status(store, state.find(store, "one")).monitor, signal.SIGKILL)
    end = time.monotonic() + 10
    while ask("127.0.0.1", port, patiently=False) != "refused":
        assert time.monotonic() < end
    with (
        socket.create_server(("127.0.0.1", port)) as server,
        socket.create_connection(("127.0.0.1", port), timeout=5) as client,
    ):
        accepted, peer = server.accept()
        assert peer == client.getsockname()
        accepted.close()
    limpet("start", "one")
    assert ask("127.0.0.1", port) == "one"
    assert ask("127.0.0.1", other) == "two"
