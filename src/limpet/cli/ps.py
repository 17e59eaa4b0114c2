"""ps."""

from __future__ import annotations

from limpet.cli import output
from limpet.cli.table import Command, Option
from limpet.containers.observe import listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.containers.state import Container

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)
_SIZE = ("SIZE", "Size")
_POD = (("POD ID", "Pod"), ("PODNAME", "PodName"))


def ps(call: Call) -> int:
    last = 1 if call["latest"] else call["last"]
    rows = listing.rows(call.store, all=call["all"], last=max(last, 0), filters=call["filter"])
    if call["quiet"]:
        for row in rows:
            print(row.container.id if call["no-trunc"] else row.container.id[:12])
        return 0
    template = call["format"]
    with_pod = call["pod"] or ".Pod" in template or template == "json"
    pods = dict(call.store.db.rows("SELECT id, name FROM pod")) if with_pod else {}
    with_size = call["size"] or ".Size" in template
    columns = (*_COLUMNS, *(_POD if call["pod"] else ()), *([_SIZE] if with_size else []))
    only = {field for _, field in columns} if template in ("", "table") else None
    found = []
    for row in rows:
        fields = listing.fields(row, full=call["no-trunc"], only=only)
        if with_size:
            fields["Size"] = _size(call, row.container)
        if with_pod:
            pod = row.container.options.pod
            fields["Pod"] = pod if call["no-trunc"] else pod[:12]
            fields["PodName"] = pods.get(pod, "")
        found.append(output.Labelled(fields, {} if only else listing.labels(row)))
    output.say(output.formatted(template, found, columns, keep="Names"))
    return 0


def _size(call: Call, container: Container) -> str:
    own = listing.written(call.store, container)
    whole = own + listing.image_size(call.store, container)
    return f"{output.size_decimal(own)} (virtual {output.size_decimal(whole)})"


COMMANDS = {
    "ps": Command(
        name="ps",
        handler=ps,
        usage="[OPTIONS]",
        summary="List containers",
        options=(
            Option("all", "a", help="Those that do not run, too"),
            Option(
                "filter",
                "f",
                kind="list",
                metavar="KEY=VALUE",
                help=f"Only those that match: {', '.join(listing.FILTERS)}",
            ),
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option(
                "last", "n", kind="int", default=-1, metavar="N", help="The n that were made last, whatever they do"
            ),
            Option("latest", "l", help="The one that was made last"),
            Option("no-trunc", help="Do not cut anything"),
            Option("pod", "p", help="Show in which pod they are"),
            Option("quiet", "q", help="Only ids"),
            Option("size", "s", help="Show what they hold on disk"),
        ),
        examples=("limpet ps -a", "limpet ps --filter status=exited --format '{{.Names}}: {{.Status}}'"),
        max_args=0,
    ),
}
