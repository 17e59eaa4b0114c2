"""The image that `run` and `create` can't simply take: not here, for another platform, or to be fetched anew."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from limpet.cli.progress import progress
from limpet.errors import LimpetError, NotFound
from limpet.images import catalog
from limpet.images.ensure import bring, known
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.images.catalog import Image


def image(call: Call, name: str, platform: str) -> Image:
    """By `--pull`, `--platform` and `--quiet` of the call. If no registry has it, a near name here is the hint."""
    policy, near = call["pull"], ""
    if policy != "always":
        try:
            found = catalog.find(call.store, name)
            if not platform or _fits(found, platform):
                return found
        except NotFound as e:
            alias = known(call.store, name)
            if alias is not None and (not platform or _fits(alias, platform)):
                return alias
            if policy == "never":
                raise
            near = e.hint
        if policy == "never":
            raise NotFound(f"{name}: the image here is not for {platform}")
        if not call["quiet"]:
            wanted = f" for {platform}" if platform else ""
            print(f"Unable to find image '{name}'{wanted} locally", file=sys.stderr, flush=True)
    try:
        with progress(quiet=call["quiet"]) as shown:
            return bring(call.store, name, platform=platform, progress=shown)
    except LimpetError as e:
        e.hint = f"{near} {e.hint}".strip()
        raise


def _fits(found: Image, platform: str) -> bool:
    """As `docker run --platform`: the variant counts if one is asked for."""
    wanted, config = platforms.parse(platform), found.config
    has = platforms.normalise(config.get("os", ""), config.get("architecture", ""), config.get("variant", ""))
    return (has.os, has.architecture) == (wanted.os, wanted.architecture) and wanted.variant in ("", has.variant)
