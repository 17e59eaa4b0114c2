"""`--runtime runc`: the same bundle, executed by /usr/sbin/runc in place of `runtime`.

The monitor enters a mount namespace of its own, in which alone the container's root is mounted at the bundle's
`rootfs`; it becomes the reaper of what runc leaves behind, which is the container's PID 1. That one does not die with
the monitor as a container of ours does, so a guard, a child of the monitor's, ends it when the monitor is killed.
"""

from __future__ import annotations

import os
import select

from limpet.containers.execution.outcome import StartFailed
from limpet.containers.execution.runtime import Started
from limpet.containers.monitor import title
from limpet.kernel import cgroup, mounts, process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    Config = dict[str, Any]
else:
    import _socket as socket

_PLACES = ("/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc")


def start(config: Config, bundle: str, run: str, root: int, stdio: tuple[int, int, int]) -> Started:
    """`runc create` and `runc start`. Its state is kept in `run`/runc. Raises StartFailed with runc's last words."""
    program = next((path for path in _PLACES if os.path.exists(path)), None)
    if program is None:
        raise StartFailed("the runtime runc is not installed", "install it, or leave --runtime out", 125)
    process.set_child_subreaper()
    process.unshare(process.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_SLAVE)
    mounts.attach(root, f"{bundle}/{config['root']['path']}")
    name = os.path.basename(bundle)
    state = ["--root", f"{run}/runc", "--log", f"{run}/runc.log"]
    arguments = ["create", "--bundle", bundle, "--pid-file", f"{run}/runc.pid"]
    # A socket's address has 108 bytes at most: the run directory is reached through our descriptor of it.
    place = os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    console = f"/proc/{os.getpid()}/fd/{place}/console"
    listener = _console_socket(console) if config["process"]["terminal"] else None
    if listener is not None:
        arguments += ["--console-socket", console]
    try:
        _call([program, *state, *arguments, name], stdio, run)
        master = _receive(listener) if listener is not None else None
        with open(f"{run}/runc.pid", "rb") as file:
            pid = int(file.read())
        pidfd = os.pidfd_open(pid)
        _guard(pidfd)
        try:
            _call([program, *state, "start", name], stdio, run)
        except StartFailed:
            os.close(pidfd)
            delete(run, bundle)
            raise
    finally:
        os.close(place)
        if listener is not None:
            listener.close()
    return Started(pid, pidfd, master)


def delete(run: str, bundle: str) -> None:
    """Takes away runc's state and cgroups of a container that has ended, and the mount of its root."""
    name = os.path.basename(bundle)
    program = next((path for path in _PLACES if os.path.exists(path)), None)
    if program is not None:
        pid = os.posix_spawn(program, [program, "--root", f"{run}/runc", "delete", "--force", name], os.environ)
        os.waitpid(pid, 0)
        cgroup.remove_parents()
    mounts.umount(f"{bundle}/rootfs", mounts.MNT_DETACH)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass  # the guard, what runc left
    except ChildProcessError:
        pass


def _guard(pidfd: int) -> None:
    """Forks the process that kills the container when the monitor, our process, has ended before it."""
    monitor = os.pidfd_open(os.getpid())
    try:
        if os.fork() == 0:
            try:
                title.set_title("limpet guard")
                process.set_name(b"limpet-guard")
                low, high = sorted((pidfd, monitor))
                process.close_range(0, low - 1)  # above all the monitor's lock
                if low + 1 < high:
                    process.close_range(low + 1, high - 1)
                process.close_range(high + 1, 0xFFFFFFFF)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.register(monitor, select.POLLIN)
                if all(fd != pidfd for fd, _ in poll.poll()):
                    process.pidfd_send_signal(pidfd, signals.SIGKILL)
            finally:
                os._exit(0)
    finally:
        os.close(monitor)


def _call(arguments: list[str], stdio: tuple[int, int, int], run: str) -> None:
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)]
    pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=actions, setsigmask=())
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        message = _last_words(f"{run}/runc.log")
        code = 127 if "not found" in message or "no such file" in message else 128
        code = 126 if "permission denied" in message else code
        raise StartFailed(message, "", code)


def _last_words(path: str) -> str:
    """The message of the last line of runc's log: `time="…" level=error msg="…"`."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().strip().splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        start = line.find('msg="')
        if "level=error" in line and start >= 0:
            return line[start + 5 :].rstrip('"').replace('\\"', '"')
    return "runc failed without saying why"


def _console_socket(path: str) -> socket.socket:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)
    return listener


def _receive(listener: socket.socket) -> int:
    """The pty's master, which runc sends as a descriptor."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    try:
        _, rights, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        return int.from_bytes(rights[0][2], "little")
    finally:
        connection.close()
