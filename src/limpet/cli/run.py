"""create, run, start."""

from __future__ import annotations

import os
import sys

from limpet.cli.create_options import OPTIONS, wanted
from limpet.cli.program_options import KEYS, PROXY
from limpet.cli.table import Command, Option
from limpet.errors import Conflict, Invalid, LimpetError, NotFound, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from limpet.cli.table import Call
    from limpet.containers.monitor.early import Early
    from limpet.containers.options import Options
    from limpet.containers.state import Container
    from limpet.images.catalog import Image
    from limpet.store.store import Store


def create(call: Call) -> int:
    container = _create(call, wanted(call))
    _show_id(container, "was created")
    return 0


def run(call: Call) -> int:
    from limpet.containers.monitor import early

    call.enter()
    waiting = early.Early()  # first of all: it gets ready while we do
    options = wanted(call)
    if options.tty and options.interactive and not options.detach and not os.isatty(0):
        raise Invalid(
            "the input device is not a TTY", "leave out -t when standard input is a pipe or file", exit_code=1
        )
    streams = _attached(call)
    container = _create(call, options)
    connection = _launch(call.store, container, waiting, client=not options.detach or options.auto_remove)
    if options.detach:
        _show_id(container, "runs")
        look(call.store, [container], connection)
        return 0
    assert connection is not None
    from limpet.containers import attach as attaching
    from limpet.containers import removal
    from limpet.containers.execution import console

    def show(stream: int, data: bytes) -> None:
        if _STREAMS[stream] in streams:
            console.write_all(stream, data)

    if "stdout" not in streams and "stderr" not in streams:
        _show_id(container, "runs")  # as Docker
    try:
        code = attaching.attach(
            call.store,
            container,
            connection=connection,
            stdin="stdin" in streams,
            detach_keys=call["detach-keys"],
            proxy_signals=call["sig-proxy"],
            sink=show,
        )
    except LimpetError:
        if options.auto_remove:  # its monitor is gone, and can't see to it
            from limpet.containers import stop as stopping

            stopping.remove(call.store, container, force=True, volumes=True)
        raise
    if code == attaching.DETACHED:
        return 0
    if (code and options.storage_opts) or (code == 137 and options.limits):
        _tell_why(call.store, container)
    if options.auto_remove:
        # The monitor waits for the end of `connection`: until then the removal is ours.
        removal.remove_container(call.store, container.id, with_volumes=True, durable=False)
    return code


def _tell_why(store: Store, container: Container) -> None:
    """Who looks on would see no more than 143 or 137: that the monitor ended it, or the kernel, and why."""
    from limpet.containers import state

    status = state.status(store, container)
    if status.error:
        print(f"limpet: container {container.name} was stopped: {status.error}", file=sys.stderr)
    elif status.oom_killed:
        print(f"limpet: container {container.name} was out of memory, and the kernel killed it", file=sys.stderr)


def _show_id(container: Container, what: str) -> None:
    """Raises LimpetError with the id if it can't be shown where it is asked for: else nobody knows of the container."""
    try:
        print(container.id, flush=True)
    except BrokenPipeError:
        raise
    except OSError as e:
        from limpet.cli.main import drop_output

        drop_output()
        raise LimpetError(reason(e), f"container {container.name} {what} all the same, its id: {container.id}") from e


def start(call: Call) -> int:
    from limpet.containers import start as starting
    from limpet.containers import state

    names = call.arguments
    attached = call["attach"] or call["interactive"]
    if attached and len(names) > 1:
        raise Invalid("you cannot start and attach multiple containers at once", exit_code=1)
    failed = 0
    started = []
    for name in names:
        try:
            container = state.find(call.store, name)
            if call["checkpoint"]:
                from limpet.containers.copies import checkpoints

                checkpoints.find(call.store, container, call["checkpoint"])
            code = starting.start(
                call.store,
                container,
                attached=attached,
                stdin=call["interactive"],
                detach_keys=call["detach-keys"],
                proxy_signals=call["sig-proxy"],
                checkpoint=call["checkpoint"],
                warn=_warn,
            )
        except LimpetError as e:
            if len(names) == 1:
                e.exit_code = 1  # as Docker's `start`, whatever kept the program from running
                raise
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
            continue
        if attached:
            return max(code, 0)  # DETACHED is below
        print(name, flush=True)
        started.append(container)
    look(call.store, started)
    return failed


def look(store: Store, containers: list[Container], connection: socket.socket | None = None) -> None:
    """Says which of them have ended already: nobody else would. The exit code stays that of a start, as Docker's.

    A person at a terminal does not notice a quarter of a second after the id; a script gets next to no delay, and no
    word of a program that has done its work.
    """
    from limpet.containers.observe import watch
    from limpet.kernel import signals

    signals.block(signals.SIG_UNBLOCK, signals.DEADLY)  # see `start.launch`
    person = os.isatty(2)
    seconds = _GLANCE if person else _BLINK
    for container in containers:
        code = watch.ended(store, container, seconds, connection)
        if code or (person and code == 0):
            print(f"limpet: {watch.last_words(store, container, code)}", file=sys.stderr)
        seconds = 0 if len(containers) > 1 else seconds  # the first wait was for all of them


