"""COPY --link: a layer that does not depend on what is beneath it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "file").write_text("content\n")
    return directory


def build(limpet: Any, context: Path, text: str, *options: str) -> Any:
    (context / "Dockerfile").write_text(text)
    return limpet("build", "-t", "made", *options, context)


def run(limpet: Any, *command: str) -> str:
    return str(limpet("run", "--rm", "made", *command).stdout)


def test_a_changed_base_does_not_run_it_again(limpet: Any, busybox: str, context: Path) -> None:
    run_it = "ARG X\nRUN mkdir -p /data/own && echo $X > /x\n"
    text = f"FROM {busybox}\n{run_it}COPY --link --chown=1:2 file /data/\nRUN ls /data\n"
    first = build(limpet, context, text, "--build-arg", "X=1")
    assert ": cached" not in first.stderr
    second = build(limpet, context, text, "--build-arg", "X=2")
    cached = [line for line in second.stderr.splitlines() if line.endswith(": cached")]
    assert cached == ["[2/3] COPY --link --chown=1:2 file /data/: cached"]
    assert run(limpet, "cat", "/x", "/data/file") == "2\ncontent\n"
    assert run(limpet, "ls", "/data") == "file\nown\n"
    assert run(limpet, "stat", "-c", "%u:%g", "/data/file") == "1:2\n"
    plain = build(limpet, context, text.replace("--link ", ""), "--build-arg", "X=3")
    assert ": cached" not in plain.stderr
    (context / "file").write_text("other\n")
    assert ": cached" not in build(limpet, context, text, "--build-arg", "X=4").stderr


def test_links_of_the_base_are_not_followed(limpet: Any, busybox: str, context: Path) -> None:
    base = f"FROM {busybox}\nRUN mkdir /real && ln -s /real /link\n"
    build(limpet, context, f"{base}COPY --link file /link/\n")
    assert run(limpet, "sh", "-c", "ls /real; [ -L /link ] || ls /link") == "file\n"
    build(limpet, context, f"{base}COPY file /link/\n")
    assert run(limpet, "sh", "-c", "ls /real; readlink /link") == "file\n/real\n"


def test_a_target_is_a_directory_if_it_ends_so(limpet: Any, busybox: str, context: Path) -> None:
    """Whatever is there in the base."""
    build(
        limpet, context, f"FROM {busybox}\nRUN mkdir /place\nCOPY --link file /place\nCOPY --link <<E /text\nhello\nE\n"
    )
    assert run(limpet, "cat", "/place", "/text") == "content\nhello\n"


def test_a_name_of_the_base_is_looked_up(limpet: Any, busybox: str, context: Path) -> None:
    build(limpet, context, f"FROM {busybox}\nCOPY --link --chown=user file /file\n")
    assert run(limpet, "stat", "-c", "%U", "/file") == "user\n"
