"""Format, lint and types are tests: one command runs everything."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "src", "tests", "bench", "examples"],
        ["ruff", "check", "src", "tests", "bench", "examples"],
        ["mypy"],
    ],
    ids=["format", "lint", "types"],
)
def test_the_tree_passes(command: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_environment_is_that_of_the_lock_file() -> None:
    """Or else the types of a new dependency are missing, and what mypy says of that leads nowhere."""
    ready = ROOT / ".venv-check/ready"
    if not ready.exists():
        pytest.skip("tests run without tools/venv's environment")
    wanted = hashlib.sha256((ROOT / "requirements-check.lock").read_bytes()).hexdigest()
    assert wanted in ready.read_text(), "run: tools/venv .venv-check requirements-check.lock"


def test_no_blanket_ignores() -> None:
    """`# type: ignore` and `# noqa` always name what they ignore."""
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("src", "tests", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ("# type: ignore" in line and "# type: ignore[" not in line) or line.rstrip().endswith("# noqa")
    ]
    assert bare == []
