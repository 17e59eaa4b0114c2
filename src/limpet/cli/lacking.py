"""What to say of a refusal of the kernel's: root may be a root that lacks a capability."""

from __future__ import annotations

import os

from limpet.kernel import capabilities

_NEEDED = ("CAP_SYS_ADMIN", *capabilities.DEFAULT)
"""For mounts and namespaces, and what a container is given."""

_REFUSALS = ("Operation not permitted", "Permission denied")


def hint(message: str) -> str:
    """The next step when `message` has the kernel's words for a refusal and this process lacks something, else ""."""
    if os.geteuid() or not any(words in message for words in _REFUSALS):
        return ""
    here = capabilities.effective()
    missing = [name for name in _NEEDED if name not in here]
    if not missing:
        return ""
    short = " ".join(f"--cap-add {name.removeprefix('CAP_')}" for name in missing[:3])
    way = "--privileged" if len(missing) > 3 else f"{short}, or --privileged"
    return f"this process lacks {', '.join(missing)}: start limpet with all of root's rights (in a container: {way})"
