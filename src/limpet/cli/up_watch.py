"""`up --watch`: builds and replaces when a file changes, or copies it into the running container."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from limpet.build.language import ignore
from limpet.cli import up as upping
from limpet.compose import directives, lock, syncing
from limpet.compose.contextwatch import ContextWatch
from limpet.containers import start, state, stop
from limpet.containers.logging import logs
from limpet.errors import LimpetError
from limpet.store.store import Store
from limpet.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.cli.table import Call
    from limpet.compose.directives import Sync
    from limpet.compose.project import Project, Up
    from limpet.containers.state import Container

_FILES = ("Dockerfile", ".dockerignore", "Dockerfile.dockerignore")
"""They count though `.dockerignore` may leave them out of the context."""


def watch(call: Call, project: Project) -> int:
    """Until Ctrl-C, which takes away what was made, as without --watch."""
    session = _Session(call, project)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, upping.interrupt)
    try:
        session.run()
    except KeyboardInterrupt:
        session.say(f"\nProject {project.name}: stopping; Ctrl-C again to kill it")
        try:
            session.stop()
        except KeyboardInterrupt:
            pass  # the removal kills
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        session.end()
    return 130


class _Session:
    def __init__(self, call: Call, project: Project) -> None:
        self.say = partial(upping.say_so, call)
        self._call = call
        self._store = call.store
        self._project = project
        self._made: Up | None = None
        self._fresh = False
        self._volumes: set[str] = set()
        self._follower: _Follower | None = None

    def run(self) -> None:
        """Builds, and waits for changes, for ever. Each watch begins before its build reads anything."""
        first = True
        while True:
            with self._watch() as watch:
                syncs = self._up(first=first)
                first = False
                self.say(f"Project {self._project.name}: watching {self._project.directory}")
                while self._handled(syncs, watch.wait()):
                    pass

    def _watch(self) -> ContextWatch:
        directory = self._project.directory
        try:
            ignored = ignore.read(directory, f"{directory}/Dockerfile")
        except LimpetError:
            ignored = ignore.Ignore()  # the build says it better
        return ContextWatch(directory, ignored, _FILES)

    def _up(self, *, first: bool) -> tuple[Sync, ...]:
        """A mistake in the first build ends it all; later ones are said, and what runs runs on."""
        try:
            syncs = self._directives()
            with lock.held(self._store, self._project.name, self.say), self._expected_end():
                made = upping.make(self._call, self._project)
                self._fresh |= made.fresh
                self._volumes |= set(made.volumes)
                self._made = made
                if not made.running:
                    self._start(made.container)
        except LimpetError as e:
            if first:
                raise
            self.say(f"limpet: {e.message}" + (f"\n{e.hint}" if e.hint else ""))
            return ()
        return syncs

    def _directives(self) -> tuple[Sync, ...]:
        path = f"{self._project.directory}/Dockerfile"
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return directives.parse(file.read(1 << 20), os.path.relpath(path))
        except FileNotFoundError:
            return ()  # the build says it better
        except OSError as e:
            raise LimpetError(f"{path}: {e.strerror}", exit_code=1) from e

    def _handled(self, syncs: tuple[Sync, ...], changed: set[str]) -> bool:
        """Whether the changes are in the container by now; if not, it has to be built."""
        planned = syncing.plan(syncs, changed) if not changed & set(_FILES) else None
        if planned is None or self._made is None or not state.status(self._store, self._made.container).running:
            return False
        container = self._made.container
        try:
            with lock.held(self._store, self._project.name, self.say):
                count = syncing.apply(self._store, container, self._project.directory, planned)
                names = ", ".join(sorted(planned)[:3]) + (" …" if count > 3 else "")
                self.say(f"Container {container.name}: copied {names}")
                if any(rule.restart for rule in planned.values()):
                    with self._expected_end():
                        stop.stop(self._store, container)
                    self._start(container)
                    self.say(f"Container {container.name}: started again")
        except LimpetError as e:
            self.say(f"Container {container.name}: {e.message}: building instead")
            return False
        return True

    def _start(self, container: Container) -> None:
        start.start(self._store, container)
        if self._follower is not None:
            self._follower.end()
        self._follower = _Follower(self._store, container, self.say)

    @contextmanager
    def _expected_end(self) -> Iterator[None]:
        """The container may end meanwhile: nobody needs to be told."""
        follower = self._follower
        if follower is not None:
            follower.silent.set()
        yield
        if follower is not None and state.status(self._store, follower.container).running:
            follower.silent.clear()

    def stop(self) -> None:
        if self._made is not None:
            with self._expected_end():
                stop.stop(self._store, self._made.container)

    def end(self) -> None:
        """Takes away what was made. The follower ends with the container."""
        if self._made is None:
            return
        upping.remove(self._call, self._project, self._made.container, sorted(self._volumes), images=self._fresh)
        if self._follower is not None:
            self._follower.end()


class _Follower:
    """Shows what a container writes, and its end. In a thread, with a store of its own: SQLite is one thread's."""

    def __init__(self, store: Store, container: Container, say: partial[None]) -> None:
        self.container = container
        self.silent = threading.Event()
        self._ended = threading.Event()
        self._say = say
        arguments = (store.root, store.run, container)
        self._threads = [threading.Thread(target=self._follow, args=arguments, daemon=True)]
        announce = (store.root, store.run, container, self._ended)
        self._threads.append(threading.Thread(target=upping.announce, args=announce, daemon=True))
        for thread in self._threads:
            thread.start()

    def _follow(self, root: str, run: str, container: Container) -> None:
        store = Store(root, run)
        try:
            begin = seconds_of(state.status(store, container).started_at)
            for entry in logs.read(store, container, since=begin, follow=True):
                target = sys.stderr if entry.stream == "stderr" else sys.stdout
                target.buffer.write(entry.text.encode("utf-8", "surrogateescape"))
                target.buffer.flush()
            status = state.status(store, container)
            if not (self.silent.is_set() or self._ended.is_set() or status.running):
                self._say(f"Container {container.name}: ended with exit code {status.exit_code}, waiting for a change")
        except (LimpetError, OSError):
            pass  # it was removed
        finally:
            store.close()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(2)
