"""Device rules as a program on a real cgroup, asked by processes that open and make real nodes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import needs
from tests.descriptors import opened

from limpet.errors import Invalid
from limpet.kernel import bpf, cgroup, devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCKER: list[dict[str, Any]] = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *({"allow": True, "type": "c", "major": 1, "minor": n, "access": "rwm"} for n in (3, 5, 7, 8, 9)),
    *({"allow": True, "type": "c", "major": 5, "minor": n, "access": "rwm"} for n in (0, 1, 2)),
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
]
# Each request on standard input: "open PATH FLAGS" or "mknod PATH MODE MAJOR MINOR"; answers 0 or the errno.
CHILD = """
import os, sys
for line in sys.stdin:
    what, path, *n = line.split()
    n = [int(x) for x in n]
    try:
        if what == "open":
            os.close(os.open(path, n[0] | os.O_NONBLOCK | os.O_NOCTTY))
        else:
            os.mknod(path, n[0], os.makedev(n[1], n[2]))
            os.unlink(path)
        print(0, flush=True)
    except OSError as e:
        print(e.errno, flush=True)
"""


class Group:
    def __init__(self, path: str) -> None:
        self.path = path
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        cgroup.enter(path, self.child.pid)

    def ask(self, *request: object) -> int:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(*request, file=self.child.stdin, flush=True)
        return int(self.child.stdout.readline())

    def programs(self) -> int:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return len(bpf.attached(fd, 6))
        finally:
            os.close(fd)

    def close(self) -> None:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.close()
        self.child.wait()
        self.child.stdout.close()
        cgroup.remove(self.path)


@pytest.fixture
def group() -> Iterator[Group]:
    path = cgroup.create(f"test-devices-{os.getpid()}")
    if path is None:
        pytest.skip("needs cgroup2")
    made = Group(path)
    yield made
    made.close()


def test_dockers_rules(group: Group, tmp_path: Path) -> None:
    devices.attach(group.path, DOCKER)
    for name in ("null", "zero", "full", "random", "urandom"):
        assert group.ask("open", f"/dev/{name}", os.O_RDWR) == 0
    assert group.ask("open", "/dev/ptmx", os.O_RDWR) == 0
    node = tmp_path / "node"
    assert group.ask("mknod", node, stat.S_IFCHR, 10, 229) == 1  # fuse is denied even to make
    assert group.ask("mknod", node, stat.S_IFCHR, 10, 200) == 0  # any other may be made
    assert group.ask("mknod", node, stat.S_IFBLK, 8, 0) == 0
    for name, number in (("kmsg", (1, 11)), ("mem", (1, 1))):
        os.mknod(tmp_path / name, stat.S_IFCHR, os.makedev(*number))
        assert group.ask("open", tmp_path / name, os.O_RDONLY) == 1, name
        assert group.ask("open", tmp_path / name, os.O_WRONLY) == 1, name


@pytest.mark.parametrize(
    ("rules", "read", "write", "both"),
    [
        ([], 1, 1, 1),
        ([{"allow": True, "access": "rwm"}], 0, 0, 0),
        ([{"allow": True}], 0, 0, 0),
        ([{"allow": True, "type": "a", "major": None, "minor": -1, "access": "rwm"}], 0, 0, 0),
        ([{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "access": "r"}], 0, 1, 1),
        ([{"allow": True, "type": "c", "access": "r"}, {"allow": True, "type": "c", "access": "w"}], 0, 0, 0),
        ([{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"}], 0, 1, 1),
        ([{"allow": False, "type": "c", "access": "w"}, {"allow": True}], 0, 0, 0),
        ([{"allow": True}, {"allow": False, "type": "b"}], 0, 0, 0),
        ([{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 4}], 0, 0, 0),
        ([{"allow": True}, {"allow": False, "type": "c", "major": 2**32 - 1}], 0, 0, 0),
        ([{"allow": True}, {"allow": False, "type": "c", "access": "m"}], 0, 0, 0),
    ],
)
def test_the_last_rule_wins_bit_by_bit(
    group: Group, rules: list[dict[str, Any]], read: int, write: int, both: int
) -> None:
    devices.attach(group.path, rules)
    answers = [group.ask("open", "/dev/null", flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)]
    assert answers == [read, write, both]


def test_new_rules_take_the_place_of_old_ones(group: Group) -> None:
    for access, answer in (("r", 1), ("rw", 0), ("r", 1)):
        devices.attach(group.path, [{"allow": True, "type": "c", "access": access}])
        assert group.ask("open", "/dev/null", os.O_RDWR) == answer
        assert group.programs() == 1


def test_a_group_below_may_only_narrow(group: Group) -> None:
    devices.attach(group.path, [{"allow": True, "type": "c", "access": "r"}])
    below = f"{group.path}/below"
    os.mkdir(below)
    cgroup.enter(below, group.child.pid)
    devices.attach(below, [{"allow": True}])
    assert group.ask("open", "/dev/null", os.O_RDWR) == 1
    assert group.ask("open", "/dev/null", os.O_RDONLY) == 0
    devices.attach(below, [])
    assert group.ask("open", "/dev/null", os.O_RDONLY) == 1


def test_many_rules(group: Group) -> None:
    rules = [{"allow": True, "type": "c", "major": 300, "minor": n, "access": "rwm"} for n in range(1000)]
    rules += [{"allow": True, "type": "b", "major": 300, "minor": n, "access": "rw"} for n in range(100)]
    devices.attach(group.path, [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}, *rules])
    assert group.ask("open", "/dev/null", os.O_RDONLY) == 0
    assert group.ask("open", "/dev/zero", os.O_RDONLY) == 1


@pytest.mark.parametrize(
    "rule",
    [
        {"allow": True, "type": "x"},
        {"allow": True, "type": "p"},
        {"allow": True, "access": "rx"},
        {"allow": True, "type": "c", "major": -2},
        {"allow": True, "type": "c", "minor": 1 << 32},
        {"allow": True, "type": "c", "minor": "1"},
    ],
)
def test_rules_without_a_meaning(rule: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="device rule"):
        devices.program([rule])


def test_no_group() -> None:
    before = opened()
    with pytest.raises(FileNotFoundError, match="/no/such/group"):
        devices.attach("/no/such/group", DOCKER)
    with pytest.raises(OSError, match="device rules on /tmp"):
        devices.attach("/tmp", DOCKER)
    assert opened() == before


def test_the_verifier_says_what_is_wrong() -> None:
    asm = bpf.Assembler()
    asm.load_word(bpf.R2, bpf.R3, 0)
    asm.leave(0)
    with pytest.raises(OSError, match=r"BPF program wrong: .*R3 !read_ok"):
        bpf.load(15, asm.assemble(), "wrong")


RULES = st.lists(
    st.fixed_dictionaries(
        {
            "allow": st.booleans(),
            "type": st.sampled_from("abc"),
            "major": st.sampled_from([-1, 1, 2]),
            "minor": st.sampled_from([-1, 3, 5]),
            "access": st.sampled_from(["r", "w", "m", "rw", "rwm", "wm"]),
        }
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=RULES)
def test_random_rules(group: Group, tmp_path: Path, rules: list[dict[str, Any]]) -> None:
    devices.attach(group.path, rules)

    def granted(kind: str, major: int, minor: int, bit: str) -> bool:
        answer = False
        for rule in rules:
            if (
                rule["type"] in ("a", kind)
                and rule["major"] in (-1, major)
                and rule["minor"] in (-1, minor)
                and bit in rule["access"]
            ):
                answer = rule["allow"]
        return answer

    for minor, name in ((3, "null"), (5, "zero")):
        can = [granted("c", 1, minor, bit) for bit in "rw"]
        expected = [can[0], can[1], can[0] and can[1]]
        flags = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
        assert [group.ask("open", f"/dev/{name}", how) == 0 for how in flags] == expected
    for kind, mode in (("c", stat.S_IFCHR), ("b", stat.S_IFBLK)):
        for major, minor in ((1, 3), (2, 5), (9, 9)):
            made = group.ask("mknod", tmp_path / "node", mode, major, minor) == 0
            assert made == granted(kind, major, minor, "m")


@needs.real_time
def test_time(group: Group) -> None:
    took = []
    for _ in range(20):
        start = time.perf_counter()
        devices.attach(group.path, DOCKER)
        took.append(time.perf_counter() - start)
    print(f"median {sorted(took)[10] * 1e6:.0f} µs")
    assert min(took) < 0.002
