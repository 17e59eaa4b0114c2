"""What the test process holds open: for tests that something closes what it opened."""

from __future__ import annotations

import gc
import os


def opened() -> int:
    """How many descriptors are open, after collecting what earlier tests left: that would go in between."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