def _launch(store: Store, container: Container, waiting: Early, *, client: bool) -> socket.socket | None:
    from limpet.containers import start as starting
    from limpet.containers.execution.outcome import StartFailed

    size = None
    if container.options.tty:
        from limpet.kernel import terminal

        size = next((terminal.get_size(fd) for fd in (0, 1, 2) if os.isatty(fd)), None)
    try:
        return starting.launch(store, container, client=client, size=size, waiting=waiting, warn=_warn)
    except BaseException as e:
        if container.options.auto_remove:
            from limpet.containers import removal

            removal.remove_container(store, container.id, with_volumes=True, durable=False)
        elif isinstance(e, LimpetError) and not isinstance(e, StartFailed):
            e.hint = e.hint or f"the container stays: `limpet rm {container.name}` takes it away"
        raise


def _warn(text: str) -> None:
    print(f"WARNING: {text}", file=sys.stderr)


def _create(call: Call, options: Options) -> Container:
    from limpet.containers import create as creating

    cidfile = call["cidfile"]
    if cidfile and os.path.exists(cidfile):
        raise Conflict(
            f"container ID file {cidfile} exists", "make sure that the other container is gone, or delete the file"
        )
    image = _image(call, options)
    _warn_of_platform(image, options)
    _warn_of_ports(image, options)
    if options.pod or call["pod-id-file"]:
        from limpet.cli import pods

        container = pods.create_in(call, image, options)
    else:
        container = creating.create(call.store, image, options)
    if cidfile:
        with open(cidfile, "x", encoding="ascii") as file:
            file.write(container.id)
    return container


def _image(call: Call, options: Options) -> Image:
    """The image from the store, or brought in, as `--pull` says."""
    from limpet.images import catalog

    if call["pull"] != "always" and not options.platform:
        try:
            return catalog.find(call.store, options.image)
        except NotFound:
            pass
    from limpet.cli import absent

    return absent.image(call, options.image, options.platform)


def _warn_of_platform(image: Image, options: Options) -> None:
    """Docker's warning; the start itself names both architectures if the program can't be run."""
    theirs = image.config.get("architecture", "")
    ours = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    if theirs and theirs != ours and not options.platform:
        text = f"the image's platform (linux/{theirs}) is not the host's (linux/{ours})"
        print(f"WARNING: {text}", file=sys.stderr)


def _warn_of_ports(image: Image, options: Options) -> None:
    """A program says "Permission denied", and not why."""
    said = (image.config.get("config") or {}).get("ExposedPorts")
    if (said or options.expose) and options.network == "host":
        from limpet.containers.network import ports

        refusal = ports.out_of_reach([*(said or ()), *ports.parse_all(options.expose)])
        if refusal is not None:
            print(f"WARNING: {'; '.join(refusal)}", file=sys.stderr)


_STREAMS = ("stdin", "stdout", "stderr")


_GLANCE, _BLINK = 0.25, 0.01
"""Seconds for which a container that was started in the background is looked at, with a terminal and without."""


def _attached(call: Call) -> Sequence[str]:
    """The streams that `-a` names, or all."""
    found = [text.lower() for text in call["attach"]]
    for text in found:
        if text not in _STREAMS:
            raise Invalid(
                f'invalid argument "{text}" for "-a, --attach" flag', "valid streams are STDIN, STDOUT and STDERR"
            )
    if found and call.get("detach"):
        raise Invalid("conflicting options: cannot specify both --attach and --detach")
    return found or _STREAMS


COMMANDS = {
    "create": Command(
        name="create",
        handler=create,
        usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
        summary="Create a new container",
        options=OPTIONS,
        examples=("limpet create --name web -v data:/data debian:12 sleep 1000",),
        interspersed=False,
        min_args=1,
        complete="image",
    ),
    "run": Command(
        name="run",
        handler=run,
        usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
        summary="Create and run a new container from an image",
        options=(
            *OPTIONS,
            Option("detach", "d", help="Run in the background and print the container's id"),
            KEYS,
            PROXY,
        ),
        examples=(
            "limpet run --rm -it debian:12 bash",
            "limpet run -d --name web -v ./site:/srv:ro debian:12 python3 -m http.server -d /srv",
        ),
        interspersed=False,
        min_args=1,
        complete="image",
    ),
    "start": Command(
        name="start",
        handler=start,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Start one or more stopped containers",
        options=(
            Option("attach", "a", help="Attach to its output, and exit with its exit code"),
            Option("interactive", "i", help="Attach to its standard input too"),
            Option("checkpoint", kind="string", default="", metavar="NAME", help="Go on from a checkpoint"),
            KEYS,
            PROXY,
        ),
        examples=("limpet start web", "limpet start -ai shell"),
        min_args=1,
        complete="stopped",
    ),
}
