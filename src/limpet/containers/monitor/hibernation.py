"""An idle monitor gives its memory back: it becomes 124 bytes of machine code that wait, and wakes as Python again.

A Python process has 4 MB of its own, most of it from the interpreter's start. The monitor of a container that is
silent and that nobody is attached to has nothing to do but to wait for the container's end, its output, or a client.
So it executes a program of one page that keeps the descriptors, the lock and the child, calls poll(2) for them, and at
the first event executes Python, which goes on where the state in a memory file says. Where no Python can be executed
just then (the checkout is being upgraded), the program tries again every second, and the container runs on.

`tests/containers/test_hibernation.py` assembles the listing again (GNU as) and compares. Machines without code here
keep the Python process.
"""

from __future__ import annotations

import os
import sys
import time

from limpet import SOURCE, jsontext
from limpet.kernel import machinecode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 2
"""Of the state. The Python that wakes may be newer than the one that fell asleep: it must know what all before wrote.
One that is older, after a way back, doesn't: see `wait_for_newer`. Since 2 the log says how many lines it dropped."""

_PATIENCE = 5.0  # seconds between two looks whether a newer limpet is there

_NAME = b"limpet-monitor"

_X86_64 = """
                    ; _start:
488d5c2418          ;     lea 24(%rsp), %rbx      # the environment: after argc (1), argv[0] and NULL
b89d000000          ;     mov $157, %eax          # prctl
bf0f000000          ;     mov $15, %edi           # PR_SET_NAME
488d3557000000      ;     lea name(%rip), %rsi
0f05                ;     syscall
488d355d000000      ;     lea data(%rip), %rsi
fc                  ;     cld
48ad                ;     lodsq
4989c4              ;     mov %rax, %r12          # the arguments of what wakes
48ad                ;     lodsq
4889c5              ;     mov %rax, %rbp          # how many descriptors
89c1                ;     mov %eax, %ecx
48c1e003            ;     shl $3, %rax
4829c4              ;     sub %rax, %rsp
4889e7              ;     mov %rsp, %rdi
f348a5              ;     rep movsq               # poll writes into them
                    ; again:
b807000000          ;     mov $7, %eax            # poll(descriptors, count, -1)
4889e7              ;     mov %rsp, %rdi
89ee                ;     mov %ebp, %esi
6aff                ;     push $-1
5a                  ;     pop %rdx
0f05                ;     syscall
b83b000000          ;     mov $59, %eax           # execve(arguments[0], arguments, environment)
498b3c24            ;     mov (%r12), %rdi
4c89e6              ;     mov %r12, %rsi
4889da              ;     mov %rbx, %rdx
0f05                ;     syscall
6a00                ;     push $0                 # it is not there just now: a second later again
6a01                ;     push $1
b823000000          ;     mov $35, %eax           # nanosleep
4889e7              ;     mov %rsp, %rdi
31f6                ;     xor %esi, %esi
0f05                ;     syscall
58                  ;     pop %rax
58                  ;     pop %rax
ebcc                ;     jmp again
                    ; name:
6c696d7065742d6d6f6e69746f7200 ;     .asciz "limpet-monitor"
                    ; data:
"""

_WAKE = """
import os, sys, time
try:
    sys.path.insert(0, sys.argv[1])
    from limpet.containers.monitor import wake
except BaseException:
    time.sleep(1)
    os.execve(int(sys.argv[2]), ["limpet monitor"], os.environ)
wake(int(sys.argv[2]), int(sys.argv[3]))
"""
"""What is executed. A checkout in the middle of an upgrade must not cost the container: back to sleep, then."""


def possible() -> bool:
    return os.uname().machine == "x86_64"


def image(watched: dict[int, int], arguments: list[str], name: bytes = _NAME) -> bytes:
    """The waiting program. `watched`: descriptor → poll(2) events; `arguments`: of what it becomes, path first.

    `name`: that the kernel shows for it, at most as long as the default.
    """
    code = machinecode.from_listing(_X86_64).replace(_NAME, name.ljust(len(_NAME), b"\0"))
    descriptors = b"".join(
        fd.to_bytes(4, "little") + events.to_bytes(2, "little") + bytes(2) for fd, events in watched.items()
    )
    at = machinecode.address(len(code) + 16 + len(descriptors))
    head = at.to_bytes(8, "little") + len(watched).to_bytes(8, "little")
    return machinecode.elf_x86_64(code + head + descriptors + machinecode.vector(arguments, at))


def sleep(title: str, watched: dict[int, int], kept: list[int], state: dict[str, Any]) -> None:
    """Replaces this process; returns only if that can't be. `kept`: more descriptors that must survive."""
    source = SOURCE
    memory = machinecode.in_memory("limpet-monitor-state", jsontext.dumps({"version": VERSION, **state}).encode())
    program = machinecode.in_memory("limpet-monitor", b"")
    # The image names its own descriptor, so that a Python that can't go on may go back to sleep.
    arguments = [sys.executable, "-S", "-I", "-c", _WAKE, source, str(program), str(memory)]
    os.write(program, image(watched, arguments))
    mine = [*watched, *kept, memory, program]
    try:
        for fd in mine:
            os.set_inheritable(fd, True)
        os.execve(program, [title], os.environ)
    except OSError:
        for fd in mine:
            os.set_inheritable(fd, False)
        os.close(memory)
        os.close(program)


def wait_for_newer(program: int, memory: int) -> None:
    """Returns if this limpet knows what the state means. Else back to sleep: the container runs on until one does."""
    found = jsontext.loads(os.pread(memory, os.fstat(memory).st_size, 0).decode())
    if found.get("version", 1) <= VERSION:
        return
    os.set_inheritable(program, True)
    os.set_inheritable(memory, True)
    time.sleep(_PATIENCE)
    os.execve(program, ["limpet monitor"], os.environ)


def state(program: int, memory: int) -> dict[str, Any]:
    """What `sleep` was given, in the process that woke. Closes both descriptors."""
    os.close(program)
    data = os.pread(memory, os.fstat(memory).st_size, 0)
    os.close(memory)
    found: dict[str, Any] = jsontext.loads(data.decode())
    return found
