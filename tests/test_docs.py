"""Every example in README and docs/ is run, and what it prints is compared.

A fenced block marked `console` is a session: a line that begins with `$ ` is a command for bash (`\\` continues it),
the lines below it are what it prints, stdout and stderr together; `…` stands for any text, a line of `…` alone for
any lines. The blocks of a page share one store and one directory. Blocks marked otherwise are not run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.network.conftest import Machine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
AS_A_USER = "rootless.md"  # tests/rootless runs it
TALK = {"architecture.md", "dependencies.md", "docker.md", "docker-flags.md", "reference.md"}  # pages without examples
ON_A_MACHINE = {"private-networks.md"}
PAGES = sorted(
    page for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] if page.name not in {*TALK, AS_A_USER}
)


def sessions(text: str) -> list[tuple[str, str]]:
    """(command, expected output) in order."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            count = 1
            while lines[count - 1].endswith("\\"):
                count += 1
            found.append(("\n".join(lines[:count]), "\n".join(lines[count:]).rstrip()))
    return found


def pattern(expected: str) -> str:
    escaped = re.escape(expected).replace("…", ".*?")
    return re.sub(r"(^|\\\n)\.\*\?(?=\\\n|$)", r"\1(?s:.*?)", escaped)


@pytest.fixture
def machine(page: Path) -> Iterator[list[str]]:
    """What comes before each command: pages that make networks do so on a machine of their own."""
    if page.name not in ON_A_MACHINE:
        yield []
        return
    made = Machine()
    yield made.enter
    made.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page(page: Path, limpet: Any, machine: list[str], tmp_path: Path) -> None:
    found = sessions(page.read_text())
    assert found
    work = tmp_path / "work"
    work.mkdir()
    (work / "examples").symlink_to(ROOT / "examples")
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    command = shlex.join(limpet.command)
    launcher = bin_directory / "limpet"
    launcher.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    launcher.chmod(0o755)
    (work / "limpet").symlink_to(launcher)
    environment = {**limpet.environment, "PATH": f"{bin_directory}:{os.environ['PATH']}"}
    for line, expected in found:
        result = subprocess.run(
            [*machine, "bash", "-c", line],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        output = result.stdout.rstrip()
        assert re.fullmatch(pattern(expected), output), f"{page.name}: $ {line}\n{output}\n--- expected\n{expected}"
