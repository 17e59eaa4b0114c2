"""What a test needs that not every machine has, by name: marks that ask the machine itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from limpet.kernel import mounts


def program(name: str) -> pytest.MarkDecorator:
    """One of Debian's, of the same name as its package."""
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs Debian's {name}")


def _mounts_by_layer() -> bool:
    try:
        os.close(mounts.overlay(["/usr", "/etc"]))
    except OSError:
        return False
    return True


layers_one_by_one = pytest.mark.skipif(
    os.geteuid() == 0 and not _mounts_by_layer(),
    reason="this kernel's overlayfs takes its layers in one text, and no context log (needs Linux 6.8)",
)
real_time = pytest.mark.skipif(
    "LIMPET_GUEST" in os.environ, reason="measures time: an emulated processor has another, see tests/vm"
)


ways_out_of_a_cgroup_namespace = pytest.mark.skipif(
    any(
        " - cgroup2 " in line and "nsdelegate" in line.rpartition(" ")[2].split(",")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ),
    reason="who is in a control group namespace may not leave it here (cgroup2 is mounted with nsdelegate)",
)
erofs = pytest.mark.skipif(
    tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 12),
    reason="needs EROFS mounted from a plain file (Linux 6.12)",
)
