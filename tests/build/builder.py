"""Builds of a few lines over a base, as a user starts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Builder:
    """`build("RUN …", options=("--secret", …))`: the image is called made, and the first stage, of the base, tools."""

    def __init__(self, limpet: Any, directory: Path, base: str) -> None:
        self.limpet, self.directory, self.base = limpet, directory, base
        directory.mkdir()

    def __call__(self, *lines: str, options: tuple[str, ...] = (), check: bool = True) -> Any:
        text = "\n".join((f"FROM {self.base} AS tools", *lines)) + "\n"
        (self.directory / "Dockerfile").write_text(text)
        return self.limpet("build", "-t", "made", *options, self.directory, check=check)

    def output(self, command: str, *options: str) -> str:
        """What a RUN prints."""
        self(f"RUN ({command}) >/out", options=options)
        return str(self.limpet("run", "--rm", "made", "cat", "/out").stdout)
