"""Which programs of other machines this kernel hands to an interpreter (Documentation/admin-guide/binfmt-misc.rst).

Read from a mount of its own that nobody sees: the table is the kernel's, wherever it is mounted, and often it is not.
"""

from __future__ import annotations

import os

from limpet.frozen import dataclass
from limpet.kernel import mounts

_ELF = {
    "386": (1, 1, 3),
    "amd64": (2, 1, 62),
    "arm": (1, 1, 40),
    "arm64": (2, 1, 183),
    "loong64": (2, 1, 258),
    "mips64": (2, 2, 8),
    "mips64le": (2, 1, 8),
    "ppc64": (2, 2, 21),
    "ppc64le": (2, 1, 21),
    "riscv64": (2, 1, 243),
    "s390x": (2, 2, 22),
}
"""Class, byte order and machine of an ELF header (elf(5)), by Go's names of architectures."""

_NATIVE = {"x86_64": {"amd64", "386"}, "aarch64": {"arm64"}}


@dataclass(frozen=True, slots=True)
class Handler:
    """`fixed`: the interpreter was opened when it was registered (flag F), so that a container needs no copy of it."""

    name: str
    interpreter: str
    fixed: bool


def is_native(architecture: str) -> bool:
    """Whether this machine itself runs programs of an architecture, by Go's name for it."""
    machine = os.uname().machine
    return architecture in _NATIVE.get(machine, {machine})


def handler(architecture: str) -> Handler | None:
    """What runs programs of an architecture that this machine doesn't; None if nothing does, or it isn't known."""
    if architecture not in _ELF:
        return None
    try:
        with mounts.FsContext("binfmt_misc") as context:
            root = context.mount(0)
    except OSError:
        return None  # the kernel has no such table, or it isn't ours to see
    try:
        return _find(root, _header(architecture))
    finally:
        os.close(root)


def _header(architecture: str) -> bytes:
    """The beginning of an executable."""
    wide, order, machine = _ELF[architecture]
    kind, number = bytes((2, 0)), bytes((machine & 255, machine >> 8))
    if order == 2:
        kind, number = kind[::-1], number[::-1]
    return b"\x7fELF" + bytes((wide, order, 1)) + bytes(9) + kind + number


def _find(root: int, header: bytes) -> Handler | None:
    if _read(root, "status").strip() != "enabled":
        return None
    for name in sorted(os.listdir(f"/proc/self/fd/{root}")):
        if name in ("register", "status"):
            continue
        lines = _read(root, name).splitlines()
        fields = dict(line.partition(" ")[::2] for line in lines[1:])
        if lines[:1] == ["enabled"] and _matches(fields, header):
            return Handler(name, fields.get("interpreter", ""), "F" in fields.get("flags:", ""))
    return None


def _matches(fields: dict[str, str], header: bytes) -> bool:
    magic = bytes.fromhex(fields.get("magic", ""))
    mask = bytes.fromhex(fields.get("mask", "")) or b"\xff" * len(magic)
    at = int(fields.get("offset", "0"))
    part = header[at : at + len(magic)]
    if not magic or len(part) < len(magic):
        return False
    return all(a & m == b & m for a, b, m in zip(part, magic, mask, strict=True))


def _read(root: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    try:
        return os.read(fd, 1 << 14).decode()
    finally:
        os.close(fd)
