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


def explain(error: OSError, call: Call | None) -> tuple[str, str]:
    """Message and hint. Without a file's name it was a write to the store: all other writers name theirs."""
    name = os.fsdecode(error.filename) if error.filename else ""
    root = call.root if call is not None else DEFAULT_ROOT
    if name and not name.startswith(f"{root}/"):
        return reason(error), ""
    text = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        text += f" ({_room(root)})"
    return (
        f"the store in {root}: {text}",
        "`limpet system df` shows what uses it, `limpet system prune` removes what nothing needs",
    )


def _room(root: str) -> str:
    """ "1.2MB of 16MB are free", or that it has no inodes; what was written and taken back is free again by now."""
    found = os.statvfs(root)
    if found.f_files and not found.f_favail:
        return "its file system has no inodes left"
    free, size = (size_decimal(blocks * found.f_frsize) for blocks in (found.f_bavail, found.f_blocks))
    return f"its file system has {free} of {size} free"
