"""One container's life as its monitor sees it: the start, the event loop, sleep, the end, perhaps the next start."""

from __future__ import annotations

import os
import select
import time

from limpet import jsontext
from limpet.containers import restarting, state
from limpet.containers.execution import runtime
from limpet.containers.execution.outcome import STARTED, StartFailed, pack
from limpet.containers.logging import logfile
from limpet.containers.monitor import clients, early, frames, hibernation, scopes
from limpet.containers.monitor.streams import Streams
from limpet.containers.network import addressing
from limpet.containers.observe import events
from limpet.containers.plan import bundle, sharing
from limpet.containers.state import NEVER
from limpet.errors import LimpetError, reason
from limpet.kernel import cgroup, controllers, devices, idmap, process, signalfd, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any

    from limpet.containers.logging.logdrivers.opening import Log
    from limpet.containers.monitor.clients import Client
    from limpet.containers.monitor.health import Health
    from limpet.containers.mounts.diskwatch import DiskWatch
    from limpet.containers.network.activation import Activation
    from limpet.containers.network.networking import Connecting
    from limpet.containers.state import Container
    from limpet.network.publication import Published
    from limpet.store.store import Store

    Config = dict[str, Any]

FIRST_IDLE = 2.0  # seconds of silence before the monitor gives its memory back
LONGEST_IDLE = 300.0
TELLING = (signals.SIGTERM, signals.SIGURG)
"""The machine, or the monitor's scope, is being stopped (see `kernel.systemd`, `kernel.signalfd`)."""

PATIENCE = 10.0  # for clients that do not read the end


