"""metrics serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.cli.table import Command, Option

if TYPE_CHECKING:
    from limpet.cli.table import Call


def serve(call: Call) -> int:
    import sys

    from limpet.containers.observe import metrics
    from limpet.serving import listen

    address = listen.parse(call["addr"])
    if not address.loopback:
        print(f"limpet: warning: {address} can be reached from other machines, by anybody", file=sys.stderr)
    metrics.serve(call.store, address)
    return 0


COMMANDS = {
    "metrics serve": Command(
        name="metrics serve",
        handler=serve,
        usage="[OPTIONS]",
        summary="Serve figures of all containers for Prometheus",
        options=(
            Option(
                "addr",
                kind="string",
                default="127.0.0.1:9323",
                metavar="ADDRESS",
                help="Where to listen: HOST:PORT, or unix:///PATH",
            ),
        ),
        examples=("limpet metrics serve --addr 127.0.0.1:9323",),
        max_args=0,
    ),
}
