"""A web server, and a builder that writes the Dockerfile into a context of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.build.sources.web import Web, web


@pytest.fixture(name="web")
def _web() -> Iterator[Web]:
    with web() as served:
        yield served


class Builder:
    """`build("FROM …", "ADD …")` gives the finished command; `build.id` is the image's then."""

    def __init__(self, limpet: Any, directory: Path) -> None:
        self.limpet, self.directory = limpet, directory
        self.id = ""
        directory.mkdir()

    def __call__(self, *lines: str, options: tuple[str, ...] = (), check: bool = True) -> Any:
        (self.directory / "Dockerfile").write_text("\n".join(lines) + "\n")
        return self.run("-t", "made", *options, str(self.directory), check=check)

    def run(self, *arguments: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        result: subprocess.CompletedProcess[str] = self.limpet("build", *arguments, check=check, **options)
        self.id = result.stdout.strip()
        return result

    def error(self, *lines: str, options: tuple[str, ...] = ()) -> str:
        """The message of a build that fails, its hint behind it."""
        result = self(*lines, options=options, check=False)
        assert result.returncode != 0, result.stderr
        assert "Traceback" not in result.stderr
        return "\n".join(line for line in result.stderr.splitlines() if not line.startswith("["))

    def listing(self) -> list[str]:
        """Type and mode, owner, time, size and name of each member of the top layer."""
        self.limpet("save", "-o", self.directory.parent / "made.tar", "made")
        script = "rm -rf un && mkdir un && tar xf made.tar -C un && tar tvf un/$(tar xOf made.tar manifest.json |"
        script += ' sed \'s/.*"\\([^"]*\\)"\\].*/\\1/\') --numeric-owner --full-time'
        found = subprocess.run(
            ["sh", "-c", script], cwd=self.directory.parent, check=True, capture_output=True, text=True
        )
        return [" ".join(line.split()) for line in found.stdout.splitlines()]


@pytest.fixture
def build(limpet: Any, tmp_path: Path) -> Builder:
    return Builder(limpet, tmp_path / "context")
