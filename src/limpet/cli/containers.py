"""stop, kill, pause, unpause, restart, wait, rm, rename, top, port, container prune."""

from __future__ import annotations

import sys

from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.containers import state
from limpet.containers.observe import listing
from limpet.errors import Conflict, Invalid, LimpetError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.cli.table import Call
    from limpet.containers.state import Container


def stop(call: Call) -> int:
    """Several stop at the same time."""
    from limpet.containers import stop as stopping

    return together(
        call,
        lambda container: stopping.stop(
            call.store, container, timeout=call["time"], signal=call["signal"], explain=_explainer(container)
        ),
    )


def kill(call: Call) -> int:
    from limpet.containers import stop as stopping

    return _each(call, lambda container: stopping.kill(call.store, container, call["signal"]))


def pause(call: Call) -> int:
    from limpet.containers import pause as pausing

    return _each(call, lambda container: pausing.pause(call.store, container))


def unpause(call: Call) -> int:
    from limpet.containers import pause as pausing

    return _each(call, lambda container: pausing.unpause(call.store, container))


def restart(call: Call) -> int:
    from limpet.cli.run import look
    from limpet.containers import start as starting
    from limpet.containers import stop as stopping
    from limpet.containers.observe import events

    started = []

    def act(container: Container) -> None:
        if container.options.auto_remove:
            raise Conflict(
                f"container {container.name} was made with --rm: its end would remove it", "stop it and run it again"
            )
        stopping.stop(call.store, container, timeout=call["time"], signal=call["signal"], explain=_explainer(container))
        starting.start(call.store, container)
        events.tell(call.store, container, "restart")
        started.append(container)

    failed = _each(call, act)
    look(call.store, started)
    return failed


def _explainer(container: Container) -> Callable[[str], None]:
    return lambda remark: print(f"limpet: {container.name}: {remark}", file=sys.stderr, flush=True)


def wait(call: Call) -> int:
    from limpet.containers import stop as stopping

    if call["condition"]:
        return _wait_for(call)
    failed = 0
    for name in call.arguments:
        try:
            print(stopping.wait(call.store, state.find(call.store, name)), flush=True)
        except LimpetError as e:
            if call["ignore"] and isinstance(e, NotFound):
                print(-1, flush=True)  # as Podman
                continue
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    return failed


def _wait_for(call: Call) -> int:
    """All names are looked up first: the wait for the second must not miss what happens during the first's."""
    from limpet.containers.observe import waiting

    conditions = waiting.check(call["condition"])
    found: list[Container | None] = []
    failed = 0
    for name in call.arguments:
        try:
            found.append(state.find(call.store, name))
        except LimpetError as e:
            missing = isinstance(e, NotFound)
            if missing and (call["ignore"] or "removed" in conditions):
                found.append(None)
                continue
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    results = waiting.wait(call.store, [container for container in found if container is not None], conditions)
    for container in found:
        result = -1 if container is None else next(results)
        if isinstance(result, LimpetError):
            print(f"limpet: {result}", file=sys.stderr)
            failed = 1
        else:
            print(result, flush=True)
    return failed


def rm(call: Call) -> int:
    from limpet.containers import stop as stopping

    found = []
    failed = 0
    for name in call.arguments:
        try:
            found.append((name, state.find(call.store, name)))
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = failed or int(not (call["force"] and isinstance(e, NotFound)))
    if call["force"]:
        if any(container.options.infra for _, container in found):
            found = _with_pods(call, found)
        stopping.strike(call.store, [container for _, container in found])
    once = {container.id: container for _, container in found}
    results = stopping.remove_all(call.store, list(once.values()), force=call["force"], volumes=call["volumes"])
    words = {container.id: name for name, container in reversed(found)}
    for container, problem in results:
        # Gone already: of --rm, with the end that was made for it; or somebody else was faster.
        if problem is None or (call["force"] and isinstance(problem, NotFound)):
            print(words[container.id], flush=True)
        else:
            print(f"limpet: {problem}", file=sys.stderr)
            failed = 1
    return failed


def _with_pods(call: Call, found: list[tuple[str, Container]]) -> list[tuple[str, Container]]:
    """`rm -f` of an infra container removes its pod with all that is in it; the rest of `found`."""
    from limpet.containers.pod import pods

    gone: set[str] = set()
    for name, container in found:
        if container.options.infra and container.options.pod not in gone:
            for problem in pods.remove(call.store, pods.find(call.store, container.options.pod), force=True):
                raise problem
            gone.add(container.options.pod)
            print(name, flush=True)
    return [(name, container) for name, container in found if container.options.pod not in gone]


