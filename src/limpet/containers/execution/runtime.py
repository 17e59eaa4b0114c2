"""Executes config.json: one clone into namespaces and cgroup, the child builds its root and becomes the program.

`start` returns when the program runs (its exec succeeded) or raises what stopped it.
"""

from __future__ import annotations

import os

from limpet.containers.execution import handshake, init, process, rootfs
from limpet.containers.execution.outcome import StartFailed
from limpet.containers.plan import sharing
from limpet.kernel import controllers, idmap, mounts, signals
from limpet.kernel import process as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, NoReturn

    from limpet.kernel.userns import Mapped

    Config = dict[str, Any]
else:
    import _socket as socket

_NAMESPACES = {
    "mount": kernel.CLONE_NEWNS,
    "pid": kernel.CLONE_NEWPID,
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
    "network": kernel.CLONE_NEWNET,
    "user": kernel.CLONE_NEWUSER,
}


class Started:
    """A running container: `pid` is its PID 1 as the host sees it; `terminal` the pty master or None."""

    __slots__ = ("pid", "pidfd", "terminal")

    def __init__(self, pid: int, pidfd: int, terminal: int | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.terminal = terminal


def mapped(config: Config) -> Mapped | None:
    """What the container's user namespace, if it has one, begins with."""
    for each in config["linux"].get("uidMappings", ()):
        if idmap.nested():
            break  # `userns.admit_alone` has one
        from limpet.kernel.userns import Mapped

        return Mapped(each["hostID"], each["size"])
    return None


def start(
    config: Config,
    bundle: str,
    root: int,
    stdio: tuple[int, int, int],
    cgroup: int | None,
    program: bytes | None,
    entrances: Sequence[int] = (),
    given: Mapping[str, int] | None = None,
    mapped: Mapped | None = None,
) -> Started:
    """`root`: the detached mount; `stdio`: descriptors for 0, 1, 2 (unused with a terminal); `program`: seccomp's BPF.

    `entrances`: of groups of version 1 (`controllers.entrances`). `given`: detached trees for bind mounts, by their
    destination; the others are opened by their source. `mapped`: of the config's user namespace.

    Raises LimpetError with the exit code that the command line shall give (125, 126, 127).
    """
    process.load(config["process"])
    if config["process"]["terminal"]:
        handshake.load_terminal()
    flags = 0
    joined: dict[str, int] = {}
    for namespace in config["linux"]["namespaces"]:
        if "path" in namespace:
            if idmap.nested() and _is_ours(namespace["path"]):
                continue  # the host's: it is not to be joined by who is root in his user namespace only
            joined[namespace["type"]] = _open_namespace(namespace["path"])
            continue
        flags |= _NAMESPACES.get(namespace["type"], 0)  # "cgroup" comes later: its root is where the caller is then
    if flags & kernel.CLONE_NEWNET:
        import limpet.kernel.interfaces  # noqa: F401 - for the child, which can't import
    shared = _shared_memory(config) if "ipc" in joined else {}
    given = {**(given or {}), **shared}
    trees: dict[int, int] | None = None
    if mapped is not None or idmap.nested():
        from limpet.containers.execution import userns

        trees = userns.open_sources(config, mapped, given)
    if mapped is not None:
        userns.give(stdio, config["process"]["user"], mapped)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if config["process"].get("sockets"):
        theirs = handshake.out_of_the_way(theirs)
    try:
        with kernel.ChildrenIn(joined.get("pid", -1)):
            pid = kernel.clone3(flags, cgroup_fd=cgroup)
            if pid == 0:
                others = [fd for kind, fd in joined.items() if kind != "pid"]
                _child(config, bundle, root, stdio, theirs, program, entrances, given, trees, others)
        theirs.close()
        pidfd = os.pidfd_open(pid)
        try:
            if mapped is not None:
                userns.admit(pid, config["process"], mapped, ours)
            elif "uidMappings" in config["linux"]:
                userns.admit_alone(pid, config["linux"], ours)
            if "hooks" not in config:
                return Started(pid, pidfd, handshake.converse(ours))
            from limpet.containers.execution import hooks

            started = Started(pid, pidfd, handshake.converse(ours, lambda: hooks.before(config, bundle, pid)))
            hooks.after(config, bundle, pid, "poststart")
            return started
        except StartFailed:
            ours.close()  # one that waits for its hooks ends
            os.waitpid(pid, 0)
            os.close(pidfd)
            raise
    finally:
        theirs.close()
        ours.close()
        mine = {*(trees or {}).values(), *joined.values()} - {*given.values()}
        for fd in (*mine, *shared.values()):
            os.close(fd)


def _is_ours(path: str) -> bool:
    try:
        return os.path.samefile(path, f"/proc/self/ns/{os.path.basename(path)}")
    except OSError:
        return False


def _open_namespace(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise StartFailed(f"{path}: the container whose namespace was to be joined has ended", "", 125) from e


def _shared_memory(config: Config) -> dict[str, int]:
    """The other container's /dev/shm, by its place in this one: see `sharing.shared_memory`."""
    theirs = "/root" + sharing.SHARED_MEMORY
    for mount in config["mounts"]:
        if mount["destination"] == sharing.SHARED_MEMORY and mount.get("source", "").endswith(theirs):
            namespace = _open_namespace(mount["source"].removesuffix(theirs) + "/ns/mnt")
            try:
                return {sharing.SHARED_MEMORY: mounts.open_tree_in(namespace, sharing.SHARED_MEMORY)}
            except OSError as e:
                raise StartFailed(f"/dev/shm of the container whose IPC is joined: {e.strerror}", "", 125) from e
            finally:
                os.close(namespace)
    return {}


def _child(
    config: Config,
    bundle: str,
    root: int,
    stdio: tuple[int, int, int],
    channel: socket.socket,
    program: bytes | None,
    entrances: Sequence[int],
    given: Mapping[str, int],
    trees: dict[int, int] | None,
    joined: Iterable[int],
) -> NoReturn:
    try:
        controllers.join(entrances)
        kernel.set_death_signal(signals.SIGKILL)
        process.adjust_oom_score(config["process"])
        if "uidMappings" in config["linux"] and idmap.nested():
            channel.recv(1)  # `userns.admit_alone` writes to our files in /proc, which are not its own afterwards
        kernel.set_dumpable(False)  # until the exec nobody in the container may look at what is still ours
        for namespace in joined:
            kernel.setns(namespace, 0)
        sockets = config["process"].get("sockets", ())
        handshake.place((root, *given.values(), *(trees or {}).values(), *sockets), stdio, channel)
        os.setsid()
        if trees is None:
            trees, place = rootfs.open_sources(config, given), f"{bundle}/{config['root']['path']}"
        else:
            from limpet.containers.execution import userns

            if "uidMappings" in config["linux"] and not idmap.nested():
                userns.enter(config["process"], channel)
            userns.open_own(config, trees)
            place = "/"  # the way to the bundle is closed to whom we are now
        own = {namespace["type"] for namespace in config["linux"]["namespaces"] if "path" not in namespace}
        if "network" in own:
            from limpet.kernel import interfaces

            interfaces.bring_up("lo")
        process.forget_imports()
        if "cgroup" in own:
            kernel.unshare(kernel.CLONE_NEWCGROUP)
        rootfs.enter(root, place, config["linux"].get("rootfsPropagation", ""))
        os.close(root)
        if "hostname" in config:
            kernel.sethostname(config["hostname"].encode())
        if "domainname" in config:
            kernel.setdomainname(config["domainname"].encode())
        rootfs.furnish(config, trees)
        slave = ""
        if config["process"]["terminal"]:
            slave = handshake.open_terminal(config["process"], channel)
            rootfs.bind_console(slave)
        _make_directory(config["process"]["cwd"])
        if "hooks" in config:
            handshake.pause(channel)
        rootfs.protect(config)
        rootfs.reopen_null()
        kind = config.get("annotations", {}).get("org.limpet.init", "false")
        prepared = init.prepare(apart=kind == "apart") if kind != "false" else -1
        if kind == "spawn" and not sockets:
            init.spawn(config["process"], program, channel, prepared)
        if kind != "false":
            init.fork(config["process"], program, slave, channel, prepared, apart=kind == "apart")
        if slave:
            handshake.take_terminal(slave)
        if not handshake.parent_lives(channel):
            os._exit(137)
        process.execute(config["process"], program, channel)
    except BaseException as e:
        handshake.report(channel, e)
    finally:
        os._exit(125)


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except OSError:
        pass  # `process` says what is wrong when it enters it
