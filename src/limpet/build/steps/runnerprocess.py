"""The small process that starts the RUN steps of one build; see `runner` for how it is spoken to.

A step is a container with a root, mounts and limits like all others, and PID 1 of it our init: when the command ends,
all that it left behind is killed. It dies with this process, and this one ends with the builder, however that ended.

A request is a dict: `store` (root and run directory), `directory` (the step's own, with an empty `rootfs`), `options`
(of `containers.options`), `image` (its config document), `binds` ([target, read only], in the descriptors' order).

Steps that run one after another share a control group, since making one costs as much as starting a program; those
that run at the same time have one each.
"""

from __future__ import annotations

import gc
import os
import select

from limpet import jsontext
from limpet.containers.execution import runtime
from limpet.containers.execution.outcome import StartFailed
from limpet.containers.monitor import scopes, title
from limpet.containers.mounts import mountplan
from limpet.containers.options import Options
from limpet.containers.plan import confinement, hostfiles, spec, users
from limpet.containers.state import Container
from limpet.errors import LimpetError, reason
from limpet.kernel import cgroup, controllers, devices, idmap, process, signals
from limpet.store.files import remove_tree
from limpet.store.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, NoReturn

    Config = dict[str, Any]
else:
    import _socket as socket


def serve(control: socket.socket) -> NoReturn:
    """The life of the process."""
    title.set_title("limpet build: steps")
    process.set_name(b"limpet-steps")
    # Each child writes to what it touches: a collection of all that was loaded would copy it all.
    gc.disable()
    gc.freeze()
    server = _Server(control)
    try:
        while server.turn():
            pass
    finally:
        server.end()
        os._exit(0)


PROCESSES = 4096
"""Of one step at once, if nobody says otherwise: a fork bomb ends there, and no build needs as many."""


class _Group:
    """A control group for one step at a time, with the limits that all steps of the build have."""

    def __init__(self, number: int, store: Store, resources: Config) -> None:
        self.name = f"{cgroup.of_process(os.getpid())}{number}"
        self._owner = store.root
        self.resources = resources
        self.path: str | None = None
        self.entrances: list[int] = []

    def open(self) -> int | None:
        """A descriptor to start a step in; whoever looked for empty groups may have taken it away meanwhile."""
        if self.path is None or not os.path.isdir(self.path):
            self.close()
            if cgroup.of_user_instance():
                scopes.approach()
            self.path = cgroup.create(self.name, self._owner)
            if self.path is not None and not idmap.nested():
                devices.attach(self.path, self.resources.get("devices", ()))
            try:
                self.entrances = controllers.create(self.name, {"pids": {"limit": PROCESSES}, **self.resources})
            except controllers.LimitError:
                if "pids" in self.resources:
                    raise
                self.entrances = controllers.create(self.name, self.resources)  # nobody asked for a limit
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if self.path is not None else None

    def kill(self) -> None:
        if self.path is not None:
            try:
                cgroup.kill(self.path)
            except OSError:
                pass

    def cpu(self) -> float:
        """Seconds of all its processes since it was made; -1 where nobody counts."""
        try:
            with open(f"{self.path}/cpu.stat", "rb") as file:
                return int(file.readline().split()[1]) / 1e6
        except (OSError, IndexError, ValueError):
            return -1.0

    def refused_forks(self) -> int:
        place = controllers.path(self.name, "pids")
        try:
            with open(f"{place}/pids.events", "rb") as file:
                return int(file.readline().split()[1])
        except (OSError, IndexError, ValueError):
            return 0

    def close(self) -> None:
        for fd in self.entrances:
            os.close(fd)
        self.entrances = []
        if self.path is not None:
            cgroup.remove(self.path)
            controllers.remove(self.name)
            self.path = None


