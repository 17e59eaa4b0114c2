"""Executes config.json: one clone into namespaces and cgroup, the child builds its root and becomes the program.

`start` returns when the program runs (its exec succeeded) or raises what stopped it. The conversation with the child
goes over a socket pair of packets: b"T" with the terminal's master as an SCM_RIGHTS descriptor, b"A" (does the monitor
still live?), b"E" with a failure; end of file means that the exec closed it.
"""

from __future__ import annotations

import os

from limpet.containers import init, outcome, process, rootfs
from limpet.containers.outcome import StartFailed
from limpet.kernel import process as kernel
from limpet.kernel import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, NoReturn

    Config = dict[str, Any]
else:
    import _socket as socket

_NAMESPACES = {
    "mount": kernel.CLONE_NEWNS,
    "pid": kernel.CLONE_NEWPID,
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
    "network": kernel.CLONE_NEWNET,
}


class Started:
    """A running container: `pid` is its PID 1 as the host sees it; `terminal` the pty master or None."""

    __slots__ = ("pid", "pidfd", "terminal")

    def __init__(self, pid: int, pidfd: int, terminal: int | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.terminal = terminal


def start(
    config: Config, bundle: str, root: int, stdio: tuple[int, int, int], cgroup: int | None, program: bytes | None
) -> Started:
    """`root`: the detached mount; `stdio`: descriptors for 0, 1, 2 (unused with a terminal); `program`: seccomp's BPF.

    Raises LimpetError with the exit code that the command line shall give (125, 126, 127).
    """
    if config["process"]["terminal"]:
        load_terminal()
    flags = 0
    for namespace in config["linux"]["namespaces"]:
        flags |= _NAMESPACES.get(namespace["type"], 0)  # "cgroup" comes later: its root is where the caller is then
    if flags & kernel.CLONE_NEWNET:
        import limpet.kernel.interfaces  # noqa: F401 - for the child, which can't import
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = kernel.clone3(flags, cgroup_fd=cgroup)
        if pid == 0:
            _child(config, bundle, root, stdio, theirs, program)
        theirs.close()
        pidfd = os.pidfd_open(pid)
        try:
            return Started(pid, pidfd, converse(ours))
        except StartFailed:
            os.waitpid(pid, 0)
            os.close(pidfd)
            raise
    finally:
        theirs.close()
        ours.close()


def load_terminal() -> None:
    """Before a child that will make a terminal is forked (2 modules that most containers do not need)."""
    import limpet.kernel.terminal  # noqa: F401


def converse(channel: socket.socket) -> int | None:
    """Listens to the child until its exec; the master of its terminal, if it made one. Raises StartFailed."""
    master: int | None = None
    while True:
        packet, rights, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return master
        if packet[:1] == b"T":
            master = int.from_bytes(rights[0][2], "little")
        elif packet[:1] == b"E":
            if master is not None:
                os.close(master)
            raise outcome.unpack(packet)


def report(channel: socket.socket, error: BaseException) -> None:
    """The child's side of `converse`."""
    if isinstance(error, process.Failure):
        packet = outcome.pack(error.code, error.message, error.hint)
    elif isinstance(error, NotADirectoryError):
        packet = outcome.pack(127, error.strerror or "not a directory")  # as moby `daemon/errors.go`
    elif isinstance(error, OSError):
        packet = outcome.pack(128, error.strerror or str(error))
    else:
        packet = outcome.pack(128, f"{type(error).__name__}: {error}")
    channel.send(packet)


def _child(
    config: Config,
    bundle: str,
    root: int,
    stdio: tuple[int, int, int],
    channel: socket.socket,
    program: bytes | None,
) -> NoReturn:
    try:
        kernel.set_death_signal(signals.SIGKILL)
        kernel.set_dumpable(False)  # until the exec nobody in the container may look at what is still ours
        place((root,), stdio, channel)
        os.setsid()
        trees = rootfs.open_sources(config)
        if any(namespace["type"] == "network" for namespace in config["linux"]["namespaces"]):
            from limpet.kernel import interfaces

            interfaces.bring_up("lo")
        process.forget_imports()
        if any(namespace["type"] == "cgroup" for namespace in config["linux"]["namespaces"]):
            kernel.unshare(kernel.CLONE_NEWCGROUP)
        rootfs.enter(root, f"{bundle}/{config['root']['path']}", config["linux"].get("rootfsPropagation", ""))
        os.close(root)
        kernel.sethostname(config["hostname"].encode())
        if "domainname" in config:
            kernel.setdomainname(config["domainname"].encode())
        rootfs.furnish(config, trees)
        slave = open_terminal(config["process"], channel) if config["process"]["terminal"] else ""
        _make_directory(config["process"]["cwd"])
        rootfs.protect(config)
        if config.get("annotations", {}).get("org.limpet.init") == "true":
            init.block_signals()
            pid = os.fork()
            if pid:
                init.run(pid)
        if slave:
            take_terminal(slave)
        if not parent_lives(channel):
            os._exit(137)
        process.execute(config["process"], program)
    except BaseException as e:
        report(channel, e)
    finally:
        os._exit(125)


def place(keep: tuple[int, ...], stdio: tuple[int, int, int], channel: socket.socket) -> None:
    """Standard descriptors into place; every other one but `keep` and `channel` is closed."""
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)  # inheritable
    low = 3
    for fd in sorted((*keep, channel.fileno())):
        if fd > low:
            kernel.close_range(low, fd - 1)
        low = fd + 1
    kernel.close_range(low, 0xFFFFFFFF)


def open_terminal(plan: Config, channel: socket.socket, *, console: bool = True) -> str:
    """A pty of the container's own devpts; its master goes to the other side, already of the right size.

    `plan` is the process section; `console`: it becomes /dev/console too.
    """
    from limpet.kernel import terminal  # loaded by `load_terminal`: there is no importing here

    master, slave = terminal.open_ptmx("/dev/pts")
    size = plan.get("consoleSize")
    if size:
        terminal.set_size(master, size["height"], size["width"])
    channel.sendmsg([b"T"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, master.to_bytes(4, "little"))])
    os.close(master)
    if console:
        rootfs.bind_file(slave, "/dev/console")
    return slave


def take_terminal(slave: str) -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()
    fd = os.open(slave, os.O_RDWR)  # a session leader's first terminal becomes its controlling one
    for target in (0, 1, 2):
        os.dup2(fd, target)
    if fd > 2:
        os.close(fd)


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except OSError:
        pass  # `process` says what is wrong when it enters it


def parent_lives(channel: socket.socket) -> bool:
    """The death signal was set after the fork: a monitor that had died before closed the other end."""
    try:
        channel.send(b"A", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True
