"""Seccomp: which system calls a container may make, from the profile to the installed filter.

Profiles have the form of OCI `linux.seccomp`: the default, equal in effect to Docker's (`seccomp_profile`), or one read
from a file (`seccomp_json`). `seccomp_compiler` makes programs of them; it is imported only when one is not in the
cache.
"""

from __future__ import annotations

import os
import struct

from limpet.kernel import seccomp_profile
from limpet.kernel.sys import MACHINE, Buffer, by_machine, fail, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

VERSION = 1
"""Of the default profile and the compiler: what an older one left in a cache is not taken."""

_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}
_EPERM, _ENOSYS = 1, 38
_SECCOMP, _SET_MODE_FILTER = by_machine(317, 277), 1
_MOST = 8 * 4096  # bytes of a program: BPF_MAXINSNS


def default_profile(capabilities: Iterable[str], arch: str = "") -> dict[str, Any]:
    """The default as OCI `linux.seccomp`. `capabilities`: the container's bounding set; `arch`: as uname says it."""
    machine = arch or MACHINE
    held = set(capabilities)
    allowed = seccomp_profile.ALWAYS.split() + seccomp_profile.BY_MACHINE.get(machine, "").split()
    for capability, names in seccomp_profile.BY_CAPABILITY.items():
        if capability in held:
            allowed += names.split()
    rules: list[dict[str, Any]] = [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
    for name, operation, value in seccomp_profile.BY_ARGUMENT:
        rules.append(_conditional(name, operation, value))
    if "CAP_SYS_ADMIN" not in held:
        rules.append(_conditional("clone", "SCMP_CMP_MASKED_EQ", seccomp_profile.CLONE_MASK))
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": _ARCHITECTURES.get(machine, []),
        "syscalls": rules,
    }


def _conditional(name: str, operation: str, value: int) -> dict[str, Any]:
    condition = {"index": 0, "value": value, "op": operation}
    if operation == "SCMP_CMP_MASKED_EQ":
        condition["valueTwo"] = 0
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]}


def from_docker_json(text: str | bytes, capabilities: Iterable[str]) -> dict[str, Any]:
    """`--security-opt seccomp=FILE`: Docker's format or OCI's, as OCI's for this machine. Raises Invalid."""
    from limpet.kernel import seccomp_json

    return seccomp_json.read(text, capabilities)


def default_program(capabilities: Iterable[str], cache: str = "") -> bytes:
    """The default, compiled. `cache`: a directory, made if it is missing, that keeps programs by what they are of.

    It is only a cache: what is damaged there, or can't be written, is compiled again.
    """
    held = sorted({*capabilities}.intersection(seccomp_profile.BY_CAPABILITY))
    if not cache:
        return compile(default_profile(held))
    import zlib

    # What it was made of stands before the program, its sum behind: the file's name alone proves nothing.
    made_of = f"{VERSION} {MACHINE} {' '.join(held)}\n".encode()
    path = f"{cache}/seccomp-{zlib.crc32(made_of):08x}"
    program = _cached(path, made_of)
    if program is None:
        program = compile(default_profile(held))
        _keep(cache, path, made_of + program)
    return program


def compile(profile: Mapping[str, Any], arch: str = "") -> bytes:
    """OCI `linux.seccomp` → BPF for `install`. Raises Invalid, naming what is wrong. `arch`: as uname says it."""
    from limpet.kernel import seccomp_compiler

    return seccomp_compiler.compile(profile, arch)


def install(program: bytes) -> None:
    """Puts the filter on the calling thread and all that it becomes; it can't be taken off, only added to.

    Needs CAP_SYS_ADMIN or no_new_privs. As runc: without no_new_privs it is installed before capabilities are
    dropped, and the profile must then allow what is called afterwards (capset, setuid, prctl, execve, ...); with
    no_new_privs it comes last.
    """
    code = Buffer(program)
    try:
        syscall(_SECCOMP, _SET_MODE_FILTER, 0, Buffer(struct.pack("<HxxxxxxQ", len(program) // 8, code.address)))
    except OSError as e:
        fail(e, "installing the seccomp filter")


def _cached(path: str, made_of: bytes) -> bytes | None:
    import zlib

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, _MOST + 4096)
        finally:
            os.close(fd)
    except OSError:
        return None
    if not data.startswith(made_of) or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        return None
    return data[len(made_of) : -4]


def _keep(directory: str, path: str, data: bytes) -> None:
    import zlib

    temporary = f"{path}.new-{os.getpid()}"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data + zlib.crc32(data).to_bytes(4, "little"))
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        pass  # a full or read-only disk: a millisecond lost at the next start
