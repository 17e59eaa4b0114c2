"""up, down."""

from __future__ import annotations

import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from limpet.cli.building import progress_option
from limpet.cli.building.choice import Shown, mode
from limpet.cli.table import Command, Option
from limpet.compose import lock
from limpet.compose import project as projects
from limpet.errors import Invalid, LimpetError, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

    from limpet.cli.table import Call
    from limpet.compose.project import Project, Up
    from limpet.containers.state import Container


def up(call: Call) -> int:
    project = projects.load(call.arguments[0] if call.arguments else ".", call["project-name"])
    if call["wait-timeout"] < 0:
        raise Invalid(f'invalid argument "{call["wait-timeout"]}" for "--wait-timeout" flag', "0 does not wait")
    say = partial(say_so, call)
    if call["watch"]:
        if call["detach"]:
            raise Invalid("--watch shows what it does and ends with Ctrl-C", "leave out -d")
        from limpet.cli import up_watch

        return up_watch.watch(call, project)
    if not call["detach"]:
        return _foreground(call, project)
    with lock.held(call.store, project.name, say):
        made = make(call, project)
        container = made.container
        if not made.running:
            code = projects.launch(call.store, container)
            say(f"Container {container.name}: {'started' if code is None else f'ended with exit code {code}'}")
            if code is not None:
                return 0
    if call["wait-timeout"]:
        address = projects.wait_for_port(call.store, container, call["wait-timeout"], say=say)
        if address:
            print(address)
    return 0


def make(call: Call, project: Project) -> Up:
    with Shown(call.store, mode("quiet" if call["quiet"] else call["progress"])) as report:
        return projects.up(call.store, project, rebuild=call["no-cache"], say=report.say, report=report)


def down(call: Call) -> int:
    if call["project-name"] and not call.arguments:
        project = projects.find(call.store, call["project-name"])
    else:
        project = projects.load(call.arguments[0] if call.arguments else ".", call["project-name"])
    projects.down(call.store, project, timeout=call["timeout"], volumes=call["volumes"], say=partial(say_so, call))
    return 0


def _foreground(call: Call, project: Project) -> int:
    """Streams the output. Ctrl-C stops the container gently, a second one at once. What was made is taken away again.

    An image of the project that was here before stays, built anew or not.
    """
    say = partial(say_so, call)
    made = None
    try:
        with lock.held(call.store, project.name, say):
            made = make(call, project)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, interrupt)
            connection = _start(call, made)
        return _stream(call, made.container, connection)
    finally:
        if made is not None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # this does not take long
            remove(call, project, made.container, made.volumes, images=made.fresh)


def _start(call: Call, made: Up) -> socket | None:
    from limpet.containers import start

    return None if made.running else start.launch(call.store, made.container, client=True)


def remove(call: Call, project: Project, container: Container, volumes: Sequence[str], *, images: bool) -> None:
    """The container, volumes by name, and the project's `images`, unless another `up` has made a container of them."""
    from limpet.containers import stop
    from limpet.containers.mounts import volumes as volume_rows

    say = partial(say_so, call)
    try:
        stop.remove(call.store, container, force=True, volumes=True)
        say(f"Container {container.name}: removed")
    except NotFound:
        volumes = ()  # a `down` was faster
    for name in volumes:
        volume_rows.remove(call.store, name)
        say(f"Volume {name}: removed")
    if images:
        with lock.held(call.store, project.name, say):
            if not projects.containers(call.store, project):
                projects.remove_images(call.store, project, say=say)


def _stream(call: Call, container: Container, connection: socket | None) -> int:
    from limpet.containers import attach, stop

    ended = threading.Event()
    waiter = threading.Thread(target=announce, args=(call.store.root, call.store.run, container, ended), daemon=True)
    waiter.start()
    try:
        code = attach.attach(call.store, container, connection=connection, stdin=False, proxy_signals=False)
        say_so(call, f"Container {container.name}: ended with exit code {code}")
    except KeyboardInterrupt:
        code = 130
        say_so(call, f"\nContainer {container.name}: stopping; Ctrl-C again to kill it")
        try:
            stop.stop(call.store, container)
        except KeyboardInterrupt:
            pass  # the removal kills
    finally:
        ended.set()
    return code


def announce(root: str, run: str, container: Container, ended: threading.Event) -> None:
    """Prints the address as soon as it answers. In a thread, with a store of its own: SQLite is one thread's."""
    from limpet.containers import state
    from limpet.store.store import Store

    store = Store(root, run)
    try:
        address = projects.wait_for_port(store, container, stopped=ended, say=_tell)
    except LimpetError as e:
        if not ended.is_set() and state.status(store, container).running:
            _tell(f"limpet: {e}")
        return  # or it ended, and the other thread says so
    if address and not ended.is_set():
        print(address, file=sys.stderr, flush=True)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def say_so(call: Call, text: str) -> None:
    if not call.get("quiet"):
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            pass  # the terminal is gone


_PROJECT = Option("project-name", "p", kind="string", default="", metavar="NAME", help="Name of the project")

COMMANDS = {
    "up": Command(
        name="up",
        handler=up,
        usage="[OPTIONS] [DIRECTORY]",
        summary="Build and start the service of a directory; without -d its output is shown, and Ctrl-C undoes it all",
        options=(
            Option("detach", "d", help="Leave it running, print the address that answers"),
            Option("no-cache", help="Run every build step again"),
            _PROJECT,
            progress_option("How the build shows itself, as in `limpet build`"),
            Option("quiet", "q", help="Print only the address"),
            Option(
                "wait-timeout",
                kind="int",
                default=projects.PATIENCE,
                metavar="SECONDS",
                help="With -d: how long to wait until an exposed port answers (30; 0: not at all)",
            ),
            Option("watch", "w", help="Build and replace when a file changes, or copy it (# limpet: sync SRC DST)"),
        ),
        examples=("limpet up -d examples/hello", "limpet up", "limpet up --watch examples/hello"),
        max_args=1,
        complete="file",
    ),
    "down": Command(
        name="down",
        handler=down,
        usage="[OPTIONS] [DIRECTORY]",
        summary="Stop and remove what `up` made: container, image, and layers that nothing else uses",
        options=(
            _PROJECT,
            Option("timeout", "t", kind="int", metavar="SECONDS", help="Seconds until it is killed (10)"),
            Option("volumes", "v", help="What it kept, too: the volumes of its VOLUME paths"),
        ),
        examples=("limpet down examples/hello", "limpet down --volumes examples/hello"),
        max_args=1,
        complete="file",
    ),
}
