"""system df, prune and check as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def sizes(text: str) -> float:
    """The sum of the SIZE column, in bytes, as far as three digits go."""
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    found = re.findall(
        r"^(?:Images|Containers|Local Volumes|Build Cache|Leftovers|Database) +\d+ +\d+ +(\S+)", text, re.M
    )
    assert len(found) == 6
    return sum(float(s.rstrip("kMGB")) * units[s.lstrip("0123456789.")] for s in found)


def test_df_adds_up_to_du(limpet: Any, busybox: str) -> None:
    limpet("create", "-v", "named:/data", "--name", "one", busybox, "true")
    output = limpet("system", "df").stdout
    du = subprocess.run(["du", "-sB1", limpet.root], capture_output=True, text=True, check=True).stdout
    assert abs(sizes(output) - int(du.split()[0])) < 40_000  # three digits of 2.5 MB and of some kB
    assert re.search(r"^Images +1 +1 +2\.\d+MB +0B \(0%\)$", output, re.M)
    assert re.search(r"^Containers +1 +0 ", output, re.M)
    assert re.search(r"^Local Volumes +1 +1 ", output, re.M)
    verbose = limpet("system", "df", "-v").stdout
    for title in ("Images space usage:", "Containers space usage:", "Local Volumes space usage:", "named", "busybox"):
        assert title in verbose
    rows = [json.loads(line) for line in limpet("system", "df", "--format", "json").stdout.splitlines()]
    assert [row["Type"] for row in rows][:4] == ["Images", "Containers", "Local Volumes", "Build Cache"]


def test_prune_shows_before_it_takes_and_takes_just_that(limpet: Any, busybox: str) -> None:
    limpet("create", "-v", "named:/data", "-v", "/anonymous", "--name", "stopped", busybox, "true")
    limpet("run", "-d", "--name", "running", busybox, "sleep", "1000")
    junk: Path = limpet.root / "blobs/sha256/junk"
    junk.write_bytes(bytes(10_000))
    shown = limpet("system", "prune", "-a", "--volumes", input="n\n").stdout
    assert "container stopped (busybox:test)" in shown
    assert str(junk) in shown
    assert "volume " in shown
    assert "named" not in shown
    assert "running" not in shown
    assert "image busybox" not in shown
    assert re.search(r"freeing [\d.]+kB\.\nAre you sure you want to continue\? \[y/N\]", shown)
    assert limpet("ps", "-aq").stdout.count("\n") == 2
    taken = limpet("system", "prune", "-af", "--volumes").stdout
    assert "deleted container: " in taken
    assert "deleted volume: " in taken
    assert f"deleted leftover: {junk}" in taken
    assert limpet("ps", "-a", "--format", "{{.Names}}").stdout == "running\n"
    assert limpet("volume", "ls", "-q").stdout == "named\n"
    assert limpet("images", "-q").stdout
    limpet("rm", "-f", "running")
    assert "untagged: busybox:test" in limpet("system", "prune", "-af").stdout
    assert limpet("system", "prune").stdout == "Total reclaimed space: 0B\n"


def test_prune_of_one_kind(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "stopped", busybox, "true")
    limpet("system", "prune", "-f", "images", "garbage")
    assert limpet("ps", "-aq").stdout
    result = limpet("system", "prune", "-f", "everything", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, "limpet: unknown kind 'everything'")


def test_check(limpet: Any, busybox: str) -> None:
    assert limpet("system", "check").stdout == "nothing is wrong\n"
    junk: Path = limpet.root / "layers/junk"
    junk.mkdir()
    result = limpet("system", "check")
    assert result.stdout == f"garbage: {junk}: a layer that no row names: `limpet system prune` takes it\n"
    limpet("system", "prune", "-f")
    image_id = limpet("images", "-q", "--no-trunc").stdout.strip()
    blob: Path = limpet.root / "blobs" / image_id.replace(":", "/")
    blob.unlink()
    result = limpet("system", "check", check=False)
    assert (result.stdout, result.returncode) == (f"damaged: blob {image_id}: the file is missing\n", 1)
    result = limpet("system", "check", "--repair")
    assert "(repaired: written again from the image's row)" in result.stdout
    assert limpet("system", "check").stdout == "nothing is wrong\n"


def test_a_database_that_is_none(limpet: Any, busybox: str) -> None:
    for name in ("state.db-wal", "state.db-shm"):
        (limpet.root / name).unlink(missing_ok=True)
    (limpet.root / "state.db").write_bytes(b"no database at all" * 100)
    result = limpet("system", "check", check=False)
    assert result.returncode == 1
    assert "state.db" in result.stderr
    assert "Traceback" not in result.stderr
