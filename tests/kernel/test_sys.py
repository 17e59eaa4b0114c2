"""The way of every system call: arguments of full width, errno of this call, memory for answers, little import time."""

from __future__ import annotations

import ast
import errno
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from limpet.kernel import sys as kernel
from limpet.kernel import syscalls
from limpet.kernel.sys import Buffer, by_machine, fail, syscall, text

ROOM = Path(kernel.__file__).parent
READ, WRITE, CLOSE, LSEEK = by_machine(0, 63), by_machine(1, 64), by_machine(3, 57), by_machine(8, 62)
MMAP, MUNMAP, PREAD64 = by_machine(9, 222), by_machine(11, 215), by_machine(17, 67)


def test_64_bits_go_in_and_come_out(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("w+b") as file:
        place = (1 << 40) + 5
        assert syscall(LSEEK, file.fileno(), place, 0) == place
        os.pwrite(file.fileno(), b"far", place)
        memory = Buffer(3)
        assert syscall(PREAD64, file.fileno(), memory, 3, place) == 3
        assert bytes(memory) == b"far"
        with pytest.raises(OSError) as caught:  # noqa: PT011
            syscall(LSEEK, file.fileno(), -1, 0)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(OSError):  # noqa: PT011
            syscall(LSEEK, file.fileno(), (1 << 64) - 1, 0)
    address = syscall(MMAP, None, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    assert address > 1 << 32
    assert syscall(MUNMAP, address, 4096) == 0


def test_errno_is_that_of_the_call() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        syscall(CLOSE, -1)
    assert caught.value.errno == errno.EBADF
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match="Bad address"):
            syscall(WRITE, write, None, 1)
    finally:
        os.close(read)
        os.close(write)
    with pytest.raises(OSError, match="Function not implemented"):
        syscall(100_000)


def test_each_thread_has_its_errno() -> None:
    wrong: list[int] = []

    def try_often(number: int, argument: int, expected: int) -> None:
        for _ in range(3000):
            try:
                syscall(number, argument)
            except OSError as e:
                if e.errno != expected:
                    wrong.append(e.errno or 0)

    threads = [
        threading.Thread(target=try_often, args=case) for case in ((CLOSE, -1, errno.EBADF), (100_000, 0, errno.ENOSYS))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_threads_go_on_while_a_call_waits() -> None:
    read, write = os.pipe()
    memory, done = Buffer(5), []
    thread = threading.Thread(target=lambda: done.append(syscall(READ, read, memory, 5)))
    thread.start()
    os.write(write, b"hello")  # never reached if the call held the interpreter's lock
    thread.join()
    os.close(read)
    os.close(write)
    assert done == [5]
    assert bytes(memory) == b"hello"


def test_buffers() -> None:
    assert bytes(Buffer(b"a\0b")) == b"a\0b"
    assert bytes(Buffer(4)) == bytes(4)
    one, other = Buffer(b"abcd"), Buffer(4)
    assert one.address != other.address
    assert bytes(other) == bytes(4)


def test_text() -> None:
    assert text(None) is None
    assert text("/ü/\udcff") == b"/\xc3\xbc/\xff"
    assert text(b"raw\xff") == b"raw\xff"
    for bad in ("/etc/passwd\0.png", b"a\0"):
        with pytest.raises(OSError, match="null byte") as caught:
            text(bad)
        assert caught.value.errno == errno.EINVAL


def test_fail_keeps_the_kind_of_error() -> None:
    with pytest.raises(PermissionError, match=r"mount x on y: Operation not permitted") as caught:
        fail(OSError(errno.EPERM, "?"), "mount x on y")
    assert caught.value.errno == errno.EPERM


def _numbers() -> list[tuple[str, str, int, int]]:
    """(module, name, x86-64 number, aarch64 number) of each `_NAME = by_machine(…)`, and of each bare number > 423."""
    found = []
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Assign):
                continue
            target = node.targets[0]
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            for name, value in zip(names, values, strict=False):
                if not isinstance(name, ast.Name) or not name.id.startswith("_"):
                    continue
                if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "by_machine":
                    x86_64, aarch64 = (argument.value for argument in value.args if isinstance(argument, ast.Constant))
                    found.append((path.name, name.id[1:].lower(), x86_64, aarch64))
                elif isinstance(value, ast.Constant) and isinstance(value.value, int) and 423 < value.value < 500:
                    found.append((path.name, name.id[1:].lower(), value.value, value.value))
    return found


def test_the_numbers_are_those_of_the_calls_that_they_are_named_after() -> None:
    found = _numbers()
    assert len(found) > 20
    for module, name, x86_64, aarch64 in found:
        assert syscalls.numbers("X86_64")[name] == x86_64, f"{module}: {name}"
        assert syscalls.numbers("AARCH64")[name] == aarch64, f"{module}: {name}"


def _import_time(module: str) -> float:
    """Milliseconds, the best of several fresh interpreters."""
    code = (
        f"import sys, os; sys.path.insert(0, {str(ROOM.parent.parent)!r}); from time import perf_counter as now; "
        f"start = now(); import {module}; print((now() - start) * 1e3); "
        "assert 'ctypes' not in sys.modules or 'ctypes' in sys.argv"
    )
    command = [sys.executable, "-S", "-I", "-c", code, module]
    return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(8))


def test_the_import_is_cheaper_than_ctypes() -> None:
    ours, theirs = _import_time("limpet.kernel.sys"), _import_time("ctypes")
    print(f"limpet.kernel.sys {ours:.2f} ms, ctypes {theirs:.2f} ms")
    assert ours < theirs
