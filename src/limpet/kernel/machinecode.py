"""Static executables made of a few bytes of machine code, for processes that would waste an interpreter."""

from __future__ import annotations

import os

BASE = 0x400000
"""Where an image is mapped, headers first: the address of what stands behind the code is known when it is made."""

_HEADERS = 64 + 2 * 56


def from_listing(listing: str) -> bytes:
    """The bytes of a listing: hexadecimal digits, then `;` and the source line that they stand for."""
    return bytes.fromhex("".join(line.partition(";")[0] for line in listing.splitlines()))


def address(offset: int) -> int:
    """Of the byte at that offset of the code."""
    return BASE + _HEADERS + offset


def elf_x86_64(code: bytes) -> bytes:
    """An ELF executable (ELF-64 object file format 1.5) that begins at the first byte of `code`, mapped read-only."""
    size = _HEADERS + len(code)
    head = b"\x7fELF\2\1\1" + bytes(9) + _numbers((2, 2), (62, 2), (1, 4), (address(0), 8), (64, 8), (0, 8), (0, 4))
    head += _numbers((64, 2), (56, 2), (2, 2), (0, 2), (0, 2), (0, 2))
    text = _numbers((1, 4), (5, 4), (0, 8), (BASE, 8), (BASE, 8), (size, 8), (size, 8), (0x1000, 8))  # PT_LOAD, r-x
    stack = _numbers((0x6474E551, 4), (6, 4), *((0, 8),) * 5, (16, 8))  # PT_GNU_STACK, not executable
    return head + text + stack + code


def vector(texts: list[str], at: int) -> bytes:
    """Texts as execve(2) wants them, to be mapped at that address: pointers to them, NULL, and then the texts."""
    encoded = [os.fsencode(text) + b"\0" for text in texts]
    place = at + 8 * (len(encoded) + 1)
    pointers = b""
    for text in encoded:
        pointers += place.to_bytes(8, "little")
        place += len(text)
    return pointers + bytes(8) + b"".join(encoded)


_WAITING = """
                    ; _start:
b807000000          ;     mov $7, %eax          # poll(NULL, 0, milliseconds)
31ff                ;     xor %edi, %edi
31f6                ;     xor %esi, %esi
488b150b000000      ;     mov time(%rip), %rdx
0f05                ;     syscall
b8e7000000          ;     mov $231, %eax        # exit_group(0)
31ff                ;     xor %edi, %edi
0f05                ;     syscall
                    ; time:
"""


def waiting(milliseconds: int) -> bytes | None:
    """A program that does nothing for so long, and ends; None for a machine that has no code here."""
    if os.uname().machine != "x86_64":
        return None
    return elf_x86_64(from_listing(_WAITING) + milliseconds.to_bytes(8, "little"))


def in_memory(name: str, image: bytes) -> int:
    """The image as a file that is nowhere, for `os.execve`."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, image)
    return fd


def _numbers(*fields: tuple[int, int]) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value, size in fields)
