"""pod start, stop, restart, kill, pause, unpause, logs, top, stats."""

from __future__ import annotations

import heapq
import os
import sys
from typing import TYPE_CHECKING, Any

from limpet.cli import output
from limpet.cli.pods import ALL, ID_FILE, LATEST, each
from limpet.cli.table import Command, Option
from limpet.containers.pod import podlife, pods
from limpet.errors import Conflict, Invalid, LimpetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from limpet.cli.table import Call
    from limpet.containers.logging.logs import Entry
    from limpet.containers.observe.stats import Sample
    from limpet.containers.pod.pods import Pod
    from limpet.containers.state import Container


def start(call: Call) -> int:
    return each(call, lambda pod: podlife.start(call.store, pod))


def stop(call: Call) -> int:
    return each(call, lambda pod: podlife.stop(call.store, pod, timeout=call["time"]))


def restart(call: Call) -> int:
    def act(pod: Pod) -> list[LimpetError]:
        return podlife.stop(call.store, pod, timeout=call["time"]) or podlife.start(call.store, pod)

    return each(call, act)


def kill(call: Call) -> int:
    return each(call, lambda pod: podlife.kill(call.store, pod, call["signal"]))


def pause(call: Call) -> int:
    return each(call, lambda pod: podlife.pause(call.store, pod))


def unpause(call: Call) -> int:
    return each(call, lambda pod: podlife.unpause(call.store, pod))


def top(call: Call) -> int:
    """The processes of all containers, or what the host's ps says of them."""
    from limpet.containers.observe import top as tops

    pod = pods.find(call.store, call.arguments[0])
    running = [member.container for member in pods.members(call.store, pod) if member.status.running]
    if not running:
        raise Conflict(f"pod {pod.name}: no container of it runs", exit_code=1)
    if len(call.arguments) > 1:
        texts = [tops.with_ps(call.store, container, call.arguments[1:]) for container in running]
        print("\n".join([texts[0], *(line for text in texts[1:] for line in text.split("\n")[1:])]))
        return 0
    rows = [(*row[:-1], c.name, row[-1]) for c in running for row in tops.processes(call.store, c)]
    print(output.table((*tops.HEADERS[:-1], "CONTAINER", tops.HEADERS[-1]), rows, len(tops.HEADERS)))
    return 0


def logs(call: Call) -> int:
    from limpet.cli.logs import moment, tail
    from limpet.containers.logging import logs as reading

    pod = pods.find(call.store, call.arguments[0])
    found = [
        member.container
        for member in pods.members(call.store, pod)
        if not member.container.options.infra and member.container.options.log_driver != "none"
    ]
    if call["container"]:
        from limpet.containers import state

        named = state.find(call.store, call["container"])
        if named.options.pod != pod.id:
            raise Invalid(f"container {named.name} is not in pod {pod.name}", exit_code=1)
        found = [named]
    prefixed = len(found) > 1 or call["names"]

    def entries(container: Container) -> Iterator[Entry]:
        return reading.read(
            call.store,
            container,
            tail=tail(call["tail"]),
            since=moment(call["since"]),
            until=moment(call["until"]),
            follow=call["follow"],
        )

    def show(container: Container, entry: Entry) -> None:
        words = [container.name if call["names"] else container.id[:12]] if prefixed else []
        words += [entry.time] if call["timestamps"] else []
        text = " ".join([*words, entry.text])
        target = sys.stderr if entry.stream == "stderr" else sys.stdout
        target.buffer.write(f"{text}{'' if text.endswith(chr(10)) else chr(10)}".encode("utf-8", "surrogateescape"))
        target.buffer.flush()

    if call["follow"]:
        return _follow(call, found, entries, show)
    timed = [[(_exact(entry.time), container, entry) for entry in entries(container)] for container in found]
    for _, container, entry in heapq.merge(*timed, key=lambda item: item[0]):
        show(container, entry)
    return 0


def _follow(
    call: Call,
    found: list[Container],
    entries: Callable[[Container], Iterator[Entry]],
    show: Callable[[Container, Entry], None],
) -> int:
    """A process for each container, until all have ended."""
    sys.stdout.flush()
    children = []
    for container in found:
        pid = os.fork()
        if pid == 0:
            try:
                call.store.forget()
                for entry in entries(container):
                    show(container, entry)
                os._exit(0)
            except (LimpetError, OSError) as e:
                print(f"limpet: {e}", file=sys.stderr, flush=True)
            finally:
                os._exit(1)
        children.append(pid)
    return max((int(os.waitpid(pid, 0)[1] != 0) for pid in children), default=0)


