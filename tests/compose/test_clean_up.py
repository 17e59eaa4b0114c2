"""One command takes away what `up` made, one more what builds remember; and `system df` says what is on the disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from limpet.images.usage import usage
from limpet.store.store import Store

pytestmark = pytest.mark.slow

DOCKERFILE = """
FROM busybox:test AS made
RUN --mount=type=cache,target=/kept head -c 1000000 /dev/urandom >/kept/x && head -c 2000000 /dev/urandom >/made
FROM busybox:test
COPY --from=made /made /made
VOLUME /data
STOPSIGNAL KILL
CMD ["sleep", "600"]
"""


def on_disk(root: Path) -> int:
    du = subprocess.run(["du", "-s", "--block-size=1", root], capture_output=True, text=True, check=True)
    return int(du.stdout.split()[0])


def said(root: Path) -> int:
    store = Store(str(root), f"{root}/run")
    try:
        return usage(store).total
    finally:
        store.close()


def files(root: Path) -> set[str]:
    """But for the database, the store's own marks, and what later commands would write again."""
    own = ("state.db", "lock", "boot", "driver", "events", "run/", "cache/seccomp")
    found = (str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    return {name for name in found if not name.startswith(own)}


def test_nothing_is_left(limpet: Any, tmp_path: Path, busybox: str) -> None:
    directory = tmp_path / "shop"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    limpet("info")
    before = files(limpet.root)

    limpet("up", "-d", "--wait-timeout", "0", directory)
    limpet("down", "--volumes", directory)
    limpet("build", "-q", "-o", tmp_path / "out", directory)  # in the cache only
    assert on_disk(limpet.root) == said(limpet.root)
    limpet("system", "prune", "-f")
    assert on_disk(limpet.root) == said(limpet.root)
    assert os.listdir(limpet.root / "containers") == os.listdir(limpet.root / "volumes") == []
    assert limpet("cache", "ls", "-q").stdout.count("\n") >= 3

    limpet("cache", "prune", "-af")
    assert limpet("cache", "ls", "-q").stdout == ""
    assert on_disk(limpet.root) == said(limpet.root)
    assert {name for name in files(limpet.root) - before if not name.startswith("builds/")} == set()
