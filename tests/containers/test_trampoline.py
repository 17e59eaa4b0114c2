"""The machine code that executes a container's program in Python's place."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from limpet.containers.execution import trampoline
from limpet.kernel import machinecode

pytestmark = pytest.mark.skipif(not trampoline.possible(), reason="no machine code for this machine")


def test_the_bytes_are_the_listing(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("objcopy")):
        pytest.skip("needs GNU as")
    lines = [line.partition(";")[2].partition("#")[0].rstrip() for line in trampoline._X86_64.splitlines()]
    (tmp_path / "code.s").write_text("\n".join(lines) + "\n")
    subprocess.run(["as", "code.s", "-o", "code.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "code.o", "code.bin"], cwd=tmp_path, check=True)
    assert (tmp_path / "code.bin").read_bytes() == machinecode.from_listing(trampoline._X86_64)


def run(candidates: list[tuple[str, list[tuple[int, bytes]]]], *words: str) -> tuple[int, list[bytes], str]:
    """Exit code, packets, and what the program wrote."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            image = trampoline.image(theirs.fileno(), candidates, b"last", list(words), ["WORD=a b", "EMPTY="])
            os.dup2(write, 1)
            theirs.set_inheritable(True)
            os.execve(machinecode.in_memory("trampoline", image), ["x"], {})
        finally:
            os._exit(1)
    theirs.close()
    os.close(write)
    with open(read) as file:
        text = file.read()
    packets = []
    while packet := ours.recv(65536):
        packets.append(packet)
    ours.close()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), packets, text


def test_arguments_and_environment_arrive_and_the_channel_is_closed() -> None:
    script = 'echo "$0|$1|$WORD|$EMPTY|$(env | wc -l)"; ls -l /proc/$$/fd | grep -c "socket\\|memfd"; true'
    code, packets, text = run([("/bin/sh", [(0, b"no")])], "sh", "-c", script, "zero", "")
    assert (code, packets) == (0, [])
    first, _, count = text.partition("\n")
    assert first.startswith("zero||a b||")
    assert count == "0\n"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/nosuch"], b"not there"),
        (["/etc"], b"any other"),
        (["/etc/passwd/x"], b"any other"),
        ([], b"last"),
    ],
)
def test_a_failure_is_told(paths: list[str], expected: bytes) -> None:
    answers = [(errno.ENOEXEC, b"format"), (errno.ENOENT, b"not there"), (0, b"any other")]
    assert run([(path, answers) for path in paths], "x") == (125, [expected], "")


def test_the_next_path_is_tried(tmp_path: Path) -> None:
    answers = [(errno.ENOEXEC, b"format"), (0, b"")]
    (tmp_path / "not executable").touch()
    assert run([("/nosuch", answers), ("/etc", answers), ("/bin/true", answers)], "true") == (0, [], "")
    assert run([("/nosuch", answers), (str(tmp_path / "not executable"), answers)], "x") == (125, [b"last"], "")
    (tmp_path / "odd").write_bytes(b"\x7fELF")
    (tmp_path / "odd").chmod(0o755)
    assert run([(str(tmp_path / "odd"), answers), ("/bin/true", answers)], "x") == (125, [b"format"], "")
