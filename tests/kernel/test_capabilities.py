"""Capabilities: names as the kernel's header has them, and sets as the kernel reports them afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limpet.errors import Invalid
from limpet.kernel import capabilities

Alone = Callable[..., Any]


def test_names_are_those_of_the_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("needs linux-libc-dev for linux/capability.h")
    for name, number in re.findall(r"^#define (CAP_[A-Z_]+)\s+(\d+)$", header.read_text(), re.MULTILINE):
        assert capabilities.NAMES[int(number)] == name


def test_what_is_effective() -> None:
    script = (
        "from limpet.kernel import capabilities as c; b = c.effective(); c.set_thread(['CAP_KILL', 'CAP_MKNOD'],"
        " ['CAP_KILL', 'CAP_MKNOD'], ()); print(len(b) > 2, *c.effective())"
    )
    source = Path(capabilities.__file__).parent.parent.parent
    result = subprocess.run([sys.executable, "-c", script], cwd=source, capture_output=True, text=True, check=True)
    assert result.stdout == "True CAP_KILL CAP_MKNOD\n"


def test_the_last_one() -> None:
    assert capabilities.last_cap() == int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def test_the_default_is_dockers() -> None:
    assert len(capabilities.DEFAULT) == 14
    assert capabilities.mask(capabilities.DEFAULT) == 0xA80425FB  # CapEff of `docker run`


@pytest.mark.parametrize("text", ["net_admin", "NET_ADMIN", "cap_net_admin", " CAP_NET_ADMIN "])
def test_parse(text: str) -> None:
    assert capabilities.parse(text) == "CAP_NET_ADMIN"
    assert capabilities.parse("all") == "ALL"


@pytest.mark.parametrize("text", ["", "CAP_", "NOSUCH", "CAP_CAP_CHOWN", "CAP_ALL", "chown,kill"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(Invalid, match="invalid capability"):
        capabilities.parse(text)


def test_all_five_sets(alone: Alone) -> None:
    def body():
        from limpet.kernel import capabilities

        bounding = capabilities.DEFAULT
        permitted = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW")
        capabilities.apply(bounding, ("CAP_CHOWN",), permitted, ("CAP_KILL", "CAP_NET_RAW"), ("CAP_KILL",))
        lines = [line.split() for line in open("/proc/self/status") if line.startswith("Cap")]
        wanted = (("CAP_KILL", "CAP_NET_RAW"), permitted, ("CAP_CHOWN",), bounding, ("CAP_KILL",))
        return [int(value, 16) for _, value in lines], [capabilities.mask(names) for names in wanted]

    found, wanted = alone(body)
    assert found == wanted


def test_high_ones(alone: Alone) -> None:
    """Above 31 they are in the second word."""

    def body():
        from limpet.kernel import capabilities

        names = ("CAP_SETPCAP", "CAP_MAC_ADMIN", "CAP_BPF", "CAP_CHECKPOINT_RESTORE")
        capabilities.apply(names, names, names, (), ())
        return [
            int(line.split()[1], 16) == capabilities.mask(names) for line in open("/proc/self/status") if "Eff" in line
        ]

    assert alone(body) == [True]


def test_an_ambient_one_reaches_an_unprivileged_program(alone: Alone) -> None:
    def body():
        import os
        import subprocess

        from limpet.kernel import capabilities, process

        process.prctl(8, 1)  # PR_SET_KEEPCAPS
        os.setresuid(65534, 65534, 65534)
        one = ("CAP_NET_BIND_SERVICE",)
        capabilities.set_thread(one, one, one)
        capabilities.set_ambient(one)
        status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        return [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff")]

    assert alone(body) == [1 << 10]


def test_refusals(alone: Alone) -> None:
    def body():
        from limpet.kernel import capabilities

        def refusal(attempt):
            try:
                attempt()
            except OSError as e:
                return str(e)

        return [
            refusal(lambda: capabilities.set_ambient(("CAP_CHOWN",))),  # not inheritable
            refusal(lambda: capabilities.apply((), (), (), (), ())),
            refusal(lambda: capabilities.set_thread(("CAP_CHOWN",), ("CAP_CHOWN",), ())),  # given away above
            refusal(lambda: capabilities.drop_bounding(())),
        ]

    ambient, none, thread, bounding = alone(body)
    assert "not permitted" in ambient
    assert none is None
    assert "capset: Operation not permitted" in thread
    assert "not permitted" in bounding
