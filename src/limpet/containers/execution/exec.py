"""A second program in a running container: into its namespaces and cgroup, under the container's own rules.

The program is a child of this process: without a terminal it has our standard descriptors, and it ends when we do
(except with `detach`). Capabilities, seccomp and environment come from the container's config.json.
"""

from __future__ import annotations

import os

from limpet.containers import state
from limpet.containers.execution import handshake, process
from limpet.containers.execution.outcome import StartFailed
from limpet.containers.observe import events
from limpet.containers.plan import confinement, spec, users
from limpet.errors import Conflict, Invalid, LimpetError
from limpet.kernel import cgroup, controllers, idmap, signals
from limpet.kernel import process as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, NoReturn

    from limpet.containers.plan.users import User
    from limpet.containers.state import Container
    from limpet.store.store import Store

    Config = dict[str, Any]
else:
    import _socket as socket

_NAMESPACES = {
    "mnt": kernel.CLONE_NEWNS,
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
    "net": kernel.CLONE_NEWNET,
    "cgroup": kernel.CLONE_NEWCGROUP,
}
_PASSED_ON = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2")


def exec_(
    store: Store,
    container: Container,
    command: list[str],
    *,
    env: list[str] | None = None,
    workdir: str = "",
    user: str = "",
    interactive: bool = False,
    tty: bool = False,
    detach: bool = False,
    privileged: bool = False,
    detach_keys: str = "",
    tell: bool = True,
) -> int:
    """The program's exit code (0 at once with `detach`). Raises Conflict if the container does not run.

    Raises StartFailed for whatever keeps the program from starting: 127 for what is not there, the directory included,
    126 for the rest (moby `daemon/exec.go`), never a code that says that it was the program that failed.
    """
    keys = b""
    if tty:
        from limpet.containers.attach import DETACH_KEYS, parse_keys

        keys = parse_keys(detach_keys or DETACH_KEYS)
    pid, pidfd = _running(store, container)
    try:
        try:
            plan, program = _plan(store, container, pid, command, env or [], workdir, user, tty, privileged)
            if cgroup.of_user_instance():
                from limpet.containers.monitor import scopes

                scopes.approach()
            group = _open_cgroup(container.group)
            entrances = controllers.entrances(container.group)
        except LimpetError as e:
            raise StartFailed(e.message, e.hint, 126) from e
        except OSError as e:
            raise StartFailed(f"container {container.name}: {e}", "", 126) from e
        told = os.urandom(32).hex()
        for action in ("exec_create", "exec_start") if tell else ():
            events.tell(store, container, f"{action}: {' '.join(command)}", execID=told)
        code = 126
        try:
            if tty:
                code = _with_terminal(plan, program, pidfd, group, entrances, interactive, detach, keys)
            else:
                code = _without_terminal(plan, program, pidfd, group, entrances, interactive, detach)
        except StartFailed as e:
            code = e.code
            raise
        finally:
            if tell and (not detach or code):  # of one that was left in the background nobody learns the end
                events.tell(store, container, "exec_die", execID=told, exitCode=code)
        return code
    except StartFailed as e:
        if e.code not in (126, 127):
            e.exit_code = 126
        raise
    finally:
        os.close(pidfd)


def _running(store: Store, container: Container) -> tuple[int, int]:
    """Pid and pidfd of the container's PID 1, which is certainly that one and not a later process of its number."""
    status = state.status(store, container)
    if status.state == "paused":
        raise Conflict(f"Container {container.name} is paused, unpause the container before exec", exit_code=1)
    if status.state != "running" or not status.pid:
        raise Conflict(f"container {container.name} is not running", "`limpet start` starts it", exit_code=1)
    try:
        pidfd = os.pidfd_open(status.pid)
    except ProcessLookupError:
        raise Conflict(f"container {container.name} is not running", exit_code=1) from None
    if status.pid_start and kernel.start_time(status.pid) != status.pid_start:
        os.close(pidfd)
        raise Conflict(f"container {container.name} is not running", exit_code=1)
    return status.pid, pidfd