def _exact(text: str) -> str:
    """Times of one length, so that they can be compared as texts."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9s}"


def stats(call: Call) -> int:
    from limpet.cli import stats as showing

    chosen_pods = [pods.find(call.store, name) for name in call.arguments]

    def containers() -> list[Container]:
        found = chosen_pods or pods.all_pods(call.store)
        return [member.container for pod in found for member in pods.members(call.store, pod)]

    names = {pod.id: pod.name for pod in chosen_pods or pods.all_pods(call.store)}

    def more(sample: Sample) -> dict[str, Any]:
        pod = sample.container.options.pod
        short = pod if call["no-trunc"] else pod[:12]
        return {"Pod": short, "PodName": names.get(pod, ""), "CID": sample.container.id[:12]}

    columns = (("POD", "Pod"), *showing.COLUMNS)
    return showing.watch(call, containers, columns, more, everything=call["all"])


_TIME = Option("time", "t", kind="int", metavar="SECONDS", help="Seconds until they are killed (10; -1: never)")
_PICKED = (ALL, LATEST, ID_FILE)

COMMANDS = {
    "pod start": Command(
        name="pod start",
        handler=start,
        usage="[OPTIONS] POD [POD...]",
        summary="Start pods: the infra container, then the others in the order in which they were made",
        options=_PICKED,
        examples=("limpet pod start web",),
        complete="pod",
    ),
    "pod stop": Command(
        name="pod stop",
        handler=stop,
        usage="[OPTIONS] POD [POD...]",
        summary="Stop pods: all containers at once, the infra container last",
        options=(*_PICKED, Option("ignore", "i", help="One that is not there is no error"), _TIME),
        examples=("limpet pod stop web", "limpet pod stop --all -t 30"),
        complete="pod",
    ),
    "pod restart": Command(
        name="pod restart",
        handler=restart,
        usage="[OPTIONS] POD [POD...]",
        summary="Stop pods and start them again",
        options=(ALL, LATEST, _TIME),
        examples=("limpet pod restart web",),
        complete="pod",
    ),
    "pod kill": Command(
        name="pod kill",
        handler=kill,
        usage="[OPTIONS] POD [POD...]",
        summary="Send a signal to all containers of pods; to the infra container only SIGKILL",
        options=(
            ALL,
            LATEST,
            Option("signal", "s", kind="string", default="KILL", metavar="SIGNAL", help="Signal to send (KILL)"),
        ),
        examples=("limpet pod kill -s HUP web",),
        complete="pod",
    ),
    "pod pause": Command(
        name="pod pause",
        handler=pause,
        usage="[OPTIONS] POD [POD...]",
        summary="Let all processes of pods stand still",
        options=(ALL, LATEST),
        examples=("limpet pod pause web",),
        complete="pod",
    ),
    "pod unpause": Command(
        name="pod unpause",
        handler=unpause,
        usage="[OPTIONS] POD [POD...]",
        summary="Let paused pods go on",
        options=(ALL, LATEST),
        examples=("limpet pod unpause web",),
        complete="pod",
    ),
    "pod logs": Command(
        name="pod logs",
        handler=logs,
        usage="[OPTIONS] POD",
        summary="Show what the containers of a pod wrote, in the order in which it came",
        options=(
            Option("container", "c", kind="string", default="", metavar="NAME", help="Of this container only"),
            Option("follow", "f", help="Go on as they write, until all have ended"),
            Option("names", "n", help="Begin lines with the container's name, not its id"),
            Option("since", kind="string", default="", metavar="TIME", help="From this time, or that long ago (10m)"),
            Option("tail", kind="string", default="all", metavar="N", help="Only the last n lines of each"),
            Option("timestamps", "t", help="Show when each line came"),
            Option("until", kind="string", default="", metavar="TIME", help="Up to this time"),
        ),
        examples=("limpet pod logs -f --names web", "limpet pod logs -c cache web"),
        min_args=1,
        max_args=1,
        complete="pod",
    ),
    "pod top": Command(
        name="pod top",
        handler=top,
        usage="POD [ps OPTIONS]",
        summary="Show the processes of a pod",
        examples=("limpet pod top web", "limpet pod top web -o pid,comm"),
        interspersed=False,
        min_args=1,
        complete="pod",
    ),
    "pod stats": Command(
        name="pod stats",
        handler=stats,
        usage="[OPTIONS] [POD...]",
        summary="Show what the containers of pods use of the machine",
        options=(
            Option("all", "a", help="Containers that do not run, too"),
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option("no-stream", help="Once, not again and again"),
            Option("no-trunc", help="Do not cut anything"),
            Option("pressure", help="Show how long processes waited for processors, memory and disks (PSI)"),
        ),
        examples=("limpet pod stats --no-stream web",),
        complete="pod",
    ),
}
