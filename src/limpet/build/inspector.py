"""What may look on while a plan is executed: `execute` tells it of each step that makes a layer. This one does nothing.

`reproducible` compares what a step made with what it made before, `explain` remembers what keys were made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.copying.copy import Copying
    from limpet.build.planning.plan import Copy, Directory, Run, Stage
    from limpet.build.steps.stepmounts import Bound


@dataclass(frozen=True, slots=True)
class Looked:
    """A step whose key is known. `cached`: the layer that the cache has for it, "" for none; `used`: it is taken.

    `number`: as it is shown. `parent` is the key of the step before it. `copying` is open, and of a Copy only; `bound`
    are a Run's mounts with an origin, by their place.
    """

    stage: Stage
    step: Copy | Run | Directory
    number: int
    parent: str
    key: str
    cached: str
    used: bool
    copying: Copying | None
    bound: Mapping[int, Bound]


class Inspector:
    """The methods may be called from the threads of several stages."""

    def looked_up(self, looked: Looked) -> str:
        """Before the step is done, or taken from the cache. What is returned says why, "" if that isn't known."""
        return ""

    def made(self, looked: Looked, diff_id: str | None) -> str | None:
        """It was done, and is a layer now, or none. What is returned is the layer that the build goes on with."""
        return diff_id
