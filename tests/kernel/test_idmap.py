"""Which ids a user namespace has, whom it is kept by, and the program that keeps it for a while."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from limpet.kernel import idmap, machinecode, process

X86_64 = os.uname().machine == "x86_64"


def in_child(work: object) -> int:
    """The exit code of a forked process that calls `work`; 0 unless it says otherwise."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = int(work() or 0)  # type: ignore[operator]
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_hosts_own_namespace_has_every_id() -> None:
    assert not idmap.nested()
    assert not idmap.single()
    assert idmap.has(4_000_000_000)
    assert idmap.outside(7) == 7


def test_one_id_of_a_namespace_of_our_own() -> None:
    def work() -> int:
        idmap.make()
        idmap.write_own(0, 0)
        known = (idmap.nested(), idmap.single(), idmap.has(0), idmap.has(1), idmap.has(1, "gid"), idmap.outside(0))
        return known != (True, True, True, False, False, 0)

    assert in_child(work) == 0


def test_who_holds_the_file_shows_the_way_in(tmp_path: Path) -> None:
    """And nobody else: not who has it open, not who has ended."""
    fd = os.open(tmp_path / "userns", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    ready, told = os.pipe()
    go, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            idmap.make()
            idmap.write_own(0, 0)
            idmap.hold(fd)
            os.write(told, b"1")
            os.close(release)
            os.read(go, 1)
        finally:
            os._exit(0)
    os.read(ready, 1)
    try:
        assert idmap.holder(fd) == pid
        theirs = os.stat(f"/proc/{pid}/ns/user").st_ino
        assert in_child(lambda: not (idmap.join(fd) and os.stat("/proc/self/ns/user").st_ino == theirs)) == 0
    finally:
        os.close(release)
        os.waitpid(pid, 0)
    assert idmap.holder(fd) == 0
    assert in_child(lambda: idmap.join(fd)) == 0
    for each in (fd, ready, told, go):
        os.close(each)


@pytest.mark.skipif(not X86_64, reason="there is code for x86-64 only")
def test_the_program_that_waits_is_its_listing(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("objcopy")):
        pytest.skip("needs GNU as")
    lines = [line.partition(";")[2].partition("#")[0].rstrip() for line in machinecode._WAITING.splitlines()]
    (tmp_path / "waiting.s").write_text("\n".join(lines) + "\n")
    subprocess.run(["as", "waiting.s", "-o", "waiting.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "waiting.o", "waiting.bin"], cwd=tmp_path, check=True)
    image = machinecode.waiting(1000)
    assert image is not None
    assert image.endswith((tmp_path / "waiting.bin").read_bytes() + (1000).to_bytes(8, "little"))


@pytest.mark.skipif(not X86_64, reason="there is code for x86-64 only")
def test_it_keeps_its_hold_for_its_time(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "userns", os.O_RDWR | os.O_CREAT, 0o600)
    image = machinecode.waiting(300)
    assert image is not None
    program = machinecode.in_memory("test", image)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.set_inheritable(fd, True)
            fcntl.lockf(fd, fcntl.LOCK_SH)
            os.execve(program, ["test"], {})
        finally:
            os._exit(1)
    os.close(program)
    pidfd = os.pidfd_open(pid)
    while not idmap.holder(fd):
        assert process.start_time(pid)
        assert time.monotonic() - began < 10
    assert idmap.holder(fd) == pid
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert time.monotonic() - began > 0.25
    assert idmap.holder(fd) == 0
    os.close(pidfd)
    os.close(fd)