class Monitor:
    def __init__(
        self,
        store: Store,
        container: Container,
        lock: int,
        first: socket.socket | None,
        listener: int = -1,
        *,
        told: int,
    ) -> None:
        """`told`: becomes readable when a signal of `TELLING` comes."""
        self._store = store
        self._container = container
        self.unwritten: Sequence[str] = ()
        self._config: Config = {}
        self._program: bytes | None = None
        self._lock = lock
        self._told = told
        self._directory = store.container_path(container.id)
        self._run = store.run_path(container.id)
        self._log = self._new_log()
        self._dropped_told = 0.0  # when the record last said how many lines the log has dropped
        self._clients = clients.Clients(f"{self._run}/attach.sock", first, self._on_frame, self._on_leave, listener)
        self._status: Config = {
            "state": "created",
            "pid": 0,
            "pid_start": 0,
            "monitor": os.getpid(),
            "protocol": frames.VERSION,
            "started_at": NEVER,
            "finished_at": NEVER,
            "exit_code": 0,
            "error": "",
            "restarts": 0,
            "oom_killed": False,
        }
        self._cgroup: str | None = None
        self._remark = ""
        self._published: Published | None = None
        self._started: runtime.Started | None = None
        self._ended = False
        self._began = 0.0
        self._delay = restarting.FIRST_DELAY
        self._idle = FIRST_IDLE
        self._noisy = True  # something but a health check has happened since the last sleep
        self._health: Health | None = None
        self._disk: DiskWatch | None = None
        self._full = ""  # why it is being stopped: it wrote more than it may
        self._starting_again = False
        self._shutting_down = False
        self._activation: Activation | None = None
        self._guardian = -1
        self._outward = 0
        self._streams = self._new_streams()
        self._namespace = -1

    def enter(self) -> None:
        """Of a user without root: the monitor's own hold on the user namespace, while its maker still has one."""
        if idmap.nested():
            from limpet.store import unprivileged

            self._namespace = unprivileged.hold(self._store.run)

    def restore(self, saved: Config) -> None:
        """Of a monitor that slept; see `_sleep`."""
        self._status = {**saved["status"], "protocol": frames.VERSION}  # a newer limpet may have woken
        self._cgroup = saved["cgroup"]
        self._started = runtime.Started(*saved["started"]) if saved["started"] else None
        self._began, self._delay, self._idle = saved["began"], saved["delay"], saved["idle"]
        self._streams.restore(saved["streams"])
        self._namespace = saved.get("namespace", -1)
        if saved.get("activation"):
            from limpet.containers.network.activation import Activation

            self._activation = Activation(self._container.options, self._run, saved["activation"])
        self._guardian = saved.get("guardian", -1)
        self._outward = saved.get("outward", 0)
        if saved.get("published"):
            from limpet.network.publication import Published

            descriptors, ports = saved["published"]
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)  # a link lives as long as any copy of it
            self._published = Published(descriptors, [tuple(port) for port in ports])
        if saved.get("health"):
            from limpet.containers.monitor.health import Health

            self._health = Health.restored(self._store, self._container, saved["health"])
            self._noisy = False
        if saved.get("disk"):
            from limpet.containers.mounts.diskwatch import DiskWatch

            self._disk = DiskWatch(self._store, self._container, *saved["disk"])
            self._noisy = False

    def _new_log(self) -> Log:
        options = self._container.options
        if options.log_driver == "json-file" and not options.log_opts.keys() - {"max-size", "max-file"}:
            max_size, max_file = logfile.limits(options.log_opts)
            return logfile.LogFile(f"{self._directory}/{self._container.id}-json.log", max_size, max_file)
        from limpet.containers.logging.logdrivers import opening

        return opening.open_log(self._store, self._container)

    def _new_streams(self) -> Streams:
        options = self._container.options
        return Streams(options.tty, options.interactive, self._log, self._clients)

    def run(self, size: tuple[int, int] | None, outcome: int, root: int) -> int:
        while True:
            if self._started is None:
                try:
                    if self._container.options.sockets and not self._called(outcome):
                        break
                    if self._activation is not None and self._activation.on_demand:
                        outcome = -1
                    self._start(size, root)
                except LimpetError as e:
                    return self._failed(e, outcome)
                except (OSError, ValueError, RecursionError) as e:
                    text = reason(e) if isinstance(e, OSError) else str(e)
                    return self._failed(LimpetError(f"container {self._container.name}: {text}"), outcome)
                root = -1
                self._began = time.monotonic()
                try:
                    self._record(durable=False)
                except OSError as e:  # what runs without a record could not be stopped
                    self._end_now()
                    return self._failed(LimpetError(f"container {self._container.name}: {reason(e)}"), outcome)
                events.tell(self._store, self._container, "start")
                self._watch_health()
                if self._container.options.storage_opts:
                    self._watch_disk()
                if outcome >= 0:
                    os.write(outcome, STARTED + self._remark.encode(errors="replace"))
                    os.close(outcome)
                    outcome = -1
                addressing.announce(self._store, self._container)
                self._be_watched()
            code = self._live()
            again = self._again(code)
            self._over(code, again)
            if not again:
                break
            self._delay = restarting.delay(self._delay, time.monotonic() - self._began)
            if not self._pause(self._delay if self._status["restarts"] else restarting.FIRST_DELAY):
                self._record(state="exited")
                break
            self._status["restarts"] += 1
        self._leave()
        return 0

    def _be_watched(self) -> None:
        """By somebody who notices when this process is killed, if the container would be missed."""
        options = self._container.options
        if self._guardian < 0 and (options.restart not in ("", "no") or (options.auto_remove and options.detach)):
            from limpet.containers.monitor import guardian

            try:
                self._guardian = guardian.begin(self._store, self._container)
            except OSError:
                pass  # no memory, no process more: `limpet system recover` is there for that

    def _be_alone(self) -> None:
        if self._guardian >= 0:
            from limpet.containers.monitor import guardian

            guardian.end(self._guardian)
            self._guardian = -1

    # The start

    def _called(self, outcome: int) -> bool:
        """Opens the sockets; with --on-demand waits for a connection. False if it was stopped meanwhile."""
        if self._activation is None:
            from limpet.containers.network.activation import Activation

            self._activation = Activation(self._container.options, self._run)
        activation = self._activation
        if not activation.on_demand:
            return True
        if not activation.waiting:
            scopes.leave(self._container)
            activation.await_call()
            self._record(durable=False, state="restarting", waiting=str(activation))
            if outcome >= 0:
                os.write(outcome, STARTED)
                os.close(outcome)
        while not (activation.called or self._shutting_down):
            quiet = self._clients.nobody and hibernation.possible()
            if not self._serve(self._idle if quiet else None):
                self._sleep()
        activation.end_wait()
        del self._status["waiting"]
        if activation.stopped or self._shutting_down:
            self._record(state="exited" if self._status["started_at"] != NEVER else "created")
            return False
        return True

    def _start(self, size: tuple[int, int] | None, root: int) -> None:
        if not sharing.connected(self._container.options):
            self._begin(size, root)
            return
        from limpet.containers.network import networking

        with networking.connecting(self._store, self._container) as connecting:  # it works while the root is mounted
            self._begin(size, root, connecting)

    def _begin(self, size: tuple[int, int] | None, root: int, connecting: Connecting | None = None) -> None:
        scope = scopes.ask(self._container) if not self._began else None
        if self._container.options.log_driver not in ("json-file", "none"):
            from limpet.containers.logging.logdrivers import opening

            opening.reach(self._store, self._container)
        if root < 0:
            root = bundle.mount(self._store, self._container)
            self._store.close()  # opened only if layers had to be verified
        if scope is not None:
            scopes.enter(self._container, scope)
        if not self._config:
            self._config, self._program = bundle.prepare(self._store, self._container, root, size)
            self._config["process"]["env"] = [*self._config["process"]["env"], *self.unwritten]
        if self._activation is not None:
            section = self._config["process"]
            section["env"] = [text for text in section["env"] if not text.startswith("LISTEN_")]
            section["env"] += self._activation.environment()
            section["sockets"] = self._activation.descriptors
        mapped = runtime.mapped(self._config)
        if mapped is not None:  # the preparation needs the files as they are on disk
            os.close(root)
            root = bundle.mount(self._store, self._container, mapped)
        config = self._config
        if connecting is not None:
            if self._published is None:
                self._published = connecting.reserve()
            config = connecting.finish(self._config, self._published)
            self._status["ports"], self._outward = connecting.ports, connecting.outward
        options = self._container.options
        self._streams = self._new_streams()
        self._cgroup = cgroup.create(self._container.group, self._store.root)
        self._remark = addressing.give(self._store, self._container, self._cgroup)
        if self._published is None and connecting is None:
            self._published = addressing.publish(self._store, self._container, self._cgroup)
            self._status["ports"] = self._published.ports if self._published else []
        if self._container.options.policed or self._container.options.detach:
            from limpet.containers.network import policing

            policing.give(self._store, self._container, self._cgroup)
        group = None
        entrances: list[int] = []
        theirs: list[int] = []
        made: dict[str, int] = {}
        try:
            if options.runtime == "runc":
                from limpet.containers.execution import runc

                stdio = self._streams.open(theirs)
                self._started = runc.start(config, self._directory, self._run, root, stdio)
            else:
                if self._cgroup is not None:
                    rules = self._config["linux"].get("resources", {}).get("devices", ())
                    if rules and not (len(rules) == 1 and rules[0]["allow"]) and not idmap.nested():
                        devices.attach(self._cgroup, rules)
                    group = os.open(self._cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                entrances = self._limit()
                if "org.limpet.mounts" in self._config["annotations"]:
                    made = bundle.open_mounts(self._store, self._container, self._config, mapped)
                stdio = self._streams.open(theirs)
                self._started = self._restored(config, root, stdio, entrances) or runtime.start(
                    config, self._directory, root, stdio, group, self._program, entrances, made, mapped
                )
        finally:
            if mapped is not None:
                mapped.close()
            for fd in {*theirs, root, *entrances, *made.values(), *([group] if group is not None else [])}:
                os.close(fd)
        if self._started.terminal is not None:
            self._streams.adopt_terminal(self._started.terminal)
        self._ended = False
        if self._container.options.timeout or self._container.options.pidfile:
            from limpet.containers import deadline

            deadline.begun(self._container, self._started)
        if self._activation is not None:
            self._activation.began()
        self._status.update(
            state="running",
            pid=self._started.pid,
            pid_start=process.start_time(self._started.pid),
            pipes=self._streams.pipes,
            started_at=logfile.timestamp(time.time_ns()),
            finished_at=NEVER,
            exit_code=0,
            error="",
            oom_killed=False,
        )

    def _restored(
        self, config: Config, root: int, stdio: tuple[int, int, int], entrances: list[int]
    ) -> runtime.Started | None:
        """What `start --checkpoint` asks for (`state.RESTORE`), for this start only; None for an ordinary one."""
        path = f"{self._run}/{state.RESTORE}"
        if not os.path.exists(path):
            return None
        from limpet.containers.copies import checkpoints, criu

        with open(path, encoding="utf-8") as file:
            found = checkpoints.find(self._store, self._container, file.read())
        os.unlink(path)
        checkpoints.verify(found)
        flags, pipes = found.flags, found.pipes
        pid = criu.restore(
            config, self._directory, self._container.group, root, stdio, entrances, found.path, pipes, flags
        )
        return runtime.Started(pid, os.pidfd_open(pid), None)

    def _limit(self) -> list[int]:
        """Makes the groups that hold the container's limits; see `controllers.create`."""
        try:
            if self._container.options.parent_limits:
                from limpet.containers.plan import limits

                parent = self._container.group.rpartition("/")[0]
                controllers.create_parent(parent, limits.resources(self._container.options.parent_limits))
            return controllers.create(self._container.group, self._config["linux"].get("resources", {}))
        except controllers.LimitError as e:
            what = f"container {self._container.name}: the kernel refuses {e.what}: {e.strerror}"
            raise LimpetError(what, "`limpet update` gives it other limits") from e

    def _failed(self, error: LimpetError, outcome: int) -> int:
        """The program could not be started: the container stays `created`, or `exited` after a restart."""
        self._streams.close()
        self._release_volumes()
        self._withdraw()
        self._be_alone()
        if self._cgroup is not None:
            addressing.take(self._container, self._cgroup)
            if self._container.options.policed or self._container.options.detach:
                from limpet.containers.network import policing

                policing.take(self._cgroup)
        self._remove_groups()
        code = error.code if isinstance(error, StartFailed) else 128
        state = "exited" if self._status["restarts"] else "created"
        moment = logfile.timestamp(time.time_ns()) if self._status["restarts"] else NEVER
        try:
            self._record(state=state, pid=0, pid_start=0, exit_code=code, error=str(error), finished_at=moment)
        except OSError:
            pass  # the starter hears it
        events.tell(self._store, self._container, "die", exitCode=code)
        if outcome >= 0:
            os.write(outcome, pack(code, error.message, error.hint))
            os.close(outcome)
        self._disconnect()
        self._clients.close()
        return 0

    def _withdraw(self) -> None:
        if self._published is not None:
            from limpet.network import publication

            publication.withdraw(self._published)
            self._published = None

    def _end_now(self) -> None:
        assert self._started is not None
        process.pidfd_send_signal(self._started.pidfd, signals.SIGKILL)
        os.waitpid(self._started.pid, 0)
        self._put_away()

    # While it runs

    def _live(self) -> int:
        """Serves until the container has ended; its exit code, 128 + n for a signal."""
        assert self._started is not None
        while not self._ended:
            quiet = self._clients.nobody and hibernation.possible() and self._checks_seldom()
            if not self._serve(self._idle if quiet else None):
                self._sleep()
        _, status = os.waitpid(self._started.pid, 0)
        self._streams.finish()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _sleep(self) -> None:
        """Gives the memory back until something happens; returns at once if that can't be now.

        Each sleep wants twice the silence of the one before, so that a container with a line a minute keeps its Python.
        """
        streams = self._streams.saved()
        if streams is None:
            return
        if self._noisy:
            self._idle = min(self._idle * 2, LONGEST_IDLE)
        started, listener = self._started, self._clients.listener
        state = {
            "root": self._store.root,
            "run": self._store.run,
            "container": self._container.to_list(),
            "lock": self._lock,
            "listener": listener,
            "told": self._told,
            "status": self._status,
            "cgroup": self._cgroup,
            "started": started and [started.pid, started.pidfd, started.terminal],
            "began": self._began,
            "delay": self._delay,
            "idle": self._idle,
            "streams": streams,
            "namespace": self._namespace,
            "guardian": self._guardian,
            "outward": self._outward,
        }
        watched = dict.fromkeys((listener, self._told, *([started.pidfd] if started else [])), select.POLLIN)
        watched.update(self._streams.interests())
        if self._health is not None:
            state["health"] = self._health.saved()
            watched[self._health.timer] = select.POLLIN
        held = [fd for fd in (self._namespace, self._guardian) if fd >= 0]
        kept = [self._lock, *held, *self._streams.descriptors]
        if self._activation is not None:
            state["activation"] = self._activation.saved()
            watched.update(self._activation.interests(started is not None))
            kept += [fd for fd in self._activation.kept if fd not in watched]
        if self._published is not None:
            state["published"] = [self._published.descriptors, self._published.ports]
            kept += self._published.descriptors
        if self._disk is not None:
            state["disk"] = self._disk.saved()
            watched[self._disk.timer] = select.POLLIN
        hibernation.sleep(f"limpet monitor {self._container.name}", watched, kept, state)

    def _serve(self, timeout: float | None) -> bool:
        """One turn of the event loop; `timeout` in seconds. False if nothing happened."""
        poll = select.poll()
        started = self._started
        if started is not None and not self._ended:
            poll.register(started.pidfd, select.POLLIN)
        wanted = self._streams.interests()
        wanted[self._told] = select.POLLIN
        if self._health is not None and not self._ended:
            wanted.update(self._health.interests())
        if self._activation is not None:
            wanted.update(self._activation.interests(started is not None and not self._ended))
        if self._disk is not None and not self._ended:
            wanted.update(self._disk.interests())
        for fd, read, write in self._clients.interests():
            wanted[fd] = (select.POLLIN if read else 0) | (select.POLLOUT if write else 0)
        for fd, mask in wanted.items():
            poll.register(fd, mask)
        happened = poll.poll(None if timeout is None else timeout * 1000)
        for fd, mask in happened:
            if started is not None and fd == started.pidfd:
                self._ended = True
            elif fd == self._told:
                self._shut_down()
            elif self._disk is not None and (problem := self._disk.handle(fd)) is not None:
                self._full = problem or self._full
                continue
            elif self._health is not None and (action := self._health.handle(fd)) is not None:
                if action:
                    self._unhealthy(action)
                continue
            elif self._activation is not None and (idle := self._activation.handle(fd)) is not None:
                if idle:
                    self._unhealthy("restart")  # stopped, and ready again
                continue
            elif not self._streams.handle(fd, mask):
                readable = bool(mask & (select.POLLIN | select.POLLHUP | select.POLLERR))
                self._clients.handle(fd, readable, bool(mask & select.POLLOUT))
            self._noisy = True
        if self._log.dropped != self._status.get("log_dropped", 0) and time.monotonic() - self._dropped_told > 1:
            self._tell_dropped()
        return bool(happened)

    def _tell_dropped(self) -> None:
        self._dropped_told = time.monotonic()
        try:
            self._record(durable=False, log_dropped=self._log.dropped)
        except OSError:
            pass  # a full disk: the next time

    def _watch_health(self) -> None:
        text = self._config.get("annotations", {}).get("org.limpet.health")
        if text:
            from limpet.containers.monitor.health import Health

            self._health = Health(self._store, self._container, jsontext.loads(text), self._began)

    def _watch_disk(self) -> None:
        from limpet.containers.mounts import quota

        if quota.held(f"{self._directory}/upper") is None:
            from limpet.containers.mounts.diskwatch import DiskWatch

            size = quota.size_of(self._container.options.storage_opts, "--storage-opt")
            self._disk = DiskWatch(self._store, self._container, size)

    def _checks_seldom(self) -> bool:
        """Between two checks there is time for a sleep that saves more than the waking costs."""
        if self._disk is not None and not self._disk.idle:
            return False
        return self._health is None or (self._health.idle and self._health.seldom)

    def _unhealthy(self, action: str) -> None:
        """What --health-on-failure says. The loop goes on: its end is an end as any other."""
        from limpet.containers import stop
        from limpet.containers.monitor import health

        if action == "kill" and self._started is not None:
            stop.kill_all(self._container, self._started.pidfd)
            return
        self._starting_again = action == "restart"
        health.end_run(self._store, self._container, for_good=action == "stop")

    def _shut_down(self) -> None:
        """Ends the container as `system shutdown` does, by a child; the loop goes on until it has ended."""
        if signalfd.read(self._told) and not self._shutting_down:
            self._shutting_down = True
            from limpet.containers import recovery

            restarting.take_word(self._container, self._run)  # its restart policy may be another by now
            early.aside(lambda: recovery.shut_down(self._store, self._container))

    def _on_frame(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == frames.STDIN:
            self._streams.feed(payload)
        elif kind == frames.CLOSE_STDIN:
            self._streams.end_input()
        elif kind == frames.RESIZE and len(payload) == 4:
            if self._streams.terminal is not None:
                from limpet.kernel import terminal

                rows, columns = int.from_bytes(payload[:2]), int.from_bytes(payload[2:])
                terminal.set_size(self._streams.terminal, rows, columns)
        elif kind == frames.SIGNAL and len(payload) == 4 and self._started is not None and not self._ended:
            try:
                process.pidfd_send_signal(self._started.pidfd, frames.number(payload))
            except OSError:
                pass

    def _on_leave(self, client: Client) -> None:
        """As Docker's StdinOnce: the input of `run -i` ends with its client; that of `run -d -i` only looked on."""
        if client.first and not self._container.options.detach:
            self._streams.end_input()

    # The end

    def _over(self, code: int, again: bool) -> None:
        """Puts away what belonged to this run, records the exit and tells the clients."""
        if self._health is not None:
            self._health.close()
            self._health = None
        if self._disk is not None:
            self._disk.close()
            self._disk = None
        oom = controllers.oom_kills(self._container.group) > 0
        if oom:
            events.tell(self._store, self._container, "oom", **controllers.oom_victim(self._container.group))
        self._put_away()
        if self._container.options.cdi:
            self._after_hooks()
        if self._cgroup is not None:
            if "pid" not in sharing.namespaces(
                self._container.options
            ):  # the end of a PID 1 would have taken them along
                cgroup.kill(self._cgroup)
            addressing.take(self._container, self._cgroup)
            if self._container.options.policed or self._container.options.detach:
                from limpet.containers.network import policing

                policing.take(self._cgroup)
        self._remove_groups()
        if not again:  # before anybody hears of the end, and removes it
            self._release_volumes()
        self._status.update(
            state="restarting" if again else "exited",
            pid=0,
            pid_start=0,
            exit_code=code,
            finished_at=logfile.timestamp(time.time_ns()),
            oom_killed=oom,
            error=self._full,
            **({"log_dropped": self._log.dropped} if self._log.dropped else {}),
        )
        if oom or self._full or not self._container.options.auto_remove:  # the client of --rm says why it ended
            try:
                self._record(durable=True)
            except OSError:
                pass  # whoever waits shall hear the exit code all the same
        self._full = ""
        seconds = int(time.monotonic() - self._began)
        events.tell(self._store, self._container, "die", exitCode=code, execDuration=seconds)
        self._clients.finish(code)
        if not again:
            addressing.retire(self._store, self._container)
            self._disconnect()

    def _disconnect(self) -> None:
        """The others on its networks forget it; what only it needed there goes."""
        if sharing.connected(self._container.options) and self._container.options.networks:
            from limpet.containers.network import networking

            networking.release(self._store, self._container)

    def _after_hooks(self) -> None:
        """From the file: a monitor that slept has forgotten the plan. runc has run its own."""
        if self._container.options.runtime == "runc":
            return
        from limpet.containers.execution import hooks

        try:
            with open(f"{self._directory}/config.json", "rb") as file:
                hooks.after(jsontext.loads(file.read()), self._directory, 0, "poststop")
        except (OSError, ValueError):
            pass  # the container is being removed

    def _release_volumes(self) -> None:
        if os.path.exists(f"{self._store.run}/volumes"):
            from limpet.containers.mounts import volumemounts

            volumemounts.release_all(self._store, self._container.id)

    def _remove_groups(self) -> None:
        """That of version 2 last: by it what a kill in between leaves is found again."""
        controllers.remove(self._container.group)
        if self._cgroup is not None:
            cgroup.remove(self._cgroup)

    def _put_away(self) -> None:
        assert self._started is not None
        if self._outward:
            from limpet.network.private import pasta

            pasta.stop(self._outward)
            self._outward = 0
        os.close(self._started.pidfd)
        self._started = None
        if self._container.options.runtime == "runc":
            from limpet.containers.execution import runc

            runc.delete(self._run, self._directory)

    def _again(self, code: int) -> bool:
        if restarting.take_word(self._container, self._run) or sharing.joins(self._container.options):
            self._config = {}  # written anew at the next start; the other container may have another process by then
        whatever, self._starting_again = self._starting_again, False
        whatever = whatever or self._container.options.on_demand
        options, restarts = self._container.options, self._status["restarts"]
        return restarting.wanted(options, self._run, code, restarts, whatever=whatever)

    def _pause(self, delay: float) -> bool:
        """Waits before a restart; False if the container was stopped meanwhile (`stop` leaves a file)."""
        end = time.monotonic() + delay
        while (left := end - time.monotonic()) > 0:
            self._serve(min(left, 0.1))
            if os.path.exists(f"{self._run}/stopped"):
                return False
        return True

    def _leave(self) -> None:
        """Lets the clients read the rest, and sees to it that a `--rm` container is removed."""
        if self._activation is not None:
            self._activation.close()
        self._withdraw()
        self._log.close()
        if self._log.dropped != self._status.get("log_dropped", 0) and not self._container.options.auto_remove:
            self._tell_dropped()
        self._release_volumes()  # of one that was stopped while it waited for its next start
        self._be_alone()
        if self._container.options.pod_ends:
            from limpet.containers.pod import podlife

            podlife.tell_end(self._store, self._container)
        removing = self._container.options.auto_remove
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            if not (self._clients.unsent or (removing and self._clients.first is not None)):
                break
            self._serve(left)
        if removing and os.path.exists(self._directory):
            from limpet.containers import removal

            removal.remove_from_monitor(self._store, self._container.id, self._lock)
        self._clients.close()

    def _record(self, *, durable: bool = True, **changes: object) -> None:
        self._status.update(changes)
        state.record(self._directory, self._status, durable=durable)
