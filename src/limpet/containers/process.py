"""From a child that is inside the container to the user's program: limits, user, capabilities, seccomp, exec.

Shared by `run` and `exec`. `process` is the section of that name of config.json. What goes wrong before the exec is
reported as a `Failure`: exit code 127 for "not found", 126 for "can't be run", else 128, with Docker's words.
"""

from __future__ import annotations

import errno
import os

from limpet.errors import reason
from limpet.kernel import capabilities, seccomp, signals
from limpet.kernel import process as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Config = dict[str, Any]

_MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
}
_OURS = {"x86_64": "amd64", "aarch64": "arm64"}
_KEEP_CAPS = 8  # PR_SET_KEEPCAPS


class Failure(Exception):
    """Why the program could not be started. `code` is the exit code; `hint` what to do, or ""."""

    def __init__(self, code: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def forget_imports() -> None:
    """From here on the file system is the container's: an import would run its code with our rights."""
    import sys

    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()


def execute(process: Config, program: bytes | None, *, die_with_parent: bool = True) -> NoReturn:
    """Becomes the program. Descriptors 0, 1, 2 are its own; all others are closed by the exec. Raises Failure."""
    user = process["user"]
    try:
        become(process, program)
        if die_with_parent:
            kernel.set_death_signal(signals.SIGKILL)  # last: a change of user clears it (prctl(2))
        os.umask(user.get("umask", 0o022))
    except OSError as e:
        raise Failure(128, f"preparing the process: {reason(e)}") from e
    _enter_directory(process["cwd"])
    signals.reset()  # an exec inherits what is ignored
    signals.block(signals.SIG_SETMASK, ())
    kernel.close_range(3, 0xFFFFFFFF, kernel.CLOSE_RANGE_CLOEXEC)
    environment = dict(text.split("=", 1) for text in process["env"])
    _run(process["args"], environment, os.execve)
    raise AssertionError


def start(process: Config) -> int:
    """The program becomes a child of this process, which has become what it shall be: its pid. Raises Failure.

    The child has no signal blocked, and of our descriptors 0, 1 and 2 only.
    """
    _enter_directory(process["cwd"])
    kernel.close_range(3, 0xFFFFFFFF, kernel.CLOSE_RANGE_CLOEXEC)
    environment = dict(text.split("=", 1) for text in process["env"])

    def spawn(path: str, args: list[str], environment: dict[str, str]) -> int:
        return os.posix_spawn(path, args, environment, setsigmask=())

    return _run(process["args"], environment, spawn)


def become(process: Config, program: bytes | None) -> None:
    """Limits, seccomp's `program`, user, capabilities. Raises OSError."""
    user = process["user"]
    uid, gid = user["uid"], user["gid"]
    for limit in process.get("rlimits", ()):
        kernel.set_limit(limit["type"], limit["soft"], limit["hard"])
    if process.get("oomScoreAdj"):
        _write("/proc/self/oom_score_adj", str(process["oomScoreAdj"]))
    for fd in (0, 1, 2):  # so that the user can open /dev/stdout again (runc `fixStdioPermissions`)
        found = os.fstat(fd)
        if uid and found.st_uid != uid and found.st_rdev != os.makedev(1, 3):
            try:
                os.fchown(fd, uid, -1)
            except OSError:
                pass
    caps = process.get("capabilities") or {}
    restricted = process.get("noNewPrivileges", False)
    if program and not restricted:
        seccomp.install(program)  # needs CAP_SYS_ADMIN, so before the capabilities go
    capabilities.drop_bounding(caps.get("bounding", ()))  # needs CAP_SETPCAP, which setuid takes away
    os.setgroups(user.get("additionalGids", ()))
    os.setresgid(gid, gid, gid)
    if uid:
        kernel.prctl(_KEEP_CAPS, 1)
        os.setresuid(uid, uid, uid)
        kernel.prctl(_KEEP_CAPS, 0)
    capabilities.set_thread(caps.get("effective", ()), caps.get("permitted", ()), caps.get("inheritable", ()))
    if caps.get("ambient"):
        capabilities.set_ambient(caps["ambient"])
    if restricted:
        kernel.set_no_new_privileges()
        if program:
            seccomp.install(program)


def _enter_directory(path: str) -> None:
    try:
        os.chdir(path)
        os.getcwd()  # fails when it is not below our root: a leaked descriptor (CVE-2024-21626)
    except OSError as e:
        raise Failure(126 if e.errno == errno.EACCES else 127, f'chdir to cwd "{path}": {_reason(e)}') from e


def _run(args: list[str], environment: dict[str, str], how: Callable[[str, list[str], dict[str, str]], int]) -> int:
    """`how` tries one path; what it gives for the first that can be run."""
    name = args[0]
    if "/" in name:
        candidates = [name]
    else:
        directories = environment.get("PATH", "").split(":")
        candidates = [f"{directory or '.'}/{name}" for directory in directories] if name else []
    worst: OSError | None = None
    for path in candidates:
        try:
            return how(path, args, environment)
        except OSError as e:
            if e.errno == errno.ENOEXEC:
                raise Failure(126, f'exec: "{name}": exec format error', format_hint(_head(path))) from e
            if e.errno in (errno.ENOENT, errno.ENOTDIR):
                if "/" not in name and not os.path.lexists(path):
                    continue
                if os.path.exists(path):
                    raise Failure(127, f'exec: "{name}": no such file or directory', loader_hint(_head(path))) from e
            worst = worst or e
    if "/" not in name or worst is None:  # as Go's LookPath: what is not executable is not found
        raise Failure(127, f'exec: "{name}": executable file not found in $PATH', _path_hint(environment))
    code = 127 if worst.errno in (errno.ENOENT, errno.ENOTDIR) else 126
    hint = ""
    if worst.errno == errno.EACCES:
        hint = "it is a directory" if os.path.isdir(name) else "does it have the x permission, and its directory?"
    raise Failure(code, f'exec: "{name}": {_reason(worst)}', hint) from worst


def _path_hint(environment: dict[str, str]) -> str:
    path = environment.get("PATH", "")
    if not path:
        return "PATH is not set"
    parts = []
    for directory in path.split(":"):
        try:
            parts.append(f"{directory} ({len(os.listdir(directory or '.'))} files)")
        except OSError:
            parts.append(f"{directory} (missing)")
    return f"PATH holds {', '.join(parts)}"


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def format_hint(head: bytes) -> str:
    """Of a file's beginning: names both architectures when it is the wrong one."""
    if not head:
        return ""
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return "it is neither an ELF program nor a script that begins with #!"
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    host = os.uname().machine
    theirs = _MACHINES.get(machine, f"machine {machine}")
    return f"the program is for {theirs}, this host is {_OURS.get(host, host)}"


def loader_hint(head: bytes) -> str:
    """Of a file's beginning: the file is there, so what is missing is its interpreter."""
    if head.startswith(b"#!"):
        interpreter = head[2:].split(b"\n", 1)[0].strip().decode(errors="replace")
        return f"its interpreter {interpreter!r} is missing" + (
            " (the line ends in a carriage return)" if head.split(b"\n", 1)[0].endswith(b"\r") else ""
        )
    if head[:4] == b"\x7fELF":
        at = head.find(b"/ld-")
        start = head.rfind(b"\0", 0, at) + 1 if at >= 0 else -1
        loader = head[start : head.find(b"\0", at)].decode(errors="replace") if start > 0 else "its loader"
        return f"{loader}, which it needs, is missing in the image"
    return ""


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
