"""The image that somebody names, brought in if it is not here: captured if it is the host's own, pulled otherwise."""

from __future__ import annotations

from limpet.errors import NotFound
from limpet.images import catalog
from limpet.oci import platform as platforms
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.images.catalog import Image
    from limpet.oci.platform import Platform
    from limpet.progress import Progress
    from limpet.store.store import Store

HOST = "docker.io/limpet/host:latest"
"""Means this machine's own shell and Python, in every Dockerfile and for `run`: no registry has it."""


def ensure(store: Store, text: str, *, progress: Progress, platform: str = "", implicit: bool = False) -> Image:
    """Raises what pulling raises. `implicit`: its name goes with what needed it (`down`), if it is brought in now."""
    image = known(store, text)
    if image is not None:
        return image
    image = bring(store, text, progress=progress, platform=platform)
    if implicit:
        from limpet.images import named

        name = named.known(store, text) or reference.parse(text)
        with store.db.transaction():
            store.db.run("UPDATE name SET implicit = 1 WHERE reference = ?", name.canonical)
    return image


def known(store: Store, text: str) -> Image | None:
    """The image in the store, also by a short name that the settings make another name of; None if it isn't there.

    What the store has under the very name is taken without a look at the settings: that is most of the time.
    """
    try:
        return catalog.find(store, text)
    except NotFound:
        from limpet.images import named

        name = named.known(store, text)
        return catalog.find(store, name.canonical) if name is not None else None


def bring(store: Store, text: str, *, progress: Progress, platform: str = "") -> Image:
    """Captures or pulls it, whatever is here already. Raises NotFound for the host's own on another platform."""
    wanted = reference.parse(text)
    if wanted.canonical == HOST:
        _check_host(text, platform)
        from limpet.images.capture import capture

        return capture(store, text, progress=progress)
    from limpet.images import named

    pulled = named.pull(store, text, platform=platform or None, progress=progress, say=progress.note)
    for line in pulled.lines:
        progress.note(line)
    return pulled.image


def not_of_host(text: str, wanted: Platform) -> NotFound:
    return NotFound(
        f"{text} is this machine's own, {platforms.host()}: there is none for {wanted}", "take another image"
    )


def _check_host(text: str, platform: str) -> None:
    if platform and platforms.parse(platform) not in platforms.ranked(platforms.host()):
        raise not_of_host(text, platforms.parse(platform))
