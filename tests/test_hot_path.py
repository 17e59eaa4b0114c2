"""What `run`, `exec`, `ps` and `start` may import: a budget, held by a list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

FORBIDDEN = {
    "argparse",
    "asyncio",
    "contextlib",
    "ctypes",
    "dataclasses",
    "datetime",
    "enum",
    "hashlib",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "random",
    "re",
    "rich",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "typing",
    "urllib3",
}
"""Each of these costs a millisecond or more, most of them several (`docs/dependencies.md`)."""

WATCH = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from limpet.cli import main
code = main.main(sys.argv[1:])
print("modules:", *sorted(sys.modules))
"""


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--rm", "busybox:test", "true"],
        ["create", "busybox:test", "true"],
        ["exec", "web", "true"],
        ["start", "web"],
        ["ps", "-a"],
    ],
    ids=lambda command: command[0],
)
def test_the_hot_commands_import_nothing_slow(limpet: Any, busybox: str, command: list[str]) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    result = subprocess.run(
        [sys.executable, "-S", "-I", "-c", WATCH, str(SOURCE), *command],
        capture_output=True,
        text=True,
        env=limpet.environment,
        stdin=subprocess.DEVNULL,
    )
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("modules:")] or [result.stderr]
    assert set(line.split()) & FORBIDDEN == set()
