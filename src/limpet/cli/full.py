"""What is full, when the system says that there is no space left or a quota is used up."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from limpet.errors import reason
from limpet.store.store import DEFAULT_ROOT
from limpet.units import size_decimal

if TYPE_CHECKING:
    from limpet.cli.table import Call


_SOME = 1 << 20
"""Bytes: less is none for most that one wants to do."""


def explain(error: OSError, call: Call | None) -> tuple[str, str]:
    """Message and hint. Without a file's name it was a write to the store: all other writers name theirs."""
    name = os.fsdecode(error.filename) if error.filename else ""
    root = call.root if call is not None else DEFAULT_ROOT
    if name and not name.startswith(f"{root}/"):
        return reason(error), ""
    text = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        text += f" ({_room(root)})"
    hint = "`limpet system df` shows what uses it, `limpet system prune` removes what nothing needs"
    if _unpacks(root):
        hint += "; with the storage driver dir an image takes twice its size"
    return f"the store in {root}: {text}", hint


def _room(root: str) -> str:
    """How much is free of how much, or that it has no inodes.

    What the command wrote is removed by now: what is free was not enough for it.
    """
    found = os.statvfs(root)
    if found.f_files and not found.f_favail:
        return "its file system has no inodes left"
    free, size = (size_decimal(blocks * found.f_frsize) for blocks in (found.f_bavail, found.f_blocks))
    if found.f_bavail * found.f_frsize > _SOME:
        return f"more was needed than the {free} that are free of {size}; what was written is removed again"
    return f"its file system has {free} of {size} free"


def _unpacks(root: str) -> bool:
    try:
        with open(f"{root}/driver", encoding="ascii") as file:
            return file.read().strip() == "dir"
    except OSError:
        return False
