"""The init of a container as 157 bytes of machine code, in place of a Python process of 3 MB beside every container.

`init` is the same loop in Python, for machines that have no code here: wait for any signal; SIGCHLD reaps, and ends
with the program's own code; every other signal goes to the program. `tests/containers/test_tinyinit.py` assembles the
listing again (GNU as) and compares.
"""

from __future__ import annotations

import os

from limpet.kernel import machinecode

_X86_64 = """
                    ; _start:
488b742410          ;     mov 16(%rsp), %rsi  # argv[1]: the pid of the program, in decimal
4531e4              ;     xor %r12d, %r12d
                    ; digit:
0fb606              ;     movzbl (%rsi), %eax
48ffc6              ;     inc %rsi
83e830              ;     sub $48, %eax
7809                ;     js  settle
456be40a            ;     imul $10, %r12d, %r12d
4101c4              ;     add %eax, %r12d
ebec                ;     jmp digit
                    ; settle:
b89d000000          ;     mov $157, %eax      # prctl
bf0f000000          ;     mov $15, %edi       # PR_SET_NAME
488b742408          ;     mov 8(%rsp), %rsi   # argv[0]
0f05                ;     syscall
6aff                ;     push $-1
4889e3              ;     mov %rsp, %rbx      # a set of all signals; they came blocked
6a00                ;     push $0             # room for a wait status
                    ; wait:
b880000000          ;     mov $128, %eax      # rt_sigtimedwait(set, NULL, NULL, 8)
4889df              ;     mov %rbx, %rdi
31f6                ;     xor %esi, %esi
31d2                ;     xor %edx, %edx
41ba08000000        ;     mov $8, %r10d
0f05                ;     syscall
83f811              ;     cmp $17, %eax       # SIGCHLD
7412                ;     je  reap
85c0                ;     test %eax, %eax
7ee3                ;     jle wait
89c6                ;     mov %eax, %esi
4489e7              ;     mov %r12d, %edi
b83e000000          ;     mov $62, %eax       # kill(program, signal)
0f05                ;     syscall
ebd5                ;     jmp wait
                    ; reap:
b83d000000          ;     mov $61, %eax       # wait4(-1, &status, WNOHANG, NULL)
48c7c7ffffffff      ;     mov $-1, %rdi
4889e6              ;     mov %rsp, %rsi
ba01000000          ;     mov $1, %edx
4531d2              ;     xor %r10d, %r10d
0f05                ;     syscall
85c0                ;     test %eax, %eax
7eb8                ;     jle wait
4139c4              ;     cmp %eax, %r12d     # an orphan?
75de                ;     jne reap
8b3c24              ;     mov (%rsp), %edi
89f8                ;     mov %edi, %eax
83e07f              ;     and $127, %eax      # ended by a signal?
7505                ;     jne signal
c1ef08              ;     shr $8, %edi        # its exit code
eb06                ;     jmp leave
                    ; signal:
8db880000000        ;     lea 128(%rax), %edi # 128 + signal
                    ; leave:
b8e7000000          ;     mov $231, %eax      # exit_group
0f05                ;     syscall
"""


def image(machine: str) -> bytes | None:
    """A static ELF executable for that machine, or None. Its arguments are a name and the program's pid."""
    return machinecode.elf_x86_64(machinecode.from_listing(_X86_64)) if machine == "x86_64" else None


def prepare(*, readable: bool = True) -> int:
    """The executable, for `become`, as a nameless file of the container's own /dev; -1 if that can't be.

    Of such a one a checkpoint can be restored; it is made while we are root.
    """
    data = image(os.uname().machine)
    if data is None:
        return -1
    try:
        file = os.open("/dev", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o555 if readable else 0o111)
    except OSError:
        return -1
    try:
        os.write(file, data)
        return os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)  # what may be written can't be executed
    except OSError:
        return -1
    finally:
        os.close(file)


def become(program: int, prepared: int = -1, *, readable: bool = True) -> None:
    """Replaces this process by the init; returns only when that can't be. All signals must be blocked.

    `readable`: for those with the same rights, through /proc and ptrace. Else it is not dumpable, since it may not read
    its own image (`would_dump` of the kernel's fs/exec.c); the caller must have no capability that overrides that.
    """
    data = image(os.uname().machine)
    if data is None:
        return
    if prepared >= 0:
        try:
            os.execve(prepared, ["limpet-init", str(program)], {})
        except OSError:  # a file system without execution
            os.close(prepared)
    fd = machinecode.in_memory("limpet-init", data)
    if not readable:
        os.fchmod(fd, 0o111)
    try:
        os.execve(fd, ["limpet-init", str(program)], {})
    except OSError:
        os.close(fd)
