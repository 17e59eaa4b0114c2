"""The init's machine code is what its listing says, and does what `init` does in Python."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from limpet import SOURCE
from limpet.containers.execution import tinyinit

HERE = os.uname().machine


def test_the_bytes_are_the_listing(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("objcopy")) or HERE != "x86_64":
        pytest.skip("needs GNU as for x86-64")
    lines = [line.partition(";")[2].partition("#")[0].rstrip() for line in tinyinit._X86_64.splitlines()]
    (tmp_path / "init.s").write_text("\n".join(lines) + "\n")
    subprocess.run(["as", "init.s", "-o", "init.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "init.o", "init.bin"], cwd=tmp_path, check=True)
    image = tinyinit.image("x86_64")
    assert image is not None
    code = (tmp_path / "init.bin").read_bytes()
    assert image.endswith(code)
    assert len(code) == 157


def test_no_code_for_other_machines() -> None:
    assert tinyinit.image("aarch64") is None


# A process that becomes the init of a child, which runs the script; what follows `--` is the way there.
CHILD = """
import os, signal, sys
sys.path.insert(0, {source!r})
from limpet.containers.execution import tinyinit
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
pid = os.fork()
if pid == 0:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execv("/bin/sh", ["sh", "-c", {script!r}])
tinyinit.become(pid)
"""


def become(script: str) -> subprocess.Popen[str]:
    source = SOURCE
    code = CHILD.format(source=source, script=script)
    return subprocess.Popen([sys.executable, "-S", "-I", "-c", code], stdout=subprocess.PIPE, text=True)


pytestmark = pytest.mark.skipif(tinyinit.image(HERE) is None, reason=f"no init in machine code for {HERE}")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 37", 37), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_it_ends_as_the_program(script: str, code: int) -> None:
    with become(script) as process:
        assert process.wait(10) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3])
def test_it_passes_signals_on(number: int) -> None:
    script = f"trap 'exit 42' {number}; echo ready; while :; do sleep 0.01; done"
    with become(script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == 42
