"""Git by ssh: the agent of --ssh default, and no other key; a host's key is remembered, and another one refused."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.build.sources.gitserver import Origin

pytestmark = pytest.mark.slow

SSHD = "/usr/sbin/sshd"


class Server:
    """An sshd of the test's own on loopback, which lets in the key `user` as root."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.key("user")
        self.key("host")
        shutil.copy(directory / "user.pub", directory / "authorized")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def key(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.directory / name)]
        subprocess.run(command, check=True)

    def start(self) -> None:
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.directory / "host",
            "AuthorizedKeysFile": self.directory / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
        }
        (self.directory / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.directory / "config")], stderr=subprocess.PIPE
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if b"Server listening" in line:
                return
        raise AssertionError("sshd did not begin")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if not os.path.exists(SSHD):
        pytest.skip("needs Debian's openssh-server")
    made = not os.path.exists("/run/sshd")
    os.makedirs("/run/sshd", 0o755, exist_ok=True)
    found = Server(tmp_path / "ssh")
    found.start()
    yield found
    found.stop()
    if made:
        os.rmdir("/run/sshd")


@pytest.fixture
def agent(tmp_path: Path, server: Server) -> Iterator[Path]:
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.01)
    subprocess.run(
        ["ssh-add", "-q", str(server.directory / "user")], env={**os.environ, "SSH_AUTH_SOCK": str(path)}, check=True
    )
    yield path
    process.send_signal(signal.SIGTERM)
    process.wait()


def test_by_ssh(build: Any, server: Server, agent: Path, tmp_path: Path) -> None:
    origin = Origin(tmp_path)
    origin.commit("one", file="one\n")
    address = f"ssh://root@127.0.0.1:{server.port}{tmp_path}/app.git"
    lines = ("FROM scratch", f"ADD {address} /x/")
    build.limpet.environment.pop("SSH_AUTH_SOCK", None)
    build.limpet.environment["HOME"] = str(tmp_path)
    assert "give it with --ssh default" in build.error(*lines)
    with_agent = ("--ssh", f"default={agent}")
    build(*lines, options=with_agent)
    assert [line.split()[-1] for line in build.listing()] == ["x/", "x/file"]
    origin.commit("two", file="two\n")
    build(*lines, options=with_agent)

    server.stop()
    server.key("host")
    server.start()
    error = build.error(*lines, options=("--no-cache", *with_agent))
    assert "the host has another key than before" in error
    (Path(build.limpet.root) / "cache/known_hosts").unlink()
    build(*lines, options=("--no-cache", *with_agent))

    (server.directory / "authorized").write_text("")
    error = build.error(*lines, options=("--no-cache", *with_agent))
    assert "the agent of --ssh default has no key that is let in" in error


def test_by_the_file_of_a_key(build: Any, server: Server, tmp_path: Path, busybox: str) -> None:
    """It gets an agent for the time of the build."""
    Origin(tmp_path).commit("one", file="one\n")
    key = server.directory / "user"
    lines = ("FROM scratch", f"ADD ssh://root@127.0.0.1:{server.port}{tmp_path}/app.git /x/")
    build(*lines, options=("--ssh", f"default={key}"))
    assert [line.split()[-1] for line in build.listing()] == ["x/", "x/file"]
    build(f"FROM {busybox}", "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK", options=("--ssh", f"default={key}"))
    server.key("locked")
    locked = server.directory / "locked"
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "passphrase", "-f", locked], check=True)
    for bad in (locked, server.directory / "host.pub", tmp_path / "none"):
        error = build.error(*lines, options=("--ssh", f"default={bad}"))
        assert str(bad) in error
    assert "ssh-add" in build.error(*lines, options=("--ssh", f"default={locked}"))
    assert list((Path(build.limpet.root) / "tmp").iterdir()) == []
