"""The same resources in the files of both versions: values as runc and systemd convert them."""

from __future__ import annotations

import pytest

from limpet.kernel import controlfiles

RESOURCES = {
    "devices": [{"allow": False, "access": "rwm"}],
    "memory": {"limit": 100 << 20, "swap": 150 << 20, "reservation": 50 << 20, "swappiness": 10},
    "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1", "mems": "0"},
    "pids": {"limit": 20},
    "blockIO": {
        "weight": 300,
        "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1 << 20}],
        "throttleWriteIOPSDevice": [{"major": 254, "minor": 0, "rate": 7}],
    },
}


def test_version_1() -> None:
    assert controlfiles.version1(RESOURCES) == [
        ("memory", "memory.limit_in_bytes", "104857600"),
        ("memory", "memory.memsw.limit_in_bytes", "157286400"),
        ("memory", "memory.soft_limit_in_bytes", "52428800"),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "20"),
        ("io", "blkio.weight|blkio.bfq.weight", "300"),
        ("io", "blkio.throttle.read_bps_device", "254:0 1048576"),
        ("io", "blkio.throttle.write_iops_device", "254:0 7"),
    ]


def test_version_2() -> None:
    """Swap alone, not memory and swap together; a weight for shares; one file for rates (cgroup-v2.rst)."""
    assert controlfiles.version2(RESOURCES) == [
        ("memory", "memory.max", "104857600"),
        ("memory", "memory.swap.max", "52428800"),
        ("memory", "memory.low", "52428800"),
        ("cpu", "cpu.weight", "20"),
        ("cpu", "cpu.max", "50000 100000"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "20"),
        ("io", "io.bfq.weight|io.weight", "300"),
        ("io", "io.max", "254:0 rbps=1048576"),
        ("io", "io.max", "254:0 wiops=7"),
    ]


def test_no_limit() -> None:
    resources = {"memory": {"limit": 1 << 30, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}
    assert ("memory", "memory.swap.max", "max") in controlfiles.version2(resources)
    assert ("memory", "memory.memsw.limit_in_bytes", "-1") in controlfiles.version1(resources)
    assert ("pids", "pids.max", "max") in controlfiles.version1(resources)
    assert ("cpu", "cpu.max", "max 100000") in controlfiles.version2(resources)
    assert controlfiles.version1({}) == controlfiles.version2({}) == []


def test_only_the_controllers_that_are_needed() -> None:
    assert controlfiles.controllers({"devices": []}) == []
    assert controlfiles.controllers({"cpu": {"cpus": "0"}}) == ["cpuset"]
    assert controlfiles.controllers({"cpu": {"cpus": "0", "shares": 2}}) == ["cpu", "cpuset"]
    assert sorted(controlfiles.controllers(RESOURCES)) == ["cpu", "cpuset", "io", "memory", "pids"]


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (1024, 39), (262_144, 10_000), (0, 39), (1, 1), (1 << 40, 10_000)]
)
def test_weights(shares: int, weight: int) -> None:
    """The ends, and runc's value for the default."""
    assert controlfiles.weight_of_shares(shares) == weight
