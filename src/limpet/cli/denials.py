"""network denials."""

from __future__ import annotations

from limpet.cli.table import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call

_COLUMNS = (
    ("CONTAINER", "Container"),
    ("WAY", "Way"),
    ("PEER", "Peer"),
    ("PORT", "Port"),
    ("TIMES", "Times"),
    ("LAST", "Last"),
)


def denials(call: Call) -> int:
    from limpet.cli import output
    from limpet.containers import state
    from limpet.containers.network import denials as refused
    from limpet.units import age

    chosen = [state.find(call.store, name) for name in call.arguments] or state.all_containers(call.store)
    rows = [
        {
            "Container": each.container,
            "Way": "to" if each.egress else "from",
            "Peer": each.peer,
            "Address": each.address,
            "Port": f"{each.port}/{each.protocol}" if each.port else each.protocol,
            "Times": each.times,
            "Last": age(each.when),
        }
        for each in refused.denials(call.store, chosen)
    ]
    output.say(output.formatted(call["format"], rows, _COLUMNS, keep="Peer"))
    return 0


COMMANDS = {
    "network denials": Command(
        name="network denials",
        handler=denials,
        usage="[OPTIONS] [CONTAINER...]",
        summary="Show what --egress and --ingress have refused to containers that run",
        options=(Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),),
        examples=("limpet network denials", "limpet network denials web"),
        complete="container",
    ),
}
