"""update."""

from __future__ import annotations

import sys

from limpet.cli.create_options import POLICIES
from limpet.cli.limit_options import UPDATABLE, limits
from limpet.cli.table import Command, Option
from limpet.errors import Invalid, LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call


def update(call: Call) -> int:
    from limpet.containers import state
    from limpet.containers import update as updating

    given = limits(call)
    if not given and not call["restart"]:
        raise Invalid("You must provide one or more flags when using this command.", exit_code=1)
    failed = 0
    for name in call.arguments:
        try:
            updating.update(call.store, state.find(call.store, name), given, call["restart"])
            print(name, flush=True)
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    return failed


COMMANDS = {
    "update": Command(
        name="update",
        handler=update,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Change the limits of containers",
        options=(
            *UPDATABLE,
            Option(
                "restart",
                kind="string",
                default="",
                metavar="POLICY",
                help="no, on-failure[:N], always, unless-stopped",
                offers=POLICIES,
            ),
        ),
        examples=("limpet update --memory 500m --cpus 1.5 web", "limpet update --restart always web db"),
        min_args=1,
        complete="container",
    ),
}
