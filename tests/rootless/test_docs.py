"""The examples of docs/rootless.md, run by a user without root."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.test_docs import AS_A_USER, ROOT, pattern, sessions

if TYPE_CHECKING:
    from tests.rootless.conftest import User

pytestmark = pytest.mark.slow


def test_the_examples(ranges: User) -> None:
    found = sessions((ROOT / "docs" / AS_A_USER).read_text())
    assert found
    launcher = ranges.work / "limpet"
    launcher.write_text(f'#!/bin/sh\nexec {ranges.program} "$@"\n')
    launcher.chmod(0o755)
    environment = {**ranges.environment, "PATH": f"{ranges.work}:{ranges.environment['PATH']}"}
    for line, expected in found:
        result = subprocess.run(
            ranges.command("bash", "-c", line),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        output = result.stdout.rstrip()
        assert re.fullmatch(pattern(expected), output), f"$ {line}\n{output}\n--- expected\n{expected}"
