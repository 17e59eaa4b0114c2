"""From a child that is inside the container to the user's program: limits, user, capabilities, seccomp, exec.

Shared by `run` and `exec`. `process` is the section of that name of config.json. What goes wrong before the exec is
reported as a `Failure`: exit code 127 for "not found", 126 for "can't be run", else 128, with Docker's words.
"""

from __future__ import annotations

import errno
import os
import stat

from limpet.containers.execution import trampoline
from limpet.errors import reason
from limpet.kernel import capabilities, idmap, machinecode, seccomp, signals
from limpet.kernel import process as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
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
_LISTEN_FDS_START = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
FIRST_FREE = 64
"""Descriptors that have to be open when the sockets of `--socket` get their numbers are from here on, or just below."""


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


def load(process: Config) -> None:
    """Before the fork, what `become` needs and most containers don't."""
    if process.get("landlock"):
        import limpet.kernel.landlock  # noqa: F401


def execute(
    process: Config, program: bytes | None, channel: socket.socket, *, die_with_parent: bool = True
) -> NoReturn:
    """Becomes the program. Descriptors 0, 1, 2 are its own; all others are closed by the exec. Raises Failure.

    `channel`: where a failure is told of that shows only at the exec (see `handshake`).
    """
    user = process["user"]
    ready = _Ready(process, channel)
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
    for number, fd in enumerate(process.get("sockets", ())):
        os.dup2(fd, _LISTEN_FDS_START + number)
    ready.run(os.execve)
    raise AssertionError


class _Ready:
    """A program that can be executed at once, whatever limits and filters there are by then."""

    def __init__(self, process: Config, channel: socket.socket) -> None:
        self._args: list[str] = process["args"]
        self._environment = dict(text.split("=", 1) for text in process["env"])
        if "sockets" in process:
            self._environment["LISTEN_PID"] = str(os.getpid())
        self._channel = channel
        self._trampoline = -1
        if any("\0" in text for text in (*self._args, *process["env"])):
            raise Failure(128, "an argument or a variable of the environment has a NUL byte in it")
        self._missing = False
        if trampoline.possible():
            name, cwd = self._args[0], process["cwd"]
            paths = _candidates(name, self._environment)
            if "/" not in name:
                paths = [path for path in paths if os.path.lexists(os.path.join(cwd, path))]
            if not paths:
                self._missing = True
                return
            candidates = [(path, _answers(name, os.path.join(cwd, path))) for path in paths]
            last = _packet(name, 0, _THERE, os.fsencode(paths[0]))
            environment = [f"{key}={value}" for key, value in self._environment.items()]
            image = trampoline.image(channel.fileno(), candidates, last, self._args, environment)
            self._trampoline = machinecode.in_memory("limpet-exec", image)
            if "sockets" in process:
                os.dup2(self._trampoline, FIRST_FREE - 1, inheritable=False)
                self._trampoline = FIRST_FREE - 1

    def run(self, how: Callable[[str, list[str], dict[str, str]], int]) -> int:
        """`how` executes a path. Raises Failure."""
        if self._missing:
            raise _not_found(self._args[0], _path_hint(self._environment))
        if self._trampoline < 0:
            return _run(self._args, self._environment, how)
        os.set_inheritable(self._channel.fileno(), True)
        try:
            if how is os.execve:
                try:
                    os.execve(self._trampoline, self._args[:1], {})
                except OSError:
                    pass  # a filter of the user's may know no other call than execve, which takes a path
            return how(f"/proc/self/fd/{self._trampoline}", self._args[:1], {})
        except OSError as e:
            raise Failure(128, f"executing from memory: {reason(e)}") from e
        finally:
            os.set_inheritable(self._channel.fileno(), False)


def start(process: Config, channel: socket.socket) -> Callable[[], int]:
    """What makes the program a child of this process, when this has become what it shall be: its pid. Raises Failure.

    The child has no signal blocked, and of our descriptors 0, 1 and 2 only.
    """
    ready = _Ready(process, channel)

    def spawn(path: str, args: list[str], environment: dict[str, str]) -> int:
        return os.posix_spawn(path, args, environment, setsigmask=())

    def go() -> int:
        _enter_directory(process["cwd"])
        kernel.close_range(3, 0xFFFFFFFF, kernel.CLOSE_RANGE_CLOEXEC)
        return ready.run(spawn)

    return go


