"""Plans for several platforms as one: what they have in common is done once, the rest side by side.

A stage that says `FROM --platform=$BUILDPLATFORM` and uses no TARGET… argument is the same for all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.planning import plan
from limpet.errors import Invalid
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limpet.build.planning.plan import Origin, Plan, Stage, Step


def requested(text: str) -> list[str]:
    """`--platform linux/amd64,linux/arm64`: each once, in order; [""] for this machine's. Raises Invalid."""
    found: dict[str, None] = {}
    for each in text.split(",") if text else []:
        if not each.strip():
            raise Invalid(f"--platform {text}: a platform is empty", "as in --platform linux/amd64,linux/arm64")
        wanted = platforms.host() if each.strip() == "local" else platforms.parse(each)
        found[str(wanted)] = None
    return list(found) or [""]


def merged(plans: Sequence[Plan]) -> Plan:
    """One plan with the targets of all, in their order."""
    if len(plans) == 1:
        return plans[0]
    stages: list[Stage] = []
    known: dict[str, int] = {}
    shared: set[int] = set()
    targets = []
    free = 1 + max(stage.number for each in plans for stage in each.stages)
    for each in plans:
        numbers: dict[int, int] = {}
        for stage in each.stages:
            moved = _moved(stage, numbers, each.platform)
            identity = repr(replace(moved, number=0, shown=""))
            if identity in known:
                numbers[stage.number] = known[identity]
                shared.add(known[identity])
                continue
            number = stage.number
            if any(other.number == number for other in stages):
                number, free = free, free + 1
            known[identity] = numbers[stage.number] = number
            stages.append(replace(moved, number=number, shown=f"{each.platform} {stage.title}"))
        targets.append(numbers[each.target.number])
    named = (replace(each, shown="") if each.number in shared else each for each in stages)
    return plan.Plan(plans[0].path, plans[0].platform, tuple(named), tuple(targets))


def _moved(stage: Stage, numbers: Mapping[int, int], platform: str) -> Stage:
    """With the new numbers of the stages that it takes from; and the platform said that images are taken for."""

    def origin(old: Origin) -> Origin:
        if old.kind == "stage":
            return replace(old, stage=numbers[old.stage])
        return replace(old, platform=platform) if old.kind == "image" and not old.id else old

    def step(old: Step) -> Step:
        if isinstance(old, plan.Copy):
            return replace(old, origin=origin(old.origin))
        if isinstance(old, plan.Run):
            return replace(old, mounts=tuple(replace(each, origin=origin(each.origin)) for each in old.mounts))
        return old

    return replace(stage, base=origin(stage.base), steps=tuple(map(step, stage.steps)))
