"""exec, attach: apart from `run`, whose hundred and fifty options neither has."""

from __future__ import annotations

import os

from limpet.cli.program_options import ENVIRONMENT, KEYS, PROXY, USER, WORKDIR
from limpet.cli.table import Command, Option
from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call


def exec_(call: Call) -> int:
    from limpet.cli import keyvalues
    from limpet.containers import state
    from limpet.containers.execution import exec as executing

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


COMMANDS = {
    "exec": Command(
        name="exec",
        handler=exec_,
        usage="[OPTIONS] CONTAINER COMMAND [ARG...]",
        summary="Execute a command in a running container",
        options=(
            Option("detach", "d", help="Leave it running in the background"),
            KEYS,
            *ENVIRONMENT,
            Option("interactive", "i", help="Keep standard input open"),
            Option("privileged", help="All capabilities"),
            Option("tty", "t", help="Give it a terminal"),
            USER,
            WORKDIR,
        ),
        examples=("limpet exec -it web sh", "limpet exec -u 1000 -e A=1 web env"),
        interspersed=False,
        min_args=2,
        complete="running",
    ),
    "attach": Command(
        name="attach",
        handler=attach,
        usage="[OPTIONS] CONTAINER",
        summary="Attach to a running container",
        options=(KEYS, Option("no-stdin", help="Do not attach standard input"), PROXY),
        examples=("limpet attach --no-stdin web",),
        min_args=1,
        max_args=1,
        complete="running",
    ),
}
