"""events."""

from __future__ import annotations

from limpet.cli import output
from limpet.cli.table import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call


def events(call: Call) -> int:
    from limpet import jsontext
    from limpet.cli.logs import moment
    from limpet.containers.observe import eventstream

    template = call["format"]
    found = eventstream.stream(
        call.store, since=moment(call["since"]), until=moment(call["until"]), filters=call["filter"]
    )
    for event in found:
        if template in ("json", "{{json .}}"):
            print(jsontext.dumps(eventstream.fields(event)), flush=True)
        elif template:
            fields = eventstream.fields(event)
            known = {"Status": event.action, "ID": event.id, "From": event.attributes.get("image", "")}
            shown = {"Scope": "local", "Time": fields["time"], "TimeNano": fields["timeNano"], **known}
            print(output.formatted(template, [{**fields, **shown}], ()), flush=True)
        else:
            print(eventstream.text(event), flush=True)
    return 0


COMMANDS = {
    "events": Command(
        name="events",
        handler=events,
        usage="[OPTIONS]",
        summary="Show what happens, as it happens",
        options=(
            Option(
                "filter",
                "f",
                kind="list",
                metavar="KEY=VALUE",
                help="Only those that match: container, event, image, label, type, volume",
            ),
            Option("format", kind="string", default="", metavar="FORMAT", help="json, or a Go template"),
            Option("since", kind="string", default="", metavar="TIME", help="From this time, or that long ago (10m)"),
            Option(
                "until", kind="string", default="", metavar="TIME", help="Up to this time; one that is over ends it"
            ),
        ),
        examples=(
            "limpet events --since 1h --until 0s",
            "limpet events -f event=die --format '{{.Actor.Attributes.name}}'",
        ),
        max_args=0,
    ),
}