def _plan(
    store: Store,
    container: Container,
    pid: int,
    command: list[str],
    env: list[str],
    workdir: str,
    user: str,
    tty: bool,
    privileged: bool,
) -> tuple[Config, bytes | None]:
    """The `process` section for the program, from the container's own and what was asked."""
    config: Config = state.document(f"{store.container_path(container.id)}/config.json")
    plan: Config = config["process"]
    process.load(plan)
    plan["userns"] = "uidMappings" in config["linux"]
    plan["alone"] = plan["userns"] and idmap.nested()
    plan["namespaces"] = [kind for kind in (*_NAMESPACES, "pid") if not idmap.nested() or _differs(pid, kind)]
    plan["args"] = command
    plan["terminal"] = tty
    if workdir and not workdir.startswith("/"):
        raise Invalid(f"the working directory '{workdir}' is invalid", "it needs to be an absolute path")
    if workdir:
        plan["cwd"] = workdir
    environment = dict(text.split("=", 1) for text in plan["env"])
    if tty:
        environment.setdefault("TERM", "xterm")
    if user:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = users.resolve(root, user, container.options.group_add)
        finally:
            os.close(root)
        plan["user"] = {"uid": found.uid, "gid": found.gid, "umask": 0o022, "additionalGids": []}
        if plan["alone"]:
            _only(config, found)
        else:
            plan["user"]["additionalGids"] = spec.supplementary(found)
        if not _home_is_set(store, container):
            environment["HOME"] = found.home or "/"
    for text in env:
        key, equals, value = text.partition("=")
        if equals:
            environment[key] = value
        else:
            environment.pop(key, None)
    plan["env"] = [f"{key}={value}" for key, value in environment.items()]
    program = confinement.program(store, container.options, config)  # by the container's own capabilities
    names = spec.all_capabilities() if privileged else plan["capabilities"]["bounding"]
    plan["capabilities"] = spec.capability_sets(names, plan["user"]["uid"])
    return plan, program


def _only(config: Config, wanted: User) -> None:
    """Raises Invalid for anybody but the one user that the container has."""
    there = [config["linux"][kind][0]["containerID"] for kind in ("uidMappings", "gidMappings")]
    if [wanted.uid, wanted.gid] != there:
        raise Invalid(
            f"user {wanted.uid}:{wanted.gid}: this container has user {there[0]}:{there[1]} alone",
            "make it with --user root to exec as root; other users need ids, which an administrator gives",
        )


def _differs(pid: int, kind: str) -> bool:
    """The host's own namespaces are not to be joined by who is root in his user namespace only."""
    return os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def _home_is_set(store: Store, container: Container) -> bool:
    """By the image or the user, as opposed to taken from /etc/passwd for the container's first program."""
    image = state.document(f"{store.container_path(container.id)}/image.json")
    said = [*((image.get("config") or {}).get("Env") or []), *container.options.env]
    return any(text.startswith("HOME=") for text in said)


def _open_cgroup(name: str) -> int | None:
    path = cgroup.path(name)
    if path is None or not os.path.isdir(path):
        return None
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _without_terminal(
    plan: Config,
    program: bytes | None,
    pidfd: int,
    group: int | None,
    entrances: list[int],
    interactive: bool,
    detach: bool,
) -> int:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    stdio = (0 if interactive and not detach else null, null if detach else 1, null if detach else 2)
    relay = None
    if not all(map(_harmless, stdio)):
        from limpet.containers.execution.relay import Relay

        relay = Relay(stdio, _harmless)
        stdio = relay.stdio
    before = signals.block(signals.SIG_BLOCK, signals.DEADLY)  # until there is somebody to pass them on to
    try:
        pid, _ = _spawn(plan, program, pidfd, group, entrances, stdio, detach)
        if relay is not None:
            relay.begin()
        for name in () if detach else _PASSED_ON:
            signals.set_handler(signals.number(name), lambda number, frame: os.kill(pid, number))
    finally:
        signals.block(signals.SIG_SETMASK, before)
        os.close(null)
    if relay is not None:
        relay.finish(pid)
    _, status = os.waitpid(pid, 0)
    return 0 if detach else _code(status)