class _Step:
    """One that runs: its init, its group, and the socket for the answer."""

    def __init__(self, reply: socket.socket, group: _Group, directory: str) -> None:
        self.reply = reply
        self.group = group
        self.directory = directory
        self.pid = self.pidfd = -1
        self.before = (group.cpu(), controllers.oom_kills(group.name), group.refused_forks())

    def kill(self) -> None:
        self.group.kill()
        try:
            process.pidfd_send_signal(self.pidfd, signals.SIGKILL)
        except ProcessLookupError:
            pass

    def outcome(self) -> Config:
        """Reaps its init, which is the last of it to end."""
        _, status, used = os.wait4(self.pid, 0)
        os.close(self.pidfd)
        code = os.waitstatus_to_exitcode(status)
        cpu, oom, forks = self.before
        now = self.group.cpu()
        return {
            "code": code if code >= 0 else 128 - code,
            # Without a group that counts: what its init has reaped, so not what a daemon took that was left running.
            "cpu": now - cpu if cpu >= 0 and now >= 0 else used.ru_utime + used.ru_stime,
            "oom": controllers.oom_kills(self.group.name) > oom,
            "forks": self.group.refused_forks() > forks,
        }


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        self._steps: dict[int, _Step] = {}
        """By the pidfd and by the reply's descriptor."""
        self._idle: list[_Group] = []
        self._groups: list[_Group] = []
        self._programs: dict[str, bytes | None] = {}
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def turn(self) -> bool:
        """Waits for something to happen; False when the builder is gone."""
        for fd, _ in self._poll.poll():
            if fd == self._control.fileno():
                if not self._receive():
                    return False
            elif (step := self._steps.get(fd)) is not None:
                if fd == step.pidfd:
                    self._finish(step)
                else:
                    self._poll.unregister(fd)
                    step.kill()
        return True

    def end(self) -> None:
        """Kills what runs, and takes away what nobody else will."""
        steps = set(self._steps.values())
        for step in steps:
            step.kill()
        for step in steps:
            os.waitpid(step.pid, 0)
        for group in self._groups:
            group.close()
        for step in steps:
            remove_tree(step.directory)

    def _receive(self) -> bool:
        data, rights, _, _ = self._control.recvmsg(64, socket.CMSG_SPACE(4 * 253), socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        packed = rights[0][2]
        fds = [int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4)]
        file, root, out, err, end, *trees = fds
        reply = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, end)
        group: _Group | None = None
        try:
            with open(file, "rb") as text:
                text.seek(0)
                request = jsontext.loads(text.read())
            store = Store(*request["store"])
            plan = _Plan(store, request, root)
            group = self._free_group(store, plan.config)
            step = _Step(reply, group, request["directory"])
            self._start(step, plan, (self._null, out, err), root, trees)
        except (LimpetError, OSError) as e:
            if group is not None:
                self._idle.append(group)
            _answer(reply, _failure(e))
        finally:
            for fd in (root, out, err, *trees):
                os.close(fd)
        return True

    def _free_group(self, store: Store, config: Config) -> _Group:
        """One whose rules for devices are this step's: privileged steps have others."""
        for group in self._idle:
            if group.resources == config["linux"]["resources"]:
                self._idle.remove(group)
                return group
        group = _Group(len(self._groups), store, config["linux"]["resources"])
        self._groups.append(group)
        return group

    def _start(self, step: _Step, plan: _Plan, stdio: tuple[int, int, int], root: int, trees: list[int]) -> None:
        place = step.group.open()
        plan.config["linux"]["cgroupsPath"] = cgroup.relative(step.group.name)
        try:
            key = ",".join(plan.config["process"]["capabilities"]["bounding"])
            if key not in self._programs:
                self._programs[key] = confinement.program(plan.store, plan.options, plan.config)
            given = dict(zip(plan.bound, trees, strict=True))
            entrances = [os.dup(fd) for fd in step.group.entrances]
            try:
                started = runtime.start(
                    plan.config, step.directory, root, stdio, place, self._programs[key], entrances, given
                )
            finally:
                for fd in entrances:
                    os.close(fd)
        finally:
            if place is not None:
                os.close(place)
        step.pid, step.pidfd = started.pid, started.pidfd
        for fd in (step.pidfd, step.reply.fileno()):
            self._steps[fd] = step
            self._poll.register(fd, select.POLLIN)

    def _finish(self, step: _Step) -> None:
        for fd in (step.pidfd, step.reply.fileno()):
            del self._steps[fd]
            try:
                self._poll.unregister(fd)
            except KeyError:
                pass  # it was killed
        answer = step.outcome()
        self._idle.append(step.group)
        _answer(step.reply, answer)


class _Plan:
    """What a request comes to. Raises LimpetError for what the image lacks (a user), OSError."""

    def __init__(self, store: Store, request: Config, root: int) -> None:
        self.store = store
        self.options = Options(**request["options"])
        directory = request["directory"]
        name = os.path.basename(directory)
        container = Container(name, name, None, "", [], 0.0, self.options)
        user = users.resolve(root, self.options.user)
        mounts = mountplan.plan(store, self.options, [])
        for target, read_only in request["binds"]:
            mounts.append(mountplan.Mount("bind", target, "", options=["rbind", "ro" if read_only else "rw"]))
        mounts.sort(key=lambda mount: mount.target.count("/"))
        self.bound = [target for target, _ in request["binds"]]
        hostfiles.write(directory, self.options, name)
        hostfiles.link_mtab(root)
        self.config = spec.make(store, container, request["image"], user, mounts, directory=directory)
        self.config["annotations"]["org.limpet.init"] = "spawn"


def _failure(error: Exception) -> Config:
    if isinstance(error, StartFailed):
        return {"code": error.code, "error": error.message, "hint": error.hint}
    if isinstance(error, LimpetError):
        return {"code": 125, "error": error.message, "hint": error.hint}
    assert isinstance(error, OSError)
    return {"code": 125, "error": reason(error)}


def _answer(reply: socket.socket, answer: Config) -> None:
    try:
        reply.send(jsontext.dumps(answer).encode(), socket.MSG_NOSIGNAL)
    except OSError:
        pass  # nobody wants to know
    reply.close()
