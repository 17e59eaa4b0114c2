"""What a plan may hold and `execute` can't do yet: refused by name, with the place, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build import plan
from limpet.errors import Invalid

if TYPE_CHECKING:
    from limpet.build.plan import Plan, Step


def check(made: Plan) -> None:
    """Raises Invalid for the first step that can't be executed."""
    for stage in made.stages:
        for step in stage.steps:
            found = _refused(step)
            if found:
                what, hint = found
                raise Invalid(step.place.located(made.path, f"{what} is not supported yet"), hint)


def _refused(step: Step) -> tuple[str, str] | None:
    if isinstance(step, plan.Run):
        if step.security != "sandbox":
            return f"RUN --security={step.security}", ""
        if step.devices:
            return "RUN --device", ""
    return None
