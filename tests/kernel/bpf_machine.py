"""What the seccomp tests compare programs with: the kernel's classic BPF machine, and libseccomp through ctypes."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
from typing import Any

AUDIT = {"X86_64": 0xC000003E, "X32": 0xC000003E, "X86": 0x40000003, "AARCH64": 0xC00000B7, "ARM": 0x40000028}
# libseccomp's tokens are AUDIT_ARCH_*, but for x32 (seccomp.h).
TOKENS = {**AUDIT, "X32": 0x4000003E}
ENOSYS = 0x50000 | 38
ACTIONS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_ERRNO": 0x50000,
    "SCMP_ACT_TRAP": 0x30000,
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
}
OPERATIONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}


class Program:
    """Runs it as net/core/filter.c does; what the kernel's checker refuses is an assertion here."""

    def __init__(self, code: bytes) -> None:
        self.code = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
        assert 0 < len(self.code) <= 4096

    def decide(self, architecture: str, number: int, arguments: tuple[int, ...] = ()) -> int:
        arguments = tuple(arguments) + (0,) * (6 - len(arguments))
        data = struct.unpack("<16I", struct.pack("<IIQ6Q", number & 0xFFFFFFFF, AUDIT[architecture], 0, *arguments))
        at = accumulator = 0
        while True:
            operation, yes, no, value = self.code[at]
            at += 1
            if operation == 0x20:
                accumulator = data[value // 4]
            elif operation == 0x54:
                accumulator &= value
            elif operation == 0x05:
                at += value
            elif operation == 0x06:
                return int(value)
            elif operation == 0x15:
                at += yes if accumulator == value else no
            elif operation == 0x25:
                at += yes if accumulator > value else no
            elif operation == 0x35:
                at += yes if accumulator >= value else no
            elif operation == 0x45:
                at += yes if accumulator & value else no
            else:
                raise AssertionError(f"operation {operation:#x}")

    def is_sane_for(self, architecture: str) -> bool:
        """libseccomp 2.5.4 sometimes compares the architecture with numbers: it forgets to load the number."""
        for at, (operation, yes, _, value) in enumerate(self.code):
            if operation == 0x15 and value == AUDIT[architecture]:
                return self.code[at + 1 + yes] == (0x20, 0, 0, 0) or self.code[at + 1 + yes][0] == 0x06
        return True


class _Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Libseccomp:
    """The library as runc uses it (libcontainer/seccomp/seccomp_linux.go), and runc's ENOSYS stub as a model."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self.library.seccomp_init.restype = ctypes.c_void_p

    def known(self, name: str) -> bool:
        return bool(self.library.seccomp_syscall_resolve_name(name.encode()) != -1)

    def number(self, architecture: str, name: str) -> int:
        return int(self.library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(TOKENS[architecture]), name.encode()))

    def compile(self, profile: dict[str, Any], native: str = "X86_64") -> Program | None:
        """None where the library refuses a rule (two actions for the same arguments)."""
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        filter_ = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))
        try:
            self._architectures(filter_, profile, native)
            for entry in profile.get("syscalls", ()):
                action = _action(entry["action"], entry.get("errnoRet"))
                for name in entry["names"]:
                    number = self.library.seccomp_syscall_resolve_name(name.encode())
                    if action == default or number == -1:
                        continue
                    for conditions in _alternatives(entry.get("args") or []):
                        array = (_Comparison * max(1, len(conditions)))(
                            *((c["index"], OPERATIONS[c["op"]], c["value"], c.get("valueTwo", 0)) for c in conditions)
                        )
                        if self.library.seccomp_rule_add_array(
                            filter_, ctypes.c_uint32(action), number, len(conditions), array
                        ):
                            return None
            read, write = os.pipe()
            try:
                os.set_blocking(write, True)
                # At most a pipe's 64 KiB, as is a program.
                assert self.library.seccomp_export_bpf(filter_, write) == 0
                return Program(os.read(read, 1 << 16))
            finally:
                os.close(read)
                os.close(write)
        finally:
            self.library.seccomp_release(filter_)

    def _architectures(self, filter_: ctypes.c_void_p, profile: dict[str, Any], native: str) -> None:
        said = [text.removeprefix("SCMP_ARCH_") for text in profile.get("architectures", ())]
        if native != "X86_64":
            self.library.seccomp_arch_add(filter_, ctypes.c_uint32(TOKENS[native]))
            self.library.seccomp_arch_remove(filter_, ctypes.c_uint32(TOKENS["X86_64"]))
        for name in said:
            if name != native:
                assert self.library.seccomp_arch_add(filter_, ctypes.c_uint32(TOKENS[name])) == 0

    def last(self, profile: dict[str, Any], architecture: str) -> int:
        """runc's `findLastSyscalls`: above it ENOSYS; -1 if there is no such rule."""
        permissive = profile["defaultAction"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
        if permissive or profile.get("defaultErrnoRet") == 38:
            return -1
        names = [name for entry in profile.get("syscalls", ()) for name in entry["names"]]
        return max((self.number(architecture, name) for name in names), default=-1) or -1


def _action(name: str, errno: int | None) -> int:
    code = ACTIONS[name]
    return code | (1 if errno is None else errno) if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else code


def _alternatives(conditions: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    indexes = [condition["index"] for condition in conditions]
    return [conditions] if len(set(indexes)) == len(indexes) else [[condition] for condition in conditions]