def _harmless(fd: int) -> bool:
    """A pipe, a socket or /dev/null: what the program may have as it is (see `relay`)."""
    try:
        info = os.fstat(fd)
    except OSError:
        return True
    kind = info.st_mode & 0o170000
    return kind in (0o010000, 0o140000) or (kind == 0o020000 and info.st_rdev == os.makedev(1, 3))


def _with_terminal(
    plan: Config,
    program: bytes | None,
    pidfd: int,
    group: int | None,
    entrances: list[int],
    interactive: bool,
    detach: bool,
    keys: bytes,
) -> int:
    """The terminal is the container's; we copy between it and ours."""
    from limpet.kernel import terminal

    ours = 0 if os.isatty(0) else 1
    size = terminal.get_size(ours) if os.isatty(ours) else None
    if size is not None:
        plan["consoleSize"] = {"height": size[0], "width": size[1]}
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    pid, master = _spawn(plan, program, pidfd, group, entrances, (null, null, null), detach)
    os.close(null)
    from limpet.containers.execution import console

    assert master is not None
    if detach:
        os.waitpid(pid, 0)
        os.close(master)
        return 0
    raw = interactive and os.isatty(0)
    if raw:
        with console.RawTerminal():
            detached = console.copy(master, pid, stdin=True, keys=keys)
    else:
        detached = console.copy(master, pid, stdin=interactive, keys=b"")
    if detached:
        return 0
    os.close(master)
    _, status = os.waitpid(pid, 0)
    return _code(status)


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _spawn(
    plan: Config,
    program: bytes | None,
    pidfd: int,
    group: int | None,
    entrances: list[int],
    stdio: tuple[int, int, int],
    detach: bool,
) -> tuple[int, int | None]:
    """Pid and terminal master once the program runs. Raises StartFailed."""
    if plan["terminal"]:
        handshake.load_terminal()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process.adjust_oom_score(plan)
    with kernel.ChildrenIn(pidfd if "pid" in plan["namespaces"] else -1):
        pid = kernel.clone3(0, cgroup_fd=group)
        if pid == 0:
            _child(plan, program, pidfd, entrances, stdio, theirs, detach)
    theirs.close()
    for fd in (*entrances, *([group] if group is not None else [])):
        os.close(fd)
    try:
        master = handshake.converse(ours)
    except StartFailed:
        os.waitpid(pid, 0)
        raise
    finally:
        ours.close()
    return pid, master


def _child(
    plan: Config,
    program: bytes | None,
    pidfd: int,
    entrances: list[int],
    stdio: tuple[int, int, int],
    channel: socket.socket,
    detach: bool,
) -> NoReturn:
    try:
        controllers.join(entrances)
        if not detach:
            kernel.set_death_signal(signals.SIGKILL)
        os.setsid()  # no controlling terminal of the host's
        process.forget_imports()
        flags = sum(flag for kind, flag in _NAMESPACES.items() if kind in plan["namespaces"])
        kernel.setns(pidfd, flags | (kernel.CLONE_NEWUSER if plan["userns"] else 0))
        if plan["userns"] and not plan["alone"]:
            kernel.become_root()
        handshake.place((pidfd,), stdio, channel)
        os.close(pidfd)
        if detach and os.fork():
            os._exit(0)  # an orphan of this namespace is the container's PID 1's, not the host's
        if plan["terminal"]:
            handshake.take_terminal(handshake.open_terminal(plan, channel))
        if not detach and not handshake.parent_lives(channel):
            os._exit(137)
        process.execute(plan, program, channel, die_with_parent=not detach)
    except BaseException as e:
        handshake.report(channel, e)
    finally:
        os._exit(125)
