"""What people call an image, full name or short: found in the store, or pulled from the first registry that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.errors import NotFound
from limpet.images import catalog
from limpet.images.pull import fetch, opening
from limpet.registry import settings, shortnames

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.images.pull import Pulled
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference
    from limpet.progress import Progress
    from limpet.registry.rate import Rate
    from limpet.store.store import Store


def known(store: Store, text: str) -> Reference | None:
    """The full name in the store that a short name stands for by the settings. Raises Invalid."""
    if not shortnames.is_short(text):
        return None
    for candidate in shortnames.candidates(settings.load(), text):
        if catalog.by_reference(store, candidate.name) is not None:
            return candidate.name
    return None


def pull(
    store: Store,
    text: str,
    *,
    platform: Platform | str | None = None,
    rate: Rate | None = None,
    progress: Progress,
    say: Callable[[str], None],
) -> Pulled:
    """Pulls the image; `say` gets Docker's lines about it, and which full name a short one became.

    Only a registry that does not have it leads to the next one: who can keep a registry from answering, or whom a
    policy stops, must not be able to choose another. Raises what `fetch` raises.
    """
    candidates = shortnames.candidates(settings.load(), text)
    missing: list[str] = []
    for number, candidate in enumerate(candidates, 1):
        if candidate.why:
            say(f"{text} is {candidate.name.canonical}: {candidate.why}")
        say(opening(candidate.name))
        try:
            return fetch(store, candidate.name, platform=platform, rate=rate, progress=progress)
        except NotFound as e:
            if number == len(candidates):
                if missing:
                    e.message = f"{e.message} (nor: {', '.join(missing)})"
                raise
            missing.append(candidate.name.repository)
            say(f"{candidate.name.canonical}: {e.message}")
    raise AssertionError("there is a candidate at least")
