"""The engines that are compared, each with stores of its own under one scratch directory, gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass
class Engine:
    """`command` is the client with its global options; `words` finds the processes that run for it."""

    name: str
    command: list[str]
    environment: dict[str, str]
    pull_options: list[str] = field(default_factory=list)
    run_options: list[str] = field(default_factory=list)
    build_options: list[str] = field(default_factory=list)
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    marks: tuple[str, ...] = ()

    def __call__(self, *args: str, check: bool = True) -> str:
        result = subprocess.run(
            [*self.command, *args], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if check and result.returncode:
            raise RuntimeError(f"{self.name} {' '.join(args)}: exit {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def memory(self) -> int:
        """Bytes of proportional set size of all processes that run for this engine, those in containers left out."""
        total = 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if any(mark in line for mark in self.marks) and "sleep" not in line.split()[:1]:
                    for row in (entry / "smaps_rollup").read_text().splitlines():
                        if row.startswith("Pss:"):
                            total += int(row.split()[1]) * 1024
            except (OSError, IndexError):
                continue
        return total

    def processor_seconds(self) -> float:
        """User and system time of the processes that run for this engine now, and of their children that ended."""
        ticks = 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if any(mark in line for mark in self.marks):
                    ticks += sum(map(int, (entry / "stat").read_text().rpartition(")")[2].split()[11:15]))
            except OSError:
                continue
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        for server in reversed(self.servers):
            server.send_signal(signal.SIGTERM)
            server.wait()


def limpet(scratch: Path) -> Engine:
    environment = {**os.environ, "LIMPET_ROOT": f"{scratch}/limpet"}
    # The monitors keep the launcher's command line, so the script's path finds them.
    return Engine("limpet", [str(CHECKOUT / "limpet")], environment, marks=("limpet/__main__.py", "limpet monitor"))


def docker(scratch: Path) -> Engine | None:
    """Debian's docker.io 20.10, never the product's own: dockerd without bridge and firewall rules."""
    if not shutil.which("dockerd"):
        return None
    socket = f"{scratch}/docker.sock"
    log = open(scratch / "dockerd.log", "wb")
    # fmt: off
    server = subprocess.Popen(
        ["dockerd", "--iptables=false", "--bridge=none", "--data-root", f"{scratch}/docker", "--exec-root",
         f"{scratch}/docker-run", "--pidfile", f"{scratch}/docker.pid", "-H", f"unix://{socket}"],
        stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    # fmt: on
    engine = Engine(
        "docker",
        ["/usr/bin/docker", "-H", f"unix://{socket}"],
        {**os.environ, "DOCKER_BUILDKIT": "1"},
        run_options=["--network", "host"],
        build_options=["--network", "host"],
        servers=[server],
        marks=("dockerd", "containerd"),
    )
    for _ in range(300):
        if os.path.exists(socket) and subprocess.run([*engine.command, "info"], capture_output=True).returncode == 0:
            return engine
        time.sleep(0.1)
    engine.close()
    print((scratch / "dockerd.log").read_text()[-2000:])
    return None


def podman(scratch: Path) -> Engine | None:
    if not shutil.which("podman"):
        return None
    # fmt: off
    command = ["podman", "--root", f"{scratch}/podman", "--runroot", f"{scratch}/podman-run", "--runtime", "runc",
               "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    # fmt: on
    return Engine(
        "podman",
        command,
        dict(os.environ),
        ["--tls-verify=false"],
        ["--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"],
        ["--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--layers"],
        marks=("conmon", "podman"),
    )


def registry(
    scratch: Path, port: int, address: str = "127.0.0.1", before: Sequence[str] = (), storage: str = "registry"
) -> subprocess.Popen[bytes]:
    config = scratch / f"{storage}-{address}.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {scratch}/{storage}}}}}\n"
        f"http: {{addr: '{address}:{port}'}}\n"
    )
    log = open(scratch / f"{storage}.log", "ab")
    return subprocess.Popen([*before, "docker-registry", "serve", str(config)], stdout=log, stderr=log)
