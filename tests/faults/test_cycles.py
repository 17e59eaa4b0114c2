"""A short run of the fault harness; `tools/faults` is the long one."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from tests.faults.cycles import Harness

pytestmark = pytest.mark.slow

CYCLES = int(os.environ.get("LIMPET_FAULT_CYCLES", "20"))


def test_whoever_is_killed_nothing_is_left(limpet: Any, busybox: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    counts = Harness(limpet.command, limpet.root, limpet.environment, busybox, seed).run(CYCLES, 8)
    assert counts.faults == [], f"seed {seed}"
    assert counts.killed["processes"] > CYCLES // 4, f"next to nobody was hit: {counts}, seed {seed}"
