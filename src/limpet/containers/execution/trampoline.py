"""The last step before a container's program: not Python executes it, but a few bytes of machine code.

Whoever is executed from Python can have Python executed in its place: a link to /proc/self/exe, `#!/proc/self/exe`, an
ELF file with that interpreter. It would run in the container as the host's own file, and could write to it later
(CVE-2019-5736). So the child becomes this program first, which is a file in nobody's directory (memfd_create(2)), and
which does nothing but to try the paths that it was given. What is to be said of each failure it has in stock.

All of it is made before the child has the container's limits and filter. Of system calls it takes fcntl, execve, write
and exit_group. Machines without code here execute from Python.
"""

from __future__ import annotations

import os

from limpet.kernel import machinecode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Answers = Sequence[tuple[int, bytes]]

_X86_64 = """
                    ; _start:
488d1d78000000      ;     lea data(%rip), %rbx  # channel, argv, envp, then the candidates
b848000000          ;     mov $72, %eax  # fcntl(channel, F_SETFD, FD_CLOEXEC)
8b3b                ;     mov (%rbx), %edi
be02000000          ;     mov $2, %esi
ba01000000          ;     mov $1, %edx
0f05                ;     syscall
85c0                ;     test %eax, %eax
7855                ;     js   leave  # it is closed: somebody runs this again, by /proc/self/exe
488d6b18            ;     lea 24(%rbx), %rbp
                    ; next:
488b7d00            ;     mov (%rbp), %rdi  # a path, or 0 after the last one
4883c508            ;     add $8, %rbp
4885ff              ;     test %rdi, %rdi
7433                ;     jz   tell
b83b000000          ;     mov $59, %eax  # execve(path, argv, envp)
488b7308            ;     mov 8(%rbx), %rsi
488b5310            ;     mov 16(%rbx), %rdx
0f05                ;     syscall
f7d8                ;     neg %eax
                    ; find:
8b4d00              ;     mov (%rbp), %ecx  # an error number, or 0 for all others; then size, address
4883c508            ;     add $8, %rbp
85c9                ;     test %ecx, %ecx
740a                ;     jz   found
39c1                ;     cmp %eax, %ecx
7406                ;     je   found
4883c510            ;     add $16, %rbp
ebeb                ;     jmp  find
                    ; found:
48837d0000          ;     cmpq $0, (%rbp)  # nothing to tell: the next path
7506                ;     jne  tell
4883c510            ;     add $16, %rbp
ebc0                ;     jmp  next
                    ; tell:
b801000000          ;     mov $1, %eax  # write(channel, address, size)
8b3b                ;     mov (%rbx), %edi
488b7508            ;     mov 8(%rbp), %rsi
488b5500            ;     mov (%rbp), %rdx
0f05                ;     syscall
                    ; leave:
b8e7000000          ;     mov $231, %eax  # exit_group(125)
bf7d000000          ;     mov $125, %edi
0f05                ;     syscall
                    ; data:
"""


_CODE = machinecode.from_listing(_X86_64)


def possible() -> bool:
    return os.uname().machine == "x86_64"


def image(
    channel: int, candidates: Sequence[tuple[str, Answers]], last: bytes, arguments: list[str], environment: list[str]
) -> bytes:
    """The program. `channel`: the descriptor to which one packet goes if nothing could be executed.

    `candidates`: paths with what is told for an errno; the answer for 0 is for all others, and b"" means that the next
    path is tried. `last`: what is told after the last one.
    """
    size = 24 + sum(8 + 24 * len(answers) for _, answers in candidates) + 24
    at = machinecode.address(len(_CODE)) + size
    texts = bytearray()

    def put(data: bytes) -> int:
        texts.extend(data)
        return at + len(texts) - len(data)

    vectors = [put(machinecode.vector(words, at + len(texts))) for words in (arguments, environment)]
    head = [channel, *vectors]
    for path, answers in candidates:
        head.append(put(os.fsencode(path) + b"\0"))
        for number, packet in answers:
            head += (number, len(packet), put(packet))
    head += (0, len(last), put(last))
    return machinecode.elf_x86_64(_CODE + b"".join(number.to_bytes(8, "little") for number in head) + texts)
