"""update."""

from __future__ import annotations

import sys

from limpet.cli import keyvalues
from limpet.cli.create_options import POLICIES
from limpet.cli.limit_options import LIMITS, limits
from limpet.cli.table import Command, Option
from limpet.errors import Invalid, LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call


def update(call: Call) -> int:
    from limpet.containers import state
    from limpet.containers import update as updating
    from limpet.containers.options import Options

    given = limits(call, lifting=True)
    env = [*keyvalues.environment(call["env"], []), *call["unsetenv"]]
    labels = {**keyvalues.pairs(call["label-add"]), **dict.fromkeys(call["label-rm"])}
    asked = Options(volumes=call["volume"], mounts=call["mount-add"], mkdir=call["mkdir"])
    mounting = bool(asked.volumes or asked.mounts or call["mount-rm"])
    storage = keyvalues.pairs(call["storage-opt"])
    changes = bool(given or call["restart"] or env or labels or storage)
    if not changes and not mounting:
        raise Invalid("You must provide one or more flags when using this command.", exit_code=1)
    failed = 0
    for name in call.arguments:
        try:
            container = state.find(call.store, name)
            if mounting:
                from limpet.containers.mounts import livemounts

                livemounts.change(call.store, container, asked, call["mount-rm"])
            updating.update(call.store, container, given, call["restart"], env=env, labels=labels, storage=storage)
            print(name, flush=True)
            if env and state.status(call.store, container).running:
                print(f"limpet: its environment is another one from its next start on: limpet restart {name}",
                      file=sys.stderr)  # fmt: skip
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    return failed


COMMANDS = {
    "update": Command(
        name="update",
        handler=update,
        usage="[OPTIONS] CONTAINER [CONTAINER...]",
        summary="Change limits, mounts, environment and labels of containers",
        options=(
            *LIMITS,
            Option(
                "restart",
                kind="string",
                default="",
                metavar="POLICY",
                help="no, on-failure[:N], always, unless-stopped",
                offers=POLICIES,
            ),
            Option(
                "env", "e", kind="list", metavar="KEY=VALUE", help="Set an environment variable, from the next start on"
            ),
            Option("unsetenv", kind="list", metavar="KEY", help="Take one away, from the next start on"),
            Option("label-add", kind="list", metavar="KEY=VALUE", help="Set a label"),
            Option("label-rm", kind="list", metavar="KEY", help="Take a label away"),
            Option("storage-opt", kind="list", metavar="size=SIZE", help="How much it may write in its own layer"),
            Option("mkdir", help="Make missing directories of the host that are mounted"),
            Option("mount-add", kind="list", metavar="SPEC", help="Mount, at once: type=bind,source=...,target=..."),
            Option("mount-rm", kind="list", metavar="DIR", help="Take the mount on a path away, at once"),
            Option(
                "volume",
                "v",
                kind="list",
                metavar="SOURCE:DIR[:ro]",
                help="Mount a volume or a directory of the host, at once",
            ),
        ),
        examples=(
            "limpet update --memory 500m --cpus 1.5 web",
            "limpet update --memory 0 --cpus 0 web",
            "limpet update --restart always web db",
            "limpet update -v ./site:/srv/www:ro web",
        ),
        min_args=1,
        complete="container",
    ),
}