def adjust_oom_score(process: Config) -> None:
    """For a process that is dumpable still: one that is not owns none of its files in /proc, root of a user namespace
    included. What is born of it has the same."""
    if process.get("oomScoreAdj") and idmap.nested():
        _write("/proc/self/oom_score_adj", str(process.pop("oomScoreAdj")))


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
    if process.get("landlock"):
        from limpet.kernel import landlock  # loaded by `load`: there is no importing here

        landlock.scope_sockets()  # needs the same
    if program and not restricted:
        seccomp.install(program)  # needs CAP_SYS_ADMIN, so before the capabilities go
    capabilities.drop_bounding(caps.get("bounding", ()))  # needs CAP_SETPCAP, which setuid takes away
    if user.get("additionalGids") or not idmap.single():  # who has one id may not give up his groups
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


def _candidates(name: str, environment: dict[str, str]) -> list[str]:
    if "/" in name:
        return [name]
    return [f"{directory or '.'}/{name}" for directory in environment.get("PATH", "").split(":")] if name else []


def _run(args: list[str], environment: dict[str, str], how: Callable[[str, list[str], dict[str, str]], int]) -> int:
    """`how` tries one path; what it gives for the first that can be run."""
    name = args[0]
    for path in _candidates(name, environment):
        try:
            return how(path, args, environment)
        except OSError as e:
            failure = _failure(name, e.errno or 0, *_look(path))
            if failure is not None:
                raise failure from e
    raise _not_found(name, _path_hint(environment))


_THERE, _DIRECTORY = 1, 2
_HEAD = 2048
"""Bytes of a program's beginning that are looked at."""


def _look(path: str) -> tuple[int, bytes]:
    """What explains a failed exec of it: _THERE, _DIRECTORY, and the beginning of a file."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            return _THERE | (_DIRECTORY if stat.S_ISDIR(mode) else 0), b""
    except OSError:
        return 0, b""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _THERE, os.read(fd, _HEAD)
        finally:
            os.close(fd)
    except OSError:
        return _THERE, b""


def _failure(name: str, number: int, facts: int, head: bytes) -> Failure | None:
    """What an error number of an exec means; None: the next directory of PATH is looked in."""
    if number == errno.ENOEXEC:
        return Failure(126, f'exec: "{name}": exec format error', format_hint(head))
    missing = number in (errno.ENOENT, errno.ENOTDIR)
    if missing and facts & _THERE:
        return Failure(127, f'exec: "{name}": no such file or directory', loader_hint(head))
    if "/" not in name:  # as Go's LookPath: what is not executable is not found
        return None
    hint = ""
    if number == errno.EACCES:
        hint = "it is a directory" if facts & _DIRECTORY else "does it have the x permission, and its directory?"
    return Failure(127 if missing else 126, f'exec: "{name}": {os.strerror(number).lower()}', hint)


_ERRORS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.E2BIG, errno.ENAMETOOLONG, errno.ENOMEM, errno.ETXTBSY)
"""Of execve(2), for a program that is named by its path."""


def _answers(name: str, place: str) -> list[tuple[int, bytes]]:
    """For `trampoline.image`: next to nothing, since each page that a child touches first is copied for it."""
    facts, head = _look(place)
    numbers = (errno.ENOEXEC, errno.ENOENT, errno.ENOTDIR, *(_ERRORS if "/" in name else ()))
    found = [(number, _packet(name, number, facts, head)) for number in numbers]
    return [*found, (0, _packet(name, errno.EIO, facts, b"") if "/" in name else b"")]


def _packet(name: str, number: int, facts: int, rest: bytes) -> bytes:
    return b"X%c%c%b\0%b" % (number, facts, os.fsencode(name)[:_HEAD], rest)


def explain(packet: bytes) -> Failure:
    """What the child's program in memory told, which could not execute the container's (see `handshake`)."""
    name, _, rest = packet[3:].partition(b"\0")
    text = name.decode(errors="replace")
    failure = _failure(text, packet[1], packet[2], rest) if packet[1] else None
    return failure or _not_found(text, f"{rest.decode(errors='replace')} can't be executed")


def _not_found(name: str, hint: str) -> Failure:
    return Failure(127, f'exec: "{name}": executable file not found in $PATH', hint)


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
