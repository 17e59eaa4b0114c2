"""What `run`, `exec`, `ps`, `start` and `create` import is a budget: each of these modules costs milliseconds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
START = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from limpet.cli.main import entry; entry()"
# As the launcher does: no site, no environment, so no package but limpet's own is at hand either.
PYTHON = [sys.executable, "-S", "-I"]

FORBIDDEN = frozenset(
    "typing dataclasses re enum json argparse subprocess shutil tempfile pathlib logging contextlib signal socket "
    "ctypes hashlib datetime random threading urllib3 rich pyroute2 ipaddress".split()
)

HOT = """
cli.commands cli.containers cli.exec cli.main cli.output cli.parser cli.ps cli.run cli.table containers.attach
containers.create containers.execution.exec containers.observe.listing containers.monitor.monitor
containers.monitor.monitoring containers.options containers.execution.runtime containers.plan.spec containers.start
containers.state containers.plan.users images.catalog images.current layers.driver store.store store.db oci.digest
oci.reference kernel.bpf kernel.capabilities kernel.cgroup kernel.devices kernel.fs kernel.mounts kernel.process
kernel.seccomp kernel.signals kernel.sys kernel.terminal
""".split()


@pytest.mark.parametrize("module", HOT)
def test_a_module_imports_nothing_slow(module: str) -> None:
    """On its own, so that each module answers for what it imports when it is loaded."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import limpet.{module}; "
        f"print(*sorted({set(FORBIDDEN)!r} & set(sys.modules)))"
    )
    result = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def imported(limpet: Any, *args: str) -> set[str]:
    """The modules that a real command imports from its start to its end, on whatever branch, in its children too."""
    result = subprocess.run(
        [*PYTHON, "-X", "importtime", "-c", START, *args],
        env=limpet.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, f"{args}: {result.stdout}{result.stderr[-1000:]}"
    return set(re.findall(r"^import time: .*\| +(\S+)$", result.stderr, re.MULTILINE))


def test_commands_import_nothing_slow(limpet: Any, busybox: str) -> None:
    limpet("run", "--rm", busybox, "true")  # what is kept for the next run is there: the compiled seccomp filter
    for args in (
        ("run", "--rm", busybox, "true"),
        ("run", "-d", "--name", "one", "-e", "A=1", "-v", "/tmp:/t", busybox, "sleep", "1000"),
        ("ps", "-a"),
        ("exec", "one", "true"),
        ("create", "--name", "two", busybox, "true"),
        ("start", "two"),
        ("start", "-a", "two"),
    ):
        found = imported(limpet, *args)
        assert "limpet.cli.main" in found
        assert found & FORBIDDEN == set(), f"limpet {' '.join(args)}"


def test_the_measure_finds_what_is_slow(limpet: Any) -> None:
    """`info` may import what it likes; if this finds nothing, the test above proves nothing."""
    assert imported(limpet, "info") & FORBIDDEN
