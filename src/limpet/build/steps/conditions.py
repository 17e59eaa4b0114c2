"""Under which conditions the RUN steps of a build run: what `limpet build` is told and no Dockerfile says.

What may change a result is written into the plan (`applied`), so that it counts for the keys; limits don't. Rights
that reach out of a step (BuildKit's "entitlements") are given on the command line, never by a Dockerfile alone.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from limpet.build.planning import plan
from limpet.errors import Refused
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.planning.plan import Plan, Run, Step

ENTITLEMENTS = ("network.host", "security.insecure", "device")


@dataclass(frozen=True, slots=True)
class Conditions:
    """`network`: "host" or "none" for steps that don't say, "" for the usual. `hosts`: lines of /etc/hosts,
    `NAME:ADDRESS`. `shm_size`: bytes of /dev/shm, 0 for the usual. `ulimits`: `NAME=SOFT[:HARD]`.

    `limits`: of `containers.limits`. `allowed`: of ENTITLEMENTS, and `device=NAME`.
    """

    network: str = ""
    hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()


def applied(made: Plan, conditions: Conditions) -> Plan:
    """The plan as its steps are run. Raises Refused, with the place, for a right that was not given."""

    def step(one: Step) -> Step:
        if not isinstance(one, plan.Run):
            return one
        wrong = _refused(one, conditions)
        if wrong:
            raise Refused(one.place.located(made.path, wrong[0]), wrong[1], exit_code=1)
        network = conditions.network or one.network if one.network == "default" else one.network
        return replace(
            one,
            network=network,
            hosts=conditions.hosts,
            ulimits=conditions.ulimits,
            shm_size=conditions.shm_size,
        )

    stages = tuple(replace(stage, steps=tuple(map(step, stage.steps))) for stage in made.stages)
    return replace(made, stages=stages)


def _refused(step: Run, conditions: Conditions) -> tuple[str, str] | None:
    allowed = conditions.allowed
    if step.security == "insecure" and "security.insecure" not in allowed:
        what = "RUN --security=insecure wants all rights on this machine"
        return what, "--allow security.insecure gives them, if you trust this Dockerfile"
    if step.network == "host" and conditions.network == "none" and "network.host" not in allowed:
        return "RUN --network=host, and --network none was given", "--allow network.host gives it to such steps"
    for device in step.devices:
        if not allowed & {"device", f"device={device.name}"}:
            return (
                f"RUN --device={device.name} wants a device of this machine",
                f"--allow device={device.name} gives it",
            )
    return None
