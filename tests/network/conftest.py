"""Machines to make networks on: network namespaces of the test's own, so that the host's network is never touched.

`machine` is one with a way to another one, `outside`: 192.0.2.1 and 192.0.2.2, 2001:db8::1 and ::2. All of a machine's
limpet runs in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import runner

SERVER = """
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
print("ready", flush=True)
while True:
    connection, address = server.accept()
    connection.sendall(address[0].removeprefix("::ffff:").encode() + b"\\n")
    connection.close()
"""
"""Tells each client its address."""


class Machine:
    """A network namespace, held by a sleeping process. `run("ip", "link")` gives stdout; `limpet` has its own store."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self.path = f"/proc/{self._holder.pid}/ns/net"
        ours = os.readlink("/proc/self/ns/net")
        while os.readlink(self.path) == ours:
            time.sleep(0.001)  # until unshare(2), which nobody tells of
        self.enter = ["nsenter", f"--net={self.path}"]
        self.pid = self._holder.pid
        self.limpet: Any = None
        self._servers: list[subprocess.Popen[str]] = []
        self.run("ip", "link", "set", "lo", "up")
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=0")

    def run(self, *command: str, check: bool = True, **options: Any) -> str:
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, timeout=60, **options)
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, port: int) -> None:
        """Until the machine's end, tells each client its address."""
        command = [*self.enter, sys.executable, "-S", "-I", "-c", SERVER, str(port)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self._servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def ask(self, address: str, port: int) -> str:
        """What a server says to this machine; "" if none answers."""
        command = [*self.enter, "busybox", "nc", "-w", "1", address, str(port)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def links(self) -> list[str]:
        """Names of its interfaces, but for lo."""
        names = [line.split()[0].partition("@")[0] for line in self.run("ip", "-br", "link").splitlines()]
        return sorted(name for name in names if name != "lo")

    def tables(self) -> list[str]:
        return self.run("nft", "list", "tables").splitlines()

    def close(self) -> None:
        for each in (*self._servers, self._holder):
            each.kill()
            each.communicate()


@pytest.fixture
def outside() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


@pytest.fixture
def machine(outside: Machine, tmp_path: Path) -> Iterator[Machine]:
    """Without an image; see `busy`."""
    for program in ("nft", "ip", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    made = Machine()
    made.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", str(outside.pid))
    for each, name, number in ((made, "uplink", 1), (outside, "eth0", 2)):
        each.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", name)
        each.run("ip", "address", "add", f"2001:db8::{number}/64", "dev", name, "nodad")
        each.run("ip", "link", "set", name, "up")
    made.run("ip", "route", "add", "default", "via", "192.0.2.2")
    limpet = runner(tmp_path / "limpet")
    limpet.command = [*made.enter, *limpet.command]
    made.limpet = limpet
    yield made
    ids = limpet("ps", "-aq", check=False).stdout.split()
    if ids:
        limpet("rm", "-f", "-v", *ids, check=False)
    made.close()


@pytest.fixture
def busy(machine: Machine, busybox_tar: Path) -> Machine:
    """A machine with the image `bb`."""
    machine.limpet("import", busybox_tar, "bb")
    return machine
