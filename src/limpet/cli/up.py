"""up, down."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING

from limpet.cli.progress import progress
from limpet.cli.table import Command, Option
from limpet.compose import project as projects
from limpet.errors import LimpetError

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.compose.project import Project, Up
    from limpet.containers.state import Container


def up(call: Call) -> int:
    project = projects.load(call.arguments[0] if call.arguments else ".", call["project-name"])
    with progress(quiet=call["quiet"]) as shown:
        made = projects.up(
            call.store, project, rebuild=call["no-cache"], say=lambda text: _say(call, text), progress=shown
        )
    if not call["detach"]:
        return _foreground(call, project, made)
    container = made.container
    if not made.running:
        code = projects.launch(call.store, container)
        _say(call, f"Container {container.name}: {'started' if code is None else f'ended with exit code {code}'}")
        if code is not None:
            return 0
    if projects.ports(call.store, container):
        _say(call, f"Container {container.name}: waiting until its port answers")
    address = projects.wait_for_port(call.store, container)
    if address:
        print(address)
    elif projects.ports(call.store, container):
        print(f"limpet: {container.name} runs, but nothing answers on its port yet", file=sys.stderr)
    return 0


def down(call: Call) -> int:
    if call["project-name"] and not call.arguments:
        project = projects.find(call.store, call["project-name"])
    else:
        project = projects.load(call.arguments[0] if call.arguments else ".", call["project-name"])
    projects.down(call.store, project, timeout=call["timeout"], say=lambda text: _say(call, text))
    return 0


def _foreground(call: Call, project: Project, made: Up) -> int:
    """Streams the output. Ctrl-C stops the container gently, a second one at once. What was made is taken away again.

    An image of the project that was here before stays, built anew or not.
    """
    from limpet.containers import stop

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _stream(call, made.container, made.running)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # this does not take long
        stop.remove(call.store, made.container, force=True, volumes=True)
        _say(call, f"Container {made.container.name}: removed")
        if made.fresh:
            projects.remove_images(call.store, project, say=lambda text: _say(call, text))


def _stream(call: Call, container: Container, running: bool) -> int:
    from limpet.containers import attach, start, stop

    connection = None if running else start.launch(call.store, container, client=True)
    ended = threading.Event()
    waiter = threading.Thread(target=_announce, args=(call.store.root, call.store.run, container, ended), daemon=True)
    waiter.start()
    try:
        code = attach.attach(call.store, container, connection=connection, stdin=False, proxy_signals=False)
        _say(call, f"Container {container.name}: ended with exit code {code}")
    except KeyboardInterrupt:
        code = 130
        _say(call, f"\nContainer {container.name}: stopping; Ctrl-C again to kill it")
        try:
            stop.stop(call.store, container)
        except KeyboardInterrupt:
            pass  # the removal kills
    finally:
        ended.set()
    return code


def _announce(root: str, run: str, container: Container, ended: threading.Event) -> None:
    """Prints the address as soon as it answers. In a thread, with a store of its own: SQLite is one thread's."""
    from limpet.store.store import Store

    try:
        address = projects.wait_for_port(Store(root, run), container, ended)
    except LimpetError:
        return  # it ended, and the other thread says so
    if address and not ended.is_set():
        print(address, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _say(call: Call, text: str) -> None:
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
            Option("quiet", "q", help="Print only the address"),
        ),
        examples=("limpet up -d examples/hello", "limpet up"),
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
        ),
        examples=("limpet down examples/hello",),
        max_args=1,
        complete="file",
    ),
}
