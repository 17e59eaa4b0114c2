"""registry serve, registry gc."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from limpet.cli.table import Command, Option
from limpet.errors import Invalid

if TYPE_CHECKING:
    from limpet.cli.table import Call

STORAGE = "/var/lib/limpet-registry"


def serve(call: Call) -> int:
    from limpet.registry.server import run
    from limpet.registry.server.config import Config
    from limpet.serving import listen

    address = listen.parse(call["addr"])
    workers = call["workers"]
    if not 1 <= workers <= 64:
        raise Invalid(f"--workers {workers}: from 1 to 64")
    config = Config(
        storage=os.path.abspath(call["storage"]),
        read_only=call["read-only"],
        delete=not call["no-delete"],
        rate=call["rate-limit"],
        access_log=call["access-log"],
        workers=workers,
    )
    if not address.loopback:
        print(
            f"limpet: warning: {address} can be reached from other machines, by anybody and without TLS",
            file=sys.stderr,
        )
    run.serve(config, address)
    return 0


COMMANDS = {
    "registry serve": Command(
        name="registry serve",
        handler=serve,
        usage="[OPTIONS]",
        summary="Serve a registry of one's own (OCI distribution specification 1.1)",
        options=(
            Option(
                "access-log", kind="string", default="", metavar="FILE", help="Log requests as JSON lines; - is stdout"
            ),
            Option(
                "addr",
                kind="string",
                default="127.0.0.1:5000",
                metavar="ADDRESS",
                help="Where to listen: HOST:PORT, or unix:///PATH",
            ),
            Option("no-delete", help="Refuse to delete tags, manifests and blobs"),
            Option("rate-limit", kind="int", default=0, metavar="N", help="Requests a second for each client address"),
            Option("read-only", help="Only pulls"),
            Option("storage", kind="string", default=STORAGE, metavar="DIR", help="Where blobs and tags are kept"),
            Option("workers", kind="int", default=1, metavar="N", help="Processes that serve"),
        ),
        examples=(
            "limpet registry serve",
            "limpet registry serve --addr 127.0.0.1:5001 --storage ./registry --workers 2",
        ),
        max_args=0,
    ),
}
