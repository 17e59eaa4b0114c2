"""Processes: clone3, namespaces, pidfds, prctl and what else a process sets about itself before it becomes another."""

from __future__ import annotations

import os
import struct
import time

from limpet.kernel.sys import Buffer, by_machine, fail, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

CLONE_NEWTIME, CLONE_FS = 0x80, 0x200
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CLOSE_RANGE_CLOEXEC = 4

_CLONE3, _CLOSE_RANGE, _PIDFD_SEND_SIGNAL = 435, 436, 424
_INTO_CGROUP, _SIGCHLD = 0x200000000, 17
_RT_SIGTIMEDWAIT = by_machine(128, 137)
_PRCTL, _UNSHARE, _SETNS = by_machine(157, 167), by_machine(272, 97), by_machine(308, 268)
_PRLIMIT64, _MAX = by_machine(302, 261), (1 << 64) - 1
LIMITS = tuple(
    f"RLIMIT_{name}"
    for name in (
        "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
    ).split()
)
"""By number (asm-generic/resource.h)."""
_SETHOSTNAME, _SETDOMAINNAME = by_machine(170, 161), by_machine(171, 162)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 36, 38


def clone3(flags: int, *, cgroup_fd: int | None = None) -> int:
    """A fork into new namespaces (CLONE_NEW*) and, with `cgroup_fd`, into that cgroup2 group. 0 in the child.

    No stack is given, so the child goes on where the parent was, as after fork(2). The interpreter is not told:
    the caller must have one thread, and the child must not use what `os.register_at_fork` repairs.
    """
    if cgroup_fd is not None:
        flags |= _INTO_CGROUP
    arguments = struct.pack("<11Q", flags, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd or 0)
    try:
        return syscall(_CLONE3, Buffer(arguments), len(arguments))
    except OSError as e:
        fail(e, "clone3")


def unshare(flags: int) -> None:
    """unshare(2)."""
    try:
        syscall(_UNSHARE, flags)
    except OSError as e:
        fail(e, "unshare")


def setns(fd: int, flags: int) -> None:
    """setns(2): `fd` a pidfd (with all CLONE_NEW* wanted) or a namespace file."""
    try:
        syscall(_SETNS, fd, flags)
    except OSError as e:
        fail(e, "setns")


def new_network() -> int:
    """A new network namespace, as a descriptor; we stay in ours. It lasts while somebody is in it or holds it."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        made = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        setns(home, CLONE_NEWNET)
        return made
    finally:
        os.close(home)


class ChildrenIn:
    """`with ChildrenIn(fd):` children are born in that PID namespace (a pidfd, a namespace file; -1: ours); we stay.

    It is born not dumpable: nobody in there may trace it, or read its memory, before its exec (CVE-2016-9962).
    Who is root in a user namespace only has no way back to the host's: all his later children are born in there too.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._home = -1

    def __enter__(self) -> None:
        if self._fd < 0:
            return
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        set_dumpable(False)
        try:
            setns(self._fd, CLONE_NEWPID)
        except OSError:
            self._leave()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            try:
                setns(self._home, CLONE_NEWPID)
            except PermissionError:
                pass
            self._leave()

    def _leave(self) -> None:
        set_dumpable(True)
        os.close(self._home)


def become_root() -> None:
    """Of the user namespace that we are in: until then we are nobody in it, with all its capabilities."""
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def pidfd_send_signal(fd: int, signal: int) -> None:
    """Raises ProcessLookupError when the process has ended."""
    syscall(_PIDFD_SEND_SIGNAL, fd, signal, None, 0)


def prctl(option: int, value: int = 0) -> int:
    """prctl(2) with one integer."""
    return syscall(_PRCTL, option, value, 0, 0, 0)


def set_death_signal(signal: int) -> None:
    """The signal that this process gets when its parent (the thread that made it) ends."""
    prctl(_PR_SET_PDEATHSIG, signal)


def set_no_new_privileges() -> None:
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(dumpable: bool) -> None:
    """Not dumpable: nobody without CAP_SYS_PTRACE in our user namespace can read our memory or /proc files."""
    prctl(_PR_SET_DUMPABLE, int(dumpable))


def set_child_subreaper() -> None:
    """Orphans of descendants become our children."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: bytes) -> None:
    """The name in /proc/<pid>/comm; 15 bytes count."""
    syscall(_PRCTL, _PR_SET_NAME, name[:15] + b"\0", 0, 0, 0)


def set_limit(name: str, soft: int, hard: int, pid: int = 0) -> None:
    """prlimit64(2) on a process (0: ourselves), by OCI name (`RLIMIT_NOFILE`); 2^64 - 1 means no limit."""
    limits = struct.pack("<2Q", soft & _MAX, hard & _MAX)
    try:
        syscall(_PRLIMIT64, pid, LIMITS.index(name), Buffer(limits), None)
    except OSError as e:
        fail(e, f"{name}={soft}:{hard}")


def sethostname(name: bytes) -> None:
    syscall(_SETHOSTNAME, name, len(name))


def setdomainname(name: bytes) -> None:
    syscall(_SETDOMAINNAME, name, len(name))


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2), both ends included; `flags` CLOSE_RANGE_CLOEXEC marks instead of closing."""
    syscall(_CLOSE_RANGE, first, last, flags)


def start_time(pid: int) -> int:
    """When the process began, in clock ticks since boot (proc(5), field 22): with the pid it names a process for good.

    0 when there is none. A zombie counts as one.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(fd, 4096).rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0
    finally:
        os.close(fd)


_LOOKS = 8
"""At a process that does not seem to hear: the two facts are not read at one moment, and it may wait in turns."""


def hears(pid: int, signal: int) -> bool:
    """Whether the signal does more to the process than its default: caught, blocked, or waited for in sigwait(3).

    As PID 1 of a namespace a process gets no other (pid_namespaces(7)). True for a process that is gone.
    """
    try:
        for _ in range(_LOOKS):
            if _mask(pid) >> (signal - 1) & 1:
                return True
            with open(f"/proc/{pid}/syscall", "rb") as file:
                # The kernel unblocks what rt_sigtimedwait waits for as long as it waits.
                call = file.read().split()[0]
            if call == b"%d" % _RT_SIGTIMEDWAIT:
                return True
            if call == b"running":  # what has just begun to wait may be in the run queue still
                time.sleep(0.001)
    except (OSError, IndexError):
        return True
    return False


def _mask(pid: int) -> int:
    """The signals that are caught or blocked."""
    mask = 0
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith((b"SigCgt:", b"SigBlk:")):
                mask |= int(line.split()[1], 16)
    return mask
