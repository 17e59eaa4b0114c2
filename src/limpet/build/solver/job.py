"""What the stages of one build share, and what each of them has come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limpet.build.caching.steps import StepCache
    from limpet.build.context import Tree
    from limpet.build.inspector import Inspector
    from limpet.build.plan import Plan
    from limpet.build.report import Report
    from limpet.build.stepmounts import Given
    from limpet.store.store import Store


@dataclass
class State:
    """A stage as far as it has come. `document` is the base image's config."""

    layers: list[str]
    key: str
    document: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """`epoch` in Unix seconds. `numbers`: of the steps that are shown, by the stage's number and the step's place.

    `states`: of the stages that have begun, by their number.
    """

    store: Store
    plan: Plan
    context: Tree
    epoch: int
    cache: StepCache
    given: Given
    report: Report
    numbers: dict[tuple[int, int], int]
    inspector: Inspector
    states: dict[int, State] = field(default_factory=dict)