def rename(call: Call) -> int:
    from limpet.containers import stop as stopping

    old, new = call.arguments
    stopping.rename(call.store, state.find(call.store, old), new)
    return 0


def top(call: Call) -> int:
    from limpet.containers.observe import top as tops

    container = state.find(call.store, call.arguments[0])
    if len(call.arguments) > 1:
        print(tops.with_ps(call.store, container, call.arguments[1:]))
    else:
        print(output.table(tops.HEADERS, tops.processes(call.store, container), len(tops.HEADERS) - 1))
    return 0


def port(call: Call) -> int:
    """What is published; of a container that publishes nothing, where its programs listen."""
    from limpet.containers.network import listening

    container = state.find(call.store, call.arguments[0])
    wanted = call.arguments[1] if len(call.arguments) > 1 else ""
    if wanted and "/" not in wanted:
        wanted += "/tcp"
    found = []
    status = state.status(call.store, container)
    if status.running and status.ports:
        found = [(f"{inner}/{protocol}", address, number) for address, number, inner, protocol in status.ports]
    elif container.options.network == "host" and status.running:
        sockets = listening.sockets(call.store, container)
        found = [(f"{number}/{protocol}", address, number) for protocol, number, address in sockets]
    lines = [
        f"{'' if wanted else f'{port} -> '}{listening.shown(address, number)}"
        for port, address, number in found
        if wanted in ("", port)
    ]
    if wanted and not lines:
        raise LimpetError(
            f"No public port '{wanted}' published for {container.name}", "nothing in it listens there", exit_code=1
        )
    output.say("\n".join(lines))
    return 0


def prune(call: Call) -> int:
    from limpet.containers import recovery
    from limpet.containers import stop as stopping
    from limpet.images.leftovers import tree_bytes

    matches = _prune_filter(call["filter"])
    rows = [
        row
        for row in listing.rows(call.store, all=True)
        if _is_stopped(row) and not recovery.due(call.store, row.container, row.status) and matches(row)
    ]
    sizes = {row.container.id: tree_bytes(call.store.container_path(row.container.id)) for row in rows}
    if rows and not call["force"]:
        total = output.size_decimal(sum(sizes.values()))
        lines = [
            f"  {row.container.name}  ({listing.words(row.status)}, {output.size_decimal(sizes[row.container.id])})"
            for row in rows
        ]
        names = "\n".join(lines)
        output.confirm(f"This removes {len(rows)} stopped {_plural(len(rows), 'container')}, {total}:\n{names}")
    gone = []
    for container, problem in stopping.remove_all(call.store, [row.container for row in rows]):
        if problem is not None:  # somebody has just started it
            print(f"limpet: {problem}", file=sys.stderr)
        else:
            gone.append(container.id)
    recovery.collect_groups(call.store)
    if gone:
        print("Deleted Containers:", *gone, "", sep="\n")
    print(f"Total reclaimed space: {output.size_decimal(sum(sizes[identity] for identity in gone))}")
    return 0


def _prune_filter(texts: list[str]) -> Callable[[listing.Row], bool]:
    """label, label!, until, as Docker's."""
    from limpet.cli.logs import moment

    checks: list[Callable[[listing.Row], bool]] = []
    for text in texts:
        key, equals, value = text.partition("=")
        if key == "label" and equals:
            checks.append(lambda row, value=value: listing.has_label(row, value))  # type: ignore[misc]
        elif key == "label!" and equals:
            checks.append(lambda row, value=value: not listing.has_label(row, value))  # type: ignore[misc]
        elif key == "until" and equals:
            limit = moment(value)
            checks.append(lambda row, limit=limit: row.container.created < limit)  # type: ignore[misc]
        else:
            raise Invalid(f"invalid filter '{text}'", "KEY=VALUE with one of label, label!, until", exit_code=1)
    return lambda row: all(check(row) for check in checks)


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _is_stopped(row: listing.Row) -> bool:
    """An infra container goes with its pod, whatever it does."""
    return row.status.state in ("created", "exited") and not row.container.options.infra


def _each(call: Call, act: Callable[[Container], object]) -> int:
    """Acts on each container and prints its name as it was given; 1 if any failed."""
    failed = 0
    for name in call.arguments:
        try:
            act(state.find(call.store, name))
            print(name, flush=True)
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    return failed


