"""`build --network`, `--memory`, `--allow` and their like: under which conditions its steps run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from limpet.cli.limit_options import UPDATABLE
from limpet.cli.table import Option
from limpet.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limpet.build.steps.conditions import Conditions
    from limpet.cli.table import Call

OPTIONS = (
    Option("add-host", kind="list", metavar="NAME:ADDRESS", help="Add a line to /etc/hosts of the steps"),
    Option(
        "allow",
        kind="list",
        metavar="RIGHT",
        help="Give steps a right: security.insecure, network.host, device[=NAME]",
    ),
    Option("force-rm", help="What a step ran in is always removed: the same without it"),
    Option(
        "network", kind="string", default="", metavar="MODE", help="Network of the steps: host (the default) or none"
    ),
    Option("pull", help="Ask the registries for newer base images"),
    Option("rm", help="What a step ran in is always removed: the same without it", default=True),
    Option("shm-size", kind="string", default="", metavar="SIZE", help="Size of /dev/shm in the steps (64m)"),
    Option("ulimit", kind="list", metavar="NAME=SOFT[:HARD]", help="Set a resource limit for the steps"),
    *UPDATABLE,
)


def conditions(call: Call) -> Conditions:
    """Raises Invalid."""
    if not call["rm"]:
        raise Invalid(
            "--rm=false: what a step ran in is always removed", "--debug-shell opens a shell in one that fails"
        )
    return checked(
        network=call["network"],
        shm_size=call["shm-size"],
        ulimits=call["ulimit"],
        hosts=call["add-host"],
        limits=limits(call.get),
        allowed=call["allow"],
    )


def checked(
    *,
    network: str,
    shm_size: str,
    ulimits: Sequence[str],
    hosts: Sequence[str],
    limits: Mapping[str, object],
    allowed: Sequence[str],
) -> Conditions:
    """The same of texts from elsewhere. Raises Invalid."""
    from limpet.build.steps.conditions import Conditions

    if network not in ("", "default", "host", "none"):
        hint = "host or none: a step has the host's network, its localhost too, or nothing"
        raise Invalid(f"invalid network '{network}'", hint)
    size = 0
    if shm_size:
        from limpet.containers.options import parse_size

        size = parse_size(shm_size, "shm-size")
    if ulimits:
        from limpet.containers.plan.spec import rlimit

        for text in ulimits:
            rlimit(text)
    if hosts:
        from limpet.containers.plan.hostfiles import host_entry

        for text in hosts:
            host_entry(text)
    return Conditions(
        network="" if network == "default" else network,
        hosts=tuple(hosts),
        shm_size=size,
        ulimits=tuple(ulimits),
        limits=limits,
        allowed=frozenset(map(_right, allowed)),
    )


def limits(get: Callable[[str], Any]) -> dict[str, object]:
    """`get`: the text of a limit by its option's name."""
    if all(get(option.name) in (None, "") for option in UPDATABLE):
        return {}
    from limpet.containers.plan import limits as of_containers

    names = {option.name for option in UPDATABLE}
    found = of_containers.parse(lambda name: get(name) if name in names else None)
    of_containers.check(found)
    return found


def _right(text: str) -> str:
    from limpet.build.language.nearest import did_you_mean
    from limpet.build.steps.conditions import ENTITLEMENTS

    if text in ENTITLEMENTS or (text.startswith("device=") and len(text) > len("device=")):
        return text
    hint = did_you_mean(text, ENTITLEMENTS) or f"{', '.join(ENTITLEMENTS)} and device=NAME are known"
    raise Invalid(f"--allow {text}: no such right", hint)
