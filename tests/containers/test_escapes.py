"""Ways out of a container that worked elsewhere, each by its number: the attempt is made, and has to come to nothing.

More of them stand where the thing is tested that they misuse: CVE-2024-21626 and CVE-2019-19921 in `test_hostile`,
CVE-2018-15664 and CVE-2019-14271 (`cp`) in `test_copy`, CVE-2022-36109 in `test_users`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_hostile import image_with

pytestmark = pytest.mark.slow

Limpet = Any

# A dynamic loader that tells what it was loaded for, and tries to open that for writing: 0 if it can.
LOADER = """
.globl _start
_start:
    mov $89, %eax               # readlink
    lea path(%rip), %rdi
    lea -4096(%rsp), %rsi
    mov %rsi, %rbx
    mov $4000, %edx
    syscall
    mov %eax, %edx
    mov $1, %eax                # write
    mov $1, %edi
    mov %rbx, %rsi
    syscall
    mov $2, %eax                # open
    lea path(%rip), %rdi
    mov $2, %esi
    syscall
    mov %eax, %edi
    mov $231, %eax
    syscall
path: .asciz "/proc/self/exe"
"""


@pytest.fixture
def loader(tmp_path: Path) -> bytes:
    if not (shutil.which("as") and shutil.which("ld")) or os.uname().machine != "x86_64":
        pytest.skip("needs binutils for x86-64")
    (tmp_path / "loader.s").write_text(LOADER)
    subprocess.run(["as", "loader.s", "-o", "loader.o"], cwd=tmp_path, check=True)
    subprocess.run(["ld", "-e", "_start", "-Ttext=0x7000000", "loader.o", "-o", "loader"], cwd=tmp_path, check=True)
    return (tmp_path / "loader").read_bytes()


def test_the_hosts_program_by_proc_self_exe(limpet: Limpet, busybox_tar: Path, tmp_path: Path, loader: bytes) -> None:
    """CVE-2019-5736: who is executed as /proc/self/exe runs as the file of the runtime, and could overwrite it."""
    image = image_with(
        limpet,
        busybox_tar,
        tmp_path,
        ("file", "lib64/ld-linux-x86-64.so.2", loader),
        ("file", "bin/script", "#!/proc/self/exe\n"),
        ("link", "bin/link", "/proc/self/exe"),
    )
    limpet("run", "-d", "--name", "box", image, "sleep", "1000")
    (tmp_path / "context").mkdir()
    for program in ("/bin/script", "/bin/link"):
        (tmp_path / "context/Dockerfile").write_text(f'FROM {image}\nRUN ["{program}", "x"]\n')
        for words in (
            ("run", "--rm", image, program, "x"),
            ("run", "--rm", "-t", image, program, "x"),
            ("run", "--rm", "--no-init", image, program, "x"),
            ("run", "--rm", "--userns", "auto", image, program, "x"),
            ("run", "--rm", "--entrypoint", program, image),
            ("exec", "box", program, "x"),
            ("exec", "-t", "box", program, "x"),
            ("build", "-q", "--no-cache", tmp_path / "context"),
        ):
            result = limpet(*words, check=False, timeout=20)
            assert "python" not in result.stdout + result.stderr, words
            assert result.returncode in (1, 125, 126, 127, 255), words


def test_the_program_in_between_is_nobodys_file(limpet: Limpet, busybox: str) -> None:
    """CVE-2019-5736 again: what a container does see of us is in memory, and its own."""
    script = "cat /proc/1/comm; ls -l /proc/1/exe; for p in /proc/[0-9]*; do readlink $p/exe; done"
    out = limpet("run", "--rm", busybox, "sh", "-c", script).stdout
    assert "python" not in out
    assert "memfd:limpet-init (deleted)" in out
