"""What `limpet info` says of a kernel is what that kernel does; where a call is refused, the feature is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.descriptors import opened

from limpet.kernel import features

Alone = Callable[..., Any]


def states(root: str) -> dict[str, str]:
    return {feature.name: feature.state for feature in features.probe(root)}


def test_nothing_is_left(tmp_path: Path) -> None:
    def host() -> tuple[int, list[str], list[str]]:
        # Other tests mount too, but not below this path.
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
        return opened(), mounts, os.listdir(tmp_path)

    before = host()
    found = features.probe(str(tmp_path))
    assert host() == before
    assert len({feature.name for feature in found}) == len(found)
    for feature in found:
        assert feature.state in (features.USED, features.UNUSED, features.MISSING)
        assert feature.since[0].isdigit()
        assert feature.use
        assert feature.cost


def test_a_kernel_has_what_its_version_promises(tmp_path: Path) -> None:
    """Distributions may leave parts out of a kernel; what every one of them has must be found."""
    version = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    found = {feature.name: feature for feature in features.probe(str(tmp_path))}
    for name in ("mount API", "overlayfs", "openat2", "pidfd", "seccomp"):
        assert found[name].works, name
    for name in ("overlay layers by descriptor", "overlay over detached mounts"):
        since = tuple(int(part) for part in found[name].since.split("."))
        assert found[name].works == (version >= since), name


def test_a_file_system_that_serves_no_index() -> None:
    found = states("/dev/shm")
    assert found["erofs on plain files"] == features.MISSING
    assert found["fanotify pre-access"] == features.MISSING


@pytest.mark.parametrize(
    ("call", "lost"),
    [
        ("fsopen", {"mount API", "overlayfs", "overlay layers by descriptor", "erofs on plain files"}),
        ("mount_setattr", {"mount API"}),
        ("openat2", {"openat2"}),
        ("pidfd_open", {"pidfd"}),
        ("bpf", {"BPF device filter"}),
        ("seccomp", {"seccomp"}),
        ("fanotify_init", {"fanotify pre-access"}),
    ],
)
def test_what_is_refused_is_missing(alone: Alone, tmp_path: Path, call: str, lost: set[str]) -> None:
    def body(call, root):
        from limpet.kernel import features, seccomp

        def missing():
            return [feature.name for feature in features.probe(root) if not feature.works]

        before = missing()
        rule = {"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
        seccomp.install(seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
        return before, missing()

    before, after = (set(names) for names in alone(body, call, str(tmp_path)))
    assert lost <= after
    assert after - before == (lost | {"overlay over detached mounts"} if call == "fsopen" else lost) - before
