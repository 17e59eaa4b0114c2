"""The image that somebody names, brought in if it is not here: captured if it is the host's own, pulled otherwise."""

from __future__ import annotations

from limpet.errors import NotFound
from limpet.images import catalog
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.images.catalog import Image
    from limpet.progress import Progress
    from limpet.store.store import Store

HOST = "docker.io/limpet/host:latest"
"""Means this machine's own shell and Python, in every Dockerfile and for `run`: no registry has it."""


def ensure(store: Store, text: str, *, progress: Progress, platform: str = "", implicit: bool = False) -> Image:
    """Raises what pulling raises. `implicit`: its name goes with what needed it (`down`), if it is brought in now."""
    try:
        return catalog.find(store, text)
    except NotFound:
        image = bring(store, text, progress=progress, platform=platform)
    if implicit:
        with store.db.transaction():
            store.db.run("UPDATE name SET implicit = 1 WHERE reference = ?", reference.parse(text).canonical)
    return image


def bring(store: Store, text: str, *, progress: Progress, platform: str = "") -> Image:
    """Captures or pulls it, whatever is here already."""
    wanted = reference.parse(text)
    if wanted.canonical == HOST:
        from limpet.images.capture import capture

        return capture(store, text, progress=progress)
    from limpet.images.pull import pull

    return pull(store, wanted, platform=platform or None, progress=progress)
