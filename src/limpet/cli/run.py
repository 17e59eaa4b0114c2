"""create, run, start, exec, attach."""

from __future__ import annotations

import os
import sys

from limpet.cli.table import Command, Option
from limpet.errors import Conflict, Invalid, LimpetError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from limpet.cli.table import Call
    from limpet.containers.early import Early
    from limpet.containers.options import Options
    from limpet.containers.state import Container
    from limpet.images.catalog import Image
    from limpet.store.store import Store


def create(call: Call) -> int:
    container = _create(call, _options(call))
    print(container.id)
    return 0


def run(call: Call) -> int:
    from limpet.containers import early

    waiting = early.Early()  # first of all: it gets ready while we do
    options = _options(call)
    if options.tty and options.interactive and not options.detach and not os.isatty(0):
        raise Invalid(
            "the input device is not a TTY", "leave out -t when standard input is a pipe or file", exit_code=1
        )
    container = _create(call, options)
    connection = _launch(call.store, container, waiting, client=not options.detach or options.auto_remove)
    if options.detach:
        print(container.id, flush=True)
        _look(call.store, [container], connection)
        return 0
    assert connection is not None
    from limpet.containers import attach as attaching
    from limpet.containers import removal

    try:
        code = attaching.attach(
            call.store,
            container,
            connection=connection,
            detach_keys=call["detach-keys"],
            proxy_signals=call["sig-proxy"],
        )
    except LimpetError:
        if options.auto_remove:  # its monitor is gone, and can't see to it
            from limpet.containers import stop as stopping

            stopping.remove(call.store, container, force=True, volumes=True)
        raise
    if code == attaching.DETACHED:
        return 0
    if options.auto_remove:
        # The monitor waits for the end of `connection`: until then the removal is ours.
        removal.remove_container(call.store, container.id, with_volumes=True, durable=False)
    return code


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
            code = starting.start(
                call.store,
                container,
                attached=attached,
                stdin=call["interactive"],
                detach_keys=call["detach-keys"],
                proxy_signals=call["sig-proxy"],
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
    _look(call.store, started)
    return failed


def _look(store: Store, containers: list[Container], connection: socket.socket | None = None) -> None:
    """Says which of them have ended already: nobody else would. The exit code stays that of a start, as Docker's.

    A person at a terminal does not notice a quarter of a second after the id; a script gets next to no delay, and no
    word of a program that has done its work.
    """
    from limpet.containers import watch

    person = os.isatty(2)
    seconds = _GLANCE if person else _BLINK
    for container in containers:
        code = watch.ended(store, container, seconds, connection)
        if code or (person and code == 0):
            print(f"limpet: {watch.last_words(store, container, code)}", file=sys.stderr)
        seconds = 0 if len(containers) > 1 else seconds  # the first wait was for all of them


def exec_(call: Call) -> int:
    from limpet.cli import keyvalues
    from limpet.containers import exec as executing
    from limpet.containers import state

    name, *command = call.arguments
    if call["tty"] and call["interactive"] and not call["detach"] and not os.isatty(0):
        raise Invalid(
            "the input device is not a TTY", "leave out -t when standard input is a pipe or file", exit_code=1
        )
    return executing.exec_(
        call.store,
        state.find(call.store, name),
        command,
        env=keyvalues.environment(call["env"], call["env-file"]),
        workdir=call["workdir"],
        user=call["user"],
        interactive=call["interactive"],
        tty=call["tty"],
        detach=call["detach"],
        privileged=call["privileged"],
        detach_keys=call["detach-keys"],
    )


def attach(call: Call) -> int:
    from limpet.containers import attach as attaching
    from limpet.containers import state

    container = state.find(call.store, call.arguments[0])
    code = attaching.attach(
        call.store,
        container,
        stdin=not call["no-stdin"],
        detach_keys=call["detach-keys"],
        proxy_signals=call["sig-proxy"],
    )
    return 0 if code == attaching.DETACHED else code


def _launch(store: Store, container: Container, waiting: Early, *, client: bool) -> socket.socket | None:
    from limpet.containers import start as starting
    from limpet.containers.outcome import StartFailed

    size = None
    if container.options.tty:
        from limpet.kernel import terminal

        size = next((terminal.get_size(fd) for fd in (0, 1, 2) if os.isatty(fd)), None)
    try:
        return starting.launch(store, container, client=client, size=size, waiting=waiting)
    except BaseException as e:
        if container.options.auto_remove:
            from limpet.containers import removal

            removal.remove_container(store, container.id, with_volumes=True, durable=False)
        elif isinstance(e, LimpetError) and not isinstance(e, StartFailed):
            e.hint = e.hint or f"the container stays: `limpet rm {container.name}` takes it away"
        raise


def _create(call: Call, options: Options) -> Container:
    from limpet.containers import create as creating

    cidfile = call["cidfile"]
    if cidfile and os.path.exists(cidfile):
        raise Conflict(
            f"container ID file {cidfile} exists", "make sure that the other container is gone, or delete the file"
        )
    image = _image(call, options)
    _warn_of_platform(image, options)
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


def _options(call: Call) -> Options:
    from limpet.cli import keyvalues
    from limpet.containers import options as wanted

    image, *command = call.arguments
    entrypoint = call["entrypoint"]
    init = False if call["no-init"] else None if call["init"] == _UNSAID else call["init"]
    return wanted.Options(
        image=image,
        command=command,
        # `--entrypoint ""` takes the image's away; it is one word, as in Docker.
        entrypoint=None if entrypoint is None else [entrypoint] if entrypoint else [],
        name=call["name"],
        env=keyvalues.environment(call["env"], call["env-file"]),
        workdir=call["workdir"],
        user=call["user"],
        group_add=call["group-add"],
        volumes=call["volume"],
        mounts=call["mount"],
        tmpfs=call["tmpfs"],
        mkdir=call["mkdir"],
        read_only=call["read-only"],
        hostname=call["hostname"],
        domainname=call["domainname"],
        labels=keyvalues.pairs([*keyvalues.label_files(call["label-file"]), *call["label"]]),
        init=init,
        stop_signal=call["stop-signal"],
        stop_timeout=call["stop-timeout"],
        privileged=call["privileged"],
        cap_add=call["cap-add"],
        cap_drop=call["cap-drop"],
        security_opt=keyvalues.security(call["security-opt"]),
        add_host=call["add-host"],
        tty=call["tty"],
        interactive=call["interactive"],
        detach=bool(call.get("detach")),
        auto_remove=call["rm"],
        restart=call["restart"] or "no",
        network=call["network"] or "host",
        runtime=call["runtime"] or "limpet",
        devices=call["device"],
        shm_size=wanted.parse_size(call["shm-size"], "shm-size") if call["shm-size"] else wanted.SHM_SIZE,
        ulimits=call["ulimit"],
        sysctls=keyvalues.pairs(call["sysctl"]),
        log_opts=keyvalues.pairs(call["log-opt"]),
        platform=call["platform"],
        oom_score_adj=call["oom-score-adj"] or 0,
    )


_GLANCE, _BLINK = 0.25, 0.01
"""Seconds for which a container that was started in the background is looked at, with a terminal and without."""

_UNSAID = ""
"""The value of --init where neither it nor --init=false was given."""

_KEYS = Option("detach-keys", kind="string", default="", metavar="KEYS", help="Keys that detach from the container")
_PROXY = Option("sig-proxy", default=True, help="Pass signals on to the program")
_ENV = (
    Option("env", "e", kind="list", metavar="KEY=VALUE", help="Set an environment variable (KEY alone: the caller's)"),
    Option("env-file", kind="list", metavar="FILE", help="Read environment variables from a file"),
)
_USER = Option("user", "u", kind="string", default="", metavar="USER[:GROUP]", help="User, by name or number")
_WORKDIR = Option("workdir", "w", kind="string", default="", metavar="DIR", help="Working directory in the container")

_CREATE = (
    Option("add-host", kind="list", metavar="NAME:ADDRESS", help="Add a line to /etc/hosts"),
    Option("cap-add", kind="list", metavar="NAME", help="Add a capability (ALL for every one)"),
    Option("cap-drop", kind="list", metavar="NAME", help="Drop a capability (ALL for every one)"),
    Option("cidfile", kind="string", default="", metavar="FILE", help="Write the container's id to a file"),
    Option("device", kind="list", metavar="DEVICE", help="Add a device of the host: /dev/a[:/dev/b][:rwm]"),
    Option("domainname", kind="string", default="", metavar="NAME", help="NIS domain name"),
    Option("entrypoint", kind="string", metavar="COMMAND", help="Run this in place of the image's entry point"),
    *_ENV,
    Option("group-add", kind="list", metavar="GROUP", help="Add a supplementary group"),
    Option("hostname", "h", kind="string", default="", metavar="NAME", help="Host name of the container"),
    Option("init", default=_UNSAID, help="Run an init as PID 1 (the default, unless the command is an init)"),
    Option("interactive", "i", help="Keep standard input open"),
    Option("label", "l", kind="list", metavar="KEY=VALUE", help="Set a label"),
    Option("label-file", kind="list", metavar="FILE", help="Read labels from a file"),
    Option("log-opt", kind="list", metavar="KEY=VALUE", help="max-size (10m), max-file (3) of the log"),
    Option("mkdir", help="Make missing directories for bind mounts"),
    Option("mount", kind="list", metavar="SPEC", help="Mount: type=bind|volume|tmpfs,source=...,target=...,readonly"),
    Option("name", kind="string", default="", metavar="NAME", help="Name of the container"),
    Option(
        "network",
        kind="string",
        default="host",
        metavar="MODE",
        help="host or none",
        choices=("host", "none"),
        aliases=("net",),
    ),
    Option("no-init", help="Run the command itself as PID 1"),
    Option("oom-score-adj", kind="int", default=0, metavar="N", help="Preference of the out-of-memory killer"),
    Option("platform", kind="string", default="", metavar="OS/ARCH", help="Platform of an image to pull"),
    Option("privileged", help="All capabilities, all devices, nothing masked"),
    Option(
        "pull",
        kind="string",
        default="missing",
        metavar="WHEN",
        help="Pull the image: always, missing, never",
        choices=("always", "missing", "never"),
    ),
    Option("quiet", "q", help="No progress of a pull"),
    Option("read-only", help="Mount the container's root read-only"),
    Option("restart", kind="string", default="no", metavar="POLICY", help="no, on-failure[:N], always, unless-stopped"),
    Option("rm", help="Remove the container, and its anonymous volumes, when it ends"),
    Option(
        "runtime", kind="string", default="limpet", metavar="NAME", help="limpet or runc", choices=("limpet", "runc")
    ),
    Option("security-opt", kind="list", metavar="OPTION", help="no-new-privileges, seccomp=unconfined|FILE"),
    Option("shm-size", kind="string", default="", metavar="SIZE", help="Size of /dev/shm (64m)"),
    Option("stop-signal", kind="string", default="", metavar="SIGNAL", help="Signal that stops the container"),
    Option("stop-timeout", kind="int", metavar="SECONDS", help="Seconds until a stop kills (10)"),
    Option("sysctl", kind="list", metavar="KEY=VALUE", help="Set a kernel parameter"),
    Option("tmpfs", kind="list", metavar="DIR[:OPTIONS]", help="Mount a tmpfs"),
    Option("tty", "t", help="Give the container a terminal"),
    Option("ulimit", kind="list", metavar="NAME=SOFT[:HARD]", help="Set a resource limit"),
    _USER,
    Option("volume", "v", kind="list", metavar="SOURCE:DIR[:ro]", help="Mount a volume or a directory of the host"),
    _WORKDIR,
)

COMMANDS = {
    "create": Command(
        name="create",
        handler=create,
        usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
        summary="Create a new container",
        options=_CREATE,
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
            *_CREATE,
            Option("detach", "d", help="Run in the background and print the container's id"),
            _KEYS,
            _PROXY,
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
            _KEYS,
            _PROXY,
        ),
        examples=("limpet start web", "limpet start -ai shell"),
        min_args=1,
        complete="container",
    ),
    "exec": Command(
        name="exec",
        handler=exec_,
        usage="[OPTIONS] CONTAINER COMMAND [ARG...]",
        summary="Execute a command in a running container",
        options=(
            Option("detach", "d", help="Leave it running in the background"),
            _KEYS,
            *_ENV,
            Option("interactive", "i", help="Keep standard input open"),
            Option("privileged", help="All capabilities"),
            Option("tty", "t", help="Give it a terminal"),
            _USER,
            _WORKDIR,
        ),
        examples=("limpet exec -it web sh", "limpet exec -u 1000 -e A=1 web env"),
        interspersed=False,
        min_args=2,
        complete="container",
    ),
    "attach": Command(
        name="attach",
        handler=attach,
        usage="[OPTIONS] CONTAINER",
        summary="Attach to a running container",
        options=(_KEYS, Option("no-stdin", help="Do not attach standard input"), _PROXY),
        examples=("limpet attach --no-stdin web",),
        min_args=1,
        max_args=1,
        complete="container",
    ),
}
