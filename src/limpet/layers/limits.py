"""Limits on what a layer from outside may cost. Each can be set, so that a real giant passes.

| setting | default | what it bounds |
|---|---|---|
| LIMPET_MAX_LAYER_SIZE | 256 GiB | bytes of one uncompressed layer |
| LIMPET_MAX_LAYER_ENTRIES | 1,000,000 | members of one layer, and directories that they imply |
| LIMPET_MAX_LAYER_RATIO | 2,000 | uncompressed over compressed bytes, once 64 MiB came out |
"""

from __future__ import annotations

import os

from limpet.frozen import dataclass

RATIO_FROM = 64 << 20
"""The ratio counts only above this size: small files compress as well as they like."""

MAX_EXTENSION = 1 << 20
"""Bytes of one pax header or long name."""

MAX_NAME = 255
"""Bytes of one component of a path (NAME_MAX)."""

MAX_PATH = 4096
"""A path in a layer is shorter than this (PATH_MAX: a longer one can't be reached by a single call)."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_size: int = 256 << 30
    max_entries: int = 1_000_000
    max_ratio: int = 2_000


def from_environment() -> Limits:
    """The defaults with the environment's changes; what is not a number is ignored by falling back to the default."""
    default = Limits()

    def setting(name: str, value: int) -> int:
        text = os.environ.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else value

    return Limits(
        setting("LIMPET_MAX_LAYER_SIZE", default.max_size),
        setting("LIMPET_MAX_LAYER_ENTRIES", default.max_entries),
        setting("LIMPET_MAX_LAYER_RATIO", default.max_ratio),
    )
