"""`alone`: a function that runs in a process and mount namespace of its own, so that no test leaves anything behind."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"

_BEFORE = """
from __future__ import annotations
import json, os, sys
sys.path.insert(0, {source!r})
from limpet.kernel import mounts, process
process.unshare(process.CLONE_NEWNS)
mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
"""
_AFTER = """
print("\\n" + json.dumps({name}(*json.loads(sys.argv[1]))))
"""


@pytest.fixture
def alone() -> Callable[..., Any]:
    """`alone(function, *arguments)`: its result; both pass through JSON. An exception in it fails the test.

    The function's source is what the other process gets, so it names nothing of its module. It has `os`, `sys`, `json`,
    and `mounts` and `process` of limpet.kernel. The process has one thread, as `clone3` asks for.
    """

    def run(function: Callable[..., Any], *arguments: object) -> Any:
        code = _BEFORE.format(source=str(SOURCE)) + textwrap.dedent(inspect.getsource(function))
        code += _AFTER.format(name=function.__name__)
        result = subprocess.run(
            [sys.executable, "-I", "-c", code, json.dumps(arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, f"exit {result.returncode}\n{result.stdout}{result.stderr}"
        return json.loads(result.stdout.splitlines()[-1])

    return run