def together(call: Call, act: Callable[[Container], object]) -> int:
    """As `_each`, all at the same time: a forked process for each, so that the slowest decides how long it takes."""
    import os

    if len(call.arguments) == 1:
        return _each(call, act)
    containers = []
    failed = 0
    for name in call.arguments:
        try:
            containers.append((name, state.find(call.store, name)))
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    sys.stdout.flush()
    children = []
    for name, container in containers:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                call.store.forget()
                act(container)
                code = 0
            except LimpetError as e:
                print(f"limpet: {e}", file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append((name, pid))
    for name, pid in children:
        if os.waitpid(pid, 0)[1]:
            failed = 1
        else:
            print(name)
    return failed


_FORCE = Option("force", "f", help="Do not ask")
_TIME = Option(
    "time",
    "t",
    kind="int",
    metavar="SECONDS",
    help="Seconds until it is killed (10; -1: never)",
    aliases=("timeout",),  # Docker's name since 28
)
_SIGNAL = Option("signal", "s", kind="string", default="", metavar="SIGNAL", help="Signal to stop it with")

COMMANDS = {
    "stop": Command(
        name="stop",
        handler=stop,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Stop running containers",
        options=(_SIGNAL, _TIME),
        examples=("limpet stop web", "limpet stop -t 30 web db"),
        min_args=1,
        complete="running",
    ),
    "kill": Command(
        name="kill",
        handler=kill,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Send a signal to running containers",
        options=(Option("signal", "s", kind="string", default="KILL", metavar="SIGNAL", help="Signal to send (KILL)"),),
        examples=("limpet kill web", "limpet kill -s HUP web"),
        min_args=1,
        complete="running",
    ),
    "pause": Command(
        name="pause",
        handler=pause,
        usage="CONTAINER [CONTAINER...]",
        summary="Let all processes of containers stand still",
        examples=("limpet pause web",),
        min_args=1,
        complete="running",
    ),
    "unpause": Command(
        name="unpause",
        handler=unpause,
        usage="CONTAINER [CONTAINER...]",
        summary="Let paused containers go on",
        examples=("limpet unpause web",),
        min_args=1,
        complete="paused",
    ),
    "restart": Command(
        name="restart",
        handler=restart,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Restart containers",
        options=(_SIGNAL, _TIME),
        examples=("limpet restart web",),
        min_args=1,
        complete="container",
    ),
    "wait": Command(
        name="wait",
        handler=wait,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Wait until containers stop, then print their exit codes",
        options=(
            Option(
                "condition",
                kind="list",
                metavar="WORD",
                help="Wait for another state; the first that comes, if there are several. An exit code of -1: it runs",
                offers=(
                    "not-running",
                    "next-exit",
                    "removed",
                    "created",
                    "running",
                    "paused",
                    "exited",
                    "healthy",
                    "unhealthy",
                ),
            ),
            Option("ignore", help="A container that is not there is no error: its exit code is -1"),
        ),
        examples=("limpet wait job", "limpet wait --condition healthy db", "limpet wait --condition removed job"),
        min_args=1,
        complete="running",
    ),
    "rm": Command(
        name="rm",
        handler=rm,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Remove containers",
        options=(
            Option("force", "f", help="Kill those that run; what is not there is no error"),
            Option("volumes", "v", help="Remove their anonymous volumes too"),
        ),
        examples=("limpet rm web", "limpet rm -f $(limpet ps -aq)"),
        min_args=1,
        complete="container",
    ),
    "rename": Command(
        name="rename",
        handler=rename,
        usage="CONTAINER NEW_NAME",
        summary="Rename a container",
        examples=("limpet rename web old-web",),
        min_args=2,
        max_args=2,
        complete="container",
    ),
    "top": Command(
        name="top",
        handler=top,
        usage="CONTAINER [ps OPTIONS]",
        summary="Show the processes of a container",
        examples=("limpet top web", "limpet top web -o pid,comm"),
        interspersed=False,
        min_args=1,
        complete="running",
    ),
    "port": Command(
        name="port",
        handler=port,
        usage="CONTAINER [PORT[/PROTOCOL]]",
        summary="Show where a container's programs listen",
        examples=("limpet port web", "limpet port web 80"),
        min_args=1,
        max_args=2,
        complete="running",
    ),
    "container prune": Command(
        name="container prune",
        handler=prune,
        usage="[OPTIONS]",
        summary="Remove all stopped containers",
        options=(Option("filter", kind="list", metavar="KEY=VALUE", help="Only those that match"), _FORCE),
        examples=("limpet container prune", "limpet container prune -f --filter label=stage=test"),
        max_args=0,
    ),
}
