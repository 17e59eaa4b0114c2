"""`build --debug-shell`: a shell where a RUN failed, and nothing of it afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.build.test_execute import build
from tests.containers.test_terminal import Terminal

pytestmark = pytest.mark.slow


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def nothing_left(limpet: Any) -> None:
    assert limpet("ps", "-aq").stdout == ""
    assert os.listdir(limpet.root / "containers") == []
    assert os.listdir(limpet.root / "tmp") == []
    assert limpet("system", "check").returncode == 0


def test_it_has_what_the_command_had_and_what_it_did(limpet: Any, busybox: str, context: Path) -> None:
    (context / "token").write_text("t0p")
    (context / "Dockerfile").write_text(
        f"FROM {busybox}\nENV GREETING=hello\nWORKDIR /srv\nUSER user\nRUN echo before > /tmp/before\n"
        "RUN --mount=type=secret,id=token,env=TOKEN --mount=type=bind,target=/src \\\n"
        "  --mount=type=tmpfs,target=/scratch \\\n"
        "  echo half > /tmp/half; rm /tmp/before; exit 7\n"
    )
    terminal = Terminal(limpet, "build", "--debug-shell", "--secret", f"id=token,src={context}/token", str(context))
    terminal.expect("exit 7")
    terminal.expect("ended with exit code 7")
    terminal.type("PS1=; echo $GREETING $(pwd) $(id -un) $(cat /tmp/half) $(ls /tmp) $TOKEN $(ls /src)\r")
    terminal.expect("hello /srv user half half t0p Dockerfile token")
    terminal.type("grep -c /scratch /proc/mounts; stty size; exit 3\r")
    terminal.expect("1\r\n24 80")
    terminal.expect("the command failed with exit code 7")
    assert terminal.end() == 1
    nothing_left(limpet)


def test_an_image_without_a_shell_gets_the_host_s_busybox(limpet: Any, context: Path) -> None:
    program = shutil.which("busybox")
    assert program is not None
    shutil.copy(program, context / "false")
    (context / "Dockerfile").write_text('FROM scratch\nCOPY false /bin/\nRUN ["/bin/false"]\n')
    terminal = Terminal(limpet, "build", "--debug-shell", str(context))
    terminal.expect("the host's busybox: the image has no shell")
    terminal.type("PS1=; ls /bin && echo he''re && exit\r")
    terminal.expect("false")
    terminal.expect("here")
    terminal.expect("the command failed with exit code 1")
    assert terminal.end() == 1
    nothing_left(limpet)


def test_a_build_that_is_well_and_one_without_a_terminal(limpet: Any, busybox: str, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {busybox}\nRUN true\n")
    terminal = Terminal(limpet, "build", "--debug-shell", str(context))
    terminal.expect("sha256:")
    assert terminal.end() == 0
    result = build(limpet, context, f"FROM {busybox}\nRUN false\n", "--debug-shell", check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "limpet: --debug-shell needs a terminal, and standard input or standard error is none",
        "leave it out here; build again at a terminal to look at what failed",
    ]


def test_a_client_that_is_ended_takes_it_away(limpet: Any, busybox: str, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {busybox}\nRUN false\n")
    terminal = Terminal(limpet, "build", "--debug-shell", str(context))
    terminal.expect("ended with exit code 1")
    terminal.type("PS1=; echo re''ady\r")
    terminal.expect("ready")
    terminal.process.terminate()
    assert terminal.end() == 143
    nothing_left(limpet)
